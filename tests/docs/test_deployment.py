"""docs/deployment.md is true: its commands run, or name what exists where an engine or a cluster would be needed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from proxy.config.server import ServerConfig
from proxy.server.telemetry.exporting import LAST_S
from tests.cli.commands import environment
from tests.packaging.manifests import UNIT_FILE, compose, container, kubernetes, pod, unit
from tests.packaging.test_container import arguments
from tests.packaging.test_install import VERSIONS
from tests.packaging.test_packaging import PYPROJECT

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
KEY, PACKAGE, BUILD, SERVICE, DOCKER_LINES, KUBECTL_LINES = [block.splitlines() for block in BLOCKS]
DOCKER = [shlex.split(line) for line in DOCKER_LINES]
KUBECTL = [shlex.split(line) for line in KUBECTL_LINES]
STUB = '#!/bin/sh\nprintf \'%s\\n\' "$(basename "$0") $*" >> "$CALLED"\n'


def run(lines: list[str], folder: Path, **environ: str) -> str:
    """The output of these lines as one script, whose every command must succeed."""
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -eu", *lines])],
        cwd=ROOT,
        env=environment(CALLED=str(folder / "called"), **environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def stubs(folder: Path, *names: str) -> str:
    """A PATH on which these commands only note how they were called."""
    tools = folder / "tools"
    tools.mkdir()
    for name in names:
        (tools / name).write_text(STUB)
        (tools / name).chmod(0o755)
    (tools / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (tools / "python3").chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


# --- package and service ----------------------------------------------------------------------------------------------


def test_the_key_is_long_enough(tmp_path: Path) -> None:
    """The server takes it."""
    key = run([*KEY, 'printf %s "$PROXY_API_KEY"'], tmp_path, PATH=stubs(tmp_path))
    assert re.fullmatch(r"mmp-[\w-]{40,}", key)


def test_the_package_is_ours_and_its_pythons_are_tested() -> None:
    """The extra exists; each version on the page is one that tests install on and the package declares."""
    create, install, version = PACKAGE
    place = create.split()[-1]
    assert {install.split()[0], version.split()[0]} == {f"{place}/bin/pip", f"{place}/bin/proxy"}
    extra = re.search(r'"\.\[(\w+)\]"', install)
    assert extra is not None
    assert extra[1] in PYPROJECT["project"]["optional-dependencies"]
    (said,) = re.findall(r"runs on Python ([\d., and]+);", PAGE)
    named = re.findall(r"3\.\d+", said)
    assert set(named) <= set(VERSIONS)
    declared = [line.rpartition(" ")[2] for line in PYPROJECT["project"]["classifiers"] if ":: 3." in line]
    assert named == declared
    assert unit()["ExecStart"][0].startswith(f"{place}/bin/")


@pytest.mark.slow
def test_the_build_prints_two_hashes(tmp_path: Path) -> None:
    """Of the wheel and the sdist."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    lines = [re.sub(r"\bdist\b", shlex.quote(str(tmp_path / "dist")), line) for line in BUILD]
    printed = run(lines, tmp_path, PATH=stubs(tmp_path))
    assert len(re.findall(r"^[0-9a-f]{64}  \S+\.(?:whl|tar\.gz)$", printed, re.MULTILINE)) == 2


@pytest.mark.slow
def test_the_service_is_installed(tmp_path: Path) -> None:
    """Everything lies where the unit looks for it; only root can read the keys."""
    path = stubs(tmp_path, "systemctl", "journalctl")
    command = tmp_path / "opt/multi-model-proxy/bin/proxy"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m proxy "$@"\n')
    command.chmod(0o755)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    lines = [re.sub(r"(?<![\w.])/(etc|opt)/", rf"{tmp_path}/\1/", line) for line in SERVICE]
    run(lines, tmp_path, PATH=path, PROXY_API_KEY="mmp-" + "k" * 43)
    config = tmp_path / "etc" / unit()["ConfigurationDirectory"][0]
    assert {file.name for file in config.iterdir()} == {"routing_rules.yaml", "pricing.yaml", "environment"}
    keys = tmp_path / unit()["EnvironmentFile"][0].lstrip("/")
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert keys.read_text() == f"PROXY_API_KEY=mmp-{'k' * 43}\n"
    assert (tmp_path / "etc/systemd/system" / UNIT_FILE.name).read_bytes() == UNIT_FILE.read_bytes()
    called = (tmp_path / "called").read_text().splitlines()
    assert [line.split()[0] for line in called] == ["systemctl", "systemctl", "systemctl", "journalctl"]
    assert all(line.endswith("daemon-reload") or UNIT_FILE.stem in line for line in called)


