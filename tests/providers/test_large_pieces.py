"""Large pieces of requests and answers are translated in steps, with the result of one step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers.base.answers import decode, json_or_none
from proxy.providers.base.content import arguments
from proxy.providers.base.errors import build, scrub
from proxy.providers.google.wire import read
from proxy.schema.errors import UpstreamError
from proxy.schema.json import encode, utf8, with_member
from proxy.schema.json_structure import STEP_BYTES

SIZE = 3 * STEP_BYTES
TEXTS = ["a", "\u00e9", "\u6f22", "\U0001f600", 'x"\\']


@pytest.mark.parametrize("unit", TEXTS)
def test_large_arguments_are_read_as_one(unit: str) -> None:
    """Vendors that want an object get the same one."""
    value = {"x": unit * (SIZE // len(unit)), "y": [1, {"z": None}]}
    text = json.dumps(value, ensure_ascii=False)
    assert json_or_none(text) == json_or_none(text.encode()) == value
    assert arguments({"function": {"arguments": text}}) == value
    assert utf8(text) == text.encode()


@pytest.mark.parametrize("text", ['{"x": "' + "a" * SIZE, '["' + "a" * SIZE + '"] 1', '"' + "a" * SIZE + '\ud800"'])
def test_large_arguments_that_are_no_object_are_kept_as_they_are(text: str) -> None:
    """As small ones are."""
    assert json_or_none(text) is None
    assert arguments({"function": {"arguments": text}}) == {"_raw": text}


def test_large_arguments_that_are_a_list_are_kept_as_text() -> None:
    """Some servers send them so."""
    listed = ["a" * SIZE, 1]
    assert arguments({"function": {"arguments": listed}}) == {"_raw": encode(listed).decode()}


LARGE: list[dict[str, Any]] = [
    {"model": "old", "x": "a" * SIZE},
    {"x": "a" * SIZE, "model": "old", "y": [1]},
    {"x": "a" * SIZE},
    {"model": "b" * SIZE, "x": 1},
    {"x": [{"y": "z" * 999}] * 4_000, "model": "old", "z": {"model": "inner"}},
]


@pytest.mark.parametrize("fields", LARGE, ids=lambda fields: ",".join(fields))
@pytest.mark.parametrize("indent", [None, 1])
def test_a_member_of_a_large_body_is_replaced(fields: dict[str, Any], indent: int | None) -> None:
    """Nothing else changes, and nothing at all where the value is the same."""
    body = json.dumps(fields, indent=indent).encode()
    replaced = with_member(body, "model", "new")
    assert json.loads(replaced) == {**fields, "model": "new"}
    assert with_member(replaced, "model", "new") == replaced
    assert list(json.loads(replaced)) == list({**fields, "model": "new"})


def test_a_large_body_that_names_the_model_already_is_not_copied() -> None:
    """Its bytes are the client's."""
    body = json.dumps({"model": "same", "x": "a" * SIZE}, indent=2).encode()
    assert with_member(body, "model", "same") is body


@pytest.mark.parametrize("reader", [decode, read], ids=["openai", "google"])
def test_a_text_of_an_answer_that_takes_too_much_memory_is_named_as_such(reader: Any) -> None:
    """It is JSON, and no vendor will send less of it the next time."""
    with pytest.raises(UpstreamError, match=r"too large\. A text .* 8 million characters with emoji") as caught:
        reader(encode({"x": "a" * 9_000_000 + "\U0001f600"}))
    assert (caught.value.status, caught.value.retryable) == (502, False)


def test_a_large_message_of_an_error_is_cut_before_it_is_looked_through() -> None:
    """To look for keys in 60 MB takes seconds."""
    text = "no sk-0123456789 here. " * 1_000_000
    assert scrub(text) == scrub(text[:10_000])
    error = build({"message": {"x": text}, "code": ["y" * SIZE]}, 500, {})
    assert error.message.startswith('{"x":"no [redacted] here.')
    assert len(error.message) == 2_000
    many = [{"loc": ["body", "x"], "msg": "wrong"}] * 100_000
    assert build({"message": many}, 400, {}).message.startswith("x: wrong; x: wrong")
