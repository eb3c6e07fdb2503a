"""Translates: `response_format` and an answer into what is wrong with that answer, for vendors that do not enforce it.

Pure, offline and bounded: a reference never leaves its schema, patterns cannot run away, and where a schema could make
more work of an answer than MAX_WORK, that answer is not checked.
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

MAX_NODES = 20_000  # objects and lists of a schema, each reference followed
MAX_DEPTH = 100  # of a schema, each reference followed
MAX_WORK = 50_000_000  # nodes of the schema on characters of the answer: at worst some 20 ns each
_MAX_REASON = 300
_FENCED = re.compile(r"\s*```[a-zA-Z]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```\s*", re.DOTALL)
_MOVING = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef")  # change what a reference means
_WHERE = "response_format.json_schema.schema"
_decode = msgspec.json.Decoder().decode


def bare(text: str) -> str:
    """The text without a Markdown fence around all of it."""
    fenced = _FENCED.fullmatch(text)
    return fenced[1] if fenced else text


class JSONCheck:
    """What one `response_format` asks of an answer. Raises BadRequest for a schema that is none, or is too large."""

    def __init__(self, response_format: Mapping[str, Any]) -> None:
        self._schema: jsonschema_rs.Validator | None = None
        self._size = _Size({})
        if response_format.get("type") != "json_schema":
            return
        inner = response_format.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
        if schema is None:
            return  # OpenAI lets it out; then any object will do
        if not isinstance(schema, dict):
            raise BadRequest("Expected a JSON schema: an object.", param=_WHERE)
        self._size = _Size(schema)
        options = jsonschema_rs.FancyRegexOptions(backtrack_limit=10_000)
        try:
            self._schema = jsonschema_rs.validator_for(
                schema, offline=True, validate_formats=False, mask="the value", pattern_options=options
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as bad:
            raise BadRequest(f"The schema is not a JSON schema: {_reason(str(bad))}", param=_WHERE) from None

    def wrong(self, text: str) -> str | None:
        """What is wrong with an answer, in words for a model; None: nothing, or it would take too long to tell."""
        try:
            value = _decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as bad:
            return f"it is not valid JSON ({_reason(str(bad))})"
        if self._schema is None:
            return None if isinstance(value, dict) else "it is not a JSON object"
        if self._size.is_too_much_for(text):
            return None
        try:
            error = next(iter(self._schema.iter_errors(value)), None)
        except ValueError:  # nested deeper than the checker follows
            return None
        if error is None:
            return None
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        return f"at ${path}: {_reason(error.message)}"


class _Size:
    """How much a schema can make of an answer. Raises BadRequest for one that cannot be bounded."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        old = "draft-04" in str(schema.get("$schema"))  # there it is `id`
        self._moving = (*_MOVING, "id") if old else _MOVING
        self.nodes = 0
        self.recursions = 0  # references that lead back into themselves
        self._count(schema, (), 0)

    def is_too_much_for(self, text: str) -> bool:
        """By a bound: each node of the schema on each value, times the ways on which recursion may lead there."""
        ways = _depth(text) * math.log(self.recursions) if self.recursions > 1 else 0.0
        return math.log(self.nodes * len(text)) + ways > math.log(MAX_WORK)

    def _count(self, node: object, refs: tuple[str, ...], depth: int) -> None:
        if not isinstance(node, dict | list):
            return
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise BadRequest("The schema is too large or too deep once its references are followed.", param=_WHERE)
        if isinstance(node, dict):
            for name in self._moving:
                if isinstance(node.get(name), str) and depth:
                    raise BadRequest(f"The schema may not hold {name!r} here.", param=_WHERE)
            if isinstance(ref := node.get("$ref"), str):
                self._follow(ref, refs, depth)
        for inner in node.values() if isinstance(node, dict) else node:
            self._count(inner, refs, depth + 1)

    def _follow(self, ref: str, refs: tuple[str, ...], depth: int) -> None:
        if ref in refs:
            self.recursions += 1
        else:
            self._count(self._target(ref), (*refs, ref), depth + 1)

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


def _depth(text: str) -> int:
    """How deep a JSON text is nested, at most: brackets within its strings count too."""
    depth = deepest = 0
    for letter in text:
        if letter in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "}]":
            depth -= 1
    return deepest


def _reason(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())[:_MAX_REASON]
