"""Translates: the text of pricing.yaml into the same text with other prices. Touches only the prices: comments, order,
spacing and line breaks stay as written, which a YAML library that re-emits the tree cannot guarantee.

The result is parsed again before it is returned. If it does not have exactly the requested prices, nothing changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf
from datetime import date
from typing import Any

from msgspec import Struct, to_builtins

from proxy.config.load import Source, read_pricing
from proxy.config.problems import ConfigError, Mark, Problem, problem
from proxy.config.tree import Mapping, Node, Scalar, Sequence, parse
from proxy.metering.pricing import ModelPrice, PastPrice, Tier

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_TOKEN = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|[^\s,#{}\[\]&*!|>%@`\"':]+")
_FLOW = re.compile(r"(?:&\S+\s+)?[{\[]")


class Edit(Struct, frozen=True):
    """Replaces `length` characters at `at` by `text`."""

    at: int
    length: int
    text: str


def with_prices(source: Source, rows: MappingOf[str, ModelPrice], today: date) -> bytes:
    """The file with `rows` replacing those of the same names, and `updated` set to `today`.

    Raises ConfigError for a file that does not load, or that has to be edited by hand.
    """
    before = _rows(source)
    text = source.data.decode("utf-8")
    writer = _Writer(source, text)
    for name, row in rows.items():
        writer.row(name, before[name], row)
    writer.day(today)
    data = writer.result().encode("utf-8")
    try:
        right = _rows(Source(source.name, data)) == before | dict(rows)
    except ConfigError:
        right = False
    if not right:
        raise _by_hand(Mark(source.name))
    return data


def _rows(source: Source) -> dict[str, ModelPrice]:
    problems: list[Problem] = []
    pricing = read_pricing(source, problems, {})
    if pricing is None or problems:
        raise ConfigError(problems)
    return pricing.models


def _by_hand(mark: Mark) -> ConfigError:
    return ConfigError([problem(mark, (), "cannot be edited safely the way it is written; change the prices by hand")])


class _Writer:
    """Collects the edits of one file. Marks count characters, and lines as YAML defines them."""

    def __init__(self, source: Source, text: str) -> None:
        self._text = text.removeprefix("\ufeff")
        self._bom = text[: len(text) - len(self._text)]
        self._starts = [0, *(found.end() for found in _LINE_BREAK.finditer(self._text))]
        self._newline = "\r\n" if "\r\n" in self._text else "\n"
        self._edits: list[Edit] = []
        root = parse(source.data, source.name, [])
        if root is None:
            raise _by_hand(Mark(source.name))
        self._root = root

    def result(self) -> str:
        """The text with all edits applied. Edits at the same place keep their order."""
        pieces, end = [self._bom], 0
        for edit in sorted(self._edits, key=lambda edit: edit.at):
            pieces += [self._text[end : edit.at], edit.text]
            end = edit.at + edit.length
        return "".join([*pieces, self._text[end:]])

    def day(self, today: date) -> None:
        """Sets the key `updated`, if the file has it."""
        if "updated" in self._root.entries:
            self._replace(self._root.entries["updated"].node, today.isoformat())

    def row(self, name: str, before: ModelPrice, after: ModelPrice) -> None:
        models = self._root.entries["models"].node
        node = models.entries[name].node if isinstance(models, Mapping) else models
        if not isinstance(node, Mapping):
            raise _by_hand(node.mark)
        for key in (key for key in before.__struct_fields__ if getattr(before, key) != getattr(after, key)):
            if key == "tiers" and before.tiers:
                self._tiers(node.entries[key].node, before.tiers, after.tiers)
            elif key == "history" and before.history:
                self._prepend(node.entries[key].node, _flow(after.history[0]))
            else:
                self._set(node, key, getattr(after, key), ModelPrice)

    def _tiers(self, node: Node, before: list[Tier], after: list[Tier]) -> None:
        items = node.items if isinstance(node, Sequence) else []
        for item, old, new in zip(items, before, after, strict=True):
            if not isinstance(item, Mapping):
                raise _by_hand(item.mark)
            for key in (key for key in old.__struct_fields__ if getattr(old, key) != getattr(new, key)):
                self._set(item, key, getattr(new, key), Tier)

    def _set(self, node: Mapping, key: str, value: object, cls: type[ModelPrice | Tier]) -> None:
        if key in node.entries:
            self._replace(node.entries[key].node, _flow(value))
            return
        # Insert it before the first key that follows it in the shipped files, else before all others.
        order = cls.__struct_fields__
        after = order[order.index(key) + 1 :]
        later = [name for name in node.entries if name in after]
        first = later[0] if later else next(iter(node.entries), None)
        if first is None:
            self._insert(self._offset(node.mark) + 1, f"{key}: {_flow(value)}, ")
            return
        mark = node.entries[first].mark
        at = self._offset(mark)
        flow = self._is_flow(node)
        own_line = not flow or not self._text[self._starts[mark.line - 1] : at].strip()
        between = self._newline + " " * (mark.column - 1) if own_line else " "
        self._insert(at, f"{key}: {_flow(value)}{',' if flow else ''}{between}")

    def _prepend(self, node: Node, item: str) -> None:
        """Inserts a new first element of a list."""
        at = self._offset(node.mark)
        if self._is_flow(node):
            self._insert(self._text.index("[", at) + 1, f"{item}, ")
        else:
            self._insert(at, f"- {item}{self._newline}{' ' * (node.mark.column - 1)}")

    def _replace(self, node: Node, text: str) -> None:
        """Replaces a scalar, in quotes if it had quotes."""
        at = self._offset(node.mark)
        token = _TOKEN.match(self._text, at)
        if not isinstance(node, Scalar) or token is None:
            raise _by_hand(node.mark)
        quote = token[0][0] if token[0][0] in "\"'" else ""
        self._edits.append(Edit(at, len(token[0]), f"{quote}{text}{quote}"))

    def _insert(self, at: int, text: str) -> None:
        self._edits.append(Edit(at, 0, text))

    def _is_flow(self, node: Node) -> bool:
        return _FLOW.match(self._text, self._offset(node.mark)) is not None

    def _offset(self, mark: Mark) -> int:
        return self._starts[mark.line - 1] + mark.column - 1


def _flow(value: object) -> str:
    """A value in YAML flow style; null fields of a Struct are left out."""
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, Tier | PastPrice):
        fields: dict[str, Any] = {key: each for key, each in to_builtins(value).items() if each is not None}
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in fields.items()) + "}"
    if isinstance(value, float):
        return f"{value:.12f}".rstrip("0").rstrip(".")
    return str(value)
