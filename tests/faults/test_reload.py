"""Reloads under load and by signal: no call fails, none sees two configurations, and no stream is cut."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import Struct

from proxy.config.load import version_of
from tests.cli.commands import log_lines
from tests.faults.books import PRICING, assert_books_agree, rows
from tests.faults.talking import Heard, ask, talk
from tests.server.api.raw import get, post
from tests.serving import Server, Spawned, serving, spawned
from tests.upstream import FakeUpstream, spawn
from tests.waiting import eventually

RELOADS = 100
CLIENTS = 8


class Mounted:
    """Both files as a volume mounts them: links into `..data`, itself a link to a directory that is never changed."""

    def __init__(self, folder: Path, upstream_url: str) -> None:
        self.folder = folder / "mounted"
        self.folder.mkdir()
        self.routing = self.folder / "routing_rules.yaml"
        self._url = upstream_url
        self._database = folder / "usage.db"
        self._turn = 0
        self.right: dict[str, int] = {}  # version -> generation
        self.put(self.texts(0))
        for name in ("routing_rules.yaml", "pricing.yaml"):
            (self.folder / name).symlink_to(Path("..data") / name)

    def texts(self, generation: int, *, backup: bool = True) -> tuple[str, str]:
        """Routing and pricing that show everywhere in a call which generation it belongs to.

        `m` fails at `fake`, and falls back to `backup`; without that, `fake` answers.
        """
        provider = {
            "type": "openai",
            "base_url": self._url,
            "allow_private": True,
            "retries": 0,
            "headers": {"x-generation": str(generation)},
        }
        first, then = f"fake/e503(delay=0.02,tag={generation})", f"backup/ok(pace=0.01,tag={generation})"
        routing: dict[str, Any] = {
            "version": 1,
            "storage": {"url": f"sqlite:///{self._database}"},
            "providers": {"fake": provider, **({"backup": provider} if backup else {})},
            "models": {"m": {"use": first, "fallback": [then]} if backup else {"use": then.replace("backup", "fake")}},
        }
        row = {"input": generation + 1, "output": 0, "max_output": 4096}
        pricing = {"version": 1, "models": {"fake/*": row, "backup/*": row}}
        texts = json.dumps(routing), json.dumps(pricing)
        self.right[version_of(*(text.encode() for text in texts))] = generation
        return texts

    def put(self, texts: tuple[str, str]) -> None:
        """Another directory, and the link to it swapped by a rename."""
        self._turn += 1
        target = self.folder / f"..{self._turn}"
        target.mkdir()
        for name, text in zip(("routing_rules.yaml", "pricing.yaml"), texts, strict=True):
            (target / name).write_text(text)
        (self.folder / "..data_tmp").symlink_to(target.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")

    def write(self, text: str) -> None:
        """Routing alone, in the place where it is."""
        self.routing.write_text(text)


class Step(Struct):
    """One reload. `right`: it must be taken over."""

    name: str
    right: bool
    do: Callable[[Mounted, int], None]


def _written(change: Callable[[str], str]) -> Callable[[Mounted, int], None]:
    return lambda files, generation: files.write(change(files.texts(generation)[0]))


STEPS = [
    Step("valid change", True, lambda files, generation: files.put(files.texts(generation))),
    Step("truncated", False, _written(lambda text: text[: len(text) // 2])),
    Step("link swap", True, lambda files, generation: files.put(files.texts(generation))),
    Step("empty", False, _written(lambda text: "")),
    Step("upstream in use deleted", True, lambda files, generation: files.put(files.texts(generation, backup=False))),
    Step("bad YAML", False, _written(lambda text: text + "\n\t- ]")),
    Step("upstream is back", True, lambda files, generation: files.put(files.texts(generation))),
    Step("unknown key", False, _written(lambda text: text.replace('"retries"', '"retrys"'))),
    Step("valid change", True, lambda files, generation: files.put(files.texts(generation))),
    Step("dangling link", False, lambda files, _: _dangle(files)),
]


def _dangle(files: Mounted) -> None:
    (files.folder / "..data_tmp").symlink_to("..nowhere")
    (files.folder / "..data_tmp").rename(files.folder / "..data")


class Load:
    """Clients that ask `m` one call after the other, every second one streamed, until told to stop."""

    def __init__(self, port: int) -> None:
        self.heard: list[Heard] = []
        self._port = port
        self._over = False
        self._tasks = [asyncio.create_task(self._ask_on(stream=bool(number % 2))) for number in range(CLIENTS)]

    async def _ask_on(self, stream: bool) -> None:
        options = {"stream_options": {"include_usage": True}} if stream else {}
        while not self._over:
            self.heard.append(await ask(self._port, "m", stream=stream, **options))

    async def stop(self) -> list[Heard]:
        self._over = True
        await asyncio.gather(*self._tasks)
        return self.heard


async def run_steps(server: Server, files: Mounted) -> list[float]:
    """Every second pair of reloads is requested, the others come from file watching. Returns the seconds each took."""
    took = []
    for number in range(1, RELOADS + 1):
        step = STEPS[number % len(STEPS)]
        before = server.runtime.config.version
        begun = time.monotonic()
        step.do(files, number)
        if number // 2 % 2:
            answer = await post(server.port, b"", "/admin/reload")
            assert (answer.status, answer.json["error"] is None) == ((200, True) if step.right else (409, False)), step
        if step.right:
            await at_generation(server, files, number)
        else:
            await refused(server.port)
            assert server.runtime.config.version == before
        took.append(time.monotonic() - begun)
    return took


async def at_generation(server: Server, files: Mounted, number: int) -> None:
    """Waits until this generation runs."""
    await eventually(lambda: files.right.get(server.runtime.config.version) == number)


async def refused(port: int) -> None:
    """Waits until the server reports invalid files."""
    async with asyncio.timeout(20):
        while (await get(port, "/health")).json["config"]["error"] is None:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_hundred_reloads_under_load_fail_no_call(tmp_path: Path) -> None:
    """Good and bad ones mixed, requested and watched: each call runs on one configuration throughout (R19)."""
    async with FakeUpstream() as upstream:
        files = Mounted(tmp_path, upstream.url)
        async with serving(files.routing) as server:
            load = Load(server.port)
            took = await run_steps(server, files)
            heard = await load.stop()
            await eventually(lambda: not any(each.active for each in server.runtime.upstreams.values()))
            # The last pools of two providers stay open, each with a few more connections than clients. `backup` went
            # ten times: pools that nobody closed would be ten times as many.
            await eventually(lambda: len(upstream.connections) <= 4 * CLIENTS)
            await eventually(lambda: not server.runtime.ledger.state.pending)
        seen = list(upstream.ledger)
    assert_whole(files, heard)
    assert_one_configuration_each(files, heard, tmp_path, {each.id: each.headers["x-generation"] for each in seen})
    assert_books_agree(tmp_path, seen)
    on = Counter(each.headers["x-proxy-config"] for each in heard)
    print(f"\n  {RELOADS} reloads in {sum(took):.1f} s, the slowest after {max(took):.2f} s;", end=" ")
    print(f"{len(heard)} calls on {len(on)} configurations, {len(seen)} requests upstream; none failed, none mixed")


def assert_whole(files: Mounted, heard: list[Heard]) -> None:
    """Every call ended as it should."""
    failed = [each for each in heard if (each.status, each.whole, each.finish_reasons) != (200, True, ["stop"])]
    assert [(each.status, each.frames[-1:]) for each in failed] == []
    assert all(each.done for each in heard if "event-stream" in each.headers["content-type"])


def assert_one_configuration_each(
    files: Mounted, heard: list[Heard], folder: Path, generation_of: dict[str | None, str]
) -> None:
    """Header, model, price, row and every upstream request belong to one generation."""
    versions = {row["id"]: row["config_version"] for row in rows(folder, "calls")}
    attempts = Counter(row["call_id"] for row in rows(folder, "attempts"))
    for each in heard:
        generation = files.right[each.headers["x-proxy-config"]]
        assert each.headers["x-proxy-model"].endswith(f"tag={generation})")
        assert versions[each.call_id] == each.headers["x-proxy-config"]
        assert int(each.headers["x-proxy-attempts"]) == attempts[each.call_id]
        for attempt in range(1, attempts[each.call_id] + 1):
            assert generation_of[f"{each.call_id}-{attempt}"] == str(generation)
        assert each.usage is not None
        assert each.usage["cost"] == pytest.approx(each.usage["prompt_tokens"] * (generation + 1) * 1e-6)


# --- SIGHUP -----------------------------------------------------------------------------------------------------------


def write_pair(folder: Path, upstream_url: str, aliases: dict[str, str]) -> Path:
    """Both files, one of them with these aliases."""
    provider = {"type": "openai", "base_url": upstream_url, "allow_private": True, "retries": 0}
    routing = {
        "version": 1,
        "storage": {"url": f"sqlite:///{folder / 'usage.db'}"},
        "providers": {"fake": provider},
        "aliases": aliases,
    }
    path = folder / "routing_rules.yaml"
    for each, content in ((path, routing), (folder / "pricing.yaml", PRICING)):  # no worker must see half a file
        whole = each.with_suffix(".new")
        whole.write_text(json.dumps(content))
        whole.replace(each)
    return path


def reloaded(path: Path) -> int:
    """How many workers have logged that they run the files as they are now. Requests do not tell: on a busy machine one
    worker may accept them all.
    """
    version = version_of(path.read_bytes(), (path.parent / "pricing.yaml").read_bytes())
    told = [line["config"] for line in log_lines(path.parent) if line["event"] == "config_reloaded"]
    return told.count(version)


async def version_everywhere(server: Spawned, workers: int) -> set[str]:
    """The configuration versions over enough connections to reach every worker."""
    answers = await asyncio.gather(*(ask(server.port, "fake/ok", stream=False) for _ in range(10 * workers)))
    return {each.headers["x-proxy-config"] for each in answers}


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.slow
async def test_sighup_reloads_every_worker_and_cuts_no_stream(tmp_path: Path, workers: int) -> None:
    """No process is replaced; a hundred signals in a row do no harm."""
    with spawn() as upstream, ExitStack() as closing:
        path = write_pair(tmp_path, upstream.url, {})
        with spawned(path, "--workers", str(workers)) as server:
            (before,) = await version_everywhere(server, workers)
            processes = {child.pid for child in psutil.Process(server.process.pid).children()}
            streams = [await talk(server.port, "fake/ok(n_tokens=60,pace=0.05)") for _ in range(10)]
            for stream in streams:
                closing.callback(stream.close)
            for stream in streams:
                assert await stream.head() == 200
            write_pair(tmp_path, upstream.url, {"new": "fake/ok"})
            for _ in range(100):
                server.process.send_signal(signal.SIGHUP)
            await eventually(lambda: reloaded(path) == workers, 60)
            assert before not in await version_everywhere(server, workers)
            assert (await ask(server.port, "new", stream=False)).status == 200
            heard = await asyncio.gather(*(stream.rest() for stream in streams))
            assert {child.pid for child in psutil.Process(server.process.pid).children()} == processes
            assert server.stop() == 0
        seen = upstream.ledger()
    assert all(each.done and each.headers["x-proxy-config"] == before for each in heard)
    assert_books_agree(tmp_path, seen)


def started_on_a_terminal(path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """`proxy serve` as the leader of a session with a terminal, and that terminal's other end."""
    main, side = pty.openpty()
    take = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    take += "os.execvp(sys.argv[1], sys.argv[1:])"
    serve = [sys.executable, "-m", "proxy", "serve", "--port", "0", "--config", str(path)]
    command = [sys.executable, "-c", take, *serve, "--pricing", str(path.parent / "pricing.yaml")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROXY_")}
    process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=clean)
    os.close(side)
    return process, main


