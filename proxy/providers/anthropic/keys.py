"""Translates: the keys of properties in tools into keys that the vendor accepts, and back. One key outside its pattern
makes the vendor refuse the whole request.

A key is mapped everywhere in a tool's schema and in values that fit the schema. The map depends only on the tool, so
the builder of a request and the reader of its answer compute the same one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from proxy.providers.base.answers import json_or_none, listed, mapping
from proxy.providers.base.names import FreeNames
from proxy.schema.json_writing import text_of

_LONGEST = 64
_RIGHT = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_WRONG = re.compile(r"[^a-zA-Z0-9_.-]")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_VALUES = ("default", "const", "enum", "examples")
_KEYS = ("required", "propertyOrdering")


class Keys:
    """The keys of one tool's `schema`; `changed`: the client's keys that the vendor refuses -> their replacements."""

    def __init__(self, schema: Any) -> None:
        given = dict.fromkeys(_properties(schema))
        wrong = [key for key in given if not _RIGHT.fullmatch(key)]
        free = FreeNames({key for key in given if _RIGHT.fullmatch(key)}, _LONGEST)
        self.changed = {key: free.take(_WRONG.sub("_", key)[:_LONGEST] or "_") for key in wrong}
        self._given = {sent: key for key, sent in self.changed.items()}

    def schema(self, schema: Any) -> Any:
        """The schema with the vendor's keys."""
        if not self.changed or not isinstance(schema, dict):
            return schema
        return {name: self._keyword(name, value) for name, value in schema.items()}

    def sent(self, value: Any) -> Any:
        """A value with the vendor's keys."""
        return _renamed(value, self.changed) if self.changed else value

    def given(self, arguments: str) -> str:
        """The text of a call's arguments with the client's keys, unchanged if it is incomplete."""
        value = json_or_none(arguments) if self.changed else None
        return arguments if value is None else text_of(_renamed(value, self._given))

    def _keyword(self, name: str, value: Any) -> Any:
        if name == "properties" and isinstance(value, dict):
            return {self.changed.get(key, key): self.schema(each) for key, each in value.items()}
        if name in _BY_NAME and isinstance(value, dict):
            return {key: self.schema(each) for key, each in value.items()}
        if name in _LISTS and isinstance(value, list):
            return [self.schema(each) for each in value]
        if name in _SINGLE:
            return self.schema(value)
        if name in _KEYS and isinstance(value, list):
            return [self.changed.get(key, key) if isinstance(key, str) else key for key in value]
        if name == "dependentRequired" and isinstance(value, dict):
            return {self.changed.get(key, key): self._keyword("required", each) for key, each in value.items()}
        return _renamed(value, self.changed) if name in _VALUES else value


def _properties(schema: Any) -> Iterator[str]:
    """The keys that a schema names, at any depth."""
    left = [schema]
    while left:
        node = mapping(left.pop())
        yield from mapping(node.get("properties"))
        for name in _BY_NAME:
            left += mapping(node.get(name)).values()
        for name in _LISTS:
            left += listed(node.get(name))
        left += [node[name] for name in _SINGLE if name in node]


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(inner, names) for key, inner in value.items()}
    return [_renamed(inner, names) for inner in value] if isinstance(value, list) else value


NO_KEYS = Keys(None)
