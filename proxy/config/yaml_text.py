"""Translates: plain values into YAML as people write it: sections in blocks, entries on one line where they fit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from proxy.config.tree import plain_value

_LINE = 110
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@+-]*")


def yaml_lines(sections: Mapping[str, Any]) -> str:
    """A whole file: one block for each section, a blank line before each."""
    parts = []
    for name, value in sections.items():
        if isinstance(value, Mapping):
            lines = [f"{name}:", *(line for key, each in value.items() for line in _entry(key, each, 1))]
            parts.append("\n" + "\n".join(lines))
        else:
            parts.append(f"{name}: {flow(value)}")
    return "\n".join(parts) + "\n"


def _entry(key: str, value: Any, depth: int) -> list[str]:
    """One key and its value, on one line if they fit."""
    indent = "  " * depth
    line = f"{indent}{_scalar(key)}: {flow(value)}"
    if len(line) <= _LINE or not isinstance(value, Mapping | list) or not value:
        return [line]
    if isinstance(value, Mapping):
        nested = [each for name, item in value.items() for each in _entry(name, item, depth + 1)]
        return [f"{indent}{_scalar(key)}:", *nested]
    return [f"{indent}{_scalar(key)}:", *(f"{indent}  - {flow(item)}" for item in value)]


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else repr(value)
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str) -> str:
    """Text, without quotes if it is still read as text."""
    if _PLAIN.fullmatch(text) and plain_value(text) == text and text.lower() not in ("yes", "no", "on", "off"):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
