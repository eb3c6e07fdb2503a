"""The section `ensembles`: what loads, what is refused with its place, and what `proxy check` warns of."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from proxy.config import Config, ConfigError, Source, configure
from proxy.config.json_schema import routing_schema
from proxy.config.warnings import find_warnings
from proxy.ensembles.base import Member
from proxy.providers import PROVIDERS
from tests.cli.values import Validator, value_of
from tests.ensembles.first import STRATEGIES, First

HEAD = "version: 1\nproviders: {openai: {}, groq: {}}\n"
KEYS = {"OPENAI_API_KEY": "one", "GROQ_API_KEY": "two"}
PRICES = b"""
version: 1
models:
  openai/a: {input: 1, output: 10, max_output: 100000}
  openai/b: {input: 1, output: 10, max_output: 100000}
  groq/c: {input: 1, output: 10, max_output: 100000}
"""
SCHEMA = Validator(routing_schema(PROVIDERS, {}, STRATEGIES))


def read(text: str) -> Config:
    routing = Source("routing_rules.yaml", (HEAD + text).encode())
    return configure(routing, Source("pricing.yaml", PRICES), KEYS, strategies=STRATEGIES)


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [f"{each.path}: {each.message}" for each in caught.value.problems]


def warned(text: str) -> list[str]:
    found = find_warnings(read(text), date(2026, 11, 29), lambda name: None)
    return [f"{each.path}: {each.message}" for each in found]


def panel(*members: str, **keys: Any) -> str:
    more = "".join(f", {key}: {value}" for key, value in keys.items())
    return f"{{strategy: first, members: [{', '.join(members)}]{more}}}"


def test_each_ensemble_is_a_struct_of_its_strategy() -> None:
    """A member is a name, or a name with parameters."""
    config = read(
        "ensembles: {enabled: true, x: {strategy: first, members: [openai/a, {use: groq/c, weight: 2}], enough: 1}}"
    )
    assert config.ensembles == {"x": First(members=["openai/a", Member("groq/c", weight=2)], enough=1)}
    assert config.ensembles_enabled


@pytest.mark.parametrize("text", ["", "ensembles:\n", "ensembles: {}\n", "ensembles: {enabled: false}\n"])
def test_without_ensembles_there_are_none(text: str) -> None:
    """And rules do not choose any."""
    assert (read(text).ensembles, read(text).ensembles_enabled) == ({}, False)


SECTIONS = [
    ("{x: {}}", ["ensembles.x: has no strategy; strategies: first"], False),
    ("{x: }", ["ensembles.x: has no strategy; strategies: first"], False),
    ("{x: {strategy: frist}}", ['ensembles.x.strategy: unknown strategy "frist"; did you mean "first"?'], False),
    ("{x: {strategy: 3}}", ['ensembles.x.strategy: unknown strategy "3"; strategies: first'], False),
    ("{x: {strategy: first, membres: []}}", ['ensembles.x.membres: unknown key; did you mean "members"?'], False),
    ("{x: {strategy: first, size: 0}}", ["ensembles.x.size: must be from 1 to 16"], False),
    ("{x: {strategy: first, members: [{weight: 2}]}}", ["ensembles.x.members.0.use: is missing"], False),
    ("{x: voting}", ["ensembles.x: expected keys and values, got text"], False),
    ("{enabled: maybe}", ["ensembles.enabled: expected true or false, got text"], False),
    ("{'a b': {strategy: first}}", ["ensembles.a b: an ensemble's name is made of a-z, 0-9, `.`, `_` and `-`"], False),
    (
        "{x: {strategy: first, size: 2, min_answers: 3}}",
        ["ensembles.x.min_answers: is 3, and the ensemble has 2 seats"],
        True,
    ),
    (
        "{x: {strategy: first, members: [openai/a], min_answers: 2}}",
        ["ensembles.x.min_answers: is 2, and the ensemble has 1 seats"],
        True,
    ),
    (
        "{x: {strategy: first, members: [opnai/a]}}",
        ['ensembles.x.members.0: unknown provider "opnai"; did you mean "openai"?'],
        True,
    ),
    (
        "{x: {strategy: first, last: nobody}}",
        ['ensembles.x.last: unknown model "nobody"; use a name under models: or aliases:, or provider/model'],
        True,
    ),
    (
        "{x: {strategy: first, members: ['ensemble:y']}}",
        ['ensembles.x.members.0: unknown ensemble "ensemble:y"; did you mean "ensemble:x"?'],
        True,
    ),
]


@pytest.mark.parametrize(("section", "messages", "is_beyond"), SECTIONS, ids=[case[0] for case in SECTIONS])
def test_a_mistake_is_refused_with_its_place(section: str, messages: list[str], is_beyond: bool) -> None:
    """An editor sees it too, unless it is about names and numbers that belong together."""
    assert faults(f"ensembles: {section}\n") == messages
    wrong = SCHEMA.wrong(value_of(f"{HEAD}ensembles: {section}\n"))
    assert bool(wrong) is not is_beyond


CYCLES = [
    (f"ensembles: {{x: {panel('openai/a', 'ensemble:x')}}}", "ensemble:x -> ensemble:x"),
    (f"ensembles: {{x: {panel('ensemble:y')}, y: {panel('ensemble:x')}}}", "ensemble:x -> ensemble:y -> ensemble:x"),
    (f"aliases: {{m: 'ensemble:x'}}\nensembles: {{x: {panel('m')}}}", "m -> ensemble:x -> m"),
    (f"models: {{m: {{use: 'ensemble:x'}}}}\nensembles: {{x: {panel('m')}}}", "m -> ensemble:x -> m"),
    (
        f"models: {{m: {{weighted: {{'ensemble:x': 1, openai/a: 9}}}}}}\nensembles: {{x: {panel('m')}}}",
        "m -> ensemble:x -> m",
    ),
    (f"ensembles: {{x: {panel('openai/a', last='ensemble:x')}}}", "ensemble:x -> ensemble:x"),
    (
        f"ensembles: {{enabled: true, x: {panel('auto')}}}\nrules: [{{name: r, when: {{}}, use: {{ensemble: x}}}}]",
        "auto -> ensemble:x -> auto",
    ),
    (
        f"aliases: {{any: 'auto:code'}}\nensembles: {{x: {panel('any')}}}\n"
        "rules: [{name: r, when: {}, use: {ensemble: x}}]",
        "any -> auto:code -> ensemble:x -> any",
    ),
]


@pytest.mark.parametrize(("text", "chain"), CYCLES, ids=[case[1] for case in CYCLES])
def test_an_ensemble_that_contains_itself_is_refused(text: str, chain: str) -> None:
    """Directly, through aliases, models, weights, judges, other ensembles, and rules."""
    (found,) = faults(text + "\n")
    assert found.endswith(f"circular reference: {chain}")


def test_ensembles_may_stand_where_they_can_answer() -> None:
    """In aliases, as a model, among weights, in other ensembles, in keys, and in rules by their key."""
    inner, outer = panel("openai/a", "groq/c", last="openai/b"), panel("al", "m", "w", "'ensemble:x'")
    read(
        f"""
