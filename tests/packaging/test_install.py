"""A user's installation: `pip install` of the wheel in an empty environment, on each Python that this machine has.

The versions are those of the lock, so that a run of today is the same tomorrow. Without a package registry, and without
that Python, a test is skipped and says so.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from proxy import __version__
from tests.cli.commands import environment
from tests.packaging.test_packaging import PYPROJECT, ROOT, build_wheel, locked
from tests.serving import write_files
from tests.upstream import spawn
from tests.waiting import PATIENCE_S

INSTALL_S = 500  # for each step: a guard against a hang, not a measure
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
UNREACHED = re.compile(
    "NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|NameResolutionError|MaxRetryError|ProtocolError"
)


@functools.cache
def interpreter(version: str) -> str | None:
    """A command for this Python; None if there is none: on PATH, by pyenv or by uv."""
    home = Path.home()
    pyenv = Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions"
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    found = [*pyenv.glob(f"{version}*/bin/python{version}"), *managed.glob(f"cpython-{version}*/bin/python{version}")]
    check = f"import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    for command in (sys.executable, *map(str, sorted(found)), f"python{version}"):
        try:
            done = subprocess.run([command, "-I", "-S", "-c", check], capture_output=True, timeout=60, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return command
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def installed(folder: Path, version: str, wheel: Path, extras: str = "") -> Path:
    """The folder of commands of a new environment with the wheel and what it asks for. Skips if that cannot be."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} with venv on this machine")
    subprocess.run(
        [python, "-I", "-m", "venv", str(folder / "venv")], check=True, capture_output=True, timeout=INSTALL_S
    )
    pins = [f"{entry['name']}=={entry['version']}" for entry in locked("requirements.lock").values()]
    (folder / "pins.txt").write_text("\n".join(pins))
    command = [
        str(folder / "venv/bin/python"),
        "-I",
        "-m",
        "pip",
        "install",
        "--only-binary",
        ":all:",
        "--retries",
        "1",
    ]
    command += ["--disable-pip-version-check", "--no-input", "-c", str(folder / "pins.txt"), f"{wheel}{extras}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode and UNREACHED.search(done.stdout + done.stderr):
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "venv" / "bin"


def said(command: list[str], folder: Path) -> str:
    """The output of a command that must succeed. `-I` and a bare environment: nothing of the checkout is seen."""
    bare = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_installed_wheel_serves(tmp_path: Path, wheel: Path, version: str) -> None:
    """What it declares as dependencies is all it needs: it checks, serves, meters and stops."""
    commands = installed(tmp_path, version, wheel)
    said([str(commands / "python"), "-m", "pip", "check"], tmp_path)
    where = said([str(commands / "python"), "-I", "-c", "import proxy; print(proxy.__file__)"], tmp_path)
    assert where.startswith(str(tmp_path / "venv"))
    assert __version__ in said([str(commands / "proxy"), "--version"], tmp_path)
    assert __version__ in said([str(commands / "mmproxy"), "--version"], tmp_path)
    with spawn() as upstream:
        path = write_files(tmp_path, f"http://127.0.0.1:{upstream.port}/v1")
        files = ["--config", str(path), "--pricing", str(tmp_path / "pricing.yaml")]
        said([str(commands / "proxy"), "check", *files], tmp_path)
        bare = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
        with (tmp_path / "log").open("wb") as log:
            command = [str(commands / "proxy"), "serve", "--port", "0", *files]
            server = subprocess.Popen(command, cwd=tmp_path, env=bare, stdout=subprocess.PIPE, stderr=log)
        try:
            assert server.stdout is not None
            banner = b"".join(iter(lambda: next_line(server), b"")).decode()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", banner)
            assert found is not None, banner + (tmp_path / "log").read_text()
            body = {"model": "fake/ok", "messages": [{"role": "user", "content": "Hello"}]}
            answer = httpx.post(f"{found[0]}/chat/completions", json=body, timeout=PATIENCE_S)
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]["cost"] > 0
            server.terminate()
            assert server.wait(timeout=PATIENCE_S) == 0
        finally:
            server.kill()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()
    print(f"Python {version}: installed, served, stopped")


def next_line(server: subprocess.Popen[bytes]) -> bytes:
    """Of the banner; b"" after its last line."""
    assert server.stdout is not None
    line = server.stdout.readline()
    return b"" if line.startswith(b"  curl ") else line


@pytest.mark.slow
def test_the_extras_install_what_they_promise(tmp_path: Path, wheel: Path) -> None:
    """Telemetry and the embedded model's runtime can be loaded. `tokens` is in no lock."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    commands = installed(tmp_path, version, wheel, "[otel,local]")
    script = "import proxy.server.telemetry.sdk, xllamacpp; print('ok')"
    assert said([str(commands / "python"), "-I", "-c", script], tmp_path) == "ok"


def test_the_extras_are_these() -> None:
    """A new one needs a page and a test."""
    assert sorted(PYPROJECT["project"]["optional-dependencies"]) == ["local", "otel", "tokens"]