# --- the container ----------------------------------------------------------------------------------------------------


def test_docker_run_fits_the_dockerfile() -> None:
    """Volume, port and read-only root agree. Keys are passed by name, never by value."""
    (command,) = [words for words in DOCKER if words[1] == "run"]
    given = dict(pairwise(command[2:]))
    assert given["--volume"].partition(":")[2] == arguments("VOLUME")[0]
    assert given["--publish"] == f"127.0.0.1:8000:{arguments('EXPOSE')[0]}"
    assert given["--tmpfs"] == "/tmp"
    assert {"--read-only", "--cap-drop", "--security-opt"} <= set(command)
    assert [word for word in command if "PROXY_API_KEY" in word] == ["PROXY_API_KEY"]
    (build,) = [words for words in DOCKER if words[1] == "build"]
    assert command[-1] == build[build.index("--tag") + 1] == compose()["image"]
    name = command[command.index("--name") + 1]
    assert all(name in words for words in DOCKER if words[1] in ("exec", "logs", "stop"))


def test_the_image_has_the_extras_that_the_page_names() -> None:
    """The lock is what the image installs."""
    (line,) = re.findall(r"The image has the extras ([^.]+)\.", PAGE)
    lock = (ROOT / "requirements.lock").read_text()
    for extra in re.findall(r"`(\w+)`", line):
        for requirement in PYPROJECT["project"]["optional-dependencies"][extra]:
            assert re.search(rf"^{re.escape(requirement)}==", lock, re.MULTILINE), requirement


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def test_kubectl_names_what_the_manifests_define() -> None:
    """Objects, ports, files; the secret's names are variables of the product."""
    objects = {f"{kind.lower()}/{each['metadata']['name']}" for kind, each in kubernetes().items()}
    for words in KUBECTL:
        assert {word for word in words if re.match(r"(deployment|service)/", word)} <= objects
    (apply,) = [words for words in KUBECTL if words[1] == "apply"]
    assert (ROOT / apply[apply.index("--filename") + 1]).is_dir()
    (forward,) = [words for words in KUBECTL if words[1] == "port-forward"]
    assert forward[-1].rpartition(":")[2] == str(kubernetes()["Service"]["spec"]["ports"][0]["port"])
    assert container()["envFrom"][0]["secretRef"]["name"] in KUBECTL[0]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kubectl_makes_the_secret(tmp_path: Path) -> None:
    """The same command without a cluster."""
    line = f"{KUBECTL_LINES[0]} --dry-run=client --output yaml"
    made = run([line], tmp_path, PROXY_API_KEY="mmp-k", OPENAI_API_KEY="sk-o", HOME=str(tmp_path))
    assert {"PROXY_API_KEY: bW1wLWs=", "OPENAI_API_KEY: c2stbw=="} <= {row.strip() for row in made.splitlines()}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kubectl_reads_the_manifests(tmp_path: Path) -> None:
    """All of them together, as its own parser takes them."""
    folder = tmp_path / "all"
    shutil.copytree(ROOT / "deploy" / "kubernetes", folder)
    names = sorted(file.name for file in folder.iterdir())
    (folder / "kustomization.yaml").write_text("resources:\n" + "".join(f"- {name}\n" for name in names))
    printed = run([f"kubectl kustomize {shlex.quote(str(folder))}"], tmp_path, HOME=str(tmp_path))
    assert len(re.findall("^kind:", printed, re.MULTILINE)) == len(names)


# --- the time of a stop -----------------------------------------------------------------------------------------------


def test_the_table_of_stops_is_what_the_files_say() -> None:
    """And `docker stop` waits as long."""
    stops = dict(re.findall(r"^\| (\w+) \| .+ \| (\d+) \|$", PAGE, re.MULTILINE))
    (stop,) = [words for words in DOCKER if words[1] == "stop"]
    assert {name: int(seconds) for name, seconds in stops.items()} == {
        "systemd": int(unit()["TimeoutStopSec"][0]),
        "Docker": int(stop[stop.index("--time") + 1]),
        "Compose": int(compose()["stop_grace_period"].rstrip("s")),
        "Kubernetes": pod()["terminationGracePeriodSeconds"],
    }
    text = " ".join(PAGE.split())
    assert f"`server.grace_s` ({ServerConfig().grace_s:g} s)" in text
    assert f"at most {LAST_S:g} s" in text
    assert f"includes {container()['lifecycle']['preStop']['sleep']['seconds']} s of `preStop`" in text
