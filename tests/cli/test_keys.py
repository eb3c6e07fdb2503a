"""`proxy keys`: a key is shown once, listed without its text, and can be revoked."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from click.testing import CliRunner

from proxy.cli import main
from tests.cli.commands import PATIENCE_S, ask, proxy, server

LOCAL = """version: 1
providers:
  fake: {type: openai, base_url: "http://127.0.0.1:9/v1", allow_private: true, retries: 0}
models: {cheap: fake/a, smart: {use: fake/b, fallback: [cheap]}}
"""
FOLLOWS_S = 2.0


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "routing_rules.yaml").write_text(LOCAL)
    return tmp_path


def keys(folder, *arguments, code=0):
    """What a command wrote: standard output, standard error. It runs in this process, which is much faster."""
    places = ["--config", str(folder / "routing_rules.yaml"), "--db", str(folder / "proxy.db")]
    done = CliRunner().invoke(main, ["keys", arguments[0], *places, *arguments[1:]], prog_name="proxy")
    assert done.exit_code == code, (done.stderr, done.exception)
    return done.stdout, done.stderr


def listed(folder):
    return json.loads(keys(folder, "list", "--json")[0])["keys"]


def test_a_key_is_shown_once_and_alone_on_standard_output(folder):
    """So that `KEY=$(proxy keys create NAME)` works; 256 bits behind a prefix that tells what it is."""
    out, err = keys(folder, "create", "mobile")
    key = out.strip()
    assert re.fullmatch(r"mmp-[A-Za-z0-9_-]{43}", key)
    assert out == f"{key}\n"
    assert "shown only once" in err
    assert key not in err
    again, _ = keys(folder, "create", "mobile")
    assert again != out
    for data in (path.read_bytes() for path in folder.rglob("*") if path.is_file()):
        assert key.encode() not in data
    shown, _ = keys(folder, "list")
    assert key not in shown
    assert key[-4:] in shown


def test_the_list_has_everything_but_the_keys(folder):
    """As a table and as JSON."""
    made = json.loads(keys(folder, "create", "m", "--models", "cheap, fake/*", "--expires", "2199-01-31", "--json")[0])
    boss, _ = keys(folder, "create", "boss", "--role", "admin")
    keys(folder, "revoke", "boss")
    one, two = listed(folder)
    assert {"key": made["key"], **one} == made
    assert one == {
        "id": made["id"],
        "name": "m",
        "role": "key",
        "state": "on",
        "ends_in": made["key"][-4:],
        "created": one["created"],
        "expires": "2199-01-31T00:00:00Z",
        "revoked": None,
        "models": ["cheap", "fake/*"],
    }
    assert (two["name"], two["role"], two["state"], two["models"]) == ("boss", "admin", "revoked", None)
    assert two["created"] <= two["revoked"]
    assert boss.strip() not in json.dumps([one, two])
    lines = keys(folder, "list")[0].splitlines()
    assert lines[0].split() == ["ID", "NAME", "ROLE", "STATE", "ENDS_IN", "CREATED", "EXPIRES", "REVOKED", "MODELS"]
    assert lines[1].split()[:4] == [made["id"], "m", "key", "on"]


def test_an_empty_list_creates_no_database(folder):
    """Looking does not create anything."""
    out, err = keys(folder, "list")
    assert (out, "proxy keys create NAME" in err) == ("", True)
    assert json.loads(keys(folder, "list", "--json")[0]) == {"keys": []}
    assert "no key has the name" in keys(folder, "revoke", "mobile", code=1)[1]
    assert [path.name for path in folder.iterdir()] == ["routing_rules.yaml"]


@pytest.mark.slow
def test_revoking_ends_one_key_or_all_keys_of_a_name(folder):
    """Revoking twice does no harm. An unknown name is an error."""
    ids = [json.loads(keys(folder, "create", "mobile", "--json")[0])["id"] for _ in range(3)]
    revoked = json.loads(keys(folder, "revoke", ids[0], "--json")[0])["revoked"]
    assert [(key["id"], key["state"]) for key in revoked] == [(ids[0], "revoked")]
    assert [key["state"] for key in listed(folder)] == ["revoked", "on", "on"]
    out, _ = keys(folder, "revoke", "mobile")
    assert [key_id in out for key_id in ids] == [False, True, True]
    assert keys(folder, "revoke", "mobile")[0] == "Already revoked.\n"
    assert keys(folder, "revoke", "mobil", code=1)[0] == ""


def test_the_first_key_says_that_it_closes_the_server_and_the_last_that_it_opens_it(folder):
    """With the two ways to open it again. Further keys change nothing, so they say nothing."""
    first = keys(folder, "create", "one")[1]
    assert "refuses callers without a key" in first
    assert "proxy keys revoke one" in first and "PROXY_REQUIRE_KEY=false" in first
    assert "callers without a key" not in keys(folder, "create", "two")[1]
    assert "without a key again" not in keys(folder, "revoke", "one")[0]
    assert "without a key again" in keys(folder, "revoke", "two")[0]
    assert "refuses callers without a key" in keys(folder, "create", "three")[1]


@pytest.mark.parametrize("section", ["{require_key: true}", "{require_key: false}", "{host: 0.0.0.0}"])
def test_where_keys_change_nothing_for_keyless_callers_nothing_is_said(folder, section):
    """Such a server always needs a key, or never."""
    (folder / "routing_rules.yaml").write_text(f"{LOCAL}server: {section}\n")
    assert "callers without a key" not in keys(folder, "create", "one")[1]
    assert "without a key again" not in keys(folder, "revoke", "one")[0]


@pytest.mark.parametrize("variables", [{}, {"PROXY_REQUIRE_KEY": "false"}])
@pytest.mark.slow
def test_the_curl_line_needs_no_key_where_the_server_needs_none(folder, variables):
    """After the last key was revoked, or where keys are optional."""
    keys(folder, "create", "one")
    if not variables:
        keys(folder, "revoke", "one")
    with server(folder, "--port", "0", **variables) as running:
        assert "Bearer" not in running.banner
        assert httpx.get(f"{running.base_url}/models", timeout=PATIENCE_S).status_code == 200


def test_a_key_given_for_a_name_is_not_repeated(folder):
    """It may be on a screen that others see."""
    key = keys(folder, "create", "mobile")[0].strip()
    out, err = keys(folder, "revoke", key, code=1)
    assert key not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["default"], "is not a valid key name"),
        (["admin"], "is not a valid key name"),
        (["a b"], "is not a valid key name"),
        (["-"], "is not a valid key name"),
        (["a/b"], "is not a valid key name"),
        (["key_1"], "is not a valid key name"),
        (["mmp-abc"], "is not a valid key name"),
        (["a" * 65], "is not a valid key name"),
        (["a", "--models", "cheep"], '--models: unknown model "cheep"; did you mean "cheap"?'),
        (["a", "--models", "nobody/x"], '--models: unknown provider "nobody"'),
        (["a", "--models", " , "], "--models is empty"),
        (["a", "--expires", "2026-02-30"], "expected a valid date"),
        (["a", "--expires", "tomorrow"], "expected a valid date"),
        (["a", "--expires", "2020-01-01"], "has already begun"),
        (["a", "--expires", "2999-01-01"], "the latest possible day is 2262-04-11"),
        (["a", "--role", "root"], "'root' is not one of"),
    ],
)
@pytest.mark.sampled(4)
def test_invalid_values_are_refused_and_create_nothing(folder, arguments, message):
    """One line says why."""
    out, err = keys(folder, "create", *arguments, code=2)
    assert out == ""
    assert message in err
    assert not (folder / "proxy.db").exists()


@pytest.mark.slow
def test_a_running_server_follows(folder):
    """Within two seconds it accepts a new key and rejects a revoked one, without a restart, with two workers too."""
    first = keys(folder, "create", "first")[0].strip()
    with server(folder, "--port", "0", "--workers", "2") as running:
        assert "authorization: Bearer $KEY" in running.banner

        def follows(key, status):
            started = time.monotonic()
            alike = 0
            while alike < 10:  # whichever worker answers
                answer = httpx.get(f"{running.base_url}/models", headers={"x-api-key": key}, timeout=PATIENCE_S)
                alike = alike + 1 if answer.status_code == status else 0
                assert alike or time.monotonic() - started < FOLLOWS_S, (answer.status_code, status)

        follows(first, 200)
        follows("", 401)
        second = keys(folder, "create", "second", "--models", "cheap")[0].strip()
        follows(second, 200)
        assert ask(running, "fake/b", {"authorization": f"Bearer {second}"}).status_code == 403
        keys(folder, "revoke", "first")
        follows(first, 401)
        follows(second, 200)


@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_network_needs_a_key_that_opens(folder, host):
    """One in the database will do, unless it has ended; the refusal names the command (S01)."""
    refused = proxy("serve", "--host", host, "--port", "0", cwd=folder)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[-1] == "  proxy keys create NAME"
    assert not (folder / "proxy.db").exists()
    key = keys(folder, "create", "mobile")[0].strip()
    with server(folder, "--host", host, "--port", "0") as running:
        url = f"http://127.0.0.1:{running.port}/v1/models"
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers={"authorization": f"Bearer {key}"}).status_code == 200
        assert key not in running.banner
    keys(folder, "revoke", "mobile")
    refused = proxy("serve", "--host", host, "--port", "0", cwd=folder)
    assert (refused.returncode, "needs a key" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_a_key_that_can_be_guessed_is_reported(folder):
    """The limiter slows guesses down, but does not make a bad key good."""
    with server(folder, "--port", "0", PROXY_API_KEY="secret", PROXY_ADMIN_KEY="long-enough-to-be-random") as running:
        assert "note: PROXY_API_KEY has fewer than 16 characters and can be guessed" in running.banner
        assert "PROXY_ADMIN_KEY has" not in running.banner
