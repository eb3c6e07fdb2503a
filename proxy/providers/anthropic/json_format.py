"""Translates: `response_format` into a form that the model supports, and an answer by tool call back into text."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.providers.anthropic.grammar import size_of
from proxy.providers.anthropic.models import Traits
from proxy.providers.anthropic.names import Names
from proxy.providers.anthropic.tools import AT_TOP, SUBSET, Tools
from proxy.providers.base.answers import json_or_none
from proxy.providers.base.fields import Fields
from proxy.providers.base.json_schema import SCHEMA_PATH, down_level, wanted_schema
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode
from proxy.schema.json_writing import text_of

_WRAPPERS = ("values", "parameters")  # seen around the requested object in answers by tool
_ALONE = "with no code fence and no other text around it"


class Format(Struct, frozen=True):
    """`schema`: for `output_config.format`. `instruction`: replaces the format for models without one. `is_unchecked`:
    the vendor does not enforce the format.
    """

    schema: dict[str, Any] | None = None
    instruction: str | None = None
    is_unchecked: bool = False


def format_of(fields: Fields, traits: Traits, tools: Tools, names: Names, has_budget: bool) -> Format:
    """The format of the answer; may add a tool to `tools`.

    Older models have no formats: they are forced to call a tool with that schema, or get an instruction if the
    client's own tools or a thinking budget rule that out. A schema that is too large for a format becomes an
    instruction too.
    """
    wanted = fields.take("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return Format()
    if kind not in ("json_object", "json_schema"):
        message = "response_format: `type` must be one of text, json_object, json_schema."
        raise BadRequest(message, param="response_format.type")
    schema = wanted_schema(wanted) if kind == "json_schema" else None
    if schema is not None and traits.formats:
        levelled = down_level(schema, SUBSET, SCHEMA_PATH)
        if levelled.changes:
            fields.adapt("response_format")
        if size_of(levelled.schema).is_taken_alone:
            return Format(levelled.schema)
    fields.adapt("response_format")
    if schema is None or has_budget or traits.formats or not _is_plain(schema) or tools.choice == "none":
        return Format(instruction=_instruction(schema, bool(tools.functions)), is_unchecked=True)
    if not tools.is_forced:
        description = "Gives the answer. Call it with the answer as its arguments."
        tools.tools = [
            *tools.tools,
            {"name": names.json_tool, "description": description, "input_schema": names.json_keys.schema(schema)},
        ]
        tools.force(None if len(tools.tools) > 1 else names.json_tool)
    return Format(is_unchecked=True)


def _is_plain(schema: dict[str, Any]) -> bool:
    """True for the schema of a single object, as a tool needs."""
    return schema.get("type") == "object" and not any(name in schema for name in ("$ref", *AT_TOP))


def _instruction(schema: dict[str, Any] | None, with_tools: bool) -> str:
    when = "Unless you call a tool, respond" if with_tools else "Respond"
    if schema is None:
        return f"{when} with a single valid JSON object, {_ALONE}."
    return f"{when} with nothing but JSON that is valid against this JSON schema, {_ALONE}: {encode(schema).decode()}"


def answer_of(arguments: str, names: Names) -> str:
    """The arguments of the forced tool as the JSON text of the answer, unchanged if they are incomplete."""
    fields = names.json_fields
    value = json_or_none(names.json_keys.given(arguments))
    if value is None:
        return arguments
    if isinstance(value, dict) and len(value) == 1:
        [(name, inner)] = value.items()
        if name in _WRAPPERS and name not in fields and isinstance(inner, dict):
            value = inner
    return text_of(value)
