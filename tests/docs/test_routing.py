"""Runs the snippets of docs/routing.md, and compares its tables with the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from proxy.config import Config, Source, configure
from proxy.config.namespace import build_names
from proxy.metering.price_book import PriceBook
from proxy.pipeline.hints import NAMES, applied
from proxy.routing.allowed import Views
from proxy.routing.facts import LONG_CONTEXT_TOKENS, SESSION_HEADERS
from proxy.routing.router import Router
from proxy.routing.settings import TASKS
from proxy.server.formats.chat import decode_chat
from tests.serving import Spawned, spawned, write_files
from tests.upstream import spawn

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "routing.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
FIRST, MORE = (text for language, text in BLOCKS if language == "yaml")
KEYS = {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k"}


def block(language: str) -> str:
    (text,) = (str(text) for kind, text in BLOCKS if kind == language)
    return text


def loaded(text: str) -> Config:
    prices = Source("pricing.yaml", (ROOT / "pricing.yaml").read_bytes())
    return configure(Source("routing_rules.yaml", text.encode()), prices, KEYS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawned]:
    """The first file of the page, with the fake upstream in place of both vendors."""
    with spawn() as upstream:
        upstream.set_modes({"gpt-6-sol": "ok", "gpt-6-luna": "ok"})
        vendor = f'{{{{base_url: "{upstream.url}", allow_private: true, price: null}}}}'
        text = FIRST.replace("{", "{{").replace("}", "}}")
        providers = "providers: {{openai: {{}}, groq: {{}}}}"
        assert providers in text
        text = text.replace(providers, f"providers: {{{{openai: {vendor}, groq: {vendor}}}}}")
        text += 'storage: {{url: "sqlite:///{db}"}}\n'
        with spawned(write_files(tmp_path_factory.mktemp("page"), upstream.url, text)) as running:
            yield running


def run(command: list[str], text: str, server: Spawned) -> str:
    text = text.replace("http://127.0.0.1:8000/v1", server.base_url)
    done = subprocess.run([*command, text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_python_snippet_prints_what_the_page_says(server: Spawned) -> None:
    """With the unmodified SDK."""
    assert run([sys.executable, "-c"], block("python"), server) == block("text")


@pytest.mark.slow
def test_the_header_says_the_same(server: Spawned) -> None:
    """The model of the rule answers."""
    answer = json.loads(run(["bash", "-c"], block("bash"), server))
    assert answer["model"] == "openai/gpt-6-sol"


ROWS = re.findall(r"^\| `(\{.*?\})` \| (.*?) ?\| `(\S+)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("fields", "rule", "model"), ROWS)
async def test_the_second_file_answers_as_the_table_says(fields: str, rule: str, model: str) -> None:
    """The rules of the second block in the first file."""
    assert len(ROWS) == 5
    whole = YAML(typ="safe").load(FIRST) | YAML(typ="safe").load(MORE)
    config = loaded(json.dumps(whole))
    names = build_names(config, PriceBook(config.pricing, {}), {})
    router = Router(Views(names), PriceBook(config.pricing, {}), lambda: 0.5)
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **json.loads(fields)}
    decision = await router.decide(applied(decode_chat(json.dumps(body).encode()), {}), None, {})
    assert decision is not None
    assert (decision.rule or "", decision.route.candidates[0].name) == (rule, model)


def test_every_hint_is_in_the_table() -> None:
    """And no other."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| .* \|$", PAGE.partition("## Hints")[2], re.MULTILINE)
    named = [hint for row in rows for hint in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(NAMES)


def test_the_tasks_and_numbers_are_those_of_the_code() -> None:
    """Tasks, the size of a long context, the headers of a session."""
    text = " ".join(PAGE.split())
    assert "The tasks are " + ", ".join(f"`{task}`" for task in TASKS[:-1]) + f" and `{TASKS[-1]}`." in text
    assert f"about {LONG_CONTEXT_TOKENS:,} input tokens" in text
    assert " and ".join(f"`{name}`" for name in SESSION_HEADERS) in text
