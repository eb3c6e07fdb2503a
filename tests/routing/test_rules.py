"""Rules: what matches, and why the others do not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.routing.facts import Facts
from proxy.routing.rules import compiled, headers_in, match, reads_text
from proxy.routing.settings import Rule
from tests.routing.reference import first_match, holds
from tests.routing.rule_sets import random_facts, rule_sets


def rule(name: str = "a", **keys: Any) -> Rule:
    return msgspec.convert({"name": name, "when": keys, "use": "smart"}, Rule)


@settings(max_examples=1000, deadline=None)
@given(rule_sets(), st.integers(0, 2**32))
def test_the_engine_agrees_with_a_plain_evaluation(rules: list[Rule], seed: int) -> None:
    """Over random rules and facts: the same rule matches, and exactly those before it failed, each with a reason."""
    engine = compiled(rules)
    for facts in random_facts(seed, 20):
        found, tried = match(engine, facts)
        expected = first_match(rules, facts)
        assert (found.name if found else None) == expected
        assert [each.name for each in tried if each.matched] == ([expected] if expected else [])
        assert [each.name for each in tried] == [rule.name for rule in rules[: len(tried)]]
        assert all(holds(rules[place].when, facts) is each.matched for place, each in enumerate(tried))
        assert all(bool(each.why) is not each.matched for each in tried)


@pytest.mark.parametrize(
    ("keys", "facts", "why"),
    [
        ({"task": ["code", "chat"]}, {"task": "vision"}, "task is vision, not code or chat"),
        ({"priority": "high"}, {}, "priority is normal, not high"),
        ({"has_images": True}, {}, "has_images is false, not true"),
        ({"has_tools": False}, {"has_tools": True}, "has_tools is true, not false"),
        (
            {"input_tokens_over": 50000},
            {"input_tokens_estimate": 120},
            "input_tokens_estimate is 120, not over 50000",
        ),
        ({"difficulty_under": 0.3}, {"difficulty": 0.3}, "difficulty is 0.3, not under 0.3"),
        ({"budget_spent_over": 0.8}, {}, "budget_spent is unknown, not over 0.8"),
        ({"key": "mobile*"}, {"key": "web"}, "key is 'web', not mobile*"),
        ({"key": "web"}, {}, "key is not given, not web"),
        ({"tag": ["a", "b"]}, {"tags": ("c", "d")}, "tag is 'c, d', not a or b"),
        ({"metadata": {"tier": "gold"}}, {"metadata": {"tier": "tin"}}, "metadata.tier is 'tin', not gold"),
        ({"header": {"X-Team": "red"}}, {"headers": {}}, "header.X-Team is not given, not red"),
        ({"language": "de"}, {}, "language is 'und', not de"),
        ({"text_matches": "*invoice*"}, {"text": "a" * 99}, f"text_matches is '{'a' * 60}...', not *invoice*"),
        (
            {"any": [{"task": "code"}, {"has_tools": True}]},
            {},
            "none of `any` holds: task is chat, not code; has_tools is false, not true",
        ),
        ({"not": {"task": "chat"}}, {}, "what `not` excludes holds"),
        ({"task": "chat", "priority": "high"}, {}, "priority is normal, not high"),
    ],
)
def test_the_reason_has_the_value_found_and_the_one_wanted(
    keys: dict[str, Any], facts: dict[str, Any], why: str
) -> None:
    """Of the first key that does not hold; long texts are shortened."""
    _, tried = match(compiled([rule(**keys)]), Facts(**facts))
    assert [each.why for each in tried] == [why]


def test_texts_match_without_regard_to_case() -> None:
    """`text_matches` looks at the text in lower case."""
    found, _ = match(compiled([rule(text_matches="*INVOICE*")]), Facts(text="pay this invoice now"))
    assert found is not None


def test_what_the_rules_look_at_is_known() -> None:
    """Also inside `any` and `not`: only these headers become facts, and the text only if a rule reads it."""
    rules = [
        rule(header={"X-Team": "a"}),
        rule("b", any=[{"header": {"x-app": "b"}}, {"not": {"text_matches": "*x*"}}]),
    ]
    assert headers_in(rules) == {"x-team", "x-app"}
    assert (reads_text(rules), reads_text(rules[:1])) == (True, False)
