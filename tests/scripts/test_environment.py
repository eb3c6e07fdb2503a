"""scripts/serve and scripts/test: what they install, when they do it again, and what an interruption leaves.

The real scripts run in a small project of the same shape, with two packages made here instead of a registry: everything
else (Python, venv, pip, locks, processes) is real.
"""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import psutil
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"

# Stands in for hatchling: an editable install is a .pth file and the commands.
BACKEND = """
import os, time, zipfile
def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    if os.path.exists("break-the-build"):
        raise SystemExit("broken on purpose")
    while os.path.exists("hold-the-build"):
        time.sleep(0.01)
    info = "demo-1.dist-info"
    with zipfile.ZipFile(f"{wheel_directory}/demo-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("_demo.pth", os.getcwd())
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: demo\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\\nproxy = proxy:main\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "demo-1-py3-none-any.whl"
"""

# Stands in for the server: says who it is and waits for SIGTERM.
PROXY = """
import importlib.util, os, signal, sys
__version__ = "1"
def main():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print(os.getpid(), sys.argv[1:], os.getcwd(), bool(importlib.util.find_spec("server_part")), flush=True)
    if "--wait" in sys.argv:
        signal.sigwait({signal.SIGTERM})
        print("drained", flush=True)
"""


def make_wheel(folder: Path, name: str, text: str) -> str:
    """A wheel with one module; returns its line for a lock."""
    path = folder / f"{name}-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", text)
        wheel.writestr(f"{name}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        wheel.writestr(f"{name}-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.dist-info/RECORD", "")
    return f"{name}==1 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


class Project:
    """A checkout of the same shape as this one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheels = root.parent / "wheels"  # not below: pip splits its settings at spaces
        self.wheels.mkdir()
        shutil.copytree(SCRIPTS, root / "scripts")
        (root / "backend.py").write_text(BACKEND)
        (root / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        )
        (root / "proxy").mkdir()
        (root / "proxy" / "__init__.py").write_text(PROXY)
        (root / "requirements.lock").write_text(make_wheel(self.wheels, "server_part", ""))
        # `python -m pytest` of this project only prints its arguments.
        pytest_stand_in = "import os, sys\nprint('tests', sys.argv[1:], os.getcwd())\n"
        (root / "requirements-dev.lock").write_text(make_wheel(self.wheels, "pytest", pytest_stand_in))
        self.env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}

    def start(self, script: str, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "scripts" / script, *arguments],
            cwd=cwd or self.root,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.start(script, *arguments, cwd=cwd)
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def installed(self) -> list[str]:
        """The steps of .venv that are complete."""
        return sorted(path.name.removeprefix(".done-") for path in (self.root / ".venv").glob(".done-*"))


def wait_for(text: str, process: subprocess.Popen[str]) -> None:
    """Read what `process` reports until a line holds `text`."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise AssertionError(f"ended without saying {text!r}")


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "a checkout")


@pytest.mark.slow
def test_serve_and_test_install_once_each_what_they_need(project, tmp_path):
    """One command does it all from any directory; the second run installs nothing and is quick."""
    code, output, errors = project.run("serve", "--port", "1", cwd=tmp_path)
    assert (code, output.split(" ", 1)[1]) == (0, f"['serve', '--port', '1'] {tmp_path} True\n"), errors
    assert [line.split(" with ")[0] for line in errors.splitlines()][:3] == [
        "setup: making .venv",
        "setup: installing requirements.lock",
        "setup: installing the package",
    ]
    assert project.installed() == ["package", "runtime"]

    code, output, errors = project.run("test", "-k", "x y", cwd=tmp_path)
    assert (code, output) == (0, f"tests ['-k', 'x y'] {project.root}\n"), errors
    assert errors.splitlines()[0] == "setup: installing requirements-dev.lock"

    started = time.monotonic()
    code, output, errors = project.run("serve")
    assert (code, errors) == (0, "")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_another_interpreter_has_an_environment_of_its_own(project):
    """Beside `.venv`, which stays as it is."""
    assert project.run("serve")[0] == 0
    project.env["TEST_PYTHON"] = sys.executable
    version = "{}.{}".format(*sys.version_info)
    code, output, errors = project.run("test", "-k", "x")
    assert (code, output) == (0, f"tests ['-k', 'x'] {project.root}\n"), errors
    assert errors.startswith(f"setup: making .venv-{version} with Python {version}.")
    assert (project.root / f".venv-{version}" / ".done-test").exists()
    assert project.installed() == ["package", "runtime"]
    project.env["TEST_PYTHON"] = "no-such-python"
    assert project.run("test")[0] != 0


@pytest.mark.slow
def test_signals_reach_the_server_itself(project):
    """The server replaces the script, so SIGTERM to the script's process drains the server."""
    process = project.start("serve", "--wait")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert int(line.split()[0]) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "drained\n"


