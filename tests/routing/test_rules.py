"""Rules: what matches, and why the others do not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.routing.facts import Facts
from proxy.routing.rules import compiled, headers_in, looks_at_difficulty, match, outcomes, reads_text
from proxy.routing.settings import TASKS, Rule
from tests.routing.reference import first_match, holds
from tests.routing.rule_sets import random_facts, rule_sets


def rule(name: str = "a", **keys: Any) -> Rule:
    return msgspec.convert({"name": name, "when": keys, "use": "smart"}, Rule)


@settings(max_examples=1000, deadline=None)
@given(rule_sets(), st.integers(0, 2**32))
@pytest.mark.slow
def test_the_engine_agrees_with_a_plain_evaluation(rules: list[Rule], seed: int) -> None:
    """Over random rules and facts: the same rule matches, and exactly those before it failed, each with a reason."""
    engine = compiled(rules)
    for facts in random_facts(seed, 20):
        found, matched = match(engine, facts)
        tried = outcomes(matched, facts)
        expected = first_match(rules, facts)
        assert (found.name if found else None) == expected
        assert [each.name for each in tried if each.matched] == ([expected] if expected else [])
        assert [each.name for each in tried] == [rule.name for rule in rules[: len(tried)]]
        assert all(holds(rules[place].when, facts) is each.matched for place, each in enumerate(tried))
        assert all(bool(each.why) is not each.matched for each in tried)


@settings(max_examples=500, deadline=None)
@given(rule_sets(), st.integers(0, 2**32))
@pytest.mark.slow
def test_the_difficulty_changes_nothing_for_tasks_whose_rules_do_not_look_at_it(rules: list[Rule], seed: int) -> None:
    """So a named task of this kind need not be judged."""
    engine = compiled(rules)
    blind = [task for task in TASKS if not looks_at_difficulty(rules, task)]
    for facts in random_facts(seed, 10):
        for task in blind:
            levels = (0.0, 0.3, 0.6, 1.0)
            found = {len(match(engine, replace(facts, task=task, difficulty=each))[1]) for each in levels}
            assert len(found) == 1


@pytest.mark.parametrize(
    ("keys", "tasks"),
    [
        ({"task": "code", "difficulty_over": 0.6}, {"code"}),
        ({"task": ["code", "chat"], "any": [{"has_tools": True}, {"difficulty_under": 0.6}]}, {"code", "chat"}),
        ({"any": [{"task": "code", "difficulty_over": 0.6}, {"task": "chat"}]}, {"code"}),
        ({"task": "chat", "not": {"task": "code", "difficulty_over": 0.6}}, set()),
        ({"not": {"not": {"difficulty_over": 0.6}}}, set(TASKS)),
        ({"task": "code"}, set()),
    ],
)
def test_a_rule_looks_at_the_difficulty_of_its_own_tasks_only(keys: dict[str, Any], tasks: set[str]) -> None:
    """Also inside `any` and `not`."""
    assert {task for task in TASKS if looks_at_difficulty([rule(**keys)], task)} == tasks


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
    found = Facts(**facts)
    _, tried = match(compiled([rule(**keys)]), found)
    assert [each.why for each in outcomes(tried, found)] == [why]


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
