"""Translates: schemas into the size of the grammar that the vendor compiles to enforce them. It refuses a request whose
strict tools and format exceed its limits together, and a single schema well below them (its guide and its refusals,
November 2026).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.providers.base.answers import listed, mapping, objects
from proxy.providers.base.fields import Fields

MAX_TOOLS = 20
MAX_OPTIONAL = 24  # properties that are not required
MAX_UNIONS = 16  # properties of several types, or with `anyOf`
# For one schema: each optional property doubles the grammar. 11 of them were refused, and so were 16 unions.
MOST_OPTIONAL = 10
MOST_UNIONS = 15
_SAYS_WHAT = frozenset({"type", "anyOf", "allOf", "enum", "const", "$ref"})


class Size(Struct, frozen=True):
    """The size of one schema or of several. `untyped`: places that accept any value; the vendor cannot compile them."""

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
        """True if the vendor accepts schemas of this size in one request."""
        return self.optional <= MAX_OPTIONAL and self.unions <= MAX_UNIONS and self.tools <= MAX_TOOLS

    @property
    def is_taken_alone(self) -> bool:
        """True if the vendor accepts a single schema of this size."""
        return self.optional <= MOST_OPTIONAL and self.unions <= MOST_UNIONS and not self.untyped


def size_of(schema: object) -> Size:
    """The size of a schema, nested schemas included."""
    if not isinstance(schema, dict):
        return Size(untyped=1)
    found = mapping(schema.get("properties"))
    needed = {name for name in listed(schema.get("required")) if isinstance(name, str)}
    unions = sum(isinstance(each, dict) and _is_union(each) for each in found.values())
    size = Size(sum(name not in needed for name in found), unions, int(_SAYS_WHAT.isdisjoint(schema)))
    inner = [*found.values(), *([schema["items"]] if "items" in schema else [])]
    for name in ("anyOf", "allOf"):
        inner += objects(schema.get(name))
    for name in ("$defs", "definitions"):
        inner += mapping(schema.get(name)).values()
    for each in inner:
        size += size_of(each)
    return size


def loosen(tools: list[dict[str, Any]], schema: dict[str, Any] | None, fields: Fields) -> None:
    """Removes `strict` from the tools that exceed the limits together with the format's `schema`. The first tools keep
    it.
    """
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
