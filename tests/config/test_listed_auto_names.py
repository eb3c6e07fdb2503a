"""Which `auto` names are listed with the shipped files."""

from __future__ import annotations

from pathlib import Path

from proxy.config import load
from proxy.config.namespace import names_now

ROOT = Path(__file__).parents[2]
ROUTING, PRICING = ROOT / "routing_rules.yaml", ROOT / "pricing.yaml"


def test_an_auto_name_that_no_model_can_serve_is_not_listed() -> None:
    """With the embedded model alone: it sees no pictures, does not search, and has a short context."""
    config = load(ROUTING, PRICING, {})
    listed = names_now(config)
    assert {"auto", "auto:chat", "auto:code", "auto:cost", "local/smollm2-135m"} <= set(listed)
    assert {"auto:vision", "auto:web_search", "auto:long_context"}.isdisjoint(listed)


def test_an_auto_name_that_one_model_can_serve_is_listed() -> None:
    """A rule, a fallback or a default that leads there is enough, and so is a model of which nothing is known."""
    keyed = names_now(load(ROUTING, PRICING, {"OPENAI_API_KEY": "sk-x", "PERPLEXITY_API_KEY": "pplx-x"}))
    assert {"auto:vision", "auto:web_search", "auto:long_context"} <= set(keyed)
