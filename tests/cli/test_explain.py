"""`proxy explain` says what a call would get: from the files, or from a running server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cli.commands import PATIENCE_S, environment, proxy
from tests.serving import Spawned, spawned, write_files
from tests.upstream.fake import spawn

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models:
  texts: {{use: "fake/ok(tag=text)", fallback: [fake/ok]}}
router: {{default_model: fake/ok}}
ensembles:
  pair: {{strategy: voting, members: [texts, fake/ok], below: escalate, escalate_to: "fake/ok(tag=strong)"}}
keys: {{narrow: {{models: [fake/ok]}}}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    write_files(folder, "http://127.0.0.1:9/v1", ROUTING)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawned]:
    with spawn() as upstream, spawned(write_files(tmp_path_factory.mktemp("served"), upstream.url, ROUTING)) as running:
        yield running
        running.stop()


def test_a_question_is_explained_without_a_server_or_a_database(folder: Path) -> None:
    """For people: who answers and why, then the candidates."""
    done = proxy("explain", "Name a colour.", "-m", "texts", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "texts -> fake/ok(tag=text) by its name"
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["ORDER", "MODEL"],
        ["1", "fake/ok(tag=text)"],
        ["2", "fake/ok"],
    ]
    assert not (folder / "usage.db").exists()


def test_an_ensemble_is_explained_by_its_panel(folder: Path) -> None:
    """Who is asked, what that usually costs, and the most that it may."""
    done = proxy("explain", "Name a colour.", "-m", "ensemble:pair", cwd=folder)
    lines = [line.split() for line in done.stdout.splitlines() if line]
    assert lines[0] == ["ensemble:pair", "->", "ensemble:pair", "by", "its", "name"]
    assert [line[:2] for line in lines[2:6]] == [
        ["ROLE", "MODEL"],
        ["member", "texts"],
        ["member", "fake/ok"],
        ["follower", "fake/ok(tag=strong)"],
    ]
    assert lines[-1][:2] == ["ensemble:pair", "(voting)"]
    seats, (*_, bound) = [float(line[-1]) for line in lines[3:6]], lines[-1]
    assert float(bound) == pytest.approx(sum(seats))


def test_json_has_the_shape_of_the_route(folder: Path) -> None:
    """The keys of the contract."""
    told = json.loads(proxy("explain", "Hi", "--json", cwd=folder).stdout)
    assert told["chosen"] == "fake/ok"
    assert {"facts", "rules", "candidates", "fallbacks", "estimated_cost_usd", "budget", "snapshot"} <= told.keys()


@pytest.mark.slow
def test_a_body_comes_from_a_file_or_standard_input(folder: Path) -> None:
    """Whatever a client would send."""
    body = json.dumps({"model": "texts", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5})
    (folder / "body.json").write_text(body)
    told = json.loads(proxy("explain", "--body", "body.json", "--json", cwd=folder).stdout)
    assert told["facts"]["output_tokens_limit"] == 5
    command = [sys.executable, "-m", "proxy", "explain", "--body", "-", "--json"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), input=body, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert json.loads(done.stdout) == told


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("Hi", "-m", "nothing"), 1, "does not exist"),
        (("Hi", "-m", "texts", "--as-key", "narrow"), 0, ""),
        (("Hi", "-m", "fake/other", "--as-key", "narrow"), 1, "may not use the model"),
        ((), 2, "give either"),
        (("Hi", "--body", "x.json"), 2, "give either"),
        (("--body", "none.json"), 2, "cannot be read: no such file"),
        (("Hi", "--api-key-env", "X"), 2, "--base-url"),
        (("Hi", "--base-url", "http://127.0.0.1:9/v1"), 2, "does not answer"),
        (("Hi", "--base-url", "http://127.0.0.1:9/v1", "--as-key", "narrow"), 2, "--as-key"),
        (("Hi", "--base-url", "nonsense"), 2, "does not answer"),
        (("Hi", "--base-url", "http://127.0.0.1:9/v1", "--api-key-env", "NOT_SET"), 2, "NOT_SET is not set"),
    ],
)
@pytest.mark.sampled(4)
def test_exit_codes(folder: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    """1: a call would get this error; 2: the command cannot run."""
    done = proxy("explain", *arguments, "--json", cwd=folder)
    assert (done.returncode, text in done.stderr) == (code, True), done
    assert bool(done.stdout) == (code == 0)


def test_a_key_sees_only_its_models(folder: Path) -> None:
    """The fallback that it may use comes first."""
    told = json.loads(proxy("explain", "Hi", "-m", "texts", "--as-key", "narrow", "--json", cwd=folder).stdout)
    assert (told["chosen"], told["fallbacks"]) == ("fake/ok", [])


def test_a_key_of_the_database_has_its_list_too(folder: Path) -> None:
    """As `proxy keys create` stored it."""
    made = proxy("keys", "create", "stored", "--models", "fake/ok", cwd=folder)
    assert made.returncode == 0, made
    told = json.loads(proxy("explain", "Hi", "-m", "texts", "--as-key", "stored", "--json", cwd=folder).stdout)
    assert (told["chosen"], told["fallbacks"], told["not_allowed"]) == ("fake/ok", [], 1)


BUDGET = """
rules: [{{name: thrift, when: {{budget_spent_over: 0.5}}, use: "fake/ok(tag=cheap)"}}]
budget: {{total_usd: 0.007, per_key: {{narrow: {{total_usd: 0.0001}}}}}}
"""


@pytest.mark.slow
def test_budgets_are_read_from_the_database(tmp_path: Path) -> None:
    """What was spent decides as it would in a server: rules read it, and a call that does not fit is refused."""
    asked = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
    (tmp_path / "body.json").write_text(json.dumps(asked))
    with spawn() as upstream, spawned(write_files(tmp_path, upstream.url, ROUTING + BUDGET)) as server:
        before = json.loads(proxy("explain", "--body", "body.json", "--json", cwd=tmp_path).stdout)
        long = {**asked, "model": "fake/ok(n_tokens=200)", "max_tokens": 200}
        for _ in range(2):
            assert httpx.post(f"{server.base_url}/chat/completions", json=long, timeout=30).status_code == 200
        online = proxy("explain", "--body", "body.json", "--json", "--base-url", server.base_url, cwd=tmp_path)
        server.stop()
    offline = proxy("explain", "--body", "body.json", "--json", cwd=tmp_path)
    assert (before["budget"]["effect"], before["rule"]) == ("none", None)
    assert json.loads(offline.stdout)["rule"] == "thrift"
    assert json.loads(offline.stdout)["budget"] == json.loads(online.stdout)["budget"]
    shown = proxy("explain", "--body", "body.json", cwd=tmp_path).stdout.splitlines()
    assert shown[-3] == "effect of the budgets: none"
    assert shown[-1].split()[-1] == "total"
    refused = proxy("explain", "Hi", "--as-key", "narrow", "-m", "fake/ok", "--json", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (1, "proxy: the budget 'key narrow total' has no room\n")
    assert json.loads(refused.stdout)["budget"]["refused_by"] == "key narrow total"


@pytest.mark.slow
def test_a_running_server_explains_the_same(server: Spawned, tmp_path: Path) -> None:
    """Its answer is printed as it is; an error of it is the answer too."""
    told = json.loads(
        proxy("explain", "Hi", "-m", "texts", "--base-url", server.base_url, "--json", cwd=tmp_path).stdout
    )
    assert told["chosen"] == "fake/ok(tag=text)"
    done = proxy("explain", "Hi", "-m", "nothing", "--base-url", server.base_url, cwd=tmp_path)
    assert (done.returncode, "does not exist" in done.stderr) == (1, True)
    done = proxy("explain", "Hi", "--base-url", server.base_url.removesuffix("/v1") + "/nowhere", cwd=tmp_path)
    assert (done.returncode, "nothing at" in done.stderr) == (1, True)
