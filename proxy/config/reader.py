"""Translates: a YAML tree into Structs, guided by msgspec's type descriptions. Problems are collected, never raised.

`read` returns `INVALID` for a node with a problem in it; its siblings are still read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingOf
from enum import Enum
from functools import cache
from typing import Any, Final

from msgspec import inspect

from proxy.config.constraints import unwrapped, wrong
from proxy.config.problems import Mark, Path, Problem, looks_like_key, names_a_key, near, problem, shown
from proxy.config.tree import Entry, Mapping, Node, Scalar, Sequence
from proxy.providers.base.contract import Provider


class _Invalid(Enum):
    INVALID = "invalid"


INVALID: Final = _Invalid.INVALID

EXACT = 2**53  # larger integers are not exact in every YAML and JSON implementation
_EXPECTED: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.ListType: "a list",
    inspect.DictType: "keys and values",
    inspect.StructType: "keys and values",
    inspect.AnyType: "a value",
}
_IN_CLEAR = "keys do not belong in this file; use api_key_env"


@cache
def described(cls: type) -> inspect.StructType:
    """msgspec's type description of a Struct. Raises TypeError for other classes."""
    kind = inspect.type_info(cls)
    if not isinstance(kind, inspect.StructType):
        raise TypeError(f"{cls.__name__} is not a Struct")
    return kind


class Reader:
    """Reads one file. `later`: the keys of a Struct that are reserved for later versions.

    `marks` maps each path to its position in the file; `partial` holds the valid values of a mapping with problems.
    """

    def __init__(self, problems: list[Problem], later: MappingOf[type, frozenset[str]]) -> None:
        self.marks: dict[Path, Mark] = {}
        self.partial: dict[Path, dict[str, Any]] = {}
        self._problems = problems
        self._later = later

    def note(self, mark: Mark, path: Path, message: str) -> Any:
        self._problems.append(problem(mark, path, message))
        return INVALID

    def struct(self, node: Node, cls: type, path: Path) -> Any:
        """An instance of `cls`, or INVALID."""
        return self.read(node, described(cls), path)

    def mapping(self, section: Entry | None, path: Path) -> Mapping:
        """The keys and values of a section; empty if it is missing or not a mapping."""
        node = section.node if section else Scalar(Mark(""), None)
        if isinstance(node, Mapping):
            return node
        if not (isinstance(node, Scalar) and node.value is None):
            self._mismatch(node, (inspect.DictType(inspect.StrType(), inspect.AnyType()),), path)
        return Mapping(node.mark, {})

    def fields(self, node: Mapping, cls: type, path: Path, without: tuple[str, ...] = ()) -> dict[str, Any]:
        """The value, or INVALID, of each key present, by field name. `without`: known keys that are read elsewhere."""
        fields = {field.encode_name: field for field in described(cls).fields}
        values: dict[str, Any] = {}
        for key, entry in node.entries.items():
            field = fields.get(key)
            if field is None:
                values[key] = self._unknown(entry.mark, key, cls, list(fields), path)
            elif key not in without:
                values[field.name] = self.read(entry.node, field.type, (*path, key))
        is_later = any(key in self._later.get(cls, ()) for key in node.entries)  # then the other keys may differ
        for key, field in fields.items():
            if field.required and key not in node.entries and not is_later:
                values[key] = self.note(node.mark, (*path, key), "is missing")
        return values

    def read(self, node: Node, kind: inspect.Type, path: Path) -> Any:
        self.marks[path] = node.mark
        kind, extra, _ = unwrapped(kind)
        if isinstance(kind, inspect.UnionType):
            chosen = _member(kind, node)
            if chosen is None:
                return self._mismatch(node, kind.types, path)
            kind, own, _ = unwrapped(chosen)
            extra = {**extra, **own}
        if isinstance(node, Scalar) and isinstance(node.value, str) and looks_like_key(node.value):
            return self.note(node.mark, path, "this looks like a key; " + _IN_CLEAR)
        if isinstance(kind, inspect.NoneType):
            return None
        if isinstance(kind, inspect.AnyType):
            return self._anything(node, path)
        if isinstance(node, Scalar) and node.value is None:
            node = _empty(kind, node)
        if isinstance(kind, inspect.StructType) and isinstance(node, Mapping):
            return self._struct(node, kind, path)
        if isinstance(kind, inspect.DictType) and isinstance(node, Mapping):
            return self._dict(node, kind, path)
        if isinstance(kind, inspect.ListType) and isinstance(node, Sequence):
            read = [self.read(item, kind.item_type, (*path, str(i))) for i, item in enumerate(node.items)]
            return INVALID if INVALID in read else read
        if isinstance(node, Scalar) and _fits(kind, node):
            return self._scalar(node, kind, path, extra)
        return self._mismatch(node, (kind,), path)

    def _struct(self, node: Mapping, kind: inspect.StructType, path: Path) -> Any:
        values = self.fields(node, kind.cls, path)
        if INVALID in values.values():
            return self._incomplete(values, path)
        try:
            return kind.cls(**values)
        except ValueError as error:  # from a Struct's own __post_init__
            return self.note(node.mark, path, str(error))

    def _unknown(self, mark: Mark, key: str, owner: type, known: list[str], path: Path) -> Any:
        where = (*path, key)
        if key in self._later.get(owner, ()):
            return self.note(mark, where, "not supported by this version; it belongs to a later one")
        in_provider = issubclass(owner, Provider)
        hint = near(key, known)
        if looks_like_key(key) or (names_a_key(key) and (in_provider or not hint)):
            return self.note(mark, where, _IN_CLEAR if in_provider else "keys do not belong in this file")
        if not hint and len(known) <= 10:
            hint = f"; known: {', '.join(known)}"
        return self.note(mark, where, f"unknown key{hint}")

    def _dict(self, node: Mapping, kind: inspect.DictType, path: Path) -> Any:
        read: dict[str, Any] = {}
        for key, entry in node.entries.items():
            if looks_like_key(key):
                read[key] = self.note(
                    entry.mark, (*path, key), "this looks like a key; keys do not belong in this file"
                )
            else:
                read[key] = self.read(entry.node, kind.value_type, (*path, key))
        return self._incomplete(read, path) if INVALID in read.values() else read

    def _incomplete(self, values: dict[str, Any], path: Path) -> Any:
        self.partial[path] = {key: value for key, value in values.items() if value is not INVALID}
        return INVALID

    def _anything(self, node: Node, path: Path) -> Any:
        if isinstance(node, Mapping):
            return self._dict(node, inspect.DictType(inspect.StrType(), inspect.AnyType()), path)
        if isinstance(node, Sequence):
            return self.read(node, inspect.ListType(inspect.AnyType()), path)
        return self._scalar(node, inspect.AnyType(), path, {})

    def _scalar(self, node: Scalar, kind: inspect.Type, path: Path, extra: MappingOf[str, Any]) -> Any:
        value = node.value
        if isinstance(value, float) and not math.isfinite(value):
            return self.note(node.mark, path, "must be a finite number")
        if isinstance(value, int) and abs(value) > EXACT:
            return self.note(node.mark, path, "too large a number")
        why = wrong(kind, extra, value) if value is not None else None
        if why:
            return self.note(node.mark, path, why)
        return float(value) if isinstance(kind, inspect.FloatType) and isinstance(value, int) else value

    def _mismatch(self, node: Node, kinds: tuple[inspect.Type, ...], path: Path) -> Any:
        plain = [unwrapped(kind).kind for kind in kinds]
        names = [_EXPECTED[type(kind)] for kind in plain if not isinstance(kind, inspect.NoneType)]
        message = f"expected {' or '.join(dict.fromkeys(names))}, got {_description(node)}"
        if isinstance(node, Scalar) and "text" in names:
            message += "; put it in quotes" if node.value is not None else ""
        elif (
            isinstance(node, Scalar)
            and "true or false" in names
            and str(node.value).lower() in ("yes", "no", "on", "off")
        ):
            message += f' ("{shown(str(node.value))}" is plain text in YAML 1.2)'
        return self.note(node.mark, path, message)


