"""What a row keeps of the facts: enough to try other rules on it, and no word of a client."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.providers.openai import OpenAI
from proxy.routing.decision import NOT_ALLOWED, Candidate, Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.explain import explained, shown_candidates
from proxy.routing.facts import Facts
from proxy.routing.rules import compiled, match
from proxy.routing.settings import Rule, When
from proxy.routing.stored_facts import MAX_BYTES, decided, mentioned, restored, restored_candidates, stored
from tests.routing.rule_sets import random_facts, rule_sets

CANARY = "canary-of-a-prompt"


def rule(**when: Any) -> Rule:
    return Rule("r", msgspec.convert(when, When), "fake/ok")


WORDS = mentioned(
    [
        rule(header={"X-Team": ["finance", "law"]}, metadata={"tier": "gold"}),
        rule(any=[{"tag": "night"}, {"not": {"text_matches": ["*invoice*", "urgent*"]}}]),
    ]
)


def test_what_rules_name_is_found_wherever_it_stands() -> None:
    """Inside `any` and `not` too; header names are lower case."""
    assert WORDS.headers == {"x-team": {"finance", "law"}}
    assert WORDS.metadata == {"tier": {"gold"}}
    assert WORDS.tags == {"night"}
    assert WORDS.texts == ("*invoice*", "urgent*")
    assert mentioned([rule(text_matches="*INVOICE*")]).texts == ("*invoice*",)


def test_of_a_clients_words_only_those_of_the_rules_are_kept() -> None:
    """Other headers, other values, other tags, the text and the evidence are not."""
    facts = Facts(
        headers={"x-team": "finance", "authorization": CANARY},
        metadata={"tier": CANARY, "note": CANARY},
        tags=("night", CANARY),
        text=f"{CANARY} and an invoice",
        task_evidence=(CANARY,),
        session=CANARY,
        key=CANARY,
    )
    written = stored(facts, WORDS)
    assert CANARY not in written
    kept = json.loads(written)
    assert (kept["headers"], kept["tags"], kept["texts"]) == ({"x-team": "finance"}, ["night"], ["*invoice*"])
    assert "metadata" not in kept


def test_of_a_word_that_matches_a_pattern_the_pattern_is_kept() -> None:
    """A value that a rule names is the value; else one that matches the same patterns stands for it."""
    words = mentioned([rule(header={"x-team": ["fin*", "finance", "*-law", "?z"]}, tag=["t-*"])])
    for value, kept in {
        "finance": "finance",
        "fin-secret": "fin",
        "fin-s-law": "fin-law",
        "az": "xz",
        "x": None,
    }.items():
        written = json.loads(stored(Facts(headers={"x-team": value}, tags=("t-secret",)), words))
        assert (written.get("headers", {}).get("x-team"), written["tags"]) == (kept, ["t-"])


@settings(max_examples=300, deadline=None)
@given(rule_sets(), st.integers(0, 2**32))
@pytest.mark.slow
def test_rules_match_stored_facts_as_they_matched_the_request(rules: list[Rule], seed: int) -> None:
    """Over random rules and facts: what a replay decides is what the call got."""
    words, ready = mentioned(rules), compiled(rules)
    for facts in random_facts(seed, 10):
        back = restored(stored(facts, words), facts.requested, facts.key)
        assert match(ready, facts) == match(ready, back)


def test_candidates_come_back_as_an_explanation_shows_them() -> None:
    """Their order, costs and reasons; a list that is too long for a row loses its end."""
    able, unable, barred = (Deployment(name, OpenAI(), "m", None) for name in ("a", "b", "c"))
    candidates = (
        Candidate(able, None, 5, 7, 100, 6, "it rests for 3 s"),
        Candidate(unable, "does not take images"),
        Candidate(barred, NOT_ALLOWED),
    )
    decision = Decision(Route("auto", (able,)), Facts(), candidates=candidates)
    kept = decided(decision).candidates
    assert kept is not None
    back = restored_candidates(kept)
    for names_all in (True, False):
        told = explained(decision, names_all=names_all)
        assert shown_candidates(back, names_all=names_all).items() <= told.items()
    many = tuple(Candidate(Deployment("a", OpenAI(), f"{number}" * 99, None)) for number in range(1000))
    long = decided(Decision(Route("auto", (able,)), Facts(), candidates=many)).candidates
    assert long is not None
    assert 1000 < len(long) <= MAX_BYTES
    assert [each.model for each in restored_candidates(long)][:2] == [f"a/{'0' * 99}", f"a/{'1' * 99}"]
    assert restored_candidates(None) == []


def test_facts_come_back_as_far_as_rules_can_tell() -> None:
    """The text comes back as one that matches the same patterns."""
    facts = Facts(
        requested="auto",
        task="code",
        difficulty=0.7,
        input_tokens_estimate=12_345,
        has_tools=True,
        priority="high",
        preferred_model="smart",
        headers={"x-team": "law"},
        tags=("night",),
        text="urgent: the invoice",
        key="ann",
    )
    back = restored(stored(facts, WORDS), "auto", "ann")
    assert msgspec.structs.replace(back, text="") == msgspec.structs.replace(facts, text="")
    assert stored(back, WORDS) == stored(facts, WORDS)


def test_a_named_call_has_no_facts() -> None:
    """Only its name and its key."""
    assert restored(None, "gpt-4", "ann") == Facts(requested="gpt-4", key="ann")


@given(st.text(max_size=5000), st.lists(st.text(max_size=3000), max_size=16))
def test_a_row_is_bounded(name: str, fallback: list[str]) -> None:
    """Whatever a client writes."""
    facts = Facts(preferred_model=name, fallback=tuple(fallback))
    assert len(stored(facts).encode()) <= MAX_BYTES
    assert restored(stored(facts), "auto", None).task == "chat"


def test_a_row_with_many_words_of_rules_is_bounded_too() -> None:
    """The words are left out; the numbers stay."""
    values = [f"{place:04d}" + "x" * 200 for place in range(100)]
    facts = Facts(tags=tuple(values), difficulty=0.25)
    written = stored(facts, mentioned([rule(tag=values)]))
    assert len(written) <= MAX_BYTES
    assert json.loads(written)["difficulty"] == 0.25


def test_a_decision_is_kept_with_its_rule() -> None:
    """As the columns of the call's row."""
    decision = Decision(Route("auto", ()), Facts(task="code"), "rule", "hard code", None, snapshot="v/1")
    kept = decided(decision)
    assert (kept.step, kept.rule, kept.strategy, kept.snapshot) == ("rule", "hard code", None, "v/1")
    assert kept.facts == stored(decision.facts)


@pytest.mark.parametrize("text", ['{"task":"chat","difficulty":0,"input_tokens_estimate":1,"later":[1]}'])
def test_fields_of_a_later_version_are_skipped(text: str) -> None:
    """Another version may share the database."""
    assert restored(text, "auto", None).task == "chat"


def test_a_pattern_that_matches_everything_needs_a_value() -> None:
    """Given is not the same as not given."""
    words = mentioned([rule(header={"x-team": "*"}, tag="*")])
    back = restored(stored(Facts(headers={"x-team": CANARY}, tags=(CANARY,)), words), "auto", None)
    assert (back.headers, back.tags) == ({"x-team": ""}, ("",))
    assert restored(stored(Facts(), words), "auto", None).headers == {}
