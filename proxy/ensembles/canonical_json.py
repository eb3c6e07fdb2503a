"""Translates: JSON into a canonical form: keys sorted, one form for equal numbers, no white space.

A text with a duplicate key does not count as JSON: two readers could see two
values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from proxy.ensembles.canonical_numbers import literal

MAX_JSON = 256 * 1024  # characters that are read
MAX_VALUES = 1_000  # approximately; larger texts are compared as text
_ENDS = {"{": "}", "[": "]"}


class Number(str):
    """A number as written."""


class NotJSON(ValueError):
    """The text is not JSON, is too long or too deep, or has a duplicate key."""


def read(text: str) -> Any:
    """The value, with each number as a `Number`. Raises NotJSON."""
    if len(text) > MAX_JSON or text.count(",") + text.count(":") > MAX_VALUES:
        raise NotJSON
    try:
        return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise NotJSON from error


def canonical_text(text: str, string: Callable[[str], str] = str) -> str | None:
    """The canonical form of a JSON object or array; None if the text is neither."""
    if not text or text[-1] != _ENDS.get(text[0]):
        return None
    try:
        return canonical(read(text), string)
    except NotJSON:
        return None


def canonical(value: Any, string: Callable[[str], str] = str) -> str:
    """The canonical form of a value of `read`. `string` is applied to each text in it. Raises NotJSON."""
    try:
        return _canonical(value, string)
    except RecursionError as error:
        raise NotJSON from error


def text_of(value: Any) -> str:
    """JSON text of a value of `read`, with keys and numbers as they were. Raises NotJSON."""
    try:
        return _text(value)
    except RecursionError as error:
        raise NotJSON from error


def _canonical(value: Any, string: Callable[[str], str]) -> str:
    if isinstance(value, Number):
        return literal(value)
    if isinstance(value, str):
        return json.dumps(string(value))
    if isinstance(value, list):
        return f"[{','.join([_canonical(each, string) for each in value])}]"
    if isinstance(value, dict):
        members = [f"{json.dumps(name)}:{_canonical(value[name], string)}" for name in sorted(value)]
        return f"{{{','.join(members)}}}"
    return json.dumps(value)


def _text(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join([_text(each) for each in value])}]"
    if isinstance(value, dict):
        members = [f"{json.dumps(name, ensure_ascii=False)}: {_text(inner)}" for name, inner in value.items()]
        return f"{{{', '.join(members)}}}"
    return json.dumps(value, ensure_ascii=False)


def _refuse(constant: str) -> Any:
    raise NotJSON(constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotJSON
    return found
