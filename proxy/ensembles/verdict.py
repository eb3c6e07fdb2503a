"""Translates: the reply of a judge or a validator into values. Tolerates fences, prose, percentages and words.

Models write confidence in many ways. An ambiguous one (8: of ten, or per cent?) counts as unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

MAX_READ = 20_000  # characters of a verdict that are read
MAX_ISSUES, MAX_ISSUE = 10, 300  # issues that are kept, and characters of each
_MAX_TRIES = 64  # places where an object may begin
_WORDS = {"very high": 0.95, "high": 0.9, "medium": 0.6, "moderate": 0.6, "low": 0.3, "very low": 0.1}
_NUMBER = re.compile(r"(\d+(?:[.,]\d+)?)\s*(%|per ?cent|/\s*(\d+))?")
_SPOKEN = re.compile(
    r"confidence\W{1,5}(?:(?:is|of|level|score)\W{1,5}){0,2}"
    r"(very high|very low|high|medium|moderate|low|\d+(?:[.,]\d+)?\s*(?:%|per ?cent|/\s*\d+)?)(?!\w|[.,]\d)",
    re.IGNORECASE,
)
_YES, _NO = frozenset({"true", "yes", "correct", "complete"}), frozenset({"false", "no", "incorrect", "incomplete"})


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_read = json.JSONDecoder(parse_constant=_refuse, parse_int=float).raw_decode  # an int may be too large for a float


class Verdict(Struct, frozen=True):
    """A validator's judgement. None: missing or unreadable.

    `confidence`: how sure the validator is that the answer is correct and complete.
    """

    correct: bool | None = None
    complete: bool | None = None
    confidence: float | None = None
    issues: tuple[str, ...] = ()

    def accepts(self, min_confidence: float) -> bool:
        """True if the answer is good enough, or if that is unknown."""
        if self.confidence is None:
            return True
        return self.confidence >= min_confidence and self.correct is not False and self.complete is not False

    def rank(self, min_confidence: float) -> tuple[bool, float]:
        """Sort key: how strongly the verdict favours the answer."""
        return self.accepts(min_confidence), self.confidence or 0.0


def read_verdict(text: str) -> Verdict:
    """The verdict in a validator's reply. A verdict without a confidence is unreadable as a whole."""
    text = text[-MAX_READ:]
    said = next((each for each in reversed(json_objects(text)) if "confidence" in each), None)
    if said is None:
        spoken = _SPOKEN.search(text)
        return Verdict(confidence=read_share(spoken[1])) if spoken else Verdict()
    confidence = read_share(said["confidence"])
    if confidence is None:
        return Verdict()
    correct, complete = read_bool(said.get("correct")), read_bool(said.get("complete"))
    if False in (correct, complete) and confidence > 0.5:
        confidence = round(1 - confidence, 4)  # the validator is sure that the answer is bad
    return Verdict(correct, complete, confidence, _issues(said.get("issues")))


def read_scores(text: str, labels: str, top: float = 10) -> dict[str, float] | None:
    """Label -> score in a judge's reply, as a share of `top`; None if any is missing or out of range.

    Only the last JSON object counts: a judge may quote an answer, which may contain words like scores.
    """
    found = [inner for said in json_objects(text[-MAX_READ:]) if isinstance(inner := said.get("scores", said), Mapping)]
    last = next((inner for inner in reversed(found) if any(label in inner for label in labels)), {})
    scores = {label: _score(last.get(label), top) for label in labels}
    known = {label: score for label, score in scores.items() if score is not None}
    return known if len(known) == len(labels) else None


def json_objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, none of them inside another one."""
    found: list[dict[str, Any]] = []
    at = text.find("{")
    for _ in range(_MAX_TRIES):
        if at < 0:
            break
        try:
            value, end = _read(text, at)
            found.append(value)
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)
    return found


def read_share(value: object) -> float | None:
    """A number from 0 to 1, as a model wrote it; None if it is unreadable."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if not isinstance(value, str):
        return _share(float(value), percent=value > 10)
    said = value.strip().lower()
    if said in _WORDS:
        return _WORDS[said]
    match = _NUMBER.fullmatch(said[:40])
    if match is None:
        return None
    number = float(match[1].replace(",", "."))
    if match[3]:
        return _share(number / float(match[3]), percent=False) if float(match[3]) else None
    return _share(number, percent=match[2] is not None or number > 10)


def _share(number: float, *, percent: bool) -> float | None:
    number = number / 100 if percent else number
    return round(number, 4) if 0 <= number <= 1 else None


def read_bool(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    said = value.strip().lower() if isinstance(value, str) else ""
    return True if said in _YES else False if said in _NO else None


def _score(value: object, top: float) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("score")
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip()[:40])
        if match is None:
            return None
        number = float(match[1].replace(",", "."))
        out_of = float(match[3]) if match[3] else 100.0 if match[2] else top
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number, out_of = float(value), top
    else:
        return None
    return number / out_of if out_of and 0 <= number <= out_of else None


def _issues(value: object) -> tuple[str, ...]:
    said = value if isinstance(value, list) else [value] if value else []
    texts = [" ".join(each[: 2 * MAX_ISSUE].split())[:MAX_ISSUE] for each in said if isinstance(each, str)]
    return tuple(text for text in texts if text)[:MAX_ISSUES]
