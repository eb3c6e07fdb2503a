"""docs/strategies.md is true: its snippets are read as the server reads them, and its figures are computed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from proxy.metering.pricing import ModelPrice
from proxy.providers.openai import OpenAI
from proxy.routing.costs import estimated, expected_output
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.order import Pool, arrange
from proxy.routing.settings import STRATEGIES, Among, RouterConfig, Rule, Sticky

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()
SNIPPETS = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
AGENT = Facts(task="code", input_tokens_estimate=30_000, session="s", has_tools=True)
SONNET, SOL, LUNA = "anthropic/claude-sonnet-5-5", "openai/gpt-6-sol", "openai/gpt-6-luna"


def read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(text)
    return found


def routers() -> list[RouterConfig]:
    sections = [read(text) for file, text in SNIPPETS if file == "routing_rules.yaml"]
    return [msgspec.convert(each["router"], RouterConfig) for each in sections if "router" in each]


def deployments() -> dict[str, Deployment]:
    (text,) = (text for file, text in SNIPPETS if file == "pricing.yaml")
    rows = msgspec.convert(read(text)["models"], dict[str, ModelPrice])
    return {name: Deployment(*_parts(name), row) for name, row in rows.items()}


def _parts(name: str) -> tuple[str, OpenAI, str]:
    provider, _, model = name.partition("/")
    return provider, OpenAI(), model


def test_the_snippets_are_valid() -> None:
    """Unknown keys are refused."""
    strategy, sticky, exploration = routers()
    assert strategy.strategy == "cost_optimized"
    assert sticky.sticky == Sticky(max_switch_cost_ratio=0.2)
    assert exploration.exploration == 0.02
    (rules,) = (read(text)["rules"] for file, text in SNIPPETS if "rules:" in text and file == "routing_rules.yaml")
    (rule,) = msgspec.convert(rules, list[Rule])
    assert isinstance(rule.use, Among)


def test_the_page_names_every_strategy() -> None:
    """In the order of the settings."""
    assert tuple(re.findall(r"^\| `(\w+_\w+)`", PAGE, re.MULTILINE)) == STRATEGIES


@pytest.mark.parametrize(
    ("name", "cold", "warm"), re.findall(r"^\| `(\S+)` \| \$([\d.]+) \| \$([\d.]+) \|$", PAGE, re.MULTILINE)
)
def test_the_costs_are_computed(name: str, cold: str, warm: str) -> None:
    """As an explanation shows them."""
    for cached, said in ((0, cold), (29_000, warm)):
        found = estimated(deployments()[name], AGENT, cached, expected_output(AGENT))
        assert found is not None
        assert f"{found.expected / 1e9:.5f}" == said


def test_every_row_of_the_example_has_its_costs() -> None:
    """Nothing is left out."""
    assert list(deployments()) == re.findall(r"^\| `(\S+)` \| \$", PAGE, re.MULTILINE)


def first(names: tuple[str, ...], settings: RouterConfig) -> str:
    """Of a conversation that is warm at claude-sonnet-5-5."""
    chosen = Pool(tuple(deployments()[name] for name in names))
    ordered, _ = arrange(chosen, AGENT, State(warm={"s": (SONNET, 29_000)}), 0.5, settings)
    return ordered[0].deployment.name


def test_the_conversation_moves_as_the_page_says() -> None:
    """To gpt-6-luna, but not to gpt-6-sol, and with the ratio of the page to neither."""
    assert first((SOL, SONNET), RouterConfig()) == SONNET
    assert first((LUNA, SONNET), RouterConfig()) == LUNA
    assert first((LUNA, SONNET), routers()[1]) == SONNET


def test_the_usual_lengths_are_those_of_the_page() -> None:
    """Task by task."""
    lengths = " ".join(PAGE.split())
    for task in ("classification", "extraction", "summarization", "chat", "code", "reasoning"):
        tokens = f"{expected_output(Facts(task=task)):,}"
        assert re.search(rf"\b{tokens} (tokens for )?{task}\b", lengths)
    assert f"{expected_output(Facts(task='vision'))} summarization and vision" in lengths
    assert f"{expected_output(Facts(task='web_search'))} long context and web search" in lengths
