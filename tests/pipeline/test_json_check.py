"""Checking answers against `response_format`: what is wrong is said, nothing is fetched, nothing runs away."""

from __future__ import annotations

import time
from typing import Any

import pytest

from proxy.pipeline.json_check import JSONCheck, bare
from proxy.schema.errors import BadRequest

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def check(schema: object) -> JSONCheck:
    return JSONCheck({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"age": 3}', None),
        ("Sure: {", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 5000, "not valid JSON"),
        ('{"age": "secret"}', '$.age: the value is not of type "integer"'),
        ("{}", '"age" is a required property'),
        ("[]", 'not of type "object"'),
    ],
)
def test_what_is_wrong_is_said_in_words(text: str, words: str | None) -> None:
    """Where, and why; the value itself is not repeated."""
    wrong = check(PERSON).wrong(text)
    assert (wrong is None) is (words is None)
    assert words is None or (wrong is not None and words in wrong and "secret" not in wrong)


@pytest.mark.parametrize("response_format", [{"type": "json_object"}, {"type": "json_schema", "json_schema": {}}])
def test_without_a_schema_any_object_will_do(response_format: dict[str, Any]) -> None:
    """As OpenAI's `json_object` promises."""
    assert JSONCheck(response_format).wrong('{"a": 1}') is None
    assert JSONCheck(response_format).wrong("[1]") == "it is not a JSON object"
    assert JSONCheck(response_format).wrong("nothing") is not None


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("```json\n{}\n```", "{}"),
        ("\n```\n[1,\n2]\n```\n", "[1,\n2]"),
        ("```JSON \r\n{}\r\n```", "{}"),
        ("{}", "{}"),
        ("Here:\n```json\n{}\n```", "Here:\n```json\n{}\n```"),
        ("```json\n{}", "```json\n{}"),
    ],
)
def test_a_fence_around_everything_is_taken_off(text: str, inner: str) -> None:
    """And only such a one."""
    assert bare(text) == inner


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """A schema that refers twice to the next of its definitions, which does the same, and so on."""
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": steps | {f"d{levels}": {}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"pattern": "("},
        "text",
        [1],
        {"$ref": "https://schemas.example/x.json"},
        {"$ref": "file:///etc/hostname"},
        {"properties": {"a": {"$ref": "//schemas.example/x.json"}}},
        {"$schema": "https://schemas.example/own"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$id": "https://schemas.example/a"}}},
        {"$dynamicRef": "#x"},
        {"properties": {"a": {"$anchor": "x"}}},
        deep(400),
        doubling(40),
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused_at_once(schema: object) -> None:
    """Invalid, leading out of itself, or without bound; nothing was sent yet."""
    began = time.process_time()
    with pytest.raises(BadRequest) as caught:
        check(schema)
    assert (caught.value.status, caught.value.param) == (400, "response_format.json_schema.schema")
    assert time.process_time() - began < 0.5


def test_references_within_the_schema_are_followed() -> None:
    """Recursive ones too, and names with slashes in them."""
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}, "a/b": {"$ref": "#/$defs/c~1d"}}}
    checked = check({**tree, "$defs": {"c/d": {"type": "integer"}}})
    assert checked.wrong('{"next": {"next": {"a/b": 1}}}') is None
    wrong = checked.wrong('{"next": {"next": {"a/b": "x"}}}')
    assert wrong is not None
    assert "$.next.next.a/b" in wrong


def test_recursion_in_many_ways_is_not_followed_for_ever() -> None:
    """Each level of the answer would double the work: a deep answer passes unchecked, a flat one does not."""
    branch = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    checked = check({"anyOf": [{**branch, "required": ["a"]}, {**branch, "required": ["b"]}, {"type": "integer"}]})
    assert checked.wrong('{"b": 1, "next": {"b": 1, "next": "x"}}') is not None
    began = time.process_time()
    assert checked.wrong('{"b": 1, "next": ' * 60 + '"x"' + "}" * 60) is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=a)(a+)+$", r"(a*)*\1$"])
def test_patterns_cannot_run_away(pattern: str) -> None:
    """Neither those that backtrack nor those that look ahead."""
    began = time.process_time()
    assert check({"type": "string", "pattern": pattern}).wrong('"' + "a" * 5000 + 'b"') is not None
    assert time.process_time() - began < 1


def test_a_large_answer_to_a_large_schema_passes_unchecked() -> None:
    """What would hold up every other call is not begun."""
    checked = check({"anyOf": [{"const": number} for number in range(5000)]})
    assert checked.wrong("5001") is not None
    assert checked.wrong("[" + "1," * 20_000 + "1]") is None
