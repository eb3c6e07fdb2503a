"""Forks runs of `proxy` from a process that has its modules: loading them takes most of the time of a short command.

Each run is a process of its own all the same, with its folder, environment, output and end.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory


class Forks:
    """The process that forks. It ends when its input does: with this process at the latest."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._process = self._start()

    def run(
        self, arguments: Sequence[str], cwd: Path, environ: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """`proxy` with these arguments, until it ends. Raises TimeoutExpired."""
        with self._lock, TemporaryDirectory() as folder:
            outputs = [Path(folder, name) for name in ("stdout", "stderr")]
            request = [*map(str, [cwd, *outputs])], list(arguments), dict(environ)
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None and stdout is not None
            stdin.write(json.dumps(request).encode() + b"\n")
            if not select.select([stdout], [], [], timeout_s)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                self.close()
                self._process = self._start()
                raise subprocess.TimeoutExpired(list(arguments), timeout_s)
            code = int(stdout.readline())
            return subprocess.CompletedProcess(arguments, code, *(each.read_text() for each in outputs))

    def close(self) -> None:
        """Closes its input and waits for its end."""
        self._process.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.cli.forks"],
            cwd=self._root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )


def main() -> None:
    """Runs what the lines of standard input ask for, one after the other, and prints each exit code."""
    from proxy.cli import Deferred
    from proxy.cli import main as commands

    for module in ("genai_prices", "httpx"):
        import_module(module)
    for command in commands.commands.values():
        if isinstance(command, Deferred):
            command.loaded()
    assert threading.active_count() == 1  # a thread would not be in the forks
    gc.freeze()
    while line := sys.stdin.readline():
        if (child := os.fork()) == 0:
            become(*json.loads(line))
            return
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


def become(places: list[str], arguments: list[str], environ: dict[str, str]) -> None:
    """This process is as if `python -m proxy` had just been started."""
    folder, stdout, stderr = places
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["proxy", *arguments]


if __name__ == "__main__":
    main()
    runpy.run_module("proxy", run_name="__main__", alter_sys=True)
