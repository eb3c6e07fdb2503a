"""The disk is full: running calls end, new ones are refused, and once there is space the books are complete."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.books import assert_books_agree, assert_budgets_agree, files, rows
from tests.faults.talking import Heard, ask, talk
from tests.serving import Spawned, spawned
from tests.upstream import FakeUpstream
from tests.waiting import PATIENCE_S

BUDGET = {"total_usd": 1000, "last_24h_usd": 1000, "per_provider": {"fake": {"daily_usd": 1000}}}


@contextmanager
def full_disk(server: Spawned) -> Iterator[None]:
    """The server's files cannot grow past their first byte: every write of its database fails, and of its log file."""
    pid, kind = server.process.pid, resource.RLIMIT_FSIZE
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (1, hard))
    try:
        yield
    finally:
        if server.process.poll() is None:
            resource.prlimit(pid, kind, (soft, hard))


async def ready(client: httpx.AsyncClient, status: int) -> None:
    """Waits until `/readyz` answers so. Raises TimeoutError."""
    async with asyncio.timeout(20):
        while True:
            if (await client.get("/readyz")).status_code == status:
                return
            await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_full_disk_refuses_new_calls_and_loses_none(tmp_path: Path) -> None:
    """503 `storage_unavailable` before anything is sent upstream; streams in flight end normally."""
    async with FakeUpstream() as upstream:
        with spawned(files(tmp_path, upstream.url, budget=BUDGET)) as server:
            origin = f"http://127.0.0.1:{server.port}"
            async with httpx.AsyncClient(base_url=origin, trust_env=False, timeout=PATIENCE_S) as client:
                await ready(client, 200)
                streams = [await talk(server.port, f"fake/ok(n_tokens=20,pace=0.05,tag={i})") for i in range(5)]
                assert [await each.head() for each in streams] == [200] * 5
                with full_disk(server):
                    refused = [await ask(server.port, "fake/ok", stream=stream) for stream in (True, False) * 5]
                    await ready(client, 503)
                    assert (await client.get("/livez")).status_code == 200
                    heard = await asyncio.gather(*(each.rest() for each in streams))
                    assert rows(tmp_path, "calls")[-1]["outcome"] == "open"  # kept in memory until there is room
                await ready(client, 200)
            after = await ask(server.port, "fake/ok")
            assert await asyncio.to_thread(server.stop) == 0
        assert {(each.status, each.error["code"]) for each in refused} == {(503, "storage_unavailable")}
        assert all(each.headers["retry-after"] for each in refused)
        assert all(each.done and each.finish_reasons == ["stop"] for each in [*heard, after])
        assert len(upstream.ledger) == 6
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    calls = {row["id"]: row for row in rows(tmp_path, "calls")}
    for each in [*heard, after]:
        call = calls[each.call_id]
        assert (call["outcome"], call["output_tokens"]) == ("ok", 10 if each is after else 20)
    assert {row["outcome"] for row in calls.values()} <= {"ok", "rejected"}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 4 MB. Skips the test where mounting is refused."""
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is refused here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill_up(path: Path) -> None:
    """Writes to the file until nothing fits any more."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
async def test_a_file_system_without_space_loses_no_row(tmp_path: Path) -> None:
    """With the log on the same disk. Calls go on once there is space, without a restart."""
    async with FakeUpstream() as upstream:
        with small_disk(tmp_path) as disk:
            with spawned(files(disk, upstream.url, budget=BUDGET)) as server:
                heard = []
                for number in range(3):
                    streams = [await talk(server.port, f"fake/ok(n_tokens=20,pace=0.05,tag={i})") for i in range(5)]
                    assert [await each.head() for each in streams] == [200] * 5
                    fill_up(disk / "filler")
                    async with asyncio.timeout(30):  # the log of the database has some space left
                        while (last := await ask(server.port, "fake/ok", stream=number % 2 == 0)).status == 200:
                            heard.append(last)
                    assert (last.status, last.error["code"]) == (503, "storage_unavailable")
                    heard += await asyncio.gather(*(each.rest() for each in streams))
                    (disk / "filler").unlink()
                    async with asyncio.timeout(30):
                        while (last := await ask(server.port, "fake/ok")).status != 200:  # noqa: ASYNC110
                            await asyncio.sleep(0.05)
                    heard.append(last)
                assert await asyncio.to_thread(server.stop) == 0
            assert all(each.done or each.whole for each in heard)
            assert_books_agree(disk, upstream.ledger)
            assert_budgets_agree(disk)
            calls = {row["id"]: row["outcome"] for row in rows(disk, "calls")}
    assert {calls[each.call_id] for each in heard} == {"ok"}
    assert {*calls.values()} <= {"ok", "rejected"}


