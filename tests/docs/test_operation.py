"""Runs the commands of docs/operation.md in order, and compares its tables with the code."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from proxy.config.server import ServerConfig
from proxy.server.metrics import FAMILIES
from tests.cli.commands import environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operation.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
SHELL = [line for block in BLOCKS for line in block.splitlines()]
MARK = "=== "


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The output of each command of the page. The first failing command ends the run."""
    if shutil.which("curl") is None:
        pytest.skip("the page uses curl")
    folder = tmp_path_factory.mktemp("operation")
    tools = tmp_path_factory.mktemp("tools")
    for name, command in (("proxy", f"exec {sys.executable} -m proxy"), ("python3", f"exec {sys.executable}")):
        (tools / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
        (tools / name).chmod(0o755)
    for name in ("routing_rules.yaml", "pricing.yaml"):
        shutil.copy(ROOT / name, folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    lines = ["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for line in SHELL:
        lines += [f"printf '%s\\n' {shlex.quote(MARK + line)}", line.replace("8000", port), "echo"]
    environ = environment()
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env={**environ, "PATH": f"{tools}:{environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, (
        f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{(folder / 'proxy.log').read_text()[-2000:]}"
    )
    parts = done.stdout.split(MARK)[1:]
    return {"folder": str(folder), **{part.partition("\n")[0]: part.partition("\n")[2] for part in parts}}


def output(printed: dict[str, str], words: str) -> str:
    """The output of the last command that contains these words."""
    return [text for command, text in printed.items() if words in command][-1]


@pytest.mark.slow
def test_every_command_does_what_the_page_says(printed: dict[str, str]) -> None:
    """Start, monitor, ask, reload, back up, stop, restore: every command exits with code 0."""
    assert printed.keys() == {"folder", *SHELL}
    assert '"status":"ok"' in output(printed, "/readyz")
    assert '"draining":false' in output(printed, "/health")
    assert '"model":"local/' in output(printed, "/v1/chat/completions")
    assert '"outcome":"ok"' in output(printed, "grep")
    assert '"calls":1' in output(printed, "/v1/usage")
    metrics = output(printed, "/metrics")
    assert all(f"# TYPE {family.exposed} {family.kind}\n" in metrics for family in FAMILIES.values())
    assert '"version":' in output(printed, "/admin/reload")


@pytest.mark.slow
def test_the_restored_database_holds_the_call(printed: dict[str, str]) -> None:
    """A backup taken while the server runs is complete."""
    folder = Path(printed["folder"])
    with closing(sqlite3.connect(folder / "proxy.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*), min(outcome) FROM calls").fetchone() == (1, "ok")


@pytest.mark.slow
def test_only_their_user_can_read_the_files(printed: dict[str, str]) -> None:
    """This applies to the database and the lock folder. The workers' folder is removed."""
    folder = Path(printed["folder"])
    assert stat.S_IMODE((folder / "proxy.db-owners").stat().st_mode) == 0o700
    for name in ("proxy.db", "backup.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert list((folder / "proxy.db-owners").iterdir()) == []


def test_the_table_of_metrics_matches_the_code() -> None:
    """Name, kind, labels and meaning of each metric, in order."""
    rows = [
        (family.exposed, family.kind, ", ".join(f"`{label}`" for label in family.labels) or "-", family.help)
        for family in FAMILIES.values()
    ]
    expected = "\n".join(f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in rows)
    assert expected in PAGE, expected


def test_alarms_watch_metrics_that_exist() -> None:
    """Every name on the page is a metric, or a series of one."""
    series = {family.exposed for family in FAMILIES.values()}
    for family in FAMILIES.values():
        if family.kind == "histogram":
            series |= {f"{family.name}_{suffix}" for suffix in ("bucket", "sum", "count")}
    assert set(re.findall(r"mmproxy_\w+", PAGE)) <= series
    labels = {label for family in FAMILIES.values() for label in family.labels} | {"le"}
    assert set(re.findall(r"(\w+)!?[=~]+\"", PAGE)) <= labels


def test_settings_on_the_page_exist() -> None:
    """Every `server.…` key and every PROXY_… variable."""
    known = set(ServerConfig.__struct_fields__)
    assert set(re.findall(r"server\.(\w+)", PAGE)) <= known
    variables = {f"PROXY_{name.upper()}" for name in known} | {"PROXY_API_KEY", "PROXY_ADMIN_KEY", "PROXY_KEYS_FILE"}
    assert set(re.findall(r"PROXY_\w+", PAGE)) <= variables


def test_links_lead_somewhere() -> None:
    """Linked files exist."""
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
