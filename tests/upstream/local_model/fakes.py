"""Fakes: children that are small scripts and speak the real one's two pipes, and an installation that lacks things."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import psutil

_PRELUDE = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
settings = json.loads(sys.stdin.readline())
with open(folder / "started", "a") as started:
    print(os.getpid(), file=started)
starts = len((folder / "started").read_text().split())
def serve():
    print(json.dumps({"port": starts}), flush=True)
    sys.stdin.read()
"""
SERVES = "serve()"
SERVES_WHEN_TOLD = """
while not (folder / "go").exists():
    time.sleep(0.002)
serve()
"""
CRASHES_TWICE = "serve() if starts > 2 else os.abort()"
CRASHES = "os._exit(3)"
REFUSES = """
print(json.dumps({"error": "it is broken"}), flush=True)
os._exit(1)
"""
REFUSES_ONCE = f"""
if starts > 1:
    serve()
{REFUSES}
"""


def fake_child(body: str, folder: Path) -> list[str]:
    """The command of a fake child; it serves "port" 1 in its first life, 2 in its second."""
    return [sys.executable, "-I", "-S", "-c", _PRELUDE + body, str(folder)]


def pids(folder: Path) -> list[int]:
    """The children started so far."""
    started = folder / "started"
    return [int(pid) for pid in started.read_text().split()] if started.exists() else []


def installation(*names: str) -> Callable[[str], ModuleSpec | None]:
    """A `find_spec` that knows these modules only."""
    return lambda name: ModuleSpec(name, None) if name in names else None


def is_gone(pid: int) -> bool:
    """True for a process that has ended, also where nobody has reaped it yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