def port_of(main: int) -> int:
    """From the banner. Raises TimeoutError when none comes."""
    text = b""
    while b"  curl " not in text:
        if not select.select([main], [], [], 30)[0]:
            raise TimeoutError(text)
        text += os.read(main, 4096)
    return int(text.split(b"http://127.0.0.1:")[1].split(b"/")[0])


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
async def test_a_server_whose_terminal_is_closed_ends(tmp_path: Path, workers: int) -> None:
    """It must not linger unseen with its port in use. Running calls end first."""
    with spawn() as upstream:
        path = write_pair(tmp_path, upstream.url, {})
        path.write_text(json.dumps({**json.loads(path.read_text()), "server": {"workers": workers}}))
        process, main = started_on_a_terminal(path)
        try:
            port = await asyncio.to_thread(port_of, main)
            assert (await ask(port, "fake/ok", stream=False)).status == 200
            stream = await talk(port, "fake/ok(n_tokens=20,pace=0.05)")
            assert await stream.head() == 200
            os.close(main)
            async with asyncio.timeout(20):
                heard = await stream.rest()
            assert (heard.done, heard.finish_reasons) == (True, ["stop"])
            assert await asyncio.to_thread(process.wait, 20) == 0
        finally:
            process.kill()
            process.wait()
        assert_books_agree(tmp_path, upstream.ledger())
