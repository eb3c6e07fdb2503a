"""Performs I/O: installs other gateways, each into an environment of its own in the cache folder, never into ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.process import NotServed

_INSTALL_S = 900


def cache() -> Path:
    """The folder for everything that a run makes once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "multi-model-proxy"


def python_environment(name: str, *requirements: str) -> Path:
    """Its folder of programs, made if it is not there. Raises NotServed."""
    environment = cache() / f"{name}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python = str(environment / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
    _make(environment, [sys.executable, "-m", "venv", str(environment)], [*pip, *requirements])
    return environment / "bin"


def node_packages(name: str, *packages: str) -> Path:
    """Its folder of modules, made if it is not there. Raises NotServed."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise NotServed("it needs Node.js, which is not installed")
    environment = cache() / name
    npm = ["npm", "install", "--prefix", str(environment), "--no-audit", "--no-fund", "--ignore-scripts"]
    _make(environment, ["mkdir", "-p", str(environment)], [*npm, "--loglevel", "error", *packages])
    return environment / "node_modules"


def _make(environment: Path, *commands: Sequence[str]) -> None:
    ready = environment / "ready"
    if ready.exists():
        return
    shutil.rmtree(environment, ignore_errors=True)
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotServed(f"it cannot be installed: {error}") from error
        if done.returncode != 0:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise NotServed(f"it cannot be installed: {lines[-1] if lines else command[0]}"[:300])
    ready.touch()
