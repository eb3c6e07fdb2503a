"""Performs I/O: `proxy serve` in a process of its own, whose CPU time and memory can be read."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_UPSTREAM = """
version: 1
providers:
  fake: {{type: openai, base_url: "{url}", allow_private: true, price: null}}
router: {{default_model: fake/ok}}
"""
_EMBEDDED = """
version: 1
providers:
  local: {type: embedded}
"""
_PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
"""


class Server:
    """A running proxy. `started`: monotonic seconds when its process was made."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, started: float) -> None:
        self.port = port
        self._process = psutil.Process(process.pid)
        self._started = started

    def cpu_s(self) -> float:
        """CPU seconds of the server and its threads so far, without the embedded model's process."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def rss_mb(self) -> float:
        return float(self._process.memory_info().rss / 1e6)

    def child_rss_mb(self) -> float:
        """Resident memory of the embedded model's process."""
        return float(sum(child.memory_info().rss for child in self._process.children(recursive=True)) / 1e6)

    def since_start_s(self) -> float:
        return time.monotonic() - self._started

    def get(self, path: str) -> bytes:
        return self._ask("GET", path)

    def ask(self, model: str) -> bytes:
        """One short whole answer."""
        question = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}
        return self._ask("POST", "/v1/chat/completions", json.dumps(question))

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text


@contextmanager
def serving(folder: Path, upstream_url: str | None, cores: set[int]) -> Iterator[Server]:
    """A proxy with one worker and its ledger in `folder`, before this upstream (None: the embedded model)."""
    (folder / "routing_rules.yaml").write_text(_UPSTREAM.format(url=upstream_url) if upstream_url else _EMBEDDED)
    (folder / "pricing.yaml").write_text(_PRICING if upstream_url else "version: 1\n")
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0", "--log-format", "json"]
    files = {"config": "routing_rules.yaml", "pricing": "pricing.yaml", "db": "usage.db"}
    command += [part for option, name in files.items() for part in (f"--{option}", str(folder / name))]
    with (folder / "server.log").open("ab") as log, on_cores(cores):
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=_environment())
    try:
        yield Server(process, _port(process, folder / "server.log"), started)
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """This process, and those it starts meanwhile, run on these cores alone; does nothing where there are none."""
    if not cores or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _environment() -> dict[str, str]:
    """Ours without keys and settings of the proxy; compiled modules are kept, or no start would be a warm one."""
    ignored = re.compile(r"_API_KEY$|^PROXY_|^PYTHONDONTWRITEBYTECODE$")
    return {name: value for name, value in os.environ.items() if not ignored.search(name)}


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """From the first line of the banner. Raises RuntimeError when the server does not start."""
    assert process.stdout is not None
    found = re.search(rb"http://127\.0\.0\.1:(\d+)/v1", process.stdout.readline())
    if found is None:
        raise RuntimeError(f"the server did not start: {log.read_text()}")
    return int(found[1])
