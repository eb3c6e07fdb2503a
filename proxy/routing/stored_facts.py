"""Translates: Facts to their stored form in a call's row, and back, so that changed rules can be tried on them.

It has numbers, flags and our own names. For words that clients write themselves (headers, metadata, tags, the text) it
only says whether they match what a rule compares them with: the words in a row come from the configuration, never from
a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from operator import attrgetter

import msgspec
from msgspec import Struct, field, structs

from proxy.routing.decision import Decision
from proxy.routing.explain import KeptCandidate, kept_candidates
from proxy.routing.facts import Facts, KeptFacts
from proxy.routing.rules import conditions, listed
from proxy.routing.settings import Rule
from proxy.schema.records import Decided

MAX_BYTES = 4096  # of the facts in one row, and of the candidates
_MAX_CANDIDATES = 32
_MAX_NAME = 200  # characters of a model's name, the only free text from a client


class Mentioned(Struct, frozen=True):
    """The values that the rules of a configuration compare with clients' words."""

    headers: dict[str, frozenset[str]] = field(default_factory=dict)
    metadata: dict[str, frozenset[str]] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()


NOTHING = Mentioned()


def mentioned(rules: Iterable[Rule]) -> Mentioned:
    """Everything that any condition of any rule names."""
    headers: dict[str, set[str]] = {}
    metadata: dict[str, set[str]] = {}
    tags: list[str] = []
    texts: list[str] = []
    for when in (part for rule in rules for part in conditions(rule.when)):
        for name, values in (when.header or {}).items():
            headers.setdefault(name.lower(), set()).update(listed(values))
        for name, values in (when.metadata or {}).items():
            metadata.setdefault(name, set()).update(listed(values))
        tags += listed(when.tag)
        texts += [text.lower() for text in listed(when.text_matches)]
    return Mentioned(_frozen(headers), _frozen(metadata), frozenset(tags), tuple(dict.fromkeys(texts)))


class _Kept(KeptFacts, frozen=True, kw_only=True, omit_defaults=True):
    """The JSON of a row; the first three are always there. `texts`: the patterns that the text matched."""

    task: str
    difficulty: float
    input_tokens_estimate: int
    texts: tuple[str, ...] = ()


_SAME = tuple(name for name in KeptFacts.__struct_fields__ if name not in ("headers", "metadata", "tags"))
_same_of = attrgetter(*_SAME)
_SET = re.compile(r"\[!?(.)[^]]*]")  # a set of characters in a pattern; its first one is used
_ENCODER = msgspec.json.Encoder()


def decided(decision: Decision, words: Mentioned = NOTHING) -> Decided:
    """The columns of a call's row about its decision."""
    facts = stored(decision.facts, words)
    candidates = _written(kept_candidates(decision)[:_MAX_CANDIDATES])
    return Decided(decision.step, decision.rule, decision.strategy, facts, decision.snapshot, candidates)


def _written(candidates: list[KeptCandidate]) -> str:
    """As JSON, at most MAX_BYTES of it: a client may name models in its own fallback order."""
    written = _ENCODER.encode(candidates)
    return written.decode() if len(written) <= MAX_BYTES else _written(candidates[: len(candidates) // 2])


def restored_candidates(text: str | None) -> list[KeptCandidate]:
    """The candidates of a stored call; empty if it named its model."""
    return [] if text is None else msgspec.json.decode(text, type=list[KeptCandidate])


def stored(facts: Facts, words: Mentioned = NOTHING) -> str:
    """The facts as JSON, at most MAX_BYTES of it."""
    kept = _Kept(
        **dict(zip(_SAME, _same_of(facts), strict=True)),
        headers=_same(facts.headers, words.headers),
        metadata=_same(facts.metadata, words.metadata),
        tags=_tags(facts.tags, words.tags),
        texts=tuple(pattern for pattern in words.texts if _fits(facts.text, pattern)) if words.texts else (),
    )
    if any(len(name) > _MAX_NAME for name in (kept.preferred_model or "", *(kept.fallback or ()))):
        kept = structs.replace(kept, preferred_model=None, fallback=None)
    written = _ENCODER.encode(kept)
    if len(written) > MAX_BYTES:
        written = _ENCODER.encode(structs.replace(kept, fallback=None, headers={}, metadata={}, tags=(), texts=()))
    return written.decode()


def restored(text: str | None, requested: str, key: str | None) -> Facts:
    """The facts of a stored call; those that rules did not name have their defaults. Unknown fields are skipped."""
    if text is None:
        return Facts(requested=requested, key=key)
    kept = msgspec.json.decode(text, type=_Kept)
    return Facts(
        **dict(zip(_SAME, _same_of(kept), strict=True)),
        requested=requested,
        headers=kept.headers,
        metadata=kept.metadata,
        tags=kept.tags,
        key=key,
        text=_text(kept.texts),
    )


def _text(patterns: tuple[str, ...]) -> str:
    """A text that matches these patterns. The longest of several prefixes or suffixes covers the others."""
    by_length = sorted(patterns, key=len)
    begins = [each for each in by_length if not each.startswith("*")][-1:]
    ends = [each for each in by_length if each not in begins and not each.endswith("*")][-1:]
    between = [each for each in patterns if each.startswith("*") and each.endswith("*")]
    return "".join(_SET.sub(r"\1", each).replace("*", "").replace("?", "x") for each in (*begins, *between, *ends))


def _frozen(found: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {name: frozenset(values) for name, values in found.items()}


def _same(given: Mapping[str, str], words: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Replaces each value by one that the same patterns match."""
    return {name: kept for name, patterns in words.items() if (kept := _pattern(given.get(name), patterns)) is not None}


def _tags(given: tuple[str, ...], patterns: frozenset[str]) -> tuple[str, ...]:
    found = (_pattern(tag, patterns) for tag in given) if patterns else ()
    return tuple(tag for tag in found if tag is not None)


def _fits(text: str, pattern: str) -> bool:
    """True if the text matches. Nearly all patterns look for one word, which needs no regular expression."""
    word = pattern[1:-1]
    if pattern[:1] == pattern[-1:] == "*" and not any(sign in word for sign in "*?["):
        return word in text
    return fnmatchcase(text, pattern)


def _pattern(value: str | None, patterns: frozenset[str]) -> str | None:
    """The value if a rule names it, else a value that matches the same patterns; None: it matches none."""
    if value is None or value in patterns:
        return value
    matching = sorted(each for each in patterns if fnmatchcase(value, each))
    return _text(tuple(matching)) if matching else None
