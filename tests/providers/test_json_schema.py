"""The down-leveller: what a vendor does not take is said in words, everything else stays as it was."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.providers.base.json_schema import MAX_NODES, Subset, down_level
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode

NARROW = Subset(
    frozenset({"properties", "required", "items", "anyOf", "title", "format", "additionalProperties", "minItems"}),
    closed=True,
    formats=frozenset({"date-time"}),
    nullable="any_of",
    limits={"minItems": frozenset({0, 1})},
)
OPENAPI = Subset(frozenset({"properties", "required", "items", "anyOf", "nullable", "format"}), nullable="keyword")
WIDE = Subset(frozenset({"properties", "required", "items", "anyOf", "minimum"}), refs=True)


def level(schema: dict[str, Any], subset: Subset = NARROW) -> tuple[dict[str, Any], list[str]]:
    levelled = down_level(schema, subset, "response_format.json_schema.schema")
    return levelled.schema, levelled.changes


def test_a_keyword_the_vendor_lacks_is_said_in_the_description_and_reported():
    """Nothing is lost silently: the model still reads the bound, and the caller reads where it went."""
    schema = {"type": "object", "properties": {"age": {"type": "integer", "description": "Years.", "minimum": 3}}}
    found, changes = level(schema)
    assert found["properties"]["age"] == {"type": "integer", "description": "Years. minimum: 3"}
    assert changes == ["properties.age.minimum"]


def test_a_property_may_be_called_like_a_keyword():
    """Keywords are cleaned at the places of schemas, names of properties never."""
    names = ("title", "default", "$ref", "minimum", "pattern", "$defs", "const")
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": list(names)}
    found, changes = level(schema)
    assert list(found["properties"]) == list(names)
    assert changes == []


def test_every_object_is_closed_where_the_vendor_wants_it():
    """Also inside lists and alternatives; an object that was free of form is reported, it now takes no key at all."""
    schema = {
        "type": "object",
        "properties": {"free": {"type": "object"}, "list": {"type": "array", "items": {"properties": {"a": {}}}}},
    }
    found, changes = level(schema)
    assert found["additionalProperties"] is False
    assert found["properties"]["free"] == {"type": "object", "additionalProperties": False}
    assert found["properties"]["list"]["items"]["additionalProperties"] is False
    assert changes == ["properties.free.additionalProperties"]


def test_references_are_inlined_with_what_stands_beside_them():
    """A `$ref` is replaced by its target; the target's place disappears."""
    schema = {
        "type": "object",
        "properties": {"home": {"$ref": "#/$defs/place", "description": "Where."}, "work": {"$ref": "#/$defs/place"}},
        "$defs": {"place": {"type": "string", "description": "A place."}},
    }
    found, changes = level(schema)
    assert found["properties"] == {
        "home": {"type": "string", "description": "Where."},
        "work": {"type": "string", "description": "A place."},
    }
    assert "$defs" not in found
    assert changes == []


def test_recursion_is_cut_and_said():
    """A tree becomes a tree of one level more; the cut names what would follow."""
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    found, changes = level({"$ref": "#/$defs/node", "$defs": {"node": tree}})
    cut = found["properties"]["children"]["items"]
    assert cut["type"] == "object"
    assert cut["description"] == "Nested again like node"
    assert "properties.children.items" in changes


def test_references_stay_where_the_vendor_takes_them():
    """Their targets are cleaned all the same. Inlined are those at the top, beside other words, and elsewhere."""
    a = {"type": "integer", "minimum": 1, "multipleOf": 2}
    clean = {"type": "integer", "minimum": 1, "description": "multipleOf: 2"}
    ref = {"$ref": "#/$defs/a"}
    schema = {"type": "object", "properties": {"x": ref, "y": {"$ref": "#/properties/x"}}, "$defs": {"a": a, "b": {}}}
    found, changes = level(schema, WIDE)
    assert found == {"type": "object", "properties": {"x": ref, "y": ref}, "$defs": {"a": clean}}
    assert changes == ["$defs.a.multipleOf"]
    assert level({**ref, "$defs": {"a": a}}, WIDE)[0] == clean
    beside = {"type": "object", "properties": {"x": {**ref, "description": "X"}}, "$defs": {"a": a}}
    assert level(beside, WIDE)[0]["properties"]["x"] == {**clean, "description": "X. multipleOf: 2"}


