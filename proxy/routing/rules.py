"""Translates: the section `rules` and Facts into the first rule that matches, and why each earlier one does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct

from proxy.routing.facts import Facts
from proxy.routing.settings import Rule, When

_WORDS = ("task", "priority")
_FLAGS = (
    *("has_images", "has_audio", "has_video", "has_files", "has_tools", "has_json_schema", "needs_web_search"),
    *("latency_critical", "accuracy_critical", "budget_mode"),
)
_LIMITS = {
    "input_tokens_over": "input_tokens_estimate",
    "input_tokens_under": "input_tokens_estimate",
    "difficulty_over": "difficulty",
    "difficulty_under": "difficulty",
    "budget_spent_over": "budget_spent",
}
_SHOWN = 60  # characters of a value in a reason


class Check(NamedTuple):
    """One key of a condition: does it hold for these facts, and if not, why?"""

    holds: Callable[[Facts], bool]
    why: Callable[[Facts], str]


class CompiledRule(NamedTuple):
    """A rule, ready to be matched. `tasks`: those that it can match; None: any."""

    rule: Rule
    checks: tuple[Check, ...]
    tasks: frozenset[str] | None = None

    def never(self, why: str) -> CompiledRule:
        """The rule with one more key, which never holds."""
        return self._replace(checks=(*self.checks, Check(lambda facts: False, lambda facts: why)))


class RuleTried(Struct, frozen=True):
    """One rule that was tried. `why`: the first key that did not hold, with both values."""

    name: str
    matched: bool
    why: str = ""


def compiled(rules: Iterable[Rule]) -> tuple[CompiledRule, ...]:
    return tuple(CompiledRule(rule, _checks(rule.when), _tasks(rule.when)) for rule in rules)


def _tasks(when: When) -> frozenset[str] | None:
    return None if when.task is None else frozenset(listed(when.task))


def match(rules: tuple[CompiledRule, ...], facts: Facts) -> tuple[Rule | None, tuple[CompiledRule, ...]]:
    """The first rule whose keys all hold, and every rule up to it."""
    task = facts.task
    for place, (rule, checks, tasks) in enumerate(rules, 1):
        if tasks is not None and task not in tasks:
            continue
        for holds, _ in checks:
            if not holds(facts):
                break
        else:
            return rule, rules[:place]
    return None, rules


def outcomes(tried: Iterable[CompiledRule], facts: Facts) -> tuple[RuleTried, ...]:
    """The outcome of each rule that was tried."""
    failed = (
        (rule.name, next((check for check in checks if not check.holds(facts)), None)) for rule, checks, _ in tried
    )
    return tuple(RuleTried(name, check is None, check.why(facts) if check else "") for name, check in failed)


def headers_in(rules: Iterable[Rule]) -> frozenset[str]:
    """The names of the headers that rules use, lower case."""
    return frozenset(name.lower() for rule in rules for when in conditions(rule.when) for name in when.header or ())


def reads_text(rules: Iterable[Rule]) -> bool:
    """True if a rule uses the text that a person wrote."""
    return any(when.text_matches is not None for rule in rules for when in conditions(rule.when))


def reads_budget(rules: Iterable[Rule]) -> bool:
    """True if a rule uses the spent share of the budget."""
    return any(when.budget_spent_over is not None for rule in rules for when in conditions(rule.when))


def looks_at_difficulty(rules: Iterable[Rule], task: str) -> bool:
    """True if a rule can use the difficulty of a request with this task."""
    return any(_looks_at_difficulty(rule.when, task) for rule in rules)


def _looks_at_difficulty(when: When, task: str) -> bool:
    """False for a condition on another task, which fails before its difficulty is compared."""
    if when.task is not None and task not in listed(when.task):
        return False
    is_compared = when.difficulty_over is not None or when.difficulty_under is not None
    return is_compared or any(_looks_at_difficulty(each, task) for each in _inner(when))


def conditions(when: When) -> list[When]:
    """A condition and those inside it."""
    return [when, *(each for other in _inner(when) for each in conditions(other))]


def _inner(when: When) -> list[When]:
    return [*(when.any or ()), *([when.not_] if when.not_ is not None else ())]


# --- one key ----------------------------------------------------------------------------------------------------------


def _checks(when: When) -> tuple[Check, ...]:
    """The keys that are given, the cheapest first."""
    found = [_word(key, listed(wanted)) for key in _WORDS if (wanted := getattr(when, key)) is not None]
    found += [_flag(key, wanted) for key in _FLAGS if (wanted := getattr(when, key)) is not None]
    found += [_limit(key, fact, wanted) for key, fact in _LIMITS.items() if (wanted := getattr(when, key)) is not None]
    if when.language is not None:
        found.append(_text("language", attrgetter("language"), listed(when.language)))
    if when.key is not None:
        found.append(_text("key", attrgetter("key"), listed(when.key)))
    if when.tag is not None:
        found.append(_tag(listed(when.tag)))
    found += [_entry("metadata", name, name, listed(wanted)) for name, wanted in (when.metadata or {}).items()]
    found += [_entry("header", name, name.lower(), listed(wanted)) for name, wanted in (when.header or {}).items()]
    if when.text_matches is not None:
        patterns = [pattern.lower() for pattern in listed(when.text_matches)]
        found.append(_text("text_matches", attrgetter("text"), patterns))
    if when.any is not None:
        found.append(_any([_checks(each) for each in when.any]))
    if when.not_ is not None:
        found.append(_not(_checks(when.not_)))
    return tuple(found)


def _word(key: str, wanted: Sequence[str]) -> Check:
    allowed, fact = frozenset(wanted), attrgetter(key)
    text = " or ".join(wanted)
    return Check(lambda facts: fact(facts) in allowed, lambda facts: f"{key} is {fact(facts)}, not {text}")


def _flag(key: str, wanted: bool) -> Check:
    fact = attrgetter(key)
    text = f"{key} is {'false' if wanted else 'true'}, not {'true' if wanted else 'false'}"
    return Check(lambda facts: fact(facts) is wanted, lambda facts: text)


def _limit(key: str, name: str, limit: float) -> Check:
    fact = attrgetter(name)
    if key.endswith("_over"):
        return Check(
            lambda facts: (value := fact(facts)) is not None and value > limit,
            lambda facts: f"{name} is {_number(fact(facts))}, not over {limit:g}",
        )
    return Check(
        lambda facts: (value := fact(facts)) is not None and value < limit,
        lambda facts: f"{name} is {_number(fact(facts))}, not under {limit:g}",
    )


def _text(key: str, fact: Callable[[Facts], str | None], wanted: Sequence[str]) -> Check:
    fits, text = _pattern(wanted), " or ".join(wanted)
    return Check(
        lambda facts: (value := fact(facts)) is not None and fits(value),
        lambda facts: f"{key} is {_short(fact(facts))}, not {text}",
    )


def _tag(wanted: Sequence[str]) -> Check:
    fits, text = _pattern(wanted), " or ".join(wanted)
    return Check(
        lambda facts: any(map(fits, facts.tags)),
        lambda facts: f"tag is {_short(', '.join(facts.tags) or None)}, not {text}",
    )


def _entry(key: str, shown: str, name: str, wanted: Sequence[str]) -> Check:
    """One name under `metadata` or `header`."""
    fact: Callable[[Facts], Mapping[str, str]] = attrgetter("headers" if key == "header" else key)
    return _text(f"{key}.{shown}", lambda facts: fact(facts).get(name), wanted)


def _any(alternatives: Sequence[tuple[Check, ...]]) -> Check:
    def why(facts: Facts) -> str:
        failed = (next(check for check in checks if not check.holds(facts)) for checks in alternatives)
        return f"none of `any` holds: {'; '.join(check.why(facts) for check in failed)}"

    return Check(lambda facts: any(all(check.holds(facts) for check in checks) for checks in alternatives), why)


def _not(checks: tuple[Check, ...]) -> Check:
    return Check(
        lambda facts: not all(check.holds(facts) for check in checks), lambda facts: "what `not` excludes holds"
    )


def _pattern(wanted: Sequence[str]) -> Callable[[str], bool]:
    """True for a text that equals one of the values, or matches one with `*`, `?` or `[...]`."""
    plain = frozenset(wanted)
    globs = [re.compile(translate(each)).match for each in wanted if any(sign in each for sign in "*?[")]
    if not globs:
        return plain.__contains__
    return lambda text: text in plain or any(fits(text) is not None for fits in globs)


def _short(value: Any) -> str:
    if value is None:
        return "not given"
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def listed(value: str | list[str] | None) -> list[str]:
    """One value or several, as a list."""
    return [value] if isinstance(value, str) else value or []
