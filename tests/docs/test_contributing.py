"""CONTRIBUTING.md is run: its example of a provider is built, tested by its own test, and serves."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from proxy.config import ConfigError, Source, configure
from proxy.providers import PROVIDERS, registry
from proxy.providers.base.contract import Provider
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
DIALECT, TEST = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  acme: {{base_url: "{upstream}", region: us, allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
"""


def module(name: str, path: Path) -> ModuleType:
    """The module `name` from a file outside the package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    """Both files of the page, under the names that it gives them."""
    folder, names = tmp_path_factory.mktemp("acme"), ("proxy.providers.acme", "tests.providers.test_acme")
    for name, code in zip(names, (DIALECT, TEST), strict=True):
        (folder / f"{name}.py").write_text(code)
    yield {name: module(name, folder / f"{name}.py") for name in names}
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def types(written: dict[str, ModuleType]) -> dict[str, type[Provider]]:
    """The product's types, and the one of the page."""
    return registry(*PROVIDERS.values(), written["proxy.providers.acme"].Acme)


def test_the_dialect_is_one_short_file() -> None:
    """Imports and comments included."""
    assert len(DIALECT.splitlines()) <= 30


def test_the_examples_own_test_passes(written: dict[str, ModuleType]) -> None:
    """Each of its rules."""
    rules = [rule for name, rule in vars(written["tests.providers.test_acme"]).items() if name.startswith("test_")]
    assert len(rules) == 3
    for rule in rules:
        rule()


def test_a_key_of_the_dialect_is_checked(types: dict[str, type[Provider]]) -> None:
    """By the constraint in its type, with the place in the file."""
    source = Source("routing_rules.yaml", b"version: 1\nproviders:\n  acme: {region: mars}\n")
    with pytest.raises(ConfigError) as caught:
        configure(source, None, {}, types)
    assert str(caught.value) == "routing_rules.yaml:3:18: providers.acme.region: must be eu or us"


async def test_the_dialect_serves(types: dict[str, type[Provider]], tmp_path: Path) -> None:
    """Whole and streamed, from a file that names it; the product itself is as it was."""
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url, ROUTING), types=types) as server:
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 500}
        create = server.client.chat.completions.with_raw_response.create
        answer = await create(model="acme/echo", logit_bias={"5": 1}, **asked)
        assert answer.headers["x-proxy-dropped-params"] == "logit_bias"
        body = json.loads(answer.parse().choices[0].message.content or "")
        assert (body["region"], body["max_tokens"]) == ("us", 500)
        assert {"logit_bias", "max_completion_tokens"}.isdisjoint(body)
        stream = await server.client.chat.completions.create(model="acme/ok", stream=True, **asked)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert "".join(pieces).split() == [f"tok{place}" for place in range(10)]
