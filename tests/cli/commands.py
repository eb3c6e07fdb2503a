"""Runs `proxy` as a user would: in its own process and folder, without the API keys of whoever runs the tests."""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.cli.forks import Forks
from tests.serving import Spawned

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "proxy")
PATIENCE_S = 30


def environment(**variables: str) -> dict[str, str]:
    """This environment without API keys and proxy settings, plus these variables; finds the package from any folder."""
    clean = {name: value for name, value in os.environ.items() if not re.search(r"_API_KEY$|^(PROXY|OTEL)_", name)}
    return {**clean, "PYTHONPATH": str(ROOT), **variables}


def proxy(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs one command until it ends, without loading its modules again."""
    return _forks().run(arguments, cwd, environment(**variables), PATIENCE_S)


def started(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """The same in a new interpreter, for what may depend on the start itself."""
    command = [*COMMAND, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


@cache
def _forks() -> Forks:
    forks = Forks(ROOT)
    atexit.register(forks.close)
    return forks


@contextmanager
def server(cwd: Path, *arguments: str, **variables: str) -> Iterator[Spawned]:
    """Runs `proxy serve` in `cwd`, with its log in `server.log` there, and kills it at the end."""
    with (cwd / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", *arguments], cwd=cwd, env=environment(**variables), stdout=subprocess.PIPE, stderr=log
        )
    assert process.stdout is not None
    try:
        banner = ""
        for line in process.stdout:
            banner += line.decode()
            if line.startswith(b"  curl "):
                break
        match = re.search(r"http://\S+:(\d+)/v1", banner)
        assert match is not None, f"{banner}{(cwd / 'server.log').read_text()}"
        yield Spawned(process, int(match[1]), banner)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def ask(running: Spawned, model: str = "auto", headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    """Asks one question over a new connection."""
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}], **fields}
    return httpx.post(f"{running.base_url}/chat/completions", json=body, headers=headers, timeout=PATIENCE_S)


def log_lines(folder: Path) -> list[dict[str, Any]]:
    """The events that a server logged as JSON."""
    return [json.loads(line) for line in (folder / "server.log").read_text().splitlines()]


def processes_of(running: Spawned, script: str) -> list[psutil.Process]:
    """The descendants of a server with `script` in their command line."""
    found = psutil.Process(running.process.pid).children(recursive=True)
    return [process for process in found if any(script in part for part in _command_line(process))]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Polls, since other processes cannot be awaited. Raises AssertionError after PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.02)


def is_gone(process: psutil.Process) -> bool:
    """True once a process has ended, even if its parent has not reaped it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