async def all_ready(server: Spawned, workers: int) -> None:
    """Every worker serves: one that starts while the database cannot be used would end the start."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        while workers > 1:
            text = (await client.get(f"http://127.0.0.1:{server.port}/metrics")).text
            if re.search(rf"^mmproxy_workers {workers}(\.0)?$", text, re.MULTILINE):
                return
            await asyncio.sleep(0.1)


def workers_of(server: Spawned) -> dict[int, psutil.Process]:
    """Those that run, by process id."""
    found = {}
    for each in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if "spawn_main" in " ".join(each.cmdline()):
                found[each.pid] = each
    return found


@pytest.mark.slow
async def test_a_worker_that_cannot_start_does_not_end_the_others(tmp_path: Path) -> None:
    """It is started again until it can: here its files cannot be written, since it inherits that limit."""
    async with FakeUpstream() as upstream:
        with spawned(files(tmp_path, upstream.url, budget=BUDGET), "--workers", "2") as server:
            await all_ready(server, 2)
            heard = await answered(server, 20)
            first = workers_of(server)
            killed, kept = first
            with full_disk(server):
                first[killed].kill()
                begun = {killed}  # each that follows ends at once
                async with asyncio.timeout(60):
                    while len(begun) < 3:
                        assert server.process.poll() is None
                        begun |= workers_of(server).keys() - {kept}
                        await asyncio.sleep(0.02)
                heard += await answered(server, 10)
            async with asyncio.timeout(60):
                while not workers_of(server).keys() - begun - {kept}:  # noqa: ASYNC110 - processes
                    await asyncio.sleep(0.1)
            heard += await answered(server, 20)
            assert await asyncio.to_thread(server.stop) == 0
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    assert {each.status for each in heard} == {200}


@pytest.mark.slow
async def test_a_server_stopped_on_a_full_disk_leaves_its_calls_open(tmp_path: Path) -> None:
    """It ends in time; unsettled calls become `unknown` at the next start and are never missing."""
    async with FakeUpstream() as upstream:
        path = files(tmp_path, upstream.url, budget=BUDGET, grace_s=1)
        with spawned(path) as server:
            stream = await talk(server.port, "fake/ok(n_tokens=20,pace=0.02)")
            assert await stream.head() == 200
            with full_disk(server):
                assert (await stream.rest()).done
                async with asyncio.timeout(1 + 10 + 5):
                    assert await asyncio.to_thread(server.stop) == 0
        with spawned(path) as server:
            assert await asyncio.to_thread(server.stop) == 0
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    (call,) = rows(tmp_path, "calls")
    assert (call["outcome"], call["cost_nano"], call["estimated"]) == ("unknown", call["hold_nano"], 1)


@pytest.mark.slow
async def test_a_database_locked_for_ten_seconds_refuses_new_calls_and_loses_none(tmp_path: Path) -> None:
    """By a backup tool, say. Streams in flight end normally, and their ends are written afterwards."""
    async with FakeUpstream() as upstream:
        with spawned(files(tmp_path, upstream.url, budget=BUDGET), "--workers", "2") as server:
            await all_ready(server, 2)
            origin = f"http://127.0.0.1:{server.port}"
            async with httpx.AsyncClient(base_url=origin, trust_env=False, timeout=PATIENCE_S) as client:
                streams = [await talk(server.port, f"fake/ok(n_tokens=20,pace=0.05,tag={i})") for i in range(5)]
                assert [await each.head() for each in streams] == [200] * 5  # the other worker may be starting still
                with closing(sqlite3.connect(tmp_path / "usage.db", isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    until = asyncio.get_running_loop().time() + 10
                    asked = [asyncio.create_task(ask(server.port, "fake/ok", stream=n % 2 == 0)) for n in range(20)]
                    heard = await asyncio.gather(*(each.rest() for each in streams))
                    refused = await asyncio.gather(*asked)
                    await asyncio.sleep(until - asyncio.get_running_loop().time())
                    other.execute("ROLLBACK")
                await ready(client, 200)
            async with asyncio.timeout(20):  # until both workers have noticed
                after = [await ask(server.port, "fake/ok")]
                while [each.status for each in after[-10:]] != [200] * 10:
                    after.append(await ask(server.port, "fake/ok"))
            assert await asyncio.to_thread(server.stop) == 0
        assert {(each.status, each.error["code"]) for each in refused} == {(503, "storage_unavailable")}
        assert all(each.done and each.finish_reasons == ["stop"] for each in heard)
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    calls = {row["id"]: row["outcome"] for row in rows(tmp_path, "calls")}
    assert {calls[each.call_id] for each in [*heard, *after] if each.status == 200} == {"ok"}
    assert {*calls.values()} <= {"ok", "rejected"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.slow
async def test_a_log_that_cannot_be_written_fails_no_call(tmp_path: Path, stream: bool) -> None:
    """Every log line fails; answers and rows are unaffected."""
    (tmp_path / "server.log").symlink_to("/dev/full")
    async with FakeUpstream() as upstream:
        with spawned(files(tmp_path, upstream.url, budget=BUDGET)) as server:
            heard = [await ask(server.port, f"fake/{mode}", stream=stream) for mode in ("ok", "e400", "ok")]
            unknown = await ask(server.port, "nobody", stream=stream)
            conversation = await talk(server.port, "fake/ok(delay=9)", stream=stream)
            await upstream.until(lambda: upstream.open == 1)
            conversation.close()
            await upstream.until(lambda: upstream.open == 0)
            assert await asyncio.to_thread(server.stop) == 0
        assert [each.status for each in [*heard, unknown]] == [200, 400, 200, 404]
        assert heard[2].finish_reasons == ["stop"]
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    outcomes = [row["outcome"] for row in rows(tmp_path, "calls")]
    assert outcomes == ["ok", "upstream_error", "ok", "rejected", "client_closed"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("how", "workers"),
    [
        pytest.param(how, workers, marks=() if (how, workers) == ("removed", 1) else pytest.mark.slow)
        for how in ("removed", "moved", "replaced")
        for workers in (1, 2)
    ],
)
async def test_a_database_that_goes_while_it_is_in_use_loses_no_row(tmp_path: Path, how: str, workers: int) -> None:
    """The next calls are refused, the log gives the reason, and then the file is back with all rows."""
    async with FakeUpstream() as upstream:
        with spawned(files(tmp_path, upstream.url, budget=BUDGET), "--workers", str(workers)) as server:
            await all_ready(server, workers)
            async with asyncio.timeout(60):  # one that starts later would apply the old log to the new file
                while len(fnmatch.filter(os.listdir(tmp_path / "usage.db-owners"), "*.lock")) < workers:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            stream = await talk(server.port, "fake/ok(n_tokens=20,pace=0.05)")
            assert await stream.head() == 200
            heard = [await ask(server.port, "fake/ok") for _ in range(10)]
            database = tmp_path / "usage.db"
            if how == "replaced":
                with closing(sqlite3.connect(database)) as db:
                    db.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
                heard += [await ask(server.port, "fake/ok") for _ in range(10)]
                os.replace(tmp_path / "backup.db", database)
            else:
                for suffix in ("", "-wal", "-shm"):
                    path = database.with_name(database.name + suffix)
                    path.unlink() if how == "removed" else path.rename(tmp_path / f"moved.db{suffix}")
            origin = f"http://127.0.0.1:{server.port}"
            async with httpx.AsyncClient(base_url=origin, trust_env=False, timeout=PATIENCE_S) as client:
                assert (await client.get("/v1/usage")).status_code in (200, 503)  # reading makes no empty file
                after = [await ask(server.port, "fake/ok") for _ in range(10)]
                await ready(client, 200)
            async with asyncio.timeout(10):
                while sum(each.status == 200 for each in after[-10:]) < 10:
                    after.append(await ask(server.port, "fake/ok"))
                    await asyncio.sleep(0.05)
            heard += [await stream.rest(), *after]
            assert await asyncio.to_thread(server.stop) == 0
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    found = {row["id"]: row["outcome"] for row in rows(tmp_path, "calls")}
    answered = [each for each in heard if each.status == 200]
    assert {found[each.call_id] for each in answered} == {"ok"}
    assert {each.error["code"] for each in heard if each.status != 200} <= {"storage_unavailable"}
    assert "was removed or replaced while it was in use" in (tmp_path / "server.log").read_text()
    print(f"\n  {how}, {workers} workers: {len(answered)} answered, {len(heard) - len(answered)} refused, 0 rows lost")


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The database and its log cannot be written, neither by who opens them nor by who has them open: ext4's flag for
    that holds for root too, as chmod does not. Skips the test where it cannot be set, or does nothing.
    """
    names = [str(folder / f"usage.db{suffix}") for suffix in ("", "-wal")]
    probe = folder / "probe"
    with probe.open("wb", buffering=0) as file:
        refusal = _chattr("+i", str(probe))
        try:
            file.write(b"x")
        except PermissionError:
            works = True
        else:
            works = False
    _chattr("-i", str(probe))
    if refusal or not works:
        pytest.skip(f"open files cannot be made read-only here: {refusal or 'writing goes on'}")
    found = [name for name in names if Path(name).exists()]
    assert _chattr("+i", *found) == ""
    try:
        yield
    finally:
        _chattr("-i", *found)


