"""Runs the commands of docs/security.md and compares its tables and numbers with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli.serve import MIN_KEY
from proxy.config import Source, configure, load
from proxy.pipeline.admission import EXPECTED_OUTPUT
from proxy.pipeline.call_text import MAX_BYTES, MAX_HEAD
from proxy.pipeline.key_settings import KeyConfig
from proxy.pipeline.limits import ALL_FAILURES_PER_MINUTE, FAILURES_PER_MINUTE, RateLimit
from proxy.routing.allowed import Allowed, Views
from proxy.server.api.openapi import operations
from proxy.server.app import Application, server_auth
from proxy.server.auth import STALE_S
from proxy.server.log import build_log
from proxy.storage.settings import StorageConfig
from tests.cli.commands import environment
from tests.routing.test_names import names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TEXT = " ".join(PAGE.split())


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell")
@pytest.mark.slow
def test_the_commands_do_what_the_page_says(tmp_path: Path) -> None:
    """They run unchanged, in order."""
    (tmp_path / "routing_rules.yaml").write_text((ROOT / "routing_rules.yaml").read_text())
    (tmp_path / "proxy").write_text(f'#!/bin/sh\nexec {sys.executable} -m proxy "$@"\n')
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for name in ("proxy", "python3"):
        (tmp_path / name).chmod(0o755)
    environ = environment()
    done = subprocess.run(
        ["bash", "-euc", COMMANDS + 'printf "%s" "$PROXY_API_KEY" > own.key'],
        cwd=tmp_path,
        env={**environ, "PATH": f"{tmp_path}:{environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    keys = [(tmp_path / f"{name}.key").read_text().strip() for name in ("own", "mobile", "boss")]
    assert {(tmp_path / f"{name}.key").stat().st_mode & 0o077 for name in ("mobile", "boss")} == {0}
    assert all(re.fullmatch(r"mmp-[\w-]{43}", key) for key in keys)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("key_")]
    assert [row[1:5] for row in rows] == [
        ["mobile", "key", "on", keys[1][-4:]],
        ["boss", "admin", "on", keys[2][-4:]],
    ]
    assert f"Revoked mobile ({rows[0][0]})" in done.stdout
    database = (tmp_path / "proxy.db").read_bytes()
    assert [key for key in keys if key.encode() in database] == []


def test_the_table_of_roles_matches_the_code(tmp_path: Path) -> None:
    """A new route, or a new role of a route, has to appear there."""
    path = tmp_path / "routing_rules.yaml"
    path.write_text(f'version: 1\nstorage: {{url: "sqlite:///{tmp_path}/usage.db"}}\nproviders: {{}}\n')
    config = load(path, None, {})
    routes = Application(config, {}, server_auth({}, config), build_log("json")).litestar.routes
    stored = re.compile(r"/(prompts|experiments)")  # their roles differ by method: tests/server/api/test_security.py
    found = {path: handler.opt["role"] for path, _, handler in operations(routes) if not stored.search(path)}
    short = {path: role for path, role in found.items() if f"/v1{path}" not in found}
    assert dict(re.findall(r"^\| `(/\S+)` \| (\w+) \|$", PAGE, re.MULTILINE)) == short
    assert {f"/v1{path}" for path in found.keys() - short.keys()} == {path for path in short if path.startswith("/v1")}


def test_the_settings_on_the_page_load() -> None:
    """Those for prompts and answers, with the default of their retention."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    config = configure(Source("routing_rules.yaml", ("version: 1\nproviders: {}\n" + text).encode()), None, {})
    assert config.keys == {"audit": KeyConfig(store_text=True)}
    assert config.storage == StorageConfig()
    assert f"{MAX_BYTES // 1024} kB, only the first {MAX_HEAD} characters" in TEXT
    assert f"after the call ({StorageConfig().keep_text_days})" in TEXT


def test_numbers_on_the_page_match_the_code() -> None:
    """Seconds until a key works, failed attempts, key length, reserved tokens."""
    assert f"{FAILURES_PER_MINUTE} a minute from one address" in TEXT
    assert f"and {ALL_FAILURES_PER_MINUTE} in all" in TEXT
    assert f"fewer than {MIN_KEY} characters" in TEXT
    assert f"or {EXPECTED_OUTPUT} for each choice" in TEXT
    assert STALE_S < 2


def test_settings_on_the_page_exist() -> None:
    """Every setting under `keys.NAME` and `rate_limits`."""
    assert set(re.findall(r"keys\.NAME\.(\w+)", PAGE)) <= set(KeyConfig.__struct_fields__)
    for name in RateLimit.__struct_fields__:
        assert f"`{name}`" in PAGE


def test_the_example_of_an_allow_list_is_true() -> None:
    """`cheap` and `auto` are answered by what `cheap` uses, never by `smart`."""
    assert 'models: [cheap, "auto*"]' in PAGE
    changes = {"models": {"cheap": names().models["best"], "smart": names().models["smart"]}, "aliases": {}}
    router = type(names().router)(default_model="cheap", fallback=["groq/fast"])
    views = Views(names(router=router, **changes))
    for asked in ("cheap", "auto"):
        allowed = Allowed("mobile", (("cheap", "auto*"),))
        assert [d.name for d in views.resolve(asked, 0.0, allowed).candidates] == ["openai/gpt-a"]
        assert asked == "cheap" or len(views.resolve(asked, 0.0, None).candidates) == 2


def test_error_codes_on_the_page_exist() -> None:
    """Every error code on the page is one that the code uses."""
    source = "".join(path.read_text() for path in (ROOT / "proxy").rglob("*.py"))
    codes = ("admin_required", "model_not_allowed", "rate_limit_exceeded", "storage_unavailable", "origin_not_allowed")
    for code in codes:
        assert f"`{code}`" in PAGE
        assert f'"{code}"' in source
