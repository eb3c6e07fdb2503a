"""Translates: the text of a YAML file and new values for some of its keys -> the text, changed only at those keys.

Comments, order, spacing and line breaks around them stay as written. The result is read again before it is returned; a
file whose form is beyond this (anchors, an explicit `? key`) is written by `edit.edited`, which keeps its comments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from copy import deepcopy
from typing import Any

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.config.edit import edited, plain
from proxy.config.problems import ConfigError, Path
from proxy.config.yaml_text import flow

REMOVED: Any = object()  # the value that removes a key
_COLON = re.compile(r"\s*:")


class _Edit(Struct, frozen=True):
    """Replaces the characters from `start` to `end`."""

    start: int
    end: int
    text: str


class _BeyondUs(Exception):
    """The text is written in a form that cannot be edited by position."""


def patched(text: str, changes: MappingOf[Path, Any], name: str = "configuration") -> str:
    """`text` with new values at these key paths; missing sections are added. Raises ConfigError if the text is not
    valid YAML, or a path leads through something that is not a mapping.
    """
    before = plain(text.encode(), name)
    values = deepcopy(before)
    for path, value in changes.items():
        _put(values, path, value)
    if values == before:
        return text
    try:
        found, left = text, dict(changes)
        while left:
            found, left = _round(found, left)
        if plain(found.encode(), name) == values:
            return found
    except (_BeyondUs, ConfigError):
        pass
    return edited(text, values)


def _put(values: dict[str, Any], path: Path, value: Any) -> None:
    """Sets a value in a tree of plain values."""
    *parents, key = path
    for parent in parents:
        inner = values.get(parent)
        if inner is None:
            if value is REMOVED:
                return
            inner = values[parent] = {}
        values = inner
    if value is REMOVED:
        values.pop(key, None)
    else:
        values[key] = value


def _round(text: str, changes: MappingOf[Path, Any]) -> tuple[str, dict[Path, Any]]:
    """The text with as many changes as do not touch each other, and the remaining changes. Reading a large file takes a
    second, so it is not read for each change.
    """
    byte_order_mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix("\ufeff")
    root = YAML(typ="safe", pure=True).compose(text)
    edits, left, taken_to = list[_Edit](), dict[Path, Any](), -1
    found = [(path, value, _edit(text, root, path, value)) for path, value in changes.items()]
    for path, value, edit in sorted(found, key=lambda each: each[2].start if each[2] else -1):
        if edit is None:
            continue
        if edit.start <= taken_to:
            left[path] = value
            continue
        edits.append(edit)
        taken_to = edit.end
    for edit in reversed(edits):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return byte_order_mark + text, {path: value for path, value in changes.items() if path in left}


def _edit(text: str, node: Node, path: Path, value: Any) -> _Edit | None:
    """One change; None: the value is there already."""
    for depth, key in enumerate(path):
        if not isinstance(node, MappingNode) or node.anchor:
            raise _BeyondUs
        pair = next((pair for pair in node.value if pair[0].value == key), None)
        is_last = depth == len(path) - 1
        if pair is None:
            return None if value is REMOVED else _added(text, node, key, _nested(path[depth + 1 :], value))
        if value is REMOVED and is_last:
            return _removed(text, node, pair)
        if is_last or _is_empty(pair[1]):
            return None if value is REMOVED else _replaced(text, pair[0], pair[1], _nested(path[depth + 1 :], value))
        node = pair[1]
    return None


def _nested(path: Path, value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _is_empty(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.style is None and node.value in ("", "~", "null", "Null", "NULL")


def _replaced(text: str, key: Node, node: Node, value: Any) -> _Edit:
    start, end = node.start_mark.index, _end(node)
    if node.anchor or text.startswith(("&", "*"), start):
        raise _BeyondUs
    if isinstance(node, ScalarNode) and not node.value and node.style is None:  # `key:` without a value
        colon = _COLON.match(text, key.end_mark.index)
        if colon is None:
            raise _BeyondUs
        return _Edit(colon.end(), colon.end(), f" {flow(value)}")
    if isinstance(node, SequenceNode) and not node.flow_style and isinstance(value, list) and value:
        between = _newline(text) + " " * node.start_mark.column + "- "
        return _Edit(start, end, "- " + between.join(map(flow, value)))
    if isinstance(node, ScalarNode) and node.style in ("|", ">"):
        raise _BeyondUs
    return _Edit(start, end, flow(value))


def _added(text: str, node: MappingNode, key: str, value: Any) -> _Edit:
    """A new last key. A comment after the previous key stays with that key."""
    line = f"{flow(key)}: {flow(value)}"
    if node.flow_style:
        at = _end(node.value[-1][1]) if node.value else node.start_mark.index + 1
        return _Edit(at, at, f", {line}" if node.value else line)
    if not node.value:
        raise _BeyondUs
    first, last = node.value[0][0], node.value[-1]
    at = _end_of_line(text, max(_end(last[1]), last[0].end_mark.index))
    newline = _newline(text)
    column = first.start_mark.column
    blank = newline if column == 0 else ""  # a section
    return _Edit(at, at, f"{newline}{blank}{' ' * column}{line}")


def _removed(text: str, node: MappingNode, pair: tuple[Node, Node]) -> _Edit:
    """The removal of a key with its value; removing the only key leaves an empty mapping."""
    key, value = pair
    start, end = key.start_mark.index, max(_end(value), key.end_mark.index)
    if len(node.value) == 1:
        return _Edit(node.start_mark.index, _end(node), "{}")
    if node.flow_style:
        place = next(place for place, each in enumerate(node.value) if each[0] is key)
        if place + 1 < len(node.value):
            return _Edit(start, node.value[place + 1][0].start_mark.index, "")
        return _Edit(_end(node.value[place - 1][1]), end, "")
    line = text.rfind("\n", 0, start) + 1
    end = _end_of_line(text, end)
    if text[line:start].strip():
        raise _BeyondUs
    return _Edit(line, min(len(text), end + len(_newline(text))), "")


def _end(node: Node) -> int:
    """The end of a node. The parser ends a block at the next token, after comments that are not part of the block."""
    if not isinstance(node, MappingNode | SequenceNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return max(_end(each) for each in last) if isinstance(last, tuple) else _end(last)


def _end_of_line(text: str, at: int) -> int:
    """The end of the line of `at`, before its line break."""
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1 : end] == "\r" else end


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
