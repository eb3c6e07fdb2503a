"""Translates: a JSON schema into the subset of JSON Schema that one vendor supports. Pure and deterministic.

An unsupported keyword moves into the `description`, where the model still reads it; each such place is reported. Keys
keep their order, so the same schema gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from proxy.providers.base.answers import listed
from proxy.providers.base.json_refs import REF_HOMES, definition_of, recursive_in, without_unused
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode

MAX_NODES = 5_000  # inlining `$ref`s that double at each step would grow without end
MAX_DEPTH = 100
MAX_REFS = 60  # nested in each other
SCHEMA_PATH = "response_format.json_schema.schema"  # where OpenAI's clients send it

_TOO_LARGE = "The schema is too large or too deep once its references are inlined."
_SILENT = frozenset({"$schema", "$id", "$comment", "$anchor"})  # keywords that do not constrain the value
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


class Subset(Struct, frozen=True):
    """The subset that one vendor supports.

    `keywords`: known keywords (`type`, `description` and `enum` always). `refs`: supports `$ref` to `$defs` without
    siblings or recursion; others are inlined, and cut where they recur or grow without end. `closed`: every object must
    have `additionalProperties: false`. `declared`: required names must be among the properties. `formats`: known values
    of `format` (None: any). `nullable`: how a value may be null: `type` (`["string", "null"]`), `any_of`, or `keyword`
    (`nullable: true`). `limits`: keyword -> its only allowed values.
    """

    keywords: frozenset[str]
    refs: bool = False
    closed: bool = False
    declared: bool = False
    formats: frozenset[str] | None = None
    nullable: str = "type"
    limits: Mapping[str, frozenset[Any]] = {}


class Levelled(Struct, frozen=True):
    """The schema in the supported subset; `changes`: dotted paths that the vendor can no longer enforce, each once."""

    schema: dict[str, Any]
    changes: list[str]


def down_level(schema: Mapping[str, Any], subset: Subset, where: str) -> Levelled:
    """`where`: the dotted path of the schema in the request. Raises BadRequest for a `$ref` that points nowhere or
    out of the schema, and for a schema that is too large or too deep once its references are inlined.
    """
    walk = _Walk(schema, subset, where)
    return Levelled(without_unused(walk.node(schema, (), ())), list(dict.fromkeys(walk.changes)))


class _Walk:
    """The conversion of one schema."""

    def __init__(self, root: Mapping[str, Any], subset: Subset, where: str) -> None:
        self._root = root
        self._subset = subset
        self._where = where
        self._nodes = 0
        self._recursive = recursive_in(root) if subset.refs else frozenset()
        self.changes: list[str] = []

    def node(self, schema: object, path: tuple[str, ...], refs: tuple[str, ...]) -> dict[str, Any]:
        """Converts one node. `refs`: the references that led here; a repeated one is a recursion."""
        self._nodes += 1
        if self._nodes > 2 * MAX_NODES or len(path) > MAX_DEPTH:
            raise self._refuse(_TOO_LARGE, path)
        if isinstance(schema, bool):
            return self._anything(schema, path)
        if not isinstance(schema, Mapping):
            raise self._refuse("Expected a JSON schema: an object or a boolean.", path)
        if "$ref" in schema and not self._stays(schema, path):
            return self._inline(schema, path, refs)
        schema = self._united(dict(schema), path)
        kept: dict[str, Any] = {}
        notes: list[str] = []
        for keyword, value in schema.items():
            self._keyword(keyword, value, kept, notes, (path, refs))
        if self._subset.declared:
            self._require(kept, path)
        if self._subset.closed and (_is_object(kept) or "properties" in kept):
            self._close(schema, kept, path)
        self._nullable(kept)
        if notes:
            kept["description"] = ". ".join(filter(None, [str(kept.get("description") or "").rstrip("."), *notes]))
        return kept

    def _keyword(
        self,
        keyword: str,
        value: Any,
        kept: dict[str, Any],
        notes: list[str],
        place: tuple[tuple[str, ...], tuple[str, ...]],
    ) -> None:
        path, refs = place
        below = (*path, keyword)
        if keyword in _SILENT and keyword not in self._subset.keywords:
            return
        if keyword in REF_HOMES and (path or not self._subset.refs):
            return  # inlined where they are used
        if keyword in REF_HOMES and isinstance(value, Mapping):  # recursive ones are inlined
            value = {name: each for name, each in value.items() if f"#/{keyword}/{name}" not in self._recursive}
        if not self._takes(keyword, value):
            self.changes.append(".".join(below))
            notes.append(f"{keyword}: {value if isinstance(value, str) else encode(value).decode()}")
        elif keyword in _BY_NAME and isinstance(value, Mapping):
            kept[keyword] = {name: self.node(each, (*below, str(name)), refs) for name, each in value.items()}
        elif keyword in _LISTS and isinstance(value, list):
            kept[keyword] = [self.node(each, (*below, str(place)), refs) for place, each in enumerate(value)]
        elif keyword in _SINGLE and not (keyword == "additionalProperties" and isinstance(value, bool)):
            kept[keyword] = self.node(value, below, refs)
        else:
            kept[keyword] = value

    def _takes(self, keyword: str, value: Any) -> bool:
        subset = self._subset
        if keyword in ("type", "description", "enum"):
            return True
        if keyword in ("$ref", *REF_HOMES):
            return subset.refs
        if keyword == "additionalProperties" and subset.closed:
            return value is False
        only = subset.formats if keyword == "format" else subset.limits.get(keyword)
        if only is not None and (not isinstance(value, str | int | float) or value not in only):
            return False
        return keyword in subset.keywords

    def _united(self, schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Rewrites `const`, `oneOf`, `allOf` and lists of types with the keywords that the vendor supports."""
        known = self._subset.keywords
        if "const" in schema and "const" not in known and "enum" not in schema:
            schema = {("enum" if name == "const" else name): value for name, value in schema.items()}
            schema["enum"] = [schema["enum"]]
        if "oneOf" in schema and "oneOf" not in known and "anyOf" in known and "anyOf" not in schema:
            schema = {("anyOf" if name == "oneOf" else name): value for name, value in schema.items()}
        if "allOf" in schema and "allOf" not in known:
            schema = self._merged(schema, path)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            schema = self._one_type(schema, [kind for kind in kinds if isinstance(kind, str)])
        return schema

    def _merged(self, schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """Merges `allOf`: properties and required names are combined. Of two different values the first wins, and the
        loss is reported.
        """
        merged = {name: value for name, value in schema.items() if name != "allOf"}
        for name in ("properties", "required"):
            merged |= {name: copy(merged[name])} if isinstance(merged.get(name), dict | list) else {}
        required = {name for name in listed(merged.get("required")) if isinstance(name, str)}
        left = [(part, (*path, "allOf", str(place))) for place, part in enumerate(listed(schema["allOf"]))][::-1]
        while left:
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise self._refuse(_TOO_LARGE, path)
            part, at = left.pop()
            if isinstance(part, Mapping) and "$ref" in part and (part := self._looked_up(part["$ref"])) is None:
                self.changes.append(".".join(at))
                continue
            if not isinstance(part, Mapping):
                raise self._refuse("Expected a JSON schema: an object.", at)
            for name, value in part.items():
                if name == "allOf":
                    inner = [(each, (*at, name, str(place))) for place, each in enumerate(listed(value))]
                    left += reversed(inner)
                elif name == "properties" and isinstance(value, Mapping) and isinstance(merged.get(name, {}), dict):
                    own = merged.setdefault(name, {})
                    for key, inner_schema in value.items():
                        own.setdefault(key, inner_schema)
                elif name == "required" and isinstance(value, list) and isinstance(merged.get(name, []), list):
                    new = dict.fromkeys(each for each in value if isinstance(each, str) and each not in required)
                    merged.setdefault(name, []).extend(new)
                    required.update(new)  # `|=` with keys would make a new set of all of them
                elif merged.setdefault(name, value) != value:
                    self.changes.append(".".join((*at, name)))
        return merged

    def _one_type(self, schema: dict[str, Any], kinds: list[str]) -> dict[str, Any]:
        named = [kind for kind in kinds if kind != "null"]
        if self._subset.nullable == "type" and len(named) <= 1:
            return schema
        if len(named) == 1:
            return {**schema, "type": kinds}  # separated again in `_nullable`, once the rest is known
        rest = {name: value for name, value in schema.items() if name != "type"}
        if "anyOf" not in self._subset.keywords or "anyOf" in rest:
            return {**rest, "type": named[0]} if named else rest
        return {**rest, "anyOf": [{"type": kind} for kind in kinds]}

    def _nullable(self, kept: dict[str, Any]) -> None:
        """Rewrites nullability in the vendor's style."""
        style, kinds = self._subset.nullable, kept.get("type")
        if isinstance(kinds, list) and style != "type":
            kept["type"] = next((kind for kind in kinds if kind != "null"), "null")
            if style == "keyword":
                kept["nullable"] = True
            else:
                described = {"description": kept.pop("description")} if "description" in kept else {}
                inner = dict(kept)
                kept.clear()
                kept.update({"anyOf": [inner, {"type": "null"}], **described})
        elif style == "keyword" and isinstance(kept.get("anyOf"), list) and {"type": "null"} in kept["anyOf"]:
            others = [each for each in kept["anyOf"] if each != {"type": "null"}]
            kept["nullable"] = True
            if len(others) == 1:
                del kept["anyOf"]
                for name, value in others[0].items():
                    kept.setdefault(name, value)
            else:
                kept["anyOf"] = others

    def _require(self, kept: dict[str, Any], path: tuple[str, ...]) -> None:
        """Leaves out required names without a property: vendors refuse them."""
        needed, known = kept.get("required"), kept.get("properties", {})
        if not isinstance(needed, list) or not isinstance(known, dict):
            return
        if "properties" not in kept and not _is_object(kept):
            return  # an alternative: the properties are those of the whole schema
        kept["required"] = [name for name in needed if isinstance(name, str) and name in known]
        if len(kept["required"]) < len(needed):
            self.changes.append(".".join((*path, "required")))
            if not kept["required"]:
                del kept["required"]

    def _close(self, schema: Mapping[str, Any], kept: dict[str, Any], path: tuple[str, ...]) -> None:
        if schema.get("additionalProperties") is not False and not kept.get("properties"):
            self.changes.append(".".join((*path, "additionalProperties")))  # any key was allowed, now none is
        kept["additionalProperties"] = False

    def _anything(self, schema: bool, path: tuple[str, ...]) -> dict[str, Any]:
        if not schema:
            self.changes.append(".".join(path) or "schema")
        return {}

    def _inline(self, schema: Mapping[str, Any], path: tuple[str, ...], refs: tuple[str, ...]) -> dict[str, Any]:
        """The target of a `$ref`, to replace it; keywords beside the `$ref` override those of the target."""
        ref = schema["$ref"]
        target = self._looked_up(ref)
        beside = {name: value for name, value in schema.items() if name not in ("$ref", *REF_HOMES)}
        if target is None:  # nothing is fetched; keywords beside it still apply
            self.changes.append(".".join(path) or "$ref")
            return self.node(beside, path, refs)
        is_followed = self._subset.refs and definition_of(ref) is not None and ref not in self._recursive
        is_full = self._nodes > MAX_NODES or len(refs) >= MAX_REFS or len(path) > MAX_DEPTH // 2
        if is_full and is_followed:
            self.changes.append(".".join(path))
            return {"$ref": ref}
        if ref in refs or is_full:
            self.changes.append(".".join(path) or "$ref")
            named = str(ref).rpartition("/")[2] or "the whole"
            like = "Like" if ref not in refs else "Nested again like"
            said = filter(None, [str(beside.get("description") or "").rstrip("."), f"{like} {named}"])
            kind = target.get("type", "object")
            cut: dict[str, Any] = {"type": kind if isinstance(kind, str) else "object", "description": ". ".join(said)}
            return self.node({**cut, "items": {}} if kind == "array" else cut, path, refs)
        return self.node({**target, **beside}, path, (*refs, ref))

    def _stays(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> bool:
        """True for a reference that the vendor follows: to a definition, without siblings or recursion."""
        ref = schema["$ref"]
        if not self._subset.refs or not path or not isinstance(ref, str):
            return False
        if definition_of(ref) is None or any(each not in ("$ref", *_SILENT) for each in schema):
            return False
        return ref not in self._recursive and self._looked_up(ref) is not None

    def _looked_up(self, ref: object) -> Mapping[str, Any] | None:
        """The schema that a reference names; None if it names none, or points out of this schema."""
        if not isinstance(ref, str) or not ref.startswith("#"):
            return None
        found: Any = self._root
        for step in ref.removeprefix("#").split("/")[1:]:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping):
                found = found.get(name, found.get(step))
            else:
                return None
        return found if isinstance(found, Mapping) else None

    def _refuse(self, message: str, path: tuple[str, ...]) -> BadRequest:
        return BadRequest(message, param=".".join((self._where, *path)))


def json_instruction(schema: Any, with_tools: bool) -> str:
    """An instruction that replaces an unsupported `response_format`; `schema` None: any JSON object."""
    when = "Unless you call a tool, answer" if with_tools else "Answer"
    if schema is None:
        return f"{when} with one JSON object and nothing else."
    return f"{when} with nothing but JSON that is valid against this JSON schema: {encode(schema).decode()}"


def wanted_schema(wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of a `response_format` of type `json_schema`, with the description beside it; None if it has no
    schema. Raises BadRequest for anything else.
    """
    inner = wanted.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not (schema is None or isinstance(schema, dict)):
        message = "response_format: `json_schema` needs an object with the `schema`."
        raise BadRequest(message, param=SCHEMA_PATH)
    description = inner.get("description")
    if schema is not None and isinstance(description, str) and "description" not in schema:
        return {**schema, "description": description}
    return schema


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind)
