"""docs/ensembles.md is true of ranking, fusion and verification: keys, defaults, weights, limits, snippets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.config import Source, configure
from proxy.ensembles.base import Ensemble
from proxy.ensembles.canonical_json import read
from proxy.ensembles.fusion import Fusion
from proxy.ensembles.judge import MAX_TOKENS
from proxy.ensembles.merge import key_of
from proxy.ensembles.ranking import Ranking
from proxy.ensembles.scores import WEIGHTS
from proxy.ensembles.transcript import MAX_ANSWER, MAX_CONVERSATION
from proxy.ensembles.verdict import read_share
from proxy.ensembles.verification import Verification

PAGE = (Path(__file__).parents[2] / "docs" / "ensembles.md").read_text()
KINDS: dict[str, Ensemble] = {"ranking": Ranking(), "fusion": Fusion(), "verification": Verification()}
ROUTING = """
version: 1
providers:
  openai: {api_key_env: K}
models: {cheap: openai/gpt-6-luna, fast: openai/gpt-6-lynx, smart: openai/gpt-6-sol}
"""
PRICING = b"version: 1\nmodels: {openai/*: {input: 1, output: 1}}\n"


def section(name: str) -> str:
    return PAGE.split(f"### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]


@pytest.mark.parametrize("name", KINDS)
def test_the_keys_of_each_strategy_are_those_of_the_code(name: str) -> None:
    """With their defaults."""
    table = section(name).split("\n\n- ")[0].split("\n\n**")[0]
    written = {key: value.strip(" `") for key, value in re.findall(r"^\| `(\w+)` \|(.*?)\|", table, re.MULTILINE)}
    own = [key for key in KINDS[name].__struct_fields__ if key not in Ensemble.__struct_fields__]
    defaults = {key: getattr(KINDS[name], key) for key in own}
    assert written == {key: "" if value is None else str(value).lower() for key, value in defaults.items()}


@pytest.mark.parametrize("name", KINDS)
def test_the_example_of_each_strategy_loads(name: str) -> None:
    found = re.search(r"```yaml\n# routing_rules.yaml\n(.*?)```", section(name), re.DOTALL)
    assert found
    routing = Source("routing_rules.yaml", (ROUTING + found[1]).encode())
    config = configure(routing, Source("pricing.yaml", PRICING), {"K": "k"})
    assert type(config.ensembles[name]) is type(KINDS[name])


def test_the_measures_have_these_weights() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", section("ranking"), re.MULTILINE)
    written = {measure: [float(each) for each in weights] for measure, *weights in rows}
    assert written == {measure: [WEIGHTS[kind][measure] for kind in WEIGHTS] for measure in WEIGHTS["accuracy"]}
    assert all(abs(sum(weights.values()) - 1) < 1e-9 for weights in WEIGHTS.values())


def test_the_limits_are_these() -> None:
    text = section("What judges and validators read")
    for limit in (MAX_CONVERSATION, MAX_ANSWER, MAX_TOKENS):
        assert f"{limit:,}" in text


def test_these_values_are_equal() -> None:
    text = section("fusion")
    for one, other in (("49.99", "49.990"), ('"$49.99"', '"49.99 USD"')):
        assert f"`{one}`" in text
        assert f"`{other}`" in text
        assert key_of(read(f"[{one}]")[0]) == key_of(read(f"[{other}]")[0])


def test_these_confidences_are_understood() -> None:
    text = section("verification")
    assert {
        written: read_share(value) for written, value in (('"85%"', "85%"), ('"8/10"', "8/10"), ('"high"', "high"))
    } == {
        '"85%"': 0.85,
        '"8/10"': 0.8,
        '"high"': 0.9,
    }
    assert all(f"`{written}`" in text for written in ('"85%"', '"8/10"', '"high"', "0.85"))
