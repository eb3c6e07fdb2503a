"""Large JSON is read and written in steps, with the result of one step."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.schema.errors import BadRequest
from proxy.schema.json import decode, decode_large, decode_object, encode, encode_sized
from proxy.schema.json_structure import STEP_BYTES, structure

# Texts in which a cut at the wrong byte would show: within an escape, a surrogate pair or a character.
UNITS = [
    "a",
    "ab:[{,",
    "\u00e9",
    "\u6f22\u5b57",
    "\U0001f600",
    'x"\\',
    "\\",
    '"',
    "\n",
    "\\u003a",
    "a\U0001f600\u6f22\\",
]
SIZE = 5 * STEP_BYTES // 2


def long_text(unit: str, shift: int) -> str:
    return "x" * shift + unit * (SIZE // len(unit))


@pytest.mark.parametrize("shift", range(7))
@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.slow
def test_a_long_text_is_read_as_one(unit: str, is_ascii: bool, shift: int) -> None:
    """Wherever the cuts fall, and however its characters are written."""
    value = {"x": [{"y": long_text(unit, shift)}], "z": 1}
    data = json.dumps(value, ensure_ascii=is_ascii).encode()
    assert decode_large(data) == value
    assert decode_object(data) == value


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.sampled(4)
def test_a_long_text_is_written_as_one(unit: str) -> None:
    """Byte for byte, also in the members of lists and objects."""
    value = {"x": [1, {"y": long_text(unit, 1)}, "z"], "y": long_text(unit, 0), "z": None}
    assert encode_sized(value, SIZE) == encode(value)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        [1.5] * 2_000,
        {"a": [[number] for number in range(1_000)]},
        [{"t": "x" * 400, "n": None}] * 6_000,
        [["x" * 2 * STEP_BYTES, True]] * 2,
        {"a": {"b": {"c": [{"d": [{"e": "y" * 2 * STEP_BYTES}]}]}}},
    ],
    ids=lambda value: str(value)[:20],
)
def test_many_values_are_read_and_written_as_one(value: Any) -> None:
    """Long lists go in batches, deep values member by member."""
    data = encode(value)
    assert encode_sized(value, 2 * STEP_BYTES) == data
    assert decode_large(data) == value


@pytest.mark.parametrize("wrong", ['"\\x"', '"\\ud800"', '"a\nb"', '"\\u00"', "[1,]", '{"a":1,}', "nul", '"', "01"])
@pytest.mark.parametrize("place", [10, SIZE])
def test_what_is_no_json_is_none_in_steps(wrong: str, place: int) -> None:
    """In the middle of a long text as behind it."""
    for text in (
        '{"x": "' + "x" * place + wrong[1:-1] + "x" * SIZE + '"}',
        '{"x": ["' + "x" * SIZE + '", ' + wrong + "]}",
    ):
        if wrong[0] == '"' or "[" in text:
            try:
                expected = decode(text.encode())
            except msgspec.DecodeError:
                with pytest.raises(BadRequest, match="not valid JSON"):
                    decode_object(text.encode())
            else:
                assert decode_object(text.encode()) == expected


def test_text_that_is_not_utf_8_is_refused() -> None:
    """Also at a cut."""
    for place in (STEP_BYTES - 3, STEP_BYTES, STEP_BYTES + 8, SIZE):
        body = bytearray(b'{"x": "' + b"x" * 2 * SIZE + b'"}')
        body[place] = 0xE9
        with pytest.raises(BadRequest, match="not valid JSON"):
            decode_object(bytes(body))


def test_a_key_twice_in_a_large_object_is_found() -> None:
    """At any level, beside a long text that is full of colons."""
    for text in ('{"a": 1, "x": "%s", "a": 2}', '{"x": [{"b": "%s", "b": 1}]}', '{"x": {"\\u003a": "%s", ":": 1}}'):
        with pytest.raises(BadRequest, match="A key appears twice"):
            decode_object((text % ("a: b, " * SIZE)).encode())


@pytest.mark.parametrize("text", ["\\\\", '\\"', "a", '\\u003a"', ',"[]:{}'])
def test_the_structure_is_that_of_one_step(text: str) -> None:
    """Slices do not end between a backslash and what it escapes."""
    for shift in range(3):
        fields = {"x": "x" * shift + text * (SIZE // len(text)), "y": [1, {"z": text}]}
        assert structure(json.dumps(fields).encode()) == b"{:,:[,{:}]}"


@pytest.mark.parametrize("blank", ["", " ", "\n" * SIZE])
@pytest.mark.parametrize(
    ("wrong", "right"),
    [("[%s,,%s]", "[%s,%s]"), ("[%s %s]", "[%s]"), ("[%s,%s,]", "[%s]"), ("[%s}", "[%s ]"), ("{%s:1}", '{"a":%s}')],
)
@pytest.mark.sampled(4)
def test_a_comma_or_bracket_out_of_place_is_found(wrong: str, right: str, blank: str) -> None:
    """Beside large members, where the text is cut."""
    for large in ('"' + "x" * SIZE + '"', "[" + "123456789," * (SIZE // 10) + "1]"):
        good, bad = ((blank + form.replace("%s", blank + large + blank)).encode() for form in (right, wrong))
        assert decode_large(good) == decode(good)
        if wrong[0] == "[" or large[0] == "[":
            with pytest.raises(msgspec.DecodeError):
                decode_large(bad)


def test_a_large_text_that_ends_early_is_told_as_such() -> None:
    """A provider's answer that broke off may come whole the next time."""
    for text in ('{"x": "' + "x" * SIZE, '{"x": [' + "1," * SIZE + "1"):
        with pytest.raises(msgspec.DecodeError, match="truncated"):
            decode_large(text.encode())


def test_a_text_that_takes_too_much_memory_is_refused() -> None:
    """One character widens all others. ASCII has no such limit, whatever its length."""
    with pytest.raises(BadRequest, match="8 million characters with emoji"):
        decode_object(json.dumps({"x": "a" * 9_000_000 + "\U0001f600"}).encode())
    assert len(decode_object(json.dumps({"x": "a" * 40_000_000}).encode())["x"]) == 40_000_000
