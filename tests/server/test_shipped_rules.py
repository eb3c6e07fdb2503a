"""The rules as shipped, asked without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.config.load import load
from proxy.providers import PROVIDERS
from proxy.routing.decision import Decision
from proxy.routing.explain import explained
from proxy.schema.records import Caller
from proxy.server.offline import Offline

ROOT = Path(__file__).parents[2]
HARD = (
    "Prove that for every prime p > 3 the number p^2 - 1 is divisible by 24, and determine all integers n for which "
    "n^2 - 1 is divisible by 24 although n is not prime. Derive the general criterion rigorously."
)
EASY = "Hi, how are you?"


@pytest.fixture(scope="module")
def shipped() -> Offline:
    keys = {name: "a-key-for-the-test" for provider in PROVIDERS.values() for name in provider.key_env}
    return Offline(load(ROOT / "routing_rules.yaml", ROOT / "pricing.yaml", keys))


async def decided(offline: Offline, text: str, **fields: Any) -> Decision:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
    return await offline.decide(json.dumps(body).encode(), Caller("a"))


@pytest.mark.parametrize("fields", [{"model": "auto:reasoning"}, {"routing": {"task": "reasoning"}}])
async def test_hard_reasoning_goes_to_the_best_model_also_where_the_client_names_the_task(
    shipped: Offline, fields: dict[str, Any]
) -> None:
    """Easy reasoning does not; the explanation shows the difficulty that decided, and what it was judged by."""
    hard, easy = await decided(shipped, HARD, **fields), await decided(shipped, EASY, **fields)
    assert (hard.rule, hard.route.candidates[0].name) == ("hard reasoning", "anthropic/claude-opus-5-5")
    assert (easy.rule, easy.route.candidates[0].name) == (None, "openai/gpt-6-sol")
    assert easy.facts.difficulty < 0.6 < hard.facts.difficulty
    facts = explained(hard)["facts"]
    assert facts["difficulty"] == hard.facts.difficulty
    assert [f"the {len(HARD)} characters" in each for each in facts["difficulty_evidence"]] == [True]


async def test_a_named_task_whose_rules_do_not_look_at_the_difficulty_is_not_judged(shipped: Offline) -> None:
    """It stays in the middle, and the explanation says why."""
    found = await decided(shipped, HARD, model="auto:code")
    assert (found.facts.difficulty, found.facts.difficulty_evidence) == (0.5, ("no rule for this task looks at it",))
