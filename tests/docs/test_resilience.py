"""docs/resilience.md is true: its settings are the defaults, and its error is what clients get."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
from ruamel.yaml import YAML

from proxy.routing import board
from proxy.routing.settings import RouterConfig
from proxy.schema.errors import AllDown, Availability
from proxy.schema.json import encode
from proxy.schema.records import Outcome
from proxy.upstream import keys

PAGE = (Path(__file__).parents[2] / "docs" / "resilience.md").read_text()


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


def test_the_settings_on_the_page_are_the_defaults() -> None:
    """A reader may copy them, and change one."""
    written = YAML(typ="safe").load(block("yaml"))["router"]
    assert msgspec.convert(written, RouterConfig) == RouterConfig()


def test_the_rests_on_the_page_are_those_of_deployments_and_of_keys() -> None:
    """They differ: another deployment is soon tried again, a key waits for a person."""
    text = " ".join(PAGE.split())
    assert f"| rests {board.REFUSED_REST_S:g} s |" in text
    assert f"Retry-After (at most {board.MAX_REST_S:g} s), else {board.LIMITED_REST_S:g} s |" in text
    refused, longest = keys.REFUSED_REST_S / 60, keys.MAX_REST_S / 60
    assert f"a refused key rests too: {refused:g} minutes or until the configuration is reloaded" in text
    assert f"Retry-After (at most {longest:g} minutes), else {keys.LIMITED_REST_S:g} s." in text


def test_the_error_on_the_page_is_what_clients_get() -> None:
    """Every field, and no other."""
    written = json.loads(block("json"))
    candidates = tuple(Availability(**each) for each in written["error"]["availability"])
    error = AllDown("smart", candidates, Outcome.UPSTREAM_ERROR)
    assert json.loads(encode(error.body())) == written
    assert error.headers == {"retry-after": "1", "x-should-retry": "false"}
