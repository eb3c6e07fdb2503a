"""Translates: the sections `rules` and `tasks` into problems: rules that can never match, dead rules, unknown tasks.

Only what is certain is reported. Names of models are checked by `proxy.config.references`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from math import floor, inf
from typing import Any

from proxy.config.problems import Path, Problem, Severity, near, shown
from proxy.config.references import problem_at
from proxy.config.settings import Config
from proxy.routing.settings import DEFAULT_TASK, LANGUAGES, TASKS, Among, Rule, When

_WORDS = ("task", "priority", "language", "key")  # a request has exactly one of each
_FLAGS = (
    *("has_images", "has_audio", "has_video", "has_files", "has_tools", "has_json_schema", "needs_web_search"),
    *("latency_critical", "accuracy_critical", "budget_mode"),
)
_LIMITS = ("input_tokens", "difficulty")
_NAMED = ("metadata", "header")
_CREDENTIALS = ("authorization", "proxy-authorization", "x-api-key", "api-key", "cookie")


def rule_problems(config: Config) -> Iterator[Problem]:
    """Rules that cannot work, and tasks that do not exist."""
    lines: dict[str, int] = {}
    for place, rule in enumerate(config.rules):
        path = ("rules", str(place))
        if not rule.name:
            continue  # could not be read; already reported
        if rule.name in lines:
            yield problem_at(config, (*path, "name"), f"the rule in line {lines[rule.name]} has this name")
        lines.setdefault(rule.name, line_of(config, place))
        for where, message in (*_empty(rule), *_inside(("when",), rule.when)):
            yield problem_at(config, (*path, *where), message)
        if (why := clash((), rule.when)) is not None:
            yield problem_at(config, (*path, "when"), f"can never hold: {why}")
    for task, names in config.tasks.items():
        if task not in (*TASKS, DEFAULT_TASK):
            hint = (
                near(task, (*TASKS, DEFAULT_TASK)) or f"; tasks: {', '.join(TASKS)}, and {DEFAULT_TASK} for the others"
            )
            yield problem_at(config, ("tasks", task), f'unknown task "{shown(task)}"{hint}')
        elif not names:
            yield problem_at(config, ("tasks", task), "is empty; name at least one model")


def dead_rules(config: Config) -> Iterator[Problem]:
    """A warning for each rule that is never reached, because an earlier one always matches first."""
    for place, rule in enumerate(config.rules):
        for earlier, other in enumerate(config.rules[:place]):
            if covers(other.when, rule.when):
                first = f'the rule "{shown(other.name)}" in line {line_of(config, earlier)}'
                message = f"never reached: {first} matches whenever this one does"
                yield problem_at(config, ("rules", str(place)), message, Severity.WARNING)
                break


def line_of(config: Config, place: int) -> int:
    mark = config.marks.get(("rules", str(place)))
    return mark.line if mark else 0


def _empty(rule: Rule) -> Iterator[tuple[Path, str]]:
    """Lists without an entry: no model to use, or a condition that nothing satisfies."""
    if rule.use == []:
        yield ("use",), "is empty; name at least one model"
    if isinstance(rule.use, Among) and rule.use.among == []:
        yield ("use", "among"), "is empty; name at least one model"


def _inside(path: Path, when: When) -> Iterator[tuple[Path, str]]:
    """In a condition and those inside it: headers that rules cannot read, and languages that no request has."""
    for name in when.header or ():
        if name.lower() in _CREDENTIALS:
            yield (*path, "header", name), "carries a credential, which rules cannot read; use `key`"
    for wanted in _listed(when.language or []):
        if not any(fnmatchcase(language, wanted) for language in LANGUAGES):
            hint = near(wanted.lower().partition("-")[0], LANGUAGES) or f"; languages: {', '.join(LANGUAGES)}"
            yield (*path, "language"), f'no request has the language "{shown(wanted)}"{hint}'
    for place, each in enumerate(when.any or ()):
        yield from _inside((*path, "any", str(place)), each)
    if when.not_ is not None:
        yield from _inside((*path, "not"), when.not_)


# --- what excludes what, and what implies what ------------------------------------------------------------------------


def clash(held: Sequence[When], when: When) -> str | None:
    """Why `when` cannot hold together with the conditions `held`; None if it may."""
    held = (*held, when)
    for why in (_empty_list(when), _clash_of_words(held), _clash_of_flags(held), _clash_of_limits(held)):
        if why is not None:
            return why
    if when.not_ is not None and implied(held, when.not_):
        return "`not` excludes what the other keys require"
    if when.any is not None:
        whys = [clash(held, each) for each in when.any]
        if None not in whys:
            return f"no entry of `any` can: {whys[0]}" if whys else "`any` is empty"
    return None


def implied(held: Sequence[When], when: When) -> bool:
    """True if `when` holds wherever all of `held` do."""
    for key, wanted in _plain(when):
        if not any(_implies(key, given, wanted) for each in held if (given := getattr(each, key)) is not None):
            return False
    if when.not_ is not None and clash(held, when.not_) is None:
        return False
    return when.any is None or any(implied(held, each) for each in when.any)


def covers(earlier: When, later: When, held: Sequence[When] = ()) -> bool:
    """True if `earlier` holds wherever `later` does."""
    held = (*held, later)
    if implied(held, earlier):
        return True
    return bool(later.any) and all(covers(earlier, each, held) for each in later.any or ())


def _plain(when: When) -> list[tuple[str, Any]]:
    """The keys given, without `any` and `not`."""
    fields = [name for name in When.__struct_fields__ if name not in ("any", "not_")]
    return [(name, value) for name in fields if (value := getattr(when, name)) is not None]


def _implies(key: str, given: Any, wanted: Any) -> bool:
    if key in _NAMED:
        return all(name in given and set(_listed(given[name])) <= set(_listed(wanted[name])) for name in wanted)
    if key in _FLAGS:
        return bool(given == wanted)
    if key.endswith("_over"):
        return bool(given >= wanted)
    if key.endswith("_under"):
        return bool(given <= wanted)
    return set(_listed(given)) <= set(_listed(wanted))


def _empty_list(when: When) -> str | None:
    tables = [(f"{key}.{name}", getattr(when, key)[name]) for key in _NAMED for name in getattr(when, key) or ()]
    return next((f"`{key}` is an empty list" for key, value in (*_plain(when), *tables) if value == []), None)


def _clash_of_words(held: Sequence[When]) -> str | None:
    for key in _WORDS:
        if why := _disjoint(key, [getattr(each, key) for each in held]):
            return why
    for key in _NAMED:
        tables = [getattr(each, key) or {} for each in held]
        for name in dict.fromkeys(name for table in tables for name in table):
            if why := _disjoint(f"{key}.{name}", [table.get(name) for table in tables]):
                return why
    return None


def _disjoint(key: str, given: list[Any]) -> str | None:
    """Why no value is in all of these lists; None if a pattern is among them, since that cannot be decided."""
    lists = [_listed(value) for value in given if value is not None]
    if not lists or any(sign in value for values in lists for value in values for sign in "*?["):
        return None
    return None if set(lists[0]).intersection(*lists[1:]) else f"`{key}` has no value in common with itself"


def _clash_of_flags(held: Sequence[When]) -> str | None:
    both = (key for key in _FLAGS if {getattr(each, key) for each in held} >= {True, False})
    return next((f"`{key}` would have to be true and false" for key in both), None)


def _clash_of_limits(held: Sequence[When]) -> str | None:
    for key in _LIMITS:
        overs = [over for each in held if (over := getattr(each, f"{key}_over")) is not None]
        unders = [under for each in held if (under := getattr(each, f"{key}_under")) is not None]
        lower, upper = max(overs, default=-1.0), min(unders, default=inf)
        if key == "difficulty" and (lower >= 1 or upper <= 0):
            return "a difficulty is from 0 to 1"
        smallest = floor(lower) + 1 if key == "input_tokens" else lower
        if smallest >= upper:
            return f"nothing is over {lower:g} and under {upper:g} (`{key}_over`, `{key}_under`)"
    return None


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
