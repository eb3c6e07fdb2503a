"""A plain evaluation of rules, written from their documentation and not from the engine: slow, obvious, for tests."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from proxy.routing.facts import Facts
from proxy.routing.settings import Rule, When


def first_match(rules: Sequence[Rule], facts: Facts) -> str | None:
    for rule in rules:
        if holds(rule.when, facts):
            return rule.name
    return None


def holds(when: When, facts: Facts) -> bool:
    results = []
    for key in When.__struct_fields__:
        wanted = getattr(when, key)
        if wanted is None:
            continue
        if key == "any":
            results.append(any(holds(each, facts) for each in wanted))
        elif key == "not_":
            results.append(not holds(wanted, facts))
        elif key == "metadata":
            results += [one_of(facts.metadata.get(name), values) for name, values in wanted.items()]
        elif key == "header":
            results += [one_of(facts.headers.get(name.lower()), values) for name, values in wanted.items()]
        elif key == "tag":
            results.append(any(one_of(tag, wanted) for tag in facts.tags))
        elif key == "text_matches":
            results.append(one_of(facts.text, [value.lower() for value in as_list(wanted)]))
        elif key == "input_tokens_over":
            results.append(facts.input_tokens_estimate > wanted)
        elif key == "input_tokens_under":
            results.append(facts.input_tokens_estimate < wanted)
        elif key == "difficulty_over":
            results.append(facts.difficulty > wanted)
        elif key == "difficulty_under":
            results.append(facts.difficulty < wanted)
        elif key == "budget_spent_over":
            results.append(facts.budget_spent is not None and facts.budget_spent > wanted)
        elif isinstance(wanted, bool):
            results.append(getattr(facts, key) == wanted)
        else:
            results.append(one_of(getattr(facts, key), wanted))
    return all(results)


def one_of(value: str | None, wanted: Any) -> bool:
    return value is not None and any(value == each or fnmatch.fnmatchcase(value, each) for each in as_list(wanted))


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