models: {{m: {{use: "ensemble:x"}}, w: {{weighted: {{"ensemble:x": 1, openai/a: 9}}, fallback: [groq/c]}}}}
aliases: {{al: "ensemble:x"}}
ensembles: {{enabled: true, x: {inner}, y: {outer}, z: {panel("auto", "auto:code")}}}
rules: [{{name: r, when: {{has_tools: true}}, use: {{ensemble: y}}}}]
keys: {{mobile: {{models: ["ensemble:x", "ensemble:*"]}}}}
"""
    )


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("router: {default_model: 'ensemble:x'}", "router.default_model"),
        ("router: {fallback: ['ensemble:x']}", "router.fallback.0"),
        ("router: {default_model: al}", "router.default_model"),
        ("tasks: {code: m}", "tasks.code"),
        ("models: {n: {use: openai/a, fallback: ['ensemble:x']}}", "models.n.fallback.0"),
        ("budget: {daily_usd: 1, when_spent: downgrade, downgrade_to: al}", "budget.downgrade_to"),
        ("usage: {baseline: 'ensemble:x'}", "usage.baseline"),
        ("rules: [{name: r, when: {}, use: [openai/a, al]}]", "rules.0.use.1"),
        ("rules: [{name: r, when: {}, use: {strategy: task_based, among: [al]}}]", "rules.0.use.among.0"),
    ],
)
def test_an_ensemble_is_neither_a_fallback_nor_a_default(text: str, where: str) -> None:
    """Nor is a name that leads to one."""
    models = "" if text.startswith("models") else "models: {m: {use: al}}\n"
    (found,) = faults(f"aliases: {{al: 'ensemble:x'}}\n{models}ensembles: {{x: {panel('openai/a')}}}\n{text}\n")
    assert found.startswith(f"{where}: ")
    assert "is an ensemble, which cannot be used here" in found
    assert ("write use: {ensemble: x}" in found) is text.startswith("rules")


def test_an_ensemble_has_no_fallback() -> None:
    (found,) = faults(
        f"models: {{m: {{use: 'ensemble:x', fallback: [groq/c]}}}}\nensembles: {{x: {panel('openai/a')}}}\n"
    )
    assert found == "models.m.fallback: an ensemble has no fallback; its members have their own"


# --- warnings ---------------------------------------------------------------------------------------------------------


def test_seats_of_one_deployment_are_reported() -> None:
    """Also behind different names."""
    twice, once = panel("openai/a", "same", "groq/c"), panel("openai/a")
    text = f"aliases: {{same: openai/a}}\nensembles: {{x: {twice}, y: {once}}}\n"
    assert warned(text) == ["ensembles.x: several seats ask openai/a; answers of one model agree too easily"]


@pytest.mark.parametrize(
    ("keys", "only"), [(("OPENAI_API_KEY",), "openai/a"), (("GROQ_API_KEY",), "groq/c"), (tuple(KEYS), None)]
)
def test_a_cascade_whose_members_are_one_model_is_reported(keys: tuple[str, ...], only: str | None) -> None:
    """With the keys that are set: it would always escalate."""
    models = "{a: {use: openai/a, fallback: [groq/c]}, c: {use: groq/c, fallback: [openai/a]}}"
    cascade = "{strategy: voting, members: [a, c], below: escalate, escalate_to: a}"
    expected = f"ensembles.x: its members cannot agree: with the API keys that are set, only {only} answers for them"
    for entry, found in ((cascade, only), (cascade[:-1] + ", count_same_deployment: true}", None)):
        routing = Source("r.yaml", f"{HEAD}models: {models}\nensembles: {{x: {entry}}}\n".encode())
        config = configure(routing, Source("pricing.yaml", PRICES), {key: KEYS[key] for key in keys})
        warnings = find_warnings(config, date(2026, 11, 29), lambda name: None)
        texts = [f"{each.path}: {each.message}" for each in warnings if each.path == "ensembles.x"]
        assert texts == ([expected] if found else [])


def test_an_ensemble_over_its_own_limit_is_reported() -> None:
    """One that shrinks, and one that can never answer."""
    members = panel("openai/a", "openai/b", "groq/c", max_cost_usd=0.1)
    (found,) = warned(f"ensembles: {{x: {members}}}\n")
    assert found.startswith("ensembles.x.max_cost_usd: for an answer of 4096 tokens the members may cost up to $0.12")
    assert found.endswith("then 2 of 3 are asked")
    never = panel("openai/a", "openai/b", "groq/c", max_cost_usd=0.01)
    (found,) = warned(f"ensembles: {{x: {never}}}\n")
    assert found.startswith("ensembles.x.max_cost_usd: can never answer: ensemble:x could cost up to $0.08")
    assert warned(f"ensembles: {{x: {panel('openai/a', 'groq/c', max_cost_usd=1)}}}\n") == []


def test_a_rule_with_an_ensemble_that_is_switched_off_is_reported() -> None:
    rule = "rules: [{name: r, when: {has_tools: true}, use: {ensemble: x}}]\n"
    text = f"ensembles: {{x: {panel('openai/a', 'groq/c')}}}\n{rule}"
    assert warned(text) == ["rules.0: never used: ensembles.enabled is false, so rules do not choose ensembles"]
    assert warned(text.replace("{x:", "{enabled: true, x:")) == []
