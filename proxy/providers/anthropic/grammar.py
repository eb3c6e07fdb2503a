"""Translates: schemas into how much the vendor has to compile to enforce them. It refuses a request whose strict tools
and format together pass its limits, and a single schema long before (its guide and its refusals, November 2026).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.providers.base.answers import listed, mapping, objects
from proxy.providers.base.fields import Fields

MAX_TOOLS = 20
MAX_OPTIONAL = 24  # properties that are not required
MAX_UNIONS = 16  # properties of several types, or with `anyOf`
# Of one schema: each optional property doubles what has to be compiled. 11 of them were refused, and 16 unions.
MOST_OPTIONAL = 10
MOST_UNIONS = 15
_SAYS_WHAT = frozenset({"type", "anyOf", "allOf", "enum", "const", "$ref"})


class Size(Struct, frozen=True):
    """Of a schema, or of several; `untyped`: places where anything may stand, which the vendor cannot compile."""

    optional: int = 0
    unions: int = 0
    untyped: int = 0
    tools: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(
            self.optional + other.optional,
            self.unions + other.unions,
            self.untyped + other.untyped,
            self.tools + other.tools,
        )

    @property
    def is_taken(self) -> bool:
        """As the size of all schemas of a request."""
        return self.optional <= MAX_OPTIONAL and self.unions <= MAX_UNIONS and self.tools <= MAX_TOOLS

    @property
    def is_taken_alone(self) -> bool:
        """As the size of one of them."""
        return self.optional <= MOST_OPTIONAL and self.unions <= MOST_UNIONS and not self.untyped


def size_of(schema: object) -> Size:
    """Of all that is in it, however deep."""
    if not isinstance(schema, dict):
        return Size(untyped=1)
    found = mapping(schema.get("properties"))
    needed = {name for name in listed(schema.get("required")) if isinstance(name, str)}
    unions = sum(isinstance(each, dict) and _is_union(each) for each in found.values())
    size = Size(sum(name not in needed for name in found), unions, int(_SAYS_WHAT.isdisjoint(schema)))
    inner = [*found.values(), *([schema["items"]] if "items" in schema else [])]
    for name in ("anyOf", "allOf"):
        inner += objects(schema.get(name))
    for each in inner:
        size += size_of(each)
    return size


def loosen(tools: list[dict[str, Any]], schema: dict[str, Any] | None, fields: Fields) -> None:
    """Takes `strict` from the tools that would be too much beside the format's `schema`; the first ones keep it."""
    used = size_of(schema) if schema is not None else Size()
    for tool in tools:
        if tool.get("strict") is not True:
            continue
        own = size_of(tool.get("input_schema"))
        with_it = used + own + Size(tools=1)
        if own.is_taken_alone and with_it.is_taken:
            used = with_it
        else:
            del tool["strict"]
            fields.drop("tools.strict")


def _is_union(schema: dict[str, Any]) -> bool:
    return isinstance(schema.get("type"), list) or "anyOf" in schema
