"""Translates: `response_format` and an answer into a validation error, for vendors that do not enforce the format.

Pure, offline and bounded. The validator is native code that blocks the interpreter, so its work is estimated first: a
schema whose work cannot be bounded is refused, and an answer that would take more than about 20 ms passes unchecked.
Schemas come from clients and answers from models: both may be hostile.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import jsonschema_rs
import msgspec

from proxy.schema.errors import BadRequest
from proxy.schema.json import decode, decode_large, utf8
from proxy.schema.json_structure import STEP_BYTES, nesting

MAX_NODES = 12_000  # values of a schema with all references expanded; OpenAI allows 5,000 properties
MAX_DEPTH = 100  # of a schema with all references expanded
MAX_WORK = 600_000  # steps of at most 30 ns: subschemas applied to one value, times values of the answer
MAX_TOLD = 1_000  # subschemas applied to one value, up to which errors are described: 4 us each
MAX_PATTERNS = 40_000  # characters of all patterns with repetitions expanded: compiling takes up to 0.3 us each
_PATTERN = 40  # fixed cost of a pattern, in such characters
MAX_BACKTRACKING = 5_000  # characters of an answer times patterns that backtrack
_BACKTRACKS = 1_000  # backtracking limit of one pattern on one text
_FRACTION = 500  # steps of one division by a `multipleOf` that is not an integer
_GAVE_UP = "Error executing regex"  # prefix of the error for a pattern that exceeds its backtracking limit
_MAX_REASON = 300
_OPENING = re.compile(r"```[a-zA-Z]*[ \t]*\r?\n")
_MOVING = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef")  # change the target of references
_WHERE = "response_format.json_schema.schema"
_BACKTRACKING = re.compile(r"\(\?[=!>(]|\(\?<[=!]|\\[1-9bBgGkK]|[*+?}]\+")
_REPEATED = re.compile(r"(\))?\{(\d*),?(\d*)\}")


def bare(text: str) -> str:
    """The text without an enclosing Markdown fence."""
    trimmed = text.strip()
    opening = _OPENING.match(trimmed)
    if opening is None or not trimmed.endswith("```") or len(trimmed) < opening.end() + 3:
        return text
    return trimmed[opening.end() : -3].rstrip(" \t").removesuffix("\n").removesuffix("\r")


class JSONCheck:
    """Validates answers against one `response_format`. Raises BadRequest for an invalid or too large schema."""

    def __init__(self, response_format: Mapping[str, Any]) -> None:
        self._schema: jsonschema_rs.Validator | None = None
        self._work = _Work({})
        if response_format.get("type") != "json_schema":
            return
        inner = response_format.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if schema is None:
            return  # optional in OpenAI's API: any object is valid
        if not isinstance(schema, dict):
            raise BadRequest("Expected a JSON schema: an object.", param=_WHERE)
        self._work = _Work(schema)
        if not self._work.compiles:
            return
        options = jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS)
        try:
            self._schema = jsonschema_rs.validator_for(
                schema, offline=True, validate_formats=False, mask="the value", pattern_options=options
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as bad:
            raise BadRequest(f"The schema is not valid JSON Schema: {_reason(str(bad))}", param=_WHERE) from None

    def wrong(self, text: str) -> str | None:
        """The error in an answer, worded for a model; None if it is valid or would take too long to check."""
        try:
            value = decode(text) if len(text) <= STEP_BYTES else decode_large(utf8(text))
        except (msgspec.DecodeError, RecursionError, UnicodeError) as bad:
            return f"it is not valid JSON ({_reason(str(bad))})"
        if not self._work.compiles:
            return None
        if self._schema is None:
            return None if isinstance(value, dict) else "it is not a JSON object"
        if self._work.is_too_much_for(text):
            return None
        try:
            if self._schema.is_valid(value):
                return None
            if self._work.meets > MAX_TOLD:
                return "it does not match the schema"
            self._schema.validate(value)
        except jsonschema_rs.ValidationError as error:
            if error.message.startswith(_GAVE_UP):
                return None
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
            return f"at ${path[:_MAX_REASON]}: {_reason(error.message)}"
        except ValueError:  # nested deeper than the validator goes
            return None
        return None


class _Part:
    """The cost of one subschema.

    `meets`: the subschemas that may apply to one value, nested ones included; `keys`: the names looked up in each
    object; `ways`: the recursive references that may lead from one value to the next level.
    """

    __slots__ = ("keys", "meets", "ways")

    def __init__(self, meets: int = 0, ways: int = 0) -> None:
        self.meets = meets
        self.keys = 0
        self.ways = ways

    def add(self, other: _Part) -> None:
        """Both apply to the same value."""
        self.meets += other.meets
        self.keys += other.keys
        self.ways += other.ways

    def add_one_of(self, others: list[_Part]) -> None:
        """At most one of them applies to a value."""
        self.meets += max((other.meets for other in others), default=0)
        self.keys += max((other.keys for other in others), default=0)
        self.ways += max((other.ways for other in others), default=0)


class _Work:
    """Bounds the validator's work for a schema. Raises BadRequest for a schema that cannot be bounded.

    Every value is checked against all subschemas that may apply to it: all branches of `anyOf` and all patterns of its
    key, but only one of `properties`.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        old = "draft-04" in str(schema.get("$schema"))  # draft 4 says `id` for `$id`
        self._moving = (*_MOVING, "id") if old else _MOVING
        self._nodes = 0
        self._recursions = 0  # references that lead back into themselves
        self._pattern_size = 0
        self._backtracking = 0
        whole = self._part(schema, (), 0)
        self.meets = whole.meets
        self._keys = whole.keys
        self._ways = self._recursions if whole.ways > 1 else 1

    @property
    def compiles(self) -> bool:
        """Whether the patterns are small enough to compile; if not, nothing is checked."""
        return self._pattern_size <= MAX_PATTERNS

    def is_too_much_for(self, text: str) -> bool:
        """Whether the bound exceeds MAX_WORK. Several recursive references multiply the work at each level."""
        if self._backtracking * len(text) > MAX_BACKTRACKING:
            return True
        objects = text.count("{")
        values = 1 + objects + text.count("[") + text.count(",") + text.count(":")  # keys are values too
        steps = 1 + self.meets * values + self._keys * objects // 4
        levels = nesting(text.encode("utf-8", "replace")) if self._ways > 1 else 0
        return math.log(steps) + levels * math.log(self._ways) > math.log(MAX_WORK)

    def _part(self, node: object, refs: tuple[str, ...], depth: int) -> _Part:
        if not isinstance(node, dict | list):
            return _Part(1)
        self._nodes += len(node)
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise BadRequest("The schema is too large or too deep once its references are followed.", param=_WHERE)
        if isinstance(node, list):
            part = _Part()
            if all(isinstance(inner, str) for inner in node):
                part.keys = len(node)
            else:
                part.meets = len(node)
            for inner in node:
                if isinstance(inner, dict | list):
                    part.add(self._part(inner, refs, depth + 1))
            return part
        for name in self._moving:
            if isinstance(node.get(name), str) and depth:
                raise BadRequest(f"The schema must not use {name!r} here.", param=_WHERE)
        part = _Part(1)
        if isinstance(ref := node.get("$ref"), str):
            part.add(self._follow(ref, refs, depth))
        for name, inner in node.items():
            self._keyword(part, name, inner, (refs, depth + 1))
        return part

    def _keyword(self, part: _Part, name: str, value: object, at: tuple[tuple[str, ...], int]) -> None:
        """Adds what one keyword costs."""
        if isinstance(value, dict) and name in ("$defs", "definitions"):  # apply only where referenced
            for inner in value.values():
                self._part(inner, *at)
        elif isinstance(value, dict) and name == "properties":
            part.keys += len(value)
            part.add_one_of([self._part(inner, *at) for inner in value.values()])
        else:
            if isinstance(value, dict) and name == "patternProperties":
                for pattern in value:
                    self._note_pattern(pattern)
            elif name == "pattern":
                self._note_pattern(value)
            elif name == "multipleOf" and not isinstance(value, int):
                part.meets += _FRACTION
            part.add(self._part(value, *at))

    def _note_pattern(self, pattern: object) -> None:
        if isinstance(pattern, str):
            once, nested = 1, 1
            for is_group, least, most in _REPEATED.findall(pattern):
                times = int((most or least or "1")[:6])
                once, nested = (once, nested * times) if is_group else (max(once, times), nested)
            self._pattern_size += _PATTERN + len(pattern) * once * nested
            self._backtracking += bool(_BACKTRACKING.search(pattern))

    def _follow(self, ref: str, refs: tuple[str, ...], depth: int) -> _Part:
        if ref in refs:
            self._recursions += 1
            return _Part(0, 1)
        return self._part(self._target(ref), (*refs, ref), depth + 1)

    def _target(self, ref: str) -> object:
        node: Any = self._root
        head, *steps = ref.split("/")
        for step in steps:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            elif isinstance(node, dict) and name in node:
                node = node[name]
            else:
                head = ""
        if head != "#":
            raise BadRequest(f"The schema's reference {ref[:100]!r} does not resolve within it.", param=_WHERE)
        return node


def _reason(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())[:_MAX_REASON]
