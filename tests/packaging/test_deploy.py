"""The files of deploy/ fit the product and the image: what they name exists, what they promise holds.

No engine, cluster or init system is needed: a server is started as each file says, with its paths moved to a folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk import environment_variables

from proxy import __version__
from proxy.config import Source, configure
from proxy.config.server import ServerConfig
from proxy.providers import PROVIDERS
from proxy.server.telemetry.exporting import LAST_S
from tests.cli.commands import environment, wait_until
from tests.packaging.manifests import (
    DEPLOY,
    UNIT_FILE,
    compose,
    container,
    kubernetes,
    pod,
    read_yaml,
    unit,
    unit_environment,
)
from tests.packaging.test_container import arguments, variables

ROOT = DEPLOY.parent
KEY = "mmp-a-key-for-a-deployment"
GRACE_S = ServerConfig().grace_s
AFTER_GRACE_S = 2 + LAST_S  # the server's own end, and its telemetry's
USER = arguments("USER")[-1]
DATA = arguments("VOLUME")[0]
PORT = int(arguments("EXPOSE")[0])
DOCUMENTED = set(re.findall(r"^\| `(PROXY_\w+)` \|", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE))


def known_variables() -> set[str]:
    """Every variable that the product reads."""
    keys = {name for provider in PROVIDERS.values() for name in provider.key_env}
    return DOCUMENTED | keys | set(vars(environment_variables)) | {"PYTHONSAFEPATH", "PYTHONUNBUFFERED"}


# --- compose.yaml -----------------------------------------------------------------------------------------------------


def test_compose_runs_the_image_as_it_is_meant_to_run() -> None:
    """Without root and capabilities, on a read-only root; its volume, port and health check are the image's."""
    service = compose()
    assert (service["read_only"], service["cap_drop"], service["user"]) == (True, ["ALL"], USER)
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["volumes"] == [f"data:{DATA}"]
    assert set(read_yaml(DEPLOY / "compose.yaml")["volumes"]) == {"data"}
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    (check,) = arguments("HEALTHCHECK")
    assert service["healthcheck"]["test"] == ["CMD", *json.loads(check.partition("CMD ")[2])]
    times = dict(re.findall(r"--([a-z-]+)=(\w+)", check))
    assert {name.replace("-", "_"): value for name, value in times.items()} == {
        name: str(value) for name, value in service["healthcheck"].items() if name != "test"
    }
    assert (DEPLOY / service["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_compose_limits_what_a_server_may_take() -> None:
    """Memory, processors, processes, open files, logs."""
    service = compose()
    assert {"cpus", "mem_limit", "pids_limit"} <= service.keys()
    assert service["ulimits"]["nofile"] >= 4 * ServerConfig().max_in_flight + 256
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert any(each.startswith("/tmp:") for each in service["tmpfs"])


def test_compose_passes_on_variables_that_exist() -> None:
    """Every shipped provider's key among them; a key for clients is required, and no value is in the file."""
    given: dict[str, Any] = compose()["environment"]
    assert set(given) <= known_variables()
    assert {name for name, value in given.items() if value is not None} == {"PROXY_API_KEY"}
    assert given["PROXY_API_KEY"].startswith("${PROXY_API_KEY:?")
    for provider in read_yaml(ROOT / "routing_rules.yaml")["providers"].values():
        names = provider.get("api_key_env") or []
        if first := names if isinstance(names, str) else next(iter(names), None):
            assert first in given


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def test_the_manifests_refer_to_each_other() -> None:
    """Labels, ports, volumes, the configuration and the claim lead somewhere; the secret is the one of the page."""
    objects, spec = kubernetes(), pod()
    assert objects.keys() == {"ConfigMap", "Deployment", "PersistentVolumeClaim", "Service"}
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    (port,) = container()["ports"]
    (service_port,) = objects["Service"]["spec"]["ports"]
    assert (service_port["targetPort"], service_port["port"]) == (port["name"], port["containerPort"])
    assert port["containerPort"] == PORT
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == volumes.keys()
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == objects["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["config"]["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
    assert container()["image"] == f"multi-model-proxy:{__version__}"
    (secret,) = [each["secretRef"]["name"] for each in container()["envFrom"]]
    assert f"kubectl create secret generic {secret} " in (ROOT / "docs/deployment.md").read_text()


def test_the_pod_has_no_rights() -> None:
    """The user is the image's; nothing can be written but the volume and /tmp."""
    spec, own = pod(), container()["securityContext"]
    user, group = map(int, USER.split(":"))
    context = spec["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, group, group)
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    writable = {mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {DATA, "/tmp"}
    assert {"memory"} == container()["resources"]["limits"].keys()


def test_one_pod_at_a_time_has_the_database() -> None:
    """One replica, and never an old and a new one together."""
    spec = kubernetes()["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert kubernetes()["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_its_configuration_loads() -> None:
    """With the database on the volume."""
    text = kubernetes()["ConfigMap"]["data"]["routing_rules.yaml"]
    config = configure(Source("routing_rules.yaml", text.encode()), Source("pricing.yaml", b"version: 1\n"), {})
    assert config.storage.url == f"sqlite:///{DATA}/proxy.db"


def test_its_variables_exist() -> None:
    """They name the file that is mounted."""
    given = {each["name"]: each["value"] for each in container()["env"]}
    assert given.keys() <= known_variables()
    (mount,) = [each["mountPath"] for each in container()["volumeMounts"] if each["name"] == "config"]
    folder, name = os.path.split(given["PROXY_CONFIG"])
    assert folder == mount
    assert name in kubernetes()["ConfigMap"]["data"]


# --- the time of a stop -----------------------------------------------------------------------------------------------


def test_whatever_stops_the_server_waits_long_enough() -> None:
    """For calls in flight, the last telemetry and the database."""
    pause_s = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= pause_s + GRACE_S + AFTER_GRACE_S
    assert int(compose()["stop_grace_period"].rstrip("s")) >= GRACE_S + AFTER_GRACE_S
    assert int(unit()["TimeoutStopSec"][0]) >= GRACE_S + AFTER_GRACE_S


# --- systemd ----------------------------------------------------------------------------------------------------------


def test_the_unit_sets_variables_that_exist() -> None:
    """And paths that it may write or read."""
    given = unit_environment()
    assert given.keys() <= known_variables()
    (state,), (config,) = unit()["StateDirectory"], unit()["ConfigurationDirectory"]
    assert given["PROXY_DB"].startswith(f"/var/lib/{state}/")
    assert {os.path.dirname(given[name]) for name in ("PROXY_CONFIG", "PROXY_PRICING")} == {f"/etc/{config}"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """No unknown setting, no wrong value; the page tells its rating."""
    path = tmp_path / UNIT_FILE.name
    command = shutil.which("true")
    assert command is not None
    path.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={command}", UNIT_FILE.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if UNIT_FILE.stem in line or str(path) in line]
    assert (done.returncode, told) == (0, [])
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in rated.stderr:
        pytest.skip("this systemd-analyze cannot rate files")
    assert rated.returncode == 0, rated.stdout[-2000:]
    found = re.search(r"exposure level for \S+: ([\d.]+)", rated.stdout)
    assert found is not None
    print(f"exposure {found[1]}")
    assert f"rates the unit {found[1]} of 10" in " ".join((ROOT / "docs/deployment.md").read_text().split())


# --- a server as each file says ---------------------------------------------------------------------------------------

# Refuses memory that is writable and executable, as MemoryDenyWriteExecute does; older kernels do not know it.
STRICT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execv(sys.executable, sys.argv[1:])"


@contextmanager
def started(
    folder: Path, given: dict[str, str], *, strict: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`proxy serve` with these variables; yields it and its address once it is alive."""
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0"]
    command = [sys.executable, "-c", STRICT, *command] if strict else command
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(**given), stdout=out, stderr=log)
    try:
        wait_until(
            lambda: process.poll() is not None or "  curl " in (folder / "out").read_text(), "it says where it is"
        )
        found = re.search(r"http://\S+?:(\d+)/v1", (folder / "out").read_text())
        assert found is not None, (folder / "log").read_text()
        url = f"http://127.0.0.1:{found[1]}"
        wait_until(lambda: process.poll() is not None or answers(f"{url}/livez"), "it is alive")
        assert process.poll() is None, (folder / "log").read_text()
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_pod_is_alive_ready_and_ends_in_time(tmp_path: Path) -> None:
    """Its probes succeed as the kubelet sends them, by address and without a key; SIGTERM ends it with code 0."""
    (tmp_path / "data").mkdir()
    rules = kubernetes()["ConfigMap"]["data"]["routing_rules.yaml"].replace(
        f"sqlite:///{DATA}/", f"sqlite:///{tmp_path}{DATA}/"
    )
    (tmp_path / "routing_rules.yaml").write_text(rules)
    given = {name: value for name, value in variables().items() if name != "PROXY_PORT"}
    given |= {each["name"]: each["value"] for each in container()["env"]}
    given |= {"PROXY_CONFIG": str(tmp_path / "routing_rules.yaml"), "PROXY_API_KEY": KEY}
    with started(tmp_path, given) as (process, url):
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container()[name]["httpGet"]
            assert probe["port"] == container()["ports"][0]["name"]
            headers = {"host": f"10.1.2.3:{PORT}", "user-agent": "kube-probe/1.34"}
            assert httpx.get(url + probe["path"], headers=headers).status_code == 200, name
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
        assert (tmp_path / "data" / "proxy.db").exists()
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=pod()["terminationGracePeriodSeconds"]) == 0
        print(f"ended after {time.monotonic() - begun:.1f} s")


@pytest.mark.slow
def test_a_service_serves_reloads_and_ends(tmp_path: Path) -> None:
    """As the unit says: its variables, without memory that is writable and executable, reload by SIGHUP."""
    shutil.copy(ROOT / "routing_rules.yaml", tmp_path)
    shutil.copy(ROOT / "pricing.yaml", tmp_path)
    given = {
        name: re.sub(r"^(/etc|/var/lib)/[^/]+", str(tmp_path), value) for name, value in unit_environment().items()
    }
    assert unit()["ExecStart"][0].endswith("/bin/proxy serve")
    with started(tmp_path, {**given, "PROXY_API_KEY": KEY}, strict=True) as (process, url):
        headers = {"authorization": f"Bearer {KEY}"}
        question = {"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=question, headers=headers, timeout=120)
        assert (answer.status_code, answer.json()["model"]) == (200, "local/smollm2-135m"), answer.text
        assert unit()["ExecReload"] == ["kill -HUP $MAINPID"]
        (tmp_path / "new").write_text("version: 1\nproviders: {local: {type: embedded}}\n")
        (tmp_path / "new").replace(tmp_path / "routing_rules.yaml")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: '"config_reloaded"' in (tmp_path / "log").read_text(), "it has read the files again")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=int(unit()["TimeoutStopSec"][0])) == 0


@pytest.mark.slow
def test_a_wrong_configuration_is_not_started_again(tmp_path: Path) -> None:
    """Its exit code is the one that the unit excludes."""
    (tmp_path / "routing_rules.yaml").write_text("version: 1\nprovider: {}\n")
    given = {"PROXY_CONFIG": str(tmp_path / "routing_rules.yaml")}
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(**given), capture_output=True, timeout=60, check=False)
    assert str(done.returncode) in unit()["RestartPreventExitStatus"]