def test_recursion_is_cut_where_references_stay():
    """Of a definition that leads to itself through others, and nothing else is inlined."""
    leaf: dict[str, Any] = {"type": "string"}
    a = {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}, "leaf": {"$ref": "#/$defs/leaf"}}}
    b = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}
    top = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": a, "b": b, "leaf": leaf}}
    found, changes = level(top, WIDE)
    assert found["$defs"] == {"leaf": leaf}
    inlined = found["properties"]["a"]["properties"]
    assert inlined["leaf"] == {"$ref": "#/$defs/leaf"}
    assert inlined["b"]["properties"]["a"] == {"type": "object", "description": "Nested again like a"}
    assert changes == ["properties.a.properties.b.properties.a"]


@pytest.mark.parametrize("ref", ["#/$defs/none", "other.json#/a", "https://example.com/a.json", "#/required/7", 7])
def test_a_reference_that_leads_nowhere_or_out_allows_anything(ref: object):
    """Nothing is fetched. One such tool among many must not cost the whole request, and it is said."""
    schema = {"type": "object", "properties": {"a": {"$ref": ref, "description": "A."}}, "required": ["a"]}
    for subset in (NARROW, WIDE):
        found, changes = level(schema, subset)
        assert found["properties"] == {"a": {"description": "A."}}
        assert changes == ["properties.a"]
    found, changes = level({"type": "object", "allOf": [{"$ref": ref}, {"properties": {"b": {}}}]})
    assert found["properties"] == {"b": {}}
    assert changes == ["allOf.0"]


@pytest.mark.parametrize("ref", ["#/$defs/a~1b%20c", "#/$defs/a~1b c"])
def test_names_in_references_may_be_escaped(ref: str):
    """As in any URL, and as JSON Pointer escapes slashes."""
    schema = {"type": "object", "properties": {"x": {"$ref": ref}}, "$defs": {"a/b c": {"type": "integer"}}}
    for subset in (NARROW, WIDE):
        assert level(schema, subset)[0]["properties"] == {"x": {"type": "integer"}}


def test_references_that_double_at_each_step_are_cut():
    """Thirty definitions of two references each would inline to a billion nodes. Where they may stay, all do."""
    defs: dict[str, Any] = {"d30": {"type": "string"}}
    for step in range(30):
        twice = {"$ref": f"#/$defs/d{step + 1}"}
        defs[f"d{step}"] = {"type": "object", "properties": {"a": twice, "b": twice}}
    found, changes = level({"$ref": "#/$defs/d0", "$defs": defs})
    assert changes
    assert len(json.dumps(found)) < 1_000_000
    found, changes = level({"type": "object", "properties": {"d": {"$ref": "#/$defs/d0"}}, "$defs": defs}, WIDE)
    assert found["$defs"] == defs
    assert changes == []


def test_all_of_that_contains_itself_is_refused():
    """A merge without end is counted like nodes."""
    with pytest.raises(BadRequest, match="too large"):
        level({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}})
    assert MAX_NODES < 100_000


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        (NARROW, {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "A name."}),
        (OPENAPI, {"type": "string", "description": "A name.", "nullable": True}),
        (WIDE, {"type": ["string", "null"], "description": "A name."}),
    ],
    ids=["any_of", "keyword", "type"],
)
def test_null_is_said_as_the_vendor_says_it(subset: Subset, expected: dict[str, Any]):
    """A type of two is one of the three forms."""
    assert level({"type": ["string", "null"], "description": "A name."}, subset) == (expected, [])