def _chattr(*arguments: str) -> str:
    """Why it failed; empty: it did not."""
    if shutil.which("chattr") is None:
        return "there is no chattr"
    done = subprocess.run(["chattr", *arguments], capture_output=True, text=True, timeout=30, check=False)
    return done.stderr.strip()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
async def test_a_read_only_database_refuses_new_calls_and_loses_none(tmp_path: Path, workers: int) -> None:
    """Streams in flight end normally, their ends are written once it can be written again, without a restart."""
    async with FakeUpstream() as upstream:
        with spawned(files(tmp_path, upstream.url, budget=BUDGET), "--workers", str(workers)) as server:
            await all_ready(server, workers)
            streams = [await talk(server.port, f"fake/ok(n_tokens=20,pace=0.05,tag={i})") for i in range(5)]
            assert [await each.head() for each in streams] == [200] * 5
            with read_only(tmp_path):
                refused = [await ask(server.port, "fake/ok", stream=n % 2 == 0) for n in range(10)]
                heard = await asyncio.gather(*(each.rest() for each in streams))
                assert {row["outcome"] for row in rows(tmp_path, "calls")} == {"open"}
            after = await answered(server, 10)
            assert await asyncio.to_thread(server.stop) == 0
        assert {(each.status, each.error["code"]) for each in refused} == {(503, "storage_unavailable")}
        assert all(each.headers["retry-after"] for each in refused)
        assert all(each.done and each.finish_reasons == ["stop"] for each in heard)
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    calls = {row["id"]: row["outcome"] for row in rows(tmp_path, "calls")}
    assert {calls[each.call_id] for each in [*heard, *after] if each.status == 200} == {"ok"}
    assert {*calls.values()} <= {"ok", "rejected"}


