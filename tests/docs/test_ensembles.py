"""docs/ensembles.md is true: its snippets are read as the server reads them, its claims about answers are tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.config import Source, configure
from proxy.ensembles.base import Ensemble
from proxy.ensembles.canonical import canonical
from proxy.ensembles.registry import STRATEGIES
from proxy.ensembles.voting import Voting
from tests.ensembles.scripted import request
from tests.ensembles.test_voting import CASCADE, voted

PAGE = (Path(__file__).parents[2] / "docs" / "ensembles.md").read_text()
SNIPPETS = re.findall(r"^```yaml\n# routing_rules.yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ROUTING = """
version: 1
providers:
  openai: {api_key_env: K}
models: {cheap: openai/gpt-6-luna, fast: openai/gpt-6-lynx, smart: openai/gpt-6-sol}
"""
PRICING = b"version: 1\nmodels: {openai/*: {input: 1, output: 1}}\n"


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_ensembles_on_the_page_load(text: str) -> None:
    config = configure(
        Source("routing_rules.yaml", (ROUTING + text).encode()), Source("pricing.yaml", PRICING), {"K": "k"}
    )
    assert config.ensembles


def test_the_keys_of_voting_are_those_of_the_code() -> None:
    """With their defaults, in the table of the section; those of a cascade are in its text."""
    section = PAGE.split("### voting\n")[1].split("\n\n- ")[0]
    cells = re.findall(r"^\| `(\w+)` \|(.*?)\|", section, re.MULTILINE)
    written = {key: value.strip(" `") for key, value in cells}
    defaults = {key: getattr(Voting(), key) for key in written}
    assert written == {key: "" if value is None else str(value).lower() for key, value in defaults.items()}
    own = {*Voting.__struct_fields__} - {*Ensemble.__struct_fields__}
    assert {key for key in own - written.keys() if f"`{key}" not in PAGE and f"{key}:" not in PAGE} == set()


def test_the_equal_answers_of_the_page_are_equal() -> None:
    assert {canonical(each) for each in ("$49.99", "49,99 USD", "So ...\nAnswer: $49.99")} == {"49.99 USD"}
    for first, second in (
        ("5", "5 million"),
        ("$5", "€5"),
        ("B", "not B"),
        ("1,234", "1.234"),
        ("03/04/2026", "3 April 2026"),
        ("yes", "yes, because it is"),
    ):
        assert f"`{first}`" in PAGE
        assert canonical(first) != canonical(second)


async def test_the_fields_of_the_report_are_those_of_the_code() -> None:
    """All that the strategy writes in any of these cases, and nothing else but the members."""
    schema = request(response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}}})
    others = {"judge": "?", "strong": "S"}
    grouped = Voting(below="judge", judge="judge", cluster_by="judge")
    reports = [
        (await voted(Voting(early_stop=True), "A", "A", "B"))[0].report,
        (await voted(Voting(), '{"a": 1}', '{"a": 1}', request=schema))[0].report,
        (await voted(grouped, "A", "B", others=others))[0].report,
        (await voted(CASCADE, "A", "A", others=others, deployments=["p/x", "p/x"]))[0].report,
    ]
    section = PAGE.split("**The report.**")[1].split("### cascade\n")[0]
    written = {
        key for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    assert {key for report in reports for key in report} - {"seats"} == written - {"members"}
    assert all(f"`{key}`" in section for key in reports[0]["seats"][0])


def test_every_strategy_has_a_section() -> None:
    assert [name for name in STRATEGIES if f"| **{name}** |" not in PAGE] == []
    assert "### voting" in PAGE