def test_an_alternative_that_is_null_becomes_the_keyword():
    """What pydantic writes for an optional field."""
    found, _ = level({"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "Maybe."}, OPENAPI)
    assert found == {"description": "Maybe.", "nullable": True, "type": "integer"}


def test_several_types_become_alternatives():
    """Vendors take one type for each schema."""
    assert level({"type": ["string", "integer"]})[0] == {"anyOf": [{"type": "string"}, {"type": "integer"}]}


def test_const_and_one_of_are_said_with_what_there_is():
    """`const` is an `enum` of one, `oneOf` an `anyOf`; no change in what is allowed, so none is reported."""
    found, changes = level({"oneOf": [{"const": "a"}, {"const": 2}]})
    assert found == {"anyOf": [{"enum": ["a"]}, {"enum": [2]}]}
    assert changes == []


def test_all_of_is_merged():
    """Properties and required add up; a contradiction is a change."""
    schema = {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"type": "object", "title": "Second", "properties": {"b": {"type": "string"}}, "required": ["b", "a"]},
        ],
        "title": "First",
    }
    found, changes = level(schema)
    assert set(found["properties"]) == {"a", "b"}
    assert found["required"] == ["a", "b"]
    assert found["title"] == "First"
    assert changes == ["allOf.1.title"]


def test_values_a_vendor_does_not_take_are_folded():
    """A known format or limit stays, others are said in words."""
    found, changes = level({"type": "array", "minItems": 2, "items": {"type": "string", "format": "uri"}})
    assert found == {
        "type": "array",
        "items": {"type": "string", "description": "format: uri"},
        "description": "minItems: 2",
    }
    assert changes == ["minItems", "items.format"]
    assert level({"type": "string", "format": "date-time"}) == ({"type": "string", "format": "date-time"}, [])


@pytest.mark.parametrize("broken", [{"properties": {"a": 7}}, {"items": [1]}, {"anyOf": ["x"]}, {"allOf": [3]}])
def test_what_is_no_schema_is_refused_by_its_path(broken: dict[str, Any]):
    """400 with the path, never a crash."""
    with pytest.raises(BadRequest) as caught:
        level(broken)
    assert str(caught.value.param).startswith("response_format.json_schema.schema.")


leaves = st.sampled_from(
    [
        {"type": "string", "minLength": 2, "pattern": "^a"},
        {"type": ["integer", "null"], "minimum": 0},
        {"const": 3},
        {"$ref": "#/$defs/shared"},
        {"enum": ["a", None]},
        True,
        {},
    ]
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda properties: {"type": "object", "properties": properties, "minProperties": 1},
            st.dictionaries(st.sampled_from(["title", "a", "$ref", "items", "é"]), inner, max_size=3),
        ),
        st.builds(lambda items: {"type": "array", "items": items, "uniqueItems": True}, inner),
        st.builds(lambda each: {"oneOf": each}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


def keywords(schema: dict[str, Any]) -> set[str]:
    found = set(schema)
    for each in schema.get("properties", {}).values():
        found |= keywords(each)
    for each in [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]:
        found |= keywords(each)
    return found


@given(trees, st.sampled_from([NARROW, OPENAPI]))
def test_only_known_keywords_are_left_and_the_same_schema_gives_the_same_bytes(tree: Any, subset: Subset):
    """The law of the down-leveller; the schema of the client is not touched."""
    schema = {"type": "object", "properties": {"root": tree}, "$defs": {"shared": {"type": "number", "maximum": 9}}}
    before = copy.deepcopy(schema)
    found, changes = level(schema, subset)
    assert keywords(found) <= subset.keywords | {"type", "description", "enum"}
    assert encode(found) == encode(level(copy.deepcopy(schema), subset)[0])
    assert schema == before
    assert level(found, subset)[0] == found
    assert len(set(changes)) == len(changes)


def test_a_chain_of_references_is_cut():
    """However long: each step costs the stack."""
    chain = {f"a{place}": {"$ref": f"#/$defs/a{place + 1}"} for place in range(3000)}
    found = down_level({"$ref": "#/$defs/a0", "$defs": {**chain, "a3000": {}}}, Subset(frozenset()), "tools.0")
    assert found.changes == ["$ref"]


def test_parts_of_all_of_add_up_however_they_are_nested():
    """What an object says itself stands first."""
    inner = {"allOf": [{"required": ["c", "a"], "properties": {"c": {"type": "string"}, "a": {"type": "number"}}}]}
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "allOf": [inner, {}]}
    found = down_level(schema, Subset(frozenset({"properties", "required"})), "tools.0")
    assert found.schema == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "c": {"type": "string"}},
        "required": ["a", "c"],
    }