@pytest.mark.slow
def test_each_input_renews_what_depends_on_it(project):
    """A new lock makes a new .venv, a new pyproject.toml only installs the package again."""
    assert project.run("test")[0] == 0
    leftover = project.root / ".venv" / "leftover"
    leftover.touch()

    with (project.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    errors = project.run("test")[2]
    assert "installing the package" in errors
    assert "requirements" not in errors
    assert leftover.exists()

    with (project.root / "requirements.lock").open("a") as file:
        file.write("# changed\n")
    errors = project.run("test")[2]
    assert "making .venv" in errors
    assert "installing requirements-dev.lock" in errors
    assert not leftover.exists()


@pytest.mark.slow
def test_a_wrong_hash_installs_nothing(project):
    """A package that is not the locked one stops the run; mended, the next run starts over and succeeds."""
    good = (project.root / "requirements.lock").read_text()
    (project.root / "requirements.lock").write_text(good[:-65] + "0" * 64 + "\n")
    code, output, errors = project.run("serve")
    assert (code, output) == (1, "")
    assert "DO NOT MATCH THE HASHES" in errors
    assert project.installed() == []

    (project.root / "requirements.lock").write_text(good)
    assert project.run("serve")[0] == 0


@pytest.mark.slow
def test_a_failed_package_build_is_done_again(project):
    """Complete steps are kept, the failed one is not taken for done."""
    flaw = project.root / "break-the-build"
    flaw.touch()
    assert project.run("serve")[0] == 1
    assert project.installed() == ["runtime"]
    flaw.unlink()
    code, _, errors = project.run("serve")
    assert code == 0
    assert "making .venv" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "step"),
    [(signal.SIGINT, "making .venv"), (signal.SIGTERM, "requirements.lock"), (signal.SIGKILL, "requirements.lock")],
)
def test_an_interrupted_install_is_not_taken_for_complete(project, name, step):
    """Stopped with all its children while it makes .venv, the script leaves nothing that the next run would trust."""
    process = project.start("serve")
    wait_for(step, process)
    os.killpg(process.pid, name)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert project.installed() == []
    code, _, errors = project.run("serve")
    assert (code, "making .venv" in errors) == (0, True), errors


@pytest.mark.slow
def test_a_pip_that_outlives_its_script_is_waited_for(project):
    """The script killed, its pip still at work: the next run does not start beside it."""
    hold = project.root / "hold-the-build"
    hold.touch()
    killed = project.start("serve")
    wait_for("installing the package", killed)
    (prepare,) = psutil.Process(killed.pid).children()
    while not prepare.children():
        time.sleep(0.01)
    killed.kill()
    prepare.kill()

    second = project.start("serve")
    wait_for("waiting for another run", second)
    assert second.poll() is None
    hold.unlink()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    killed.communicate(timeout=60)


@pytest.mark.slow
def test_runs_at_the_same_time_take_turns(project):
    """Three scripts on a fresh checkout: one makes .venv, and each finds what it needs."""
    processes = [project.start(script) for script in ("serve", "test", "serve")]
    results = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [code for _, _, code in results] == [0, 0, 0], results
    errors = "".join(errors for _, errors, _ in results)
    assert errors.count("setup: making .venv") == 1
    assert errors.count("setup: installing requirements-dev.lock") == 1


def test_a_foreign_environment_is_left_alone(project):
    """A .venv that the scripts did not make is never deleted."""
    keep = project.root / ".venv" / "mine"
    keep.parent.mkdir()
    keep.touch()
    code, _, errors = project.run("serve")
    assert (code, keep.exists()) == (1, True)
    assert "was not made by these scripts" in errors


def test_an_old_python_is_named_as_the_cause(project, tmp_path):
    """Without Python 3.11 there is one clear line, whatever else is called python."""
    old = tmp_path / "bin"
    old.mkdir()
    for name in ("python3.11", "python3", "python3.14", "python3.13", "python3.12", "python"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)
    project.env["PATH"] = f"{old}:/usr/bin:/bin"
    code, output, errors = project.run("serve")
    assert (code, output) == (1, "")
    assert errors == "setup: Python 3.11 or newer is needed, and none was found on PATH.\n"


def test_a_missing_lock_is_named(project):
    """An incomplete checkout is told apart from a failed install."""
    (project.root / "requirements.lock").unlink()
    code, _, errors = project.run("serve")
    assert code == 1
    assert "requirements.lock is missing" in errors


@pytest.mark.slow
@pytest.mark.parametrize("left", [".venv.begun-by-scripts", ".venv.removed-by-scripts"])
def test_what_an_interruption_left_is_removed(project, left):
    """Stopped before the new environment has its marker, or while the old one is deleted: the next run starts over."""
    (project.root / left / "bin").mkdir(parents=True)
    code, _, errors = project.run("serve")
    assert (code, "making .venv" in errors) == (0, True), errors
    assert not (project.root / left).exists()


def test_a_long_installation_shows_how_far_it_is(capsys):
    """A line for every tenth package. What pip said is kept for the case that it fails."""
    module = runpy.run_path(str(SCRIPTS / "environment.py"))
    lines = [f"Collecting package-{n}==1 (from -r lock)\n  Downloading it\n" for n in range(23)]
    said = "".join([*lines, "Installing collected packages: a, b\n", "Successfully installed a b\n"])
    kept = module["show_progress"](said.splitlines(keepends=True))
    assert capsys.readouterr().err.splitlines() == [
        "setup:   10 packages fetched",
        "setup:   20 packages fetched",
        "setup:   unpacking 23 packages",
    ]
    assert kept == said.splitlines(keepends=True)[-60:]
