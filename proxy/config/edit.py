"""Translates: YAML text and the desired values -> YAML text. Comments stay where they are."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from copy import deepcopy
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from proxy.config.problems import ConfigError, Problem
from proxy.config.tree import Mapping, Node, Scalar, parse

_WIDTH = 120  # of a line


def plain(data: bytes, name: str) -> dict[str, Any]:
    """The values of a file, which is called `name` in messages. Raises ConfigError with every problem."""
    problems: list[Problem] = []
    root = parse(data, name, problems)
    if root is None or problems:
        raise ConfigError(problems)
    return {key: _value(entry.node) for key, entry in root.entries.items()}


def edited(text: str, values: MappingOf[str, Any]) -> str:
    """`text` with these values; the same text if it already has them. Keys that are not in `values` are removed, with
    the comments up to the next key.
    """
    if plain(text.encode(), "configuration") == values:
        return text
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.Representer = _Representer
    root = yaml.load(text)
    _reconcile(root, values)
    written = StringIO()
    yaml.dump(root, written)
    return written.getvalue()


class _Representer(RoundTripRepresenter):
    def text(self, value: str) -> ScalarNode:
        """A scalar, quoted if the library's own choice would be read differently: YAML takes U+0085 for a line end."""
        return self.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\x85" in value else None)


_Representer.add_representer(str, _Representer.text)


def _reconcile(node: Any, values: MappingOf[str, Any]) -> None:
    """Changes only differing values, so that the rest keeps its form."""
    for key in [key for key in node if key not in values]:
        del node[key]
    for key, value in values.items():
        old = node.get(key)
        if key in node and old == value and isinstance(old, bool) == isinstance(value, bool):
            continue
        # An anchored mapping is also the value of other keys: it is replaced, not changed.
        if isinstance(old, dict) and isinstance(value, dict) and _anchor(old) is None:
            _reconcile(old, value)
        else:
            node[key] = deepcopy(value)


def _anchor(node: Any) -> str | None:
    anchor = getattr(node, "anchor", None)
    return None if anchor is None else anchor.value


def _value(node: Node) -> Any:
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Mapping):
        return {key: _value(entry.node) for key, entry in node.entries.items()}
    return [_value(item) for item in node.items]
