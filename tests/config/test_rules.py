"""Rules that cannot match and rules that are never reached: found where that is certain, and only there."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import check
from proxy.config.rules import clash, covers, implied
from proxy.config.warnings import find_warnings
from proxy.routing.settings import When
from tests.config.files import config_of
from tests.config.mistakes import HEAD
from tests.routing.reference import holds
from tests.routing.rule_sets import random_facts, whens


def when(**keys: Any) -> When:
    return msgspec.convert(keys, When)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"task": []}, "`task` is an empty list"),
        ({"tag": []}, "`tag` is an empty list"),
        ({"metadata": {"tier": []}}, "`metadata.tier` is an empty list"),
        ({"any": []}, "`any` is empty"),
        ({"not": {}}, "`not` excludes what the other keys require"),
        ({"input_tokens_over": 10, "input_tokens_under": 11}, "nothing is over 10 and under 11"),
        ({"difficulty_over": 0.6, "difficulty_under": 0.6}, "nothing is over 0.6 and under 0.6"),
        ({"difficulty_over": 1}, "a difficulty is from 0 to 1"),
        ({"task": "code", "any": [{"task": "chat"}, {"task": ["vision", "chat"]}]}, "no entry of `any` can: `task`"),
        ({"task": "code", "not": {"task": ["code", "chat"]}}, "`not` excludes what the other keys require"),
        ({"has_tools": True, "any": [{"has_tools": False}]}, "`has_tools` would have to be true and false"),
        ({"key": "a", "any": [{"key": ["b", "c"]}]}, "`key`"),
        ({"header": {"x-team": "a"}, "any": [{"header": {"x-team": "b"}}]}, "`header.x-team`"),
        ({"any": [{"any": [{"not": {}}]}]}, "`not` excludes"),
        ({"input_tokens_over": 50, "not": {"input_tokens_over": 20}}, "`not` excludes"),
        ({"task": "code", "not": {"not": {"task": "chat"}}}, "`not` excludes"),
    ],
)
def test_a_condition_that_can_never_hold(keys: dict[str, Any], why: str) -> None:
    """The reason names the keys."""
    assert why in (clash((), when(**keys)) or "")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"input_tokens_over": 10, "input_tokens_under": 12},
        {"difficulty_over": 0.5, "difficulty_under": 0.6},
        {"tag": "a", "any": [{"tag": "b"}]},  # a request has several tags
        {"text_matches": "*a*", "any": [{"text_matches": "*b*"}]},
        {"key": "mobile*", "any": [{"key": "mobile-a"}]},
        {"metadata": {"tier": "gold"}, "any": [{"metadata": {"team": "blue"}}]},
        {"task": ["code", "chat"], "not": {"task": "chat"}},
        {"task": "code", "any": [{"task": "chat"}, {"has_tools": True}]},
    ],
)
def test_a_condition_that_may_hold_is_left_alone(keys: dict[str, Any]) -> None:
    """Patterns, several tags, and alternatives of which one is possible."""
    assert clash((), when(**keys)) is None


@settings(max_examples=500, deadline=None)
@given(whens(), whens(), st.integers(0, 2**32))
@pytest.mark.slow
def test_what_is_said_of_conditions_is_true(one: When, other: When, seed: int) -> None:
    """For any facts: a clash never holds, and what is implied or covered does hold."""
    for facts in random_facts(seed, 20):
        if clash((), one) is not None:
            assert not holds(one, facts)
        if holds(one, facts) and (implied((one,), other) or covers(other, one)):
            assert holds(other, facts)


RULES = """\
rules:
  - {name: first, when: {task: [code, chat]}, use: groq/x}
  - {name: same, when: {task: code, has_tools: true}, use: groq/x}
  - {name: other, when: {task: vision}, use: groq/x}
  - {name: both, when: {any: [{task: code}, {task: chat, priority: high}]}, use: groq/x}
  - {name: all, when: {}, use: groq/x}
  - {name: late, when: {task: reasoning}, use: groq/x}
"""


def test_a_rule_behind_one_that_always_matches_first_is_warned_of() -> None:
    """With the line of both."""
    found = find_warnings(config_of(HEAD + RULES), date(2026, 11, 22), lambda name: None)
    dead = [f"{each.line} {each.message}" for each in found if "never reached" in each.message]
    assert dead == [
        '5 never reached: the rule "first" in line 4 matches whenever this one does',
        '7 never reached: the rule "first" in line 4 matches whenever this one does',
        '9 never reached: the rule "all" in line 8 matches whenever this one does',
    ]


def test_a_rule_that_names_a_model_that_is_going_away_is_warned_of() -> None:
    """At its line, with the successor; so are tasks."""
    text = "rules:\n  - name: old\n    when: {task: code}\n    use: [openai/old, groq/x]\ntasks: {chat: openai/old}\n"
    prices = "version: 1\nmodels: {openai/old: {retires: 2026-12-11, successor: openai/new}, openai/new: {}}\n"
    found = check(config_of(HEAD + text, prices), date(2026, 11, 22))
    after = "openai/old retires on 2026-12-11, in 19 days; its successor is openai/new"
    assert [f"{each.line} {each.path}: {each.message}" for each in found] == [
        f"6 rules.0.use.0: {after}",
        f"7 tasks.chat: {after}",
    ]
