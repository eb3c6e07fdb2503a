"""Translates: the Structs and constraints of both configuration files into JSON Schema (draft 2020-12), for editors.

Every file that loads is valid here too. Loading checks more: names, cycles, addresses, keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, inspect

from proxy.config.constraints import schema_of, unwrapped
from proxy.config.providers import NAME
from proxy.config.reader import EXACT, described
from proxy.config.settings import EnsemblesFile, PricingFile, RoutingFile
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import STRATEGIES
from proxy.providers.base.contract import Provider
from proxy.routing.settings import DEFAULT_TASK, TASKS, Among, ModelEntry

JsonSchema = dict[str, Any]
Texts = Mapping[str, Mapping[str, str]]  # Struct -> key -> its description: key_texts.json

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TYPES: dict[type[inspect.Type], str] = {
    inspect.StrType: "string",
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.NoneType: "null",
    inspect.ListType: "array",
    inspect.DictType: "object",
    inspect.StructType: "object",
}
_LIST = ["array", "null"]  # an empty section is an empty list
_ROW = r"^(?=/*[^/]+/+[^/])[^*]*(?:/\*)?$"  # provider/model or provider/*
_OWN_NAME = {"minLength": 1, "maxLength": 200, "pattern": r"\S", "not": {"pattern": "^(?:auto$|auto:|ensemble:)"}}
_STRATEGY_TEXT = "how the ensemble decides"
_TYPE_TEXT = "the API that the server speaks; default: the provider's own name"


def routing_schema(
    types: Mapping[str, type[Provider]], texts: Texts, strategies: Mapping[str, type[Ensemble]] = STRATEGIES
) -> JsonSchema:
    """The schema of routing_rules.yaml. `types`: the values of a provider's `type`, `strategies`: of an ensemble's."""
    writer = _Writer(texts)
    schema = writer.root(RoutingFile, "routing_rules.yaml")
    sections = schema["properties"]
    sections["providers"] |= {"type": ["object", "null"], **_providers(writer, types)}
    sections["ensembles"] |= {"type": ["object", "null"], **_ensembles(writer, strategies)}
    for section in ("models", "aliases"):
        sections[section]["propertyNames"] = _OWN_NAME
    sections["tasks"]["propertyNames"] = {"enum": [*TASKS, DEFAULT_TASK]}
    writer.defs[ModelEntry.__name__]["oneOf"] = [
        {"required": ["use"], "properties": {"use": {"type": "string"}}},
        {"required": ["weighted"], "properties": {"weighted": {"type": "object", "minProperties": 1}}},
    ]
    null: JsonSchema = {"type": "null"}
    writer.defs[Among.__name__]["oneOf"] = [
        {
            "required": ["strategy", "among"],
            "properties": {"strategy": {"type": "string"}, "among": {"type": "array"}, "ensemble": null},
        },
        {
            "required": ["ensemble"],
            "properties": {"ensemble": {"type": "string"}, "strategy": null, "among": null, "prefer": null},
        },
    ]
    return schema


def pricing_schema(texts: Texts) -> JsonSchema:
    """The schema of pricing.yaml."""
    schema = _Writer(texts).root(PricingFile, "pricing.yaml")
    schema["properties"]["models"]["propertyNames"] = {"pattern": _ROW}
    return schema


def _providers(writer: _Writer, types: Mapping[str, type[Provider]]) -> JsonSchema:
    """The schema of providers. A provider's type is its `type`, or else its name."""
    kind = {"type": "string", "enum": list(types), "description": _TYPE_TEXT}
    for name, cls in types.items():
        schema = writer.struct(cls)
        writer.defs[f"provider.{name}"] = schema | {"properties": {"type": kind, **schema["properties"]}}
    writer.defs["provider"] = {
        "type": "object",
        "required": ["type"],
        "properties": {"type": kind},
        "allOf": [
            {"if": {"properties": {"type": {"const": name}}}, "then": {"$ref": f"#/$defs/provider.{name}"}}
            for name in types
        ],
    }
    says_type = {"type": "object", "required": ["type"]}
    named = {
        name: {"if": says_type, "then": {"$ref": "#/$defs/provider"}, "else": {"$ref": f"#/$defs/provider.{name}"}}
        for name in types
    }
    return {
        "propertyNames": {"pattern": f"^{NAME.pattern}$", "not": {"enum": ["auto", "ensemble"]}},
        "properties": named,
        "additionalProperties": {"$ref": "#/$defs/provider"},
    }