def _member(union: inspect.UnionType, node: Node) -> inspect.Type | None:
    """The union's member with the node's shape; a whole number is also a number."""
    return next((kind for kind in union.types if _fits(kind, node)), None)


def _fits(kind: inspect.Type, node: Node) -> bool:
    kind = unwrapped(kind).kind
    if isinstance(node, Mapping):
        return isinstance(kind, inspect.StructType | inspect.DictType | inspect.AnyType)
    if isinstance(node, Sequence):
        return isinstance(kind, inspect.ListType | inspect.AnyType)
    value = node.value
    if value is None:
        return isinstance(kind, inspect.NoneType | inspect.AnyType)
    if isinstance(value, bool):
        return isinstance(kind, inspect.BoolType | inspect.AnyType)
    if isinstance(value, int):
        return isinstance(kind, inspect.IntType | inspect.FloatType | inspect.AnyType)
    if isinstance(value, float):
        return isinstance(kind, inspect.FloatType | inspect.AnyType)
    return isinstance(kind, inspect.StrType | inspect.AnyType)


def _empty(kind: inspect.Type, node: Scalar) -> Node:
    """An empty section, for one whose lines are all commented out."""
    if isinstance(kind, inspect.StructType | inspect.DictType):
        return Mapping(node.mark, {})
    return Sequence(node.mark, []) if isinstance(kind, inspect.ListType) else node


def _description(node: Node) -> str:
    if isinstance(node, Mapping):
        return "keys and values"
    if isinstance(node, Sequence):
        return "a list"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return str(node.value).lower()
    return "text" if isinstance(node.value, str) else f"the number {shown(str(node.value))}"
