"""`proxy providers` and `proxy models`: which providers and models can be called, and which providers answer."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.cli.commands import proxy
from tests.serving import write_files
from tests.upstream import FakeUpstream, key_hash
from tests.upstream.fake import refusing, spawn

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  good: {{type: openai, base_url: "{upstream}", allow_private: true, retries: 0, models: {{default: e500, fast: ok}}}}
  wrong: {{type: openai, base_url: "{upstream}", allow_private: true, retries: 0, models: {{default: e401}}}}
  gone: {{type: vllm, base_url: "http://127.0.0.1:{gone}/v1", allow_private: true, retries: 0, models: {{default: x}}}}
  none: {{type: vllm, base_url: "http://127.0.0.1:{gone}/v1", allow_private: true}}
  keyed: {{type: groq}}
  closed: {{type: ollama, enabled: false, allow_private: true}}
models: {{mine: good/ok}}
"""
PRICING = "version: 1\nmodels: {good/ok: {input: 2, output: 10, cached_input: 0.5, context: 8000}}\n"


@pytest.fixture(scope="module")
def upstream():
    with spawn() as running, refusing() as gone:
        yield running, gone.rpartition(":")[2].partition("/")[0]


@pytest.fixture
def folder(tmp_path, upstream):
    running, gone = upstream
    write_files(tmp_path, running.url, ROUTING.replace("{gone}", gone), PRICING)
    return tmp_path


def listed(done):
    return {row["name"]: row for row in json.loads(done.stdout)["providers"]}


def test_each_provider_has_a_line(folder):
    """Type, state, and the reason if it is off."""
    done = proxy("providers", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(None, 3) for line in done.stdout.splitlines()] == [
        ["NAME", "TYPE", "STATE", "WHY"],
        ["good", "openai", "on", "-"],
        ["wrong", "openai", "on", "-"],
        ["gone", "vllm", "on", "-"],
        ["none", "vllm", "on", "-"],
        ["keyed", "groq", "off", "set GROQ_API_KEY to enable it"],
        ["closed", "ollama", "off", "switched off"],
    ]


def test_json_has_the_same_facts_and_nothing_else(folder):
    """It makes no call and needs no database."""
    rows = listed(proxy("providers", "--json", cwd=folder))
    assert rows["keyed"] == {
        "name": "keyed",
        "type": "groq",
        "state": "off",
        "why": "set GROQ_API_KEY to enable it",
    }
    assert list(rows) == ["good", "wrong", "gone", "none", "keyed", "closed"]
    assert not (folder / "usage.db").exists()


