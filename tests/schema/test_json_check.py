"""Checking answers against `response_format`: errors are described, nothing is fetched, the work is bounded."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.schema.errors import BadRequest
from proxy.schema.json_check import JSONCheck, bare
from tests.slowness import usual_s

STEP_MS = 40  # the bound is 20 ms on a quiet machine


def cpu_ms(call: Callable[[], object]) -> float:
    """Of the usual machine, the least of three."""

    def tried() -> None:
        with contextlib.suppress(BadRequest):
            call()

    return usual_s(tried, 3) * 1000


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
    """And only a complete one."""
    assert bare(text) == inner


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


def doubling(levels: int) -> dict[str, Any]:
    """A schema whose definitions each refer twice to the next one."""
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
    """Invalid, with external references, or unbounded; nothing was sent yet."""
    with pytest.raises(BadRequest) as caught:
        check(schema)
    assert (caught.value.status, caught.value.param) == (400, "response_format.json_schema.schema")
    assert cpu_ms(lambda: check(schema)) < 500


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
    deep_answer = '{"b": 1, "next": ' * 60 + '"x"' + "}" * 60
    assert checked.wrong(deep_answer) is None
    assert cpu_ms(lambda: checked.wrong(deep_answer)) < 1000


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(?=a)(a+)+$", r"(a*)*\1$", "(?=a)a*a*a*a*a*b$", r"\b(a|aa)+$"])
@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: {"not": inner}, lambda inner: {"items": inner}])
@pytest.mark.parametrize("size", [30, 4_900, 40_000])
@pytest.mark.sampled(4)
def test_patterns_cannot_run_away(pattern: str, wrap: Callable[[Any], Any], size: int) -> None:
    """Neither backtracking nor look-ahead patterns, on one long text or on many."""
    checked = check(wrap({"type": "string", "pattern": pattern}))
    for answer in (json.dumps("a" * size + "!"), json.dumps(["a" * 30 + "!"] * (size // 34 + 1))):
        assert cpu_ms(lambda: checked.wrong(answer)) < STEP_MS  # noqa: B023


def test_a_pattern_that_looks_ahead_is_checked() -> None:
    """A pattern that exceeds its limit does not reject the answer."""
    checked = check({"type": "string", "pattern": r"^(?=.*\d)[a-z\d]+$"})
    assert checked.wrong('"abc1"') is None
    assert checked.wrong('"abc"') is not None
    assert check({"pattern": r"(a*)*\1$"}).wrong('"' + "a" * 50 + '!"') is None


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"pattern": r"^[\s\S]{0,2000}$"}] * 50},
        {"allOf": [{"pattern": r"^(\w{1,99}){1,99}$"}] * 50},
        {"patternProperties": {f"^x{number}[a-z]+$": {} for number in range(3000)}},
    ],
)
def test_patterns_that_take_long_to_prepare_are_not_prepared(schema: dict[str, Any]) -> None:
    """Then the answer only has to be JSON."""
    assert cpu_ms(lambda: check(schema)) < STEP_MS
    assert check(schema).wrong("1") is None
    assert check(schema).wrong("{") is not None


def numbers(count: int) -> list[dict[str, Any]]:
    return [{"const": number} for number in range(count)]


HEAVY: dict[str, tuple[dict[str, Any], Any]] = {
    "branches": ({"items": {"anyOf": numbers(2000)}}, [-1] * 1000),
    "some branches": ({"items": {"anyOf": numbers(200)}}, [199] * 400),
    "objects to choose from": ({"items": {"enum": [{"a": number} for number in range(3000)]}}, [{"a": 2999}] * 4000),
    "what is left over": (
        {"unevaluatedItems": False, "anyOf": [{"contains": one} for one in numbers(200)]},
        [*range(2000)],
    ),
    "fractions": ({"items": {"multipleOf": 1e-300}}, [1e300] * 8000),
    "unique": ({"uniqueItems": True}, [*range(8000), 0]),
    "branches within branches": ({"anyOf": [{"anyOf": [{"anyOf": numbers(20)}] * 10}] * 20}, -1),
    "long texts": ({"anyOf": [{"const": "a" * 9_000 + str(number)} for number in range(100)]}, "a" * 9_000 + "x"),
}


@pytest.mark.parametrize("name", HEAVY)
def test_no_schema_holds_up_the_event_loop(name: str) -> None:
    """The checker cannot be interrupted, so long checks are not started."""
    schema, answer = HEAVY[name]
    text = json.dumps(answer)
    assert cpu_ms(lambda: check(schema)) < STEP_MS
    checked = check(schema)
    assert cpu_ms(lambda: checked.wrong(text)) < STEP_MS


def test_a_large_answer_to_a_large_schema_passes_unchecked() -> None:
    """A check that would block every other call is not started."""
    checked = check({"anyOf": numbers(5000)})
    assert checked.wrong("5001") is not None
    assert checked.wrong("[" + "1," * 20_000 + "1]") is None


def test_a_long_list_of_like_objects_is_checked() -> None:
    """One value meets one of the `properties`, however many there are."""
    names = [f"field_{number}" for number in range(30)]
    row = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    checked = check({"type": "object", "properties": {"rows": {"type": "array", "items": row}}})
    good = dict.fromkeys(names, "text, and more")
    assert checked.wrong(json.dumps({"rows": [good] * 200})) is None
    assert checked.wrong(json.dumps({"rows": [good] * 199 + [{**good, "field_7": 1}]})) is not None


def test_recursion_in_one_way_is_followed_to_any_depth() -> None:
    """A list or a tree has one way to each value; its depth does not multiply the work."""
    tree = check({"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}})
    good, wrong = ('{"left": ' * 90 + leaf + "}" * 90 for leaf in ("{}", "1"))
    assert tree.wrong(good) is None
    assert tree.wrong(wrong) is not None


@pytest.mark.parametrize("text", [" " * 200_000, "```json" + " " * 200_000, "```\n" + " \n" * 100_000 + "x"])
def test_blanks_without_end_are_trimmed_in_one_pass(text: str) -> None:
    """Models in JSON mode do write them."""
    assert cpu_ms(lambda: bare(text)) < STEP_MS
    assert bare(text) == text
