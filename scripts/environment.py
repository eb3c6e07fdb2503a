"""Performs I/O: installs the locked packages into `.venv`, checked by hash, and the package itself as editable.

`environment.py` prepares what the server needs, and `environment.py --test` also the tools for tests and checks.
`--in FOLDER` uses another environment, for another interpreter. A step whose inputs are unchanged is skipped, so a
second run costs milliseconds. A step writes its stamp when it is complete, so an interrupted step is repeated. Parallel
runs take turns. Requires only Python 3.11.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
import venv
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

PIP_INSTALL = ("-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps")
SHOWN_EVERY = 10
FROM_LOCK = ("--require-hashes", "--only-binary", ":all:", "-r")


class SetupFailed(Exception):
    """The environment could not be prepared. The message says why and what to do."""


class Environment:
    """The `.venv` of the checkout `root`. Steps, in order: `runtime`, `package`, `test`."""

    inputs = {
        "runtime": ("requirements.lock",),
        "package": ("pyproject.toml", "proxy/__init__.py"),
        "test": ("requirements-dev.lock",),
    }

    def __init__(self, root: Path, steps: tuple[str, ...], folder: str = ".venv") -> None:
        self.root = root
        self.steps = steps
        self.path = root / folder
        # Marks the directory as ours: without it nothing is ever deleted here.
        self.marker = self.path / ".made-by-scripts"

    def prepare(self) -> None:
        """Runs the missing steps. Raises SetupFailed, or OSError if the disk fails."""
        if self.missing():
            with self.turn() as lock:
                started = time.monotonic()
                for step in self.missing():
                    wanted = self.wanted(step)
                    getattr(self, step)(lock)
                    self.stamp(step).write_text(wanted)
                say(f"ready after {time.monotonic() - started:.0f} s")

    def missing(self) -> list[str]:
        """The steps to run: those that are not done, and all of them if `runtime` starts over."""
        missing = [step for step in self.steps if not self.is_done(step)]
        return list(self.steps) if "runtime" in missing else missing

    def is_done(self, step: str) -> bool:
        try:
            return self.stamp(step).read_text() == self.wanted(step)
        except FileNotFoundError:
            return False

    def stamp(self, step: str) -> Path:
        return self.path / f".done-{step}"

    def wanted(self, step: str) -> str:
        """The stamp of a complete step, which changes with the inputs, the interpreter and the checkout's location."""
        digest = hashlib.sha256(f"{self.root}\n{sys.base_prefix}\n{sys.version}\n".encode())
        for name in self.inputs[step]:
            try:
                digest.update((self.root / name).read_bytes())
            except FileNotFoundError:
                raise SetupFailed(f"{name} is missing from {self.root}") from None
        return digest.hexdigest()

    @contextmanager
    def turn(self) -> Iterator[int]:
        """Waits for other runs. pip inherits the lock and holds it until it ends, even if this process is killed."""
        with self.path.with_name(f"{self.path.name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another run to prepare {self.path.name}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file.fileno()

    def runtime(self, lock: int) -> None:
        """Creates `.venv` with the packages of requirements.lock. Never patches an old one, so it matches the lock."""
        if importlib.util.find_spec("ensurepip") is None:
            raise SetupFailed("this Python has no ensurepip; on Debian and Ubuntu: apt install python3-venv")
        if self.path.exists() and not self.marker.exists():
            raise SetupFailed(f"{self.path} was not made by these scripts; move it away and try again")
        say(f"making {self.path.name} with Python {sys.version.split()[0]}")
        # Under names of their own while they lack the marker: an interruption must not leave a `.venv` without it,
        # which nobody may delete.
        old, new = (self.path.with_name(f"{self.path.name}.{name}-by-scripts") for name in ("removed", "begun"))
        for left in (old, new):
            shutil.rmtree(left, ignore_errors=True)
        if self.path.exists():
            self.path.rename(old)
            shutil.rmtree(old)
        new.mkdir()
        (new / self.marker.name).touch()
        new.rename(self.path)
        venv.EnvBuilder(with_pip=True, symlinks=True).create(self.path)
        say("installing requirements.lock")
        self.pip(lock, *FROM_LOCK, str(self.root / "requirements.lock"))

    def package(self, lock: int) -> None:
        say("installing the package")
        self.pip(lock, "--no-build-isolation", "--editable", str(self.root))

    def test(self, lock: int) -> None:
        """Adds the test tools. No package is in both locks, so a server running from this `.venv` is not disturbed."""
        say("installing requirements-dev.lock")
        self.pip(lock, "--force-reinstall", *FROM_LOCK, str(self.root / "requirements-dev.lock"))

    def pip(self, lock: int, *arguments: str) -> None:
        """Runs pip and shows one line for every tenth package; the whole of its output only if it fails."""
        command = [str(self.path / "bin" / "python"), *PIP_INSTALL, *arguments]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            last_lines = show_progress(process.stdout)
        if process.returncode:
            sys.stderr.writelines(last_lines)
            raise SetupFailed("pip failed, see above. Fix the cause and run the command again.")


def show_progress(lines: Iterable[str]) -> list[str]:
    """Says what pip is doing, and returns the last lines of its output."""
    last_lines: deque[str] = deque(maxlen=60)
    collected = 0
    for line in lines:
        last_lines.append(line)
        if line.startswith(("Collecting ", "Requirement already satisfied: ")):
            collected += 1
            if collected % SHOWN_EVERY == 0:
                say(f"  {collected} packages fetched")
        elif collected and line.startswith("Installing collected packages"):
            say(f"  unpacking {collected} packages")
    return list(last_lines)


def say(line: str) -> None:
    print(f"setup: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    steps = ("runtime", "package", "test") if "--test" in arguments else ("runtime", "package")
    folder = arguments[arguments.index("--in") + 1] if "--in" in arguments else ".venv"
    try:
        Environment(Path(__file__).resolve().parent.parent, steps, folder).prepare()
    except (SetupFailed, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next run continues")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