def test_a_ping_reports_answers_and_failures(folder):
    """One call to each small model, with the code of each failure. Exit code 1."""
    done = proxy("providers", "--ping", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    pings = {name: row["ping"] for name, row in listed(done).items()}
    assert pings["good"] | {"latency_ms": 0} == {
        "ok": True,
        "model": "good/ok",
        "latency_ms": 0,
        "cost_usd": pings["good"]["cost_usd"],
        "error": None,
    }
    assert pings["good"]["cost_usd"] == pytest.approx((2 * 2 + 10 * 10) / 1e6)
    assert not pings["wrong"]["ok"] and pings["wrong"]["error"]
    assert pings["wrong"]["model"] == "wrong/e401"
    assert pings["gone"]["error"].startswith("upstream_unavailable: ")
    assert pings["none"] == {
        "ok": False,
        "model": None,
        "latency_ms": None,
        "cost_usd": None,
        "error": "no known model; set providers.none.models.default",
    }
    assert (pings["keyed"], pings["closed"]) == (None, None)


def test_a_ping_is_metered(folder):
    """Like every other call: three rows, one of them with a cost."""
    proxy("providers", "--ping", cwd=folder)
    done = proxy("usage", "--group-by", "provider", "--json", cwd=folder)
    groups = {group["provider"]: group for group in json.loads(done.stdout)["groups"]}
    assert {name: (group["calls"], group["successes"]) for name, group in groups.items()} == {
        "good": (1, 1),
        "wrong": (1, 0),
        "gone": (1, 0),
    }
    assert groups["good"]["cost_usd"] == pytest.approx(0.000104)


def test_a_ping_as_a_table_names_the_model(folder):
    """The last column has the reason."""
    done = proxy("providers", "--ping", cwd=folder)
    lines = {line.split()[0]: line.split(None, 6) for line in done.stdout.splitlines()}
    assert lines["good"][:3] == ["good", "openai", "ok"]
    assert lines["good"][4:] == ["0.000104", "good/ok", "-"]
    assert lines["gone"][2:6] == ["failed", "-", "-", "gone/x"]
    assert lines["closed"][2:] == ["off", "-", "-", "-", "switched off"]


def test_success_exits_with_0(tmp_path, upstream):
    """So that a script can wait for it."""
    write_files(tmp_path, upstream[0].url, pricing=PRICING)
    text = (tmp_path / "routing_rules.yaml").read_text().replace("price: null,", "models: {default: ok},")
    (tmp_path / "routing_rules.yaml").write_text(text)
    done = proxy("providers", "--ping", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unusable_database_is_one_line(folder):
    """No call is made unmetered."""
    done = proxy("providers", "--ping", "--db", "no/such/folder/u.db", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "no/such/folder/u.db" in done.stderr


# --- several keys -----------------------------------------------------------------------------------------------------

ROTATING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  vendor:
    type: openai
    base_url: "{upstream}"
    allow_private: true
    api_key_env: {{rotate: [VENDOR_A, VENDOR_B, VENDOR_C]}}
    models: {{default: ok}}
"""


def test_keys_are_shown_by_their_variables(tmp_path):
    """How many of them are set, and which."""
    write_files(tmp_path, "http://127.0.0.1:9/v1", ROTATING)
    variables = {"VENDOR_A": "canary-a", "VENDOR_C": "canary-c"}
    done = proxy("providers", cwd=tmp_path, **variables)
    assert done.stdout.splitlines()[1].split(None, 3) == ["vendor", "openai", "on", "2 of 3 keys: VENDOR_A, VENDOR_C"]
    rows = listed(proxy("providers", "--json", cwd=tmp_path, **variables))
    assert rows["vendor"]["why"] == "2 of 3 keys: VENDOR_A, VENDOR_C"
    off = proxy("providers", cwd=tmp_path)
    assert "set VENDOR_A or VENDOR_B or VENDOR_C to enable it" in off.stdout
    checked = proxy("check", cwd=tmp_path, VENDOR_A="canary-same", VENDOR_C="canary-same")
    assert "note: providers.vendor: VENDOR_B is not set\n" in checked.stdout
    assert "rotate.2: VENDOR_C holds the same key as VENDOR_A" in checked.stderr
    assert checked.returncode == 0
    for text in (done.stdout, checked.stdout, checked.stderr):
        assert "canary" not in text


async def test_a_ping_tries_every_key(tmp_path):
    """The provider answers; the reason names the key that the vendor refused."""
    keys = {f"VENDOR_{name}": f"canary-of-{name}" for name in "ABC"}
    async with FakeUpstream() as fake:
        write_files(tmp_path, fake.url, ROTATING)
        fake.key_modes[key_hash("canary-of-B")] = "e401"
        done = await asyncio.to_thread(proxy, "providers", "--ping", "--json", cwd=tmp_path, **keys)
        sent = {seen.authorization for seen in fake.ledger}
    assert sent == {key_hash(key) for key in keys.values()}
    ping = listed(done)["vendor"]["ping"]
    assert (ping["ok"], ping["error"]) == (True, "refused: VENDOR_B (invalid_api_key)")
    assert (done.returncode, done.stderr) == (0, "")
    assert "canary" not in done.stdout


# --- models -----------------------------------------------------------------------------------------------------------


def test_models_match_v1_models(folder):
    """The same shape, with prices and sizes. The ledger stays closed."""
    done = proxy("models", "--json", cwd=folder)
    missing = [line.rpartition(" models: ")[0] + " models" for line in done.stderr.splitlines()]
    assert (done.returncode, missing) == (
        0,
        ["note: gone did not list its models", "note: none did not list its models"],
    )
    answer = json.loads(done.stdout)
    cards = {card["id"]: card for card in answer["data"]}
    assert answer["object"] == "list"
    assert {"auto", "mine", "good/ok", "good/e500", "gone/x"} <= set(cards)
    assert cards["mine"] | {"created": 0} == {
        "id": "mine",
        "object": "model",
        "created": 0,
        "owned_by": "good",
        "resolves_to": "good/ok",
        "pricing": {"input": 2.0, "output": 10.0, "cached_input": 0.5},
        "context_length": 8000,
    }
    assert not (folder / "usage.db").exists()


def test_models_that_a_server_lists_are_included(tmp_path, upstream):
    """Read over the network, whichever transport calls use. A wrong certificate file gives one line."""
    write_files(tmp_path, upstream[0].url, ROUTING.replace("{gone}", "9"), PRICING)
    names = proxy("models", cwd=tmp_path).stdout.split()
    assert {"good/stall_after", "wrong/stall_after"} <= set(names)
    routing = tmp_path / "routing_rules.yaml"
    routing.write_text(routing.read_text().replace("good: {", "good: {ca_file: missing.pem, "))
    done = proxy("models", cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "providers.good.ca_file: cannot be used: no such file" in done.stderr


def test_models_as_a_table(folder):
    """Context, prices, and what a name resolves to."""
    lines = [line.split() for line in proxy("models", cwd=folder).stdout.splitlines()]
    assert lines[0] == ["NAME", "CONTEXT", "INPUT", "OUTPUT", "CACHED", "MODEL"]
    assert ["mine", "8000", "2", "10", "0.5", "good/ok"] in lines
    assert ["good/e500", "-", "0", "0", "-", "good/e500"] in lines
