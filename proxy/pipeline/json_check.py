"""Translates: `response_format` and an answer into what is wrong with that answer, for vendors that do not enforce it.

Pure, offline and bounded. The checker is native code that holds the interpreter until it is done, so its work is
estimated first: a schema that cannot be bounded is refused, and an answer that would take more than about 20 ms passes
unchecked. Schemas come from clients, answers from models: both may be hostile.
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
from proxy.schema.json import decode, nesting

MAX_NODES = 12_000  # values of a schema, each reference followed; OpenAI takes 5,000 properties
MAX_DEPTH = 100  # of a schema, each reference followed
MAX_WORK = 600_000  # steps of at most 30 ns: parts of the schema that one value meets, times values of the answer
MAX_TOLD = 1_000  # parts that one value meets, up to which the checker may say what is wrong: 4 us each
MAX_PATTERNS = 40_000  # characters of all patterns, repetitions spelled out: compiling takes up to 0.3 us each
_PATTERN = 40  # what the shortest one takes, in such characters
MAX_BACKTRACKING = 5_000  # characters of an answer times patterns that backtrack
_BACKTRACKS = 1_000  # for one pattern on one text
_FRACTION = 500  # steps of one division by a `multipleOf` that is no integer
_GAVE_UP = "Error executing regex"  # so begins what the checker says of a text on which a pattern ran out of steps
_MAX_REASON = 300
_OPENING = re.compile(r"```[a-zA-Z]*[ \t]*\r?\n")
_MOVING = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef")  # change what a reference means
_WHERE = "response_format.json_schema.schema"
_BACKTRACKING = re.compile(r"\(\?[=!>(]|\(\?<[=!]|\\[1-9bBgGkK]|[*+?}]\+")
_REPEATED = re.compile(r"(\))?\{(\d*),?(\d*)\}")


def bare(text: str) -> str:
    """The text without a Markdown fence around all of it."""
    trimmed = text.strip()
    opening = _OPENING.match(trimmed)
    if opening is None or not trimmed.endswith("```") or len(trimmed) < opening.end() + 3:
        return text
    return trimmed[opening.end() : -3].rstrip(" \t").removesuffix("\n").removesuffix("\r")


class JSONCheck:
    """What one `response_format` asks of an answer. Raises BadRequest for a schema that is none, or is too large."""

    def __init__(self, response_format: Mapping[str, Any]) -> None:
        self._schema: jsonschema_rs.Validator | None = None
        self._work = _Work({})
        if response_format.get("type") != "json_schema":
            return
        inner = response_format.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if schema is None:
            return  # OpenAI lets it out; then any object will do
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
            raise BadRequest(f"The schema is not a JSON schema: {_reason(str(bad))}", param=_WHERE) from None

    def wrong(self, text: str) -> str | None:
        """What is wrong with an answer, in words for a model; None: nothing, or checking it would take too long."""
        try:
            value = decode(text)
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
        except ValueError:  # nested deeper than the checker follows
            return None
        return None


class _Part:
    """What one subschema costs.

    `meets`: its parts that one value may meet, those for what is within that value included; `keys`: the names that are
    looked for in each object; `ways`: how many times recursion may lead from one value into the next level.
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
    """How much a schema can make of an answer. Raises BadRequest for one that cannot be bounded.

    Every value meets the parts of a schema that apply to it: all branches of `anyOf`, all patterns of its key, but one
    of `properties`.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        old = "draft-04" in str(schema.get("$schema"))  # there it is `id`
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
        """Whether the patterns are small enough to be prepared; else nothing is checked."""
        return self._pattern_size <= MAX_PATTERNS

    def is_too_much_for(self, text: str) -> bool:
        """By a bound, in which recursion in several ways multiplies with each level of the answer."""
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
                raise BadRequest(f"The schema may not hold {name!r} here.", param=_WHERE)
        part = _Part(1)
        if isinstance(ref := node.get("$ref"), str):
            part.add(self._follow(ref, refs, depth))
        for name, inner in node.items():
            self._keyword(part, name, inner, (refs, depth + 1))
        return part

    def _keyword(self, part: _Part, name: str, value: object, at: tuple[tuple[str, ...], int]) -> None:
        """Adds what one keyword costs."""
        if isinstance(value, dict) and name in ("$defs", "definitions"):  # apply where something refers to them
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
            raise BadRequest(f"The schema's reference {ref[:100]!r} leads nowhere within it.", param=_WHERE)
        return node


def _reason(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())[:_MAX_REASON]