async def answered(server: Spawned, count: int) -> list[Heard]:
    """Asks until so many calls in a row are answered: every worker has noticed by then."""
    heard: list[Heard] = []
    async with asyncio.timeout(60):
        while len(heard) < count or {each.status for each in heard[-count:]} != {200}:
            heard.append(await ask(server.port, "fake/ok"))
    return heard


@pytest.mark.slow
async def test_calls_go_on_unmetered_while_the_database_is_read_only(tmp_path: Path) -> None:
    """If configured so; those that ended by then have their rows later, none twice."""
    async with FakeUpstream() as upstream:
        path = files(tmp_path, upstream.url, budget=BUDGET)
        written = json.loads(path.read_text())
        written["storage"]["when_down"] = "unmetered"
        path.write_text(json.dumps(written))
        with spawned(path) as server:
            first = await ask(server.port, "fake/ok")
            with read_only(tmp_path):
                during = [await ask(server.port, "fake/ok", stream=n % 2 == 0) for n in range(5)]
                assert len(rows(tmp_path, "calls")) == 1
            after = await answered(server, 1)
            assert await asyncio.to_thread(server.stop) == 0
        heard = [first, *during, *after]
        assert {each.status for each in heard} == {200}
        assert_books_agree(tmp_path, upstream.ledger)
        assert_budgets_agree(tmp_path)
    calls = {row["id"]: row["outcome"] for row in rows(tmp_path, "calls")}
    assert calls == {each.call_id: "ok" for each in heard}


@pytest.mark.slow
async def test_a_server_does_not_start_on_a_read_only_database(tmp_path: Path) -> None:
    """It says which file, and what to do; once it can be written, it starts."""
    async with FakeUpstream() as upstream:
        path = files(tmp_path, upstream.url)
        with spawned(path) as server:
            assert (await ask(server.port, "fake/ok")).status == 200
            assert await asyncio.to_thread(server.stop) == 0
        with read_only(tmp_path):
            with pytest.raises(RuntimeError, match="did not start"), spawned(path):
                pass
            assert f"Cannot use the usage database {tmp_path}/usage.db" in (tmp_path / "server.log").read_text()
        with spawned(path) as server:
            assert (await ask(server.port, "fake/ok")).status == 200
