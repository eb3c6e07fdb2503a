"""Names that lead somewhere, and warnings before they stop doing so."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from msgspec import structs

from proxy.config import Severity, check
from proxy.routing.settings import ModelEntry
from tests.config.files import config_of
from tests.slowness import usual_s

HEAD = "version: 1\nproviders: {openai: {models: {fast: gpt-6-luna}}, groq: {}, anthropic: {enabled: false}}\n"
TODAY = date(2026, 11, 22)


@pytest.mark.parametrize(
    "name",
    [
        "openai/gpt-6-sol",
        "openai/whatever/they-have-tomorrow",
        "anthropic/claude-opus-5-5",
        "openai/fast",
        "gpt-6-sol",
        "mine",
        "old",
        "foreign/id",
    ],
)
def test_every_kind_of_name_may_stand_for_a_model(name: str) -> None:
    """A provider's id, listed or not; its role; a bare id one provider lists; names of one's own, slashes and all."""
    text = (
        HEAD
        + f"""\
models: {{mine: gpt-6-sol, split: {{weighted: {{gpt-6-luna: 9, '{name}': 1}}}}}}
aliases: {{old: mine, foreign/id: old, asked: '{name}'}}
router: {{default_model: '{name}', fallback: [{name}]}}
budget: {{downgrade_to: '{name}', per_model: {{'{name}': {{daily_usd: 1}}}}}}
keys: {{app: {{models: [{name}]}}}}
"""
    )
    assert check(config_of(text), TODAY) == []


def test_an_alias_may_stand_for_a_route() -> None:
    """`auto` and its tasks and strategies, but only there."""
    config = config_of(
        HEAD + "aliases: {a: auto, b: 'auto:reasoning', c: 'auto:cost'}\nkeys: {app: {models: [auto, 'gpt*']}}\n"
    )
    assert check(config, TODAY) == []


def test_a_name_may_be_reached_twice() -> None:
    """Two ways to the same model are no circle."""
    text = HEAD + "models: {a: {use: b, fallback: [c]}, b: {use: d}, c: {use: d}, d: gpt-6-sol}\n"
    assert check(config_of(text), TODAY) == []


def test_a_bare_id_belongs_to_providers_that_are_not_switched_off() -> None:
    """What is off makes nothing ambiguous."""
    config = config_of("version: 1\nproviders: {openai: {}, groq: {enabled: false}}\naliases: {a: shared}\n")
    assert check(config, TODAY) == []


def test_models_that_are_going_away_are_warned_of() -> None:
    """Within 90 days, or gone: wherever a name leads there, with the successor."""
    text = "version: 1\nproviders: {openai: {models: {default: gpt-5}}, groq: {}}\n"
    text += "models:\n  a: gpt-5\n  b: {use: openai/gpt-4o, fallback: [openai/gpt-5-2025-08-07]}\n"
    text += "aliases:\n  c: openai/gpt-4-turbo\n  d: openai/default\nrouter: {fallback: [a, gpt-4-turbo]}\n"
    problems = check(config_of(text), TODAY)
    soon = "openai/gpt-5 retires on 2026-12-11, in 19 days"
    gone = "openai/gpt-4-turbo was retired on 2026-10-23; its successor is openai/gpt-6-sol"
    assert sorted(str(problem).removeprefix("routing_rules.yaml:") for problem in problems) == [
        f"2:40: warning: providers.openai.models.default: {soon}",
        f"4:6: warning: models.a: {soon}",
        "5:38: warning: models.b.fallback.0: openai/gpt-5-2025-08-07 retires on 2026-12-11, in 19 days",
        f"7:6: warning: aliases.c: {gone}",
        f"8:6: warning: aliases.d: {soon}",
        f"9:24: warning: router.fallback.1: {gone}",
    ]
    assert {problem.severity for problem in problems} == {Severity.WARNING}


@pytest.mark.parametrize(
    ("today", "message"),
    [
        (date(2026, 11, 30), None),
        (date(2026, 12, 1), "openai/gpt-4o retires on 2027-03-01, in 90 days"),
        (date(2027, 2, 28), "openai/gpt-4o retires on 2027-03-01, in 1 days"),
        (date(2027, 3, 1), "openai/gpt-4o was retired on 2027-03-01"),
    ],
)
def test_the_warning_comes_ninety_days_ahead(today: date, message: str | None) -> None:
    """And changes its words on the day."""
    config = config_of(HEAD + "aliases: {a: openai/gpt-4o}\n")
    assert [problem.message for problem in check(config, today)] == ([message] if message else [])


COUNT = 6_000
CHAIN = {f"m{n}": f"m{n + 1}" for n in range(COUNT)}
UNKNOWN = [f"nobody{n}" for n in range(COUNT)]


@pytest.mark.parametrize(
    ("sections", "count", "first"),
    [
        ({"models": {name: ModelEntry(use=use) for name, use in {**CHAIN, f"m{COUNT}": "groq/x"}.items()}}, 0, ""),
        ({"aliases": {**CHAIN, f"m{COUNT}": "m0"}}, 1, "circular reference: m0 -> m1 -> m2"),
        ({"aliases": {**CHAIN, f"m{COUNT}": "groq/x"}, "tasks": {"coding": list(CHAIN)}}, 0, ""),
        ({"models": dict.fromkeys(CHAIN, ModelEntry(use="m00")), "tasks": {"coding": UNKNOWN}}, 2 * COUNT, "unknown"),
    ],
    ids=["chain", "circle", "list", "unknown"],
)
@pytest.mark.sampled(3)
def test_many_names_are_checked_in_linear_time(sections: dict[str, Any], count: int, first: str) -> None:
    """A step that many names share is taken once, and only some unknown names are compared with all others."""
    config = structs.replace(config_of(HEAD), **sections)
    took_s = usual_s(lambda: check(config, TODAY), 1)
    found = check(config, TODAY)
    print(f"\n  {COUNT} names: {took_s * 1000:.0f} ms")
    assert len(found) == count
    assert all(problem.message.startswith(first) for problem in found)
    assert took_s < 1.5
