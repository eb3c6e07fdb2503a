"""Ranking, fusion and verification in routing_rules.yaml: what loads, and how a mistake is named."""

from __future__ import annotations

import pytest

from proxy.config import Config, ConfigError, Source, configure
from proxy.ensembles.base import Member
from proxy.ensembles.verification import Verification

HEAD = "version: 1\nproviders: {openai: {}}\nensembles:\n  x: "
PRICES = b"version: 1\nmodels: {openai/*: {input: 1, output: 10}}\n"


def read(entry: str) -> Config:
    routing = Source("routing_rules.yaml", f"{HEAD}{entry}\n".encode())
    return configure(routing, Source("pricing.yaml", PRICES), {"OPENAI_API_KEY": "one"})


@pytest.mark.parametrize(
    ("generator", "members"),
    [
        ("openai/a", [Member("openai/a")]),
        ("{use: openai/a, temperature: 0.5}", [Member("openai/a", temperature=0.5)]),
        ("[openai/a, {use: openai/b, seed: 1}]", [Member("openai/a"), Member("openai/b", seed=1)]),
    ],
)
def test_a_generator_is_a_name_a_member_or_a_list_of_them(generator, members):
    found = read(f"{{strategy: verification, generator: {generator}, validator: openai/c}}").ensembles["x"]
    assert isinstance(found, Verification)
    assert found.panelists() == members


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{strategy: ranking, quality_metric: beauty}", "quality_metric: must be coherence, accuracy or completeness"),
        ("{strategy: ranking, judge: nobody}", 'judge: unknown model "nobody"'),
        ('{strategy: ranking, judge: ""}', "judge: must not be empty"),
        ("{strategy: ranking, judgee: openai/a}", 'judgee: unknown key; did you mean "judge"?'),
        ("{strategy: fusion, prefer: loudest}", "prefer: must be majority or heaviest"),
        ("{strategy: fusion, members: [openai/a], judge: 'ensemble:x'}", "judge: circular reference"),
        ("{strategy: verification, validator: nobody}", 'validator: unknown model "nobody"'),
        ("{strategy: verification, generator: nobody}", 'generator: unknown model "nobody"'),
        ("{strategy: verification, generator: {use: nobody}}", 'generator.use: unknown model "nobody"'),
        ("{strategy: verification, generator: [openai/a, nobody]}", 'generator.1: unknown model "nobody"'),
        ("{strategy: verification, generator: [{use: nobody}]}", 'generator.0.use: unknown model "nobody"'),
        ("{strategy: verification, generator: 7}", "generator: expected text or keys and values or a list"),
        ("{strategy: verification, generator: {use: openai/a, wieght: 2}}", "generator.wieght: unknown key"),
        ("{strategy: verification, min_confidence: 1.2}", "min_confidence: must be from 0 to 1"),
        ("{strategy: voting, min_agreement: 67}", "min_agreement: must be greater than 0 and at most 1"),
        ("{strategy: voting, min_agreement: 0}", "min_agreement: must be greater than 0 and at most 1"),
        ("{strategy: voting, members: [{use: openai/a, weight: 0}]}", "members.0.weight: must be from 0.001 to 1000"),
        ("{strategy: voting, members: [{use: openai/a, weight: 1e9}]}", "members.0.weight: must be from 0.001 to 1000"),
        ("{strategy: verification, max_revisions: 6}", "max_revisions: must be from 0 to 5"),
    ],
)
def test_a_mistake_is_named_by_its_place(entry, problem):
    with pytest.raises(ConfigError) as caught:
        read(entry)
    assert f"ensembles.x.{problem}" in "\n".join(f"{each.path}: {each.message}" for each in caught.value.problems)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("generator: openai/a, members: [openai/b]", "generator and members are synonyms"),
        ("generator: []", "generator must have 1 to 16 entries"),
        ("generator: openai/a, min_answers: 2", "min_answers has no meaning here"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(keys, why):
    with pytest.raises(ConfigError) as caught:
        read(f"{{strategy: verification, {keys}}}")
    assert [each.path for each in caught.value.problems] == ["ensembles.x"]
    assert why in caught.value.problems[0].message