def _ensembles(writer: _Writer, strategies: Mapping[str, type[Ensemble]]) -> JsonSchema:
    """The schema of ensembles. The strategy determines its keys."""
    kind = {"type": "string", "enum": list(strategies), "description": _STRATEGY_TEXT}
    for name, cls in strategies.items():
        schema = writer.struct(cls)
        writer.defs[f"ensemble.{name}"] = schema | {"properties": {"strategy": kind, **schema["properties"]}}
    writer.defs["ensemble"] = {
        "type": "object",
        "required": ["strategy"],
        "properties": {"strategy": kind},
        "allOf": [
            {"if": {"properties": {"strategy": {"const": name}}}, "then": {"$ref": f"#/$defs/ensemble.{name}"}}
            for name in strategies
        ],
    }
    return {
        "propertyNames": {"pattern": f"^{NAME.pattern}$"},
        "properties": writer.struct(EnsemblesFile)["properties"],
        "additionalProperties": {"$ref": "#/$defs/ensemble"},
    }


class _Writer:
    """Collects the Structs of one file in `defs`."""

    def __init__(self, texts: Texts) -> None:
        self.defs: dict[str, JsonSchema] = {}
        self._texts = texts

    def root(self, cls: type, file: str) -> JsonSchema:
        return {"$schema": _DRAFT, "title": file, **self.struct(cls), "$defs": self.defs}

    def struct(self, cls: type) -> JsonSchema:
        """The keys of a Struct. A section without content is valid if no key is required."""
        fields = described(cls).fields
        required = [field.encode_name for field in fields if field.required]
        schema: JsonSchema = {
            "type": "object" if required else ["object", "null"],
            "properties": {field.encode_name: self._field(cls, field) for field in fields},
            "additionalProperties": False,
        }
        return schema | ({"required": required} if required else {})

    def _field(self, cls: type, field: inspect.Field) -> JsonSchema:
        schema = self._value(field.type)
        tables = (self._texts.get(name, {}) for name in _names(cls))
        text = next((table[field.encode_name] for table in tables if field.encode_name in table), None)
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if text:
            schema["description"] = text
        if default is not None and not isinstance(default, Struct):
            schema["default"] = default
        return schema

    def _value(self, kind: inspect.Type) -> JsonSchema:
        kind, _, extra = unwrapped(kind)
        if isinstance(kind, inspect.UnionType):
            return self._union(kind, extra)
        if isinstance(kind, inspect.AnyType):
            return {}
        if isinstance(kind, inspect.StructType):
            if kind.cls.__name__ not in self.defs:
                self.defs[kind.cls.__name__] = {}  # a Struct may contain itself
                self.defs[kind.cls.__name__] = self.struct(kind.cls)
            return {"$ref": f"#/$defs/{kind.cls.__name__}"}
        if isinstance(kind, inspect.ListType):
            return {"type": _LIST, "items": self._value(kind.item_type)}
        if isinstance(kind, inspect.DictType):
            return {"type": ["object", "null"], "additionalProperties": self._value(kind.value_type)}
        ruled = schema_of(kind, extra)
        bounds = {"minimum": -EXACT, "maximum": EXACT}
        whole = isinstance(kind, inspect.IntType) and "enum" not in ruled
        return {"type": _TYPES[type(kind)], **(bounds if whole else {}), **ruled}

    def _union(self, union: inspect.UnionType, extra: Mapping[str, Any]) -> JsonSchema:
        """One schema with several types for scalars, which editors show best; `anyOf` with lists or sections."""
        members = [self._value(kind) for kind in union.types]
        may_be_null = any(isinstance(kind, inspect.NoneType) for kind in union.types)
        if not may_be_null:  # then null is no empty list either
            members = [{**member, "type": "array"} if member.get("type") == _LIST else member for member in members]
        listed = {"enum" in member for member in members if member.get("type") != "null"}
        if len(listed) > 1 or not all(isinstance(member.get("type"), str) for member in members):
            if not may_be_null:  # nor an empty section
                members = [{**member, "type": "object"} if "$ref" in member else member for member in members]
            return {"anyOf": members}
        schema: JsonSchema = dict(extra)
        for member in members:
            schema |= member
        schema["type"] = [member["type"] for member in members]
        if "enum" in schema and "null" in schema["type"]:
            schema["enum"] = [*schema["enum"], None]
        return schema


def _names(cls: type) -> list[str]:
    """The entries of key_texts.json to search for a key: its own Struct, its parents, or keys of some providers."""
    return [*(kind.__name__ for kind in cls.__mro__), "by type"]
