"""A validator for the words of JSON Schema that `proxy schema` uses; any other word is an error, so nothing is skipped.

Values come from our own parser, since the schema is about YAML 1.2 as the product reads it.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.config.problems import Problem
from proxy.config.tree import Mapping, Node, Scalar, parse

_NOTES = {"$schema", "$defs", "title", "description", "default", "examples", "format"}
_KINDS = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def value_of(text: str | bytes) -> Any:
    """What a file holds. Raises ValueError for one that cannot be read."""
    problems: list[Problem] = []
    tree = parse(text.encode() if isinstance(text, str) else text, "file", problems)
    if tree is None or problems:
        raise ValueError("\n".join(map(str, problems)))
    return plain(tree)


def plain(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Mapping):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    return [plain(item) for item in node.items]


class Validator:
    """`wrong(value)`: the paths in `value` that a schema refuses; empty for a valid one."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema

    def wrong(self, value: Any) -> set[str]:
        return set(self._wrong(self._root, value, ""))

    def valid(self, schema: dict[str, Any], value: Any) -> bool:
        return not self._wrong(schema, value, "")

    def _wrong(self, schema: dict[str, Any], value: Any, path: str) -> list[str]:
        found: list[str] = []
        for word, said in schema.items():
            if word in _NOTES or word in ("then", "else"):
                continue
            found += getattr(self, f"_{word.removeprefix('$').lower()}")(schema, said, value, path)
        return found

    def _ref(self, _, said, value, path):
        return self._wrong(self._root["$defs"][said.removeprefix("#/$defs/")], value, path)

    def _type(self, _, said, value, path):
        return [] if any(_is(kind, value) for kind in ([said] if isinstance(said, str) else said)) else [path]

    def _enum(self, _, said, value, path):
        return [] if any(value == each and type(value) is type(each) for each in said) else [path]

    def _const(self, _, said, value, path):
        return self._enum(_, [said], value, path)

    def _required(self, _, said, value, path):
        return [f"{path}.{key}" for key in said if key not in value] if isinstance(value, dict) else []

    def _properties(self, _, said, value, path):
        keys = [key for key in said if key in value] if isinstance(value, dict) else []
        return [wrong for key in keys for wrong in self._wrong(said[key], value[key], f"{path}.{key}")]

    def _additionalproperties(self, schema, said, value, path):
        rest = value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else ()
        if said is False:
            return [f"{path}.{key}" for key in rest]
        return [wrong for key in rest for wrong in self._wrong(said, value[key], f"{path}.{key}")]

    def _propertynames(self, _, said, value, path):
        keys = value if isinstance(value, dict) else ()
        return [f"{path}.{key}" for key in keys if not self.valid(said, key)]

    def _minproperties(self, _, said, value, path):
        return [path] if isinstance(value, dict) and len(value) < said else []

    def _items(self, _, said, value, path):
        items = value if isinstance(value, list) else ()
        return [wrong for place, item in enumerate(items) for wrong in self._wrong(said, item, f"{path}.{place}")]

    def _minimum(self, _, said, value, path):
        return [path] if _is("number", value) and value < said else []

    def _maximum(self, _, said, value, path):
        return [path] if _is("number", value) and value > said else []

    def _exclusiveminimum(self, _, said, value, path):
        return [path] if _is("number", value) and value <= said else []

    def _minlength(self, _, said, value, path):
        return [path] if isinstance(value, str) and len(value) < said else []

    def _maxlength(self, _, said, value, path):
        return [path] if isinstance(value, str) and len(value) > said else []

    def _pattern(self, _, said, value, path):
        return [path] if isinstance(value, str) and not re.search(said, value) else []

    def _not(self, _, said, value, path):
        return [path] if self.valid(said, value) else []

    def _anyof(self, _, said, value, path):
        return [] if any(self.valid(each, value) for each in said) else [path]

    def _oneof(self, _, said, value, path):
        return [] if sum(self.valid(each, value) for each in said) == 1 else [path]

    def _allof(self, _, said, value, path):
        return [wrong for each in said for wrong in self._wrong(each, value, path)]

    def _if(self, schema, said, value, path):
        branch = schema.get("then" if self.valid(said, value) else "else", {})
        return self._wrong(branch, value, path)


def _is(kind: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in ("integer", "number"):
        return number and (kind == "number" or isinstance(value, int))
    return isinstance(value, _KINDS[kind])
