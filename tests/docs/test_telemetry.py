"""docs/telemetry.md is true: its tables are the code's, its commands and its configuration work."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from opentelemetry import environment_variables as api
from opentelemetry.sdk import environment_variables
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes

from proxy.config import Source, configure
from proxy.server.telemetry.exporting import LAST_S
from proxy.server.telemetry.sdk import SELDOM_S
from tests.cli.commands import environment
from tests.server.telemetry.collector import collecting
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text()
CODE = ROOT / "proxy" / "server" / "telemetry"


def table(heading: str) -> list[list[str]]:
    """The rows below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_names_every_attribute_of_spans() -> None:
    """And none that does not exist."""
    code = (CODE / "attributes.py").read_text()
    modules = {
        "ai": gen_ai_attributes,
        "error_attributes": error_attributes,
        "http_attributes": http_attributes,
        "server_attributes": server_attributes,
    }
    used = {
        getattr(modules[module], name) for module, name in re.findall(rf"\b({'|'.join(modules)})\.([A-Z_]+)\b", code)
    }
    expected = used | set(re.findall(r'"(mmproxy\.\w+)"', code))
    assert {name for row in table("Traces") for name in names(row[0])} == expected


def test_the_page_names_every_metric_with_its_unit() -> None:
    """In the conventions' words."""
    code = (CODE / "recording.py").read_text()
    expected = {getattr(gen_ai_metrics, name) for name in re.findall(r"\bnames\.([A-Z_]+)\b", code)}
    assert {names(row[0])[0] for row in table("Metrics")} == expected
    assert {names(row[1])[0] for row in table("Metrics")} == {"s", "{token}"}


def test_every_variable_is_one_of_the_sdk() -> None:
    """A mistyped one would do nothing, silently."""
    known = {*vars(environment_variables), *vars(api)}
    assert [name for row in table("Variables") for name in names(row[0]) if name not in known] == []


def test_its_limits_are_the_codes() -> None:
    """Seconds at shutdown, and between two lines of the log."""
    text = " ".join(PAGE.split())
    assert "at most three seconds" in text
    assert "once a minute" in text
    assert (LAST_S, SELDOM_S) == (3, 60)


def test_its_configuration_loads() -> None:
    """The provider that is told of traces."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    config = configure(Source("routing_rules.yaml", text.encode()), Source("pricing.yaml", b"version: 1\n"), {})
    assert config.providers["vllm"].trace_context


@pytest.mark.slow
def test_its_commands_send_a_trace(tmp_path: Path) -> None:
    """The extra is one of the package, the variable leads to a collector, and the server reports a call."""
    (text,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    install, *commands = text.splitlines()
    extra = re.fullmatch(r'pip install "multi-model-proxy\[(\w+)\]"', install)
    assert extra is not None
    assert extra[1] in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("routing_rules.yaml", "pricing.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with collecting() as collector:
        script = "\n".join(commands).replace("http://127.0.0.1:4318", collector.url).replace("8000", port)
        script = script.replace("proxy serve", f"exec {shlex.quote(sys.executable)} -m proxy serve")
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=environment(), stdout=log, stderr=log)
        try:
            transport = httpx.HTTPTransport(retries=0)
            with httpx.Client(transport=transport, timeout=PATIENCE_S) as client:
                ask_when_up(client, process, port)
            collector.wait_for("/v1/traces")
            process.terminate()
            assert process.wait(timeout=PATIENCE_S) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
        assert len(collector.spans()) == 1  # nobody was asked: there is no such model


def ask_when_up(client: httpx.Client, process: subprocess.Popen[bytes], port: str) -> None:
    """One call, as soon as the server listens."""
    body = {"model": "nobody/knows", "messages": [{"role": "user", "content": "Hello"}]}
    while process.poll() is None:
        try:
            assert client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body).status_code == 404
            return
        except httpx.ConnectError:
            continue
    raise AssertionError("the server has ended")
