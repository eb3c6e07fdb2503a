"""The ledger's writer dies, which no error should cause: the process drains its calls and exits."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest

from tests.faults.books import assert_sums, files, reconcile, rows
from tests.faults.talking import Heard, ask, talk
from tests.serving import spawned
from tests.upstream import FakeUpstream

GRACE_S = 8  # longer than a call waits for what the writer took with it
# Every Python process of the server reads this at its start; the one whose writer it finds, once asked, loses it.
SITECUSTOMIZE = """
import ctypes, os, threading, time

def follow():
    while True:
        time.sleep(0.02)
        for thread in threading.enumerate():
            if thread.name == "ledger" and thread.ident:
                try:
                    os.unlink(os.environ["TEST_LEDGER_DIES"])
                except FileNotFoundError:
                    continue
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))

threading.Thread(target=follow, daemon=True).start()
"""


def dying(folder: Path) -> tuple[Path, dict[str, str]]:
    """The file that asks one ledger to die once it is there, and the environment of a server that looks for it."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return folder / "die", {"PYTHONPATH": str(folder / "site"), "TEST_LEDGER_DIES": str(folder / "die")}


async def is_dead(folder: Path, port: int) -> list[Heard]:
    """Calls until the ledger has died, because an idle one does not notice. Returns the answers."""
    heard = []
    async with asyncio.timeout(20):
        while "ledger_dead" not in (folder / "server.log").read_text():
            with contextlib.suppress(ConnectionError):
                heard.append(await ask(port, "fake/ok"))
            await asyncio.sleep(0.01)
    return heard


@pytest.mark.slow
async def test_a_server_whose_ledger_died_ends_by_itself(tmp_path: Path) -> None:
    """Code 1, so that its supervisor starts it again; what was in flight is answered, and becomes `unknown`."""
    trigger, environ = dying(tmp_path)
    async with FakeUpstream() as upstream:
        path = files(tmp_path, upstream.url, grace_s=GRACE_S)
        with spawned(path, environ=environ) as server:
            streams = [await talk(server.port, f"fake/ok(n_tokens=20,pace=0.05,tag={i})") for i in range(4)]
            assert [await each.head() for each in streams] == [200] * 4
            trigger.touch()
            refused = await is_dead(tmp_path, server.port)
            heard = await asyncio.gather(*(each.rest() for each in streams))
            async with asyncio.timeout(GRACE_S + 3):
                assert await asyncio.to_thread(server.process.wait) == 1
        assert all(each.done for each in heard)
        assert {each.status for each in refused} <= {200, 503}
        with spawned(path) as server:
            assert (await ask(server.port, "fake/ok")).done
            assert await asyncio.to_thread(server.stop) == 0
        tally = reconcile(tmp_path, upstream.ledger)
    assert (tally.lost, tally.duplicated) == ([], [])
    assert_sums(tmp_path)
    found = {row["id"]: row["outcome"] for row in rows(tmp_path, "calls")}
    assert [found[each.call_id] for each in heard] == ["unknown"] * 4


@pytest.mark.slow
async def test_a_worker_whose_ledger_died_is_replaced(tmp_path: Path) -> None:
    """Its supervisor starts another, and calls go on."""
    trigger, environ = dying(tmp_path)
    async with FakeUpstream() as upstream:
        path = files(tmp_path, upstream.url, grace_s=1)
        with spawned(path, "--workers", "2", environ=environ) as server:
            assert (await ask(server.port, "fake/ok")).done
            before = set(psutil.Process(server.process.pid).children())
            trigger.touch()
            await is_dead(tmp_path, server.port)
            async with asyncio.timeout(20):
                while not set(psutil.Process(server.process.pid).children()) - before:  # noqa: ASYNC110 - processes
                    await asyncio.sleep(0.05)
            answered = 0
            async with asyncio.timeout(20):
                while answered < 10:
                    with contextlib.suppress(ConnectionError):
                        answered += (await ask(server.port, "fake/ok")).done
            assert await asyncio.to_thread(server.stop) == 0
        tally = reconcile(tmp_path, upstream.ledger)
    assert (tally.lost, tally.duplicated) == ([], [])
