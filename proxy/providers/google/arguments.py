"""Translates: the arguments of a call, sent in pieces that each have a path, into one object.

Servers send them so only if the request set `streamFunctionCallArguments`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from proxy.providers.google.wire import PartialArg
from proxy.schema.errors import UpstreamError

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")


class _Text:
    """A text received in pieces."""

    def __init__(self, piece: str) -> None:
        self.pieces = [piece]


class Arguments:
    """The arguments of one call in progress."""

    def __init__(self) -> None:
        self._value: dict[str, Any] = {}

    def put(self, args: dict[str, Any]) -> None:
        """Adds complete arguments."""
        self._value |= args

    def whole(self) -> dict[str, Any]:
        return {name: _joined(value) for name, value in self._value.items()}

    def add(self, piece: PartialArg) -> None:
        """Adds a piece. Raises UpstreamError for an impossible path."""
        steps = _steps(piece.json_path)
        last = steps[-1]
        target: Any = self._value
        for step, following in pairwise(steps):
            if _get(target, step) is None:
                _put(target, step, [] if isinstance(following, int) else {})
            target = _get(target, step)
        value: Any = piece.number_value if piece.bool_value is None else piece.bool_value
        if piece.string_value is not None:
            earlier = _get(target, last)
            if isinstance(earlier, _Text):
                earlier.pieces.append(piece.string_value)
                return
            value = _Text((earlier if isinstance(earlier, str) else "") + piece.string_value)
        _put(target, last, value)


def _joined(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value.pieces)
    if isinstance(value, dict):
        return {name: _joined(inner) for name, inner in value.items()}
    return [_joined(inner) for inner in value] if isinstance(value, list) else value


def _steps(path: str) -> list[str | int]:
    """`$.rows[0].name` -> ["rows", 0, "name"]."""
    steps: list[str | int] = []
    place = 1
    while place < len(path):
        found = _STEP.match(path, place)
        if found is None:
            raise _misplaced()
        name = next((name for name in (found[1], found[3], found[4]) if name is not None), None)
        steps.append(int(found[2]) if name is None else name)
        place = found.end()
    if not steps or not path.startswith("$"):
        raise _misplaced()
    return steps


def _get(target: Any, step: str | int) -> Any:
    if isinstance(target, list) and isinstance(step, int):
        return target[step] if step < len(target) else None
    if isinstance(target, dict) and isinstance(step, str):
        return target.get(step)
    raise _misplaced()


def _put(target: Any, step: str | int, value: Any) -> None:
    """Sets one element. Lists grow by one element at a time: a distant index would only cost memory."""
    if isinstance(target, list) and isinstance(step, int) and step <= len(target):
        target[step : step + 1] = [value]
    elif isinstance(target, dict) and isinstance(step, str):
        target[step] = value
    else:
        raise _misplaced()


def _misplaced() -> UpstreamError:
    message = "The provider sent a piece of a tool call's arguments with an impossible path."
    return UpstreamError(message, retryable=True, upstream_status=200)
