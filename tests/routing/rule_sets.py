"""Random conditions, rules and facts, from few values, so that they meet often."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as st

from proxy.routing.facts import Facts
from proxy.routing.settings import TASKS, Rule, When
from proxy.schema.hints import PRIORITIES

FLAGS = [name for name in Facts.__struct_fields__ if name.startswith("has_")]
FLAGS += ["needs_web_search", "latency_critical", "accuracy_critical", "budget_mode"]
KEYS = ["mobile-a", "mobile-b", "web"]
TAGS = ["batch", "nightly", "web"]
TIERS = ["gold", "silver"]
TEXTS = ["pay this invoice", "write a poem", "", "invoice [x]"]
LANGUAGES = ["en", "de", "pt-br"]
TOKENS = [0, 10, 50, 100]
SHARES = [0.0, 0.25, 0.5, 1.0]


def words(values: list[str], patterns: tuple[str, ...] = ()) -> st.SearchStrategy[str | list[str]]:
    one = st.sampled_from([*values, *patterns])
    return one | st.lists(one, max_size=3)


def plain_keys() -> dict[str, st.SearchStrategy[object]]:
    return {
        "task": words(list(TASKS[:3])),
        "priority": words(list(PRIORITIES)),
        "language": words(LANGUAGES, ("pt-*",)),
        "key": words(KEYS, ("mobile-*", "*")),
        "tag": words(TAGS, ("n*", "?eb")),
        "text_matches": words(["*INVOICE*", "*poem", "*[[]x]"]),
        "metadata": st.dictionaries(st.sampled_from(["tier", "team"]), words(TIERS, ("*o*",)), max_size=2),
        "header": st.dictionaries(st.sampled_from(["X-Team", "x-app"]), words(TIERS, ("g*",)), max_size=2),
        "input_tokens_over": st.sampled_from(TOKENS),
        "input_tokens_under": st.sampled_from(TOKENS[1:]),
        "difficulty_over": st.sampled_from(SHARES),
        "difficulty_under": st.sampled_from(SHARES),
        "budget_spent_over": st.sampled_from(SHARES),
        **{flag: st.booleans() for flag in FLAGS},
    }


def tables() -> st.SearchStrategy[dict[str, object]]:
    """A condition as it is written in YAML, with up to three keys, and conditions inside it."""

    def few(inner: st.SearchStrategy[dict[str, object]] | None) -> st.SearchStrategy[dict[str, object]]:
        keys = plain_keys()
        if inner is not None:
            keys |= {"any": st.lists(inner, max_size=3), "not": inner}
        return st.lists(st.sampled_from(sorted(keys)), max_size=3, unique=True).flatmap(
            lambda names: st.fixed_dictionaries({name: keys[name] for name in names})
        )

    return st.recursive(few(None), few, max_leaves=4)


def whens() -> st.SearchStrategy[When]:
    return tables().map(lambda table: msgspec.convert(table, When))


def rule_sets() -> st.SearchStrategy[list[Rule]]:
    def named(conditions: list[When]) -> list[Rule]:
        return [Rule(name=f"rule {place}", when=when, use="a") for place, when in enumerate(conditions)]

    return st.lists(whens(), max_size=6).map(named)


def random_facts(seed: int, count: int) -> Iterator[Facts]:
    draw = random.Random(seed)
    for _ in range(count):
        flags: dict[str, Any] = {flag: draw.random() < 0.4 for flag in FLAGS}
        yield Facts(
            task=draw.choice(TASKS[:4]),
            priority=draw.choice(PRIORITIES),
            language=draw.choice(LANGUAGES),
            key=draw.choice([None, *KEYS]),
            tags=tuple(tag for tag in TAGS if draw.random() < 0.4),
            text=draw.choice(TEXTS),
            metadata={name: draw.choice(TIERS) for name in ("tier", "team") if draw.random() < 0.6},
            headers={name: draw.choice(TIERS) for name in ("x-team", "x-app") if draw.random() < 0.6},
            input_tokens_estimate=draw.choice([0, 1, 10, 11, 49, 50, 51, 99, 100, 101]),
            difficulty=draw.choice([0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0]),
            budget_spent=draw.choice([None, 0.0, 0.25, 0.6, 1.0]),
            is_task_named=False,
            **flags,
        )
