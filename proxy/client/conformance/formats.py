"""Translates: the checks of JSON answers, images, files and reasoning."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import msgspec

from proxy.client.conformance.base import (
    FEW_TOKENS,
    Check,
    Steps,
    at_limit,
    chat,
    checks,
    expect,
    fail,
    finish_of,
    message_of,
    not_shown,
    ok,
    shorten,
    text_of,
)
from proxy.client.conformance.events import Stream, read, stream

_ASK = "Describe a dog as a JSON object: its name, its age in years, its tags."
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "owner": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
    },
    "required": ["name", "age", "tags", "owner"],
    "additionalProperties": False,
    "$defs": {
        "person": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
            "additionalProperties": False,
        }
    },
}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "dog", "strict": True, "schema": _SCHEMA}}
_SUM = "What is 17 times 23? Answer with the number only."
_THINKING_TOKENS = 2048  # with reasoning, some vendors require more than 1024


def json_object(model: str) -> Steps:
    reply = yield chat(model, _ASK, response_format={"type": "json_object"})
    return _judge_whole(ok(reply, "response_format"), _check_object)


def json_object_streamed(model: str) -> Steps:
    reply = yield stream(model, _ASK, response_format={"type": "json_object"})
    return _judge_stream(read(reply, "response_format"), _check_object)


def json_schema(model: str) -> Steps:
    """A strict schema with a reference and a union of types."""
    return _judge_whole(ok((yield chat(model, _ASK, response_format=_FORMAT)), "response_format"), _check_schema)


def json_schema_streamed(model: str) -> Steps:
    return _judge_stream(read((yield stream(model, _ASK, response_format=_FORMAT)), "response_format"), _check_schema)


def _judge_whole(answer: dict[str, Any], judged: Callable[[str], str]) -> str:
    text = text_of(answer)
    at_limit(finish_of(answer), answer.get("usage"))
    return judged(text)


def _judge_stream(answer: Stream, judged: Callable[[str], str]) -> str:
    text = answer.checked_text()
    at_limit(answer.finish(), answer.usage())
    return judged(text)


def _check_object(text: str) -> str:
    expect(isinstance(_decode(text), dict), f"not an object: {shorten(text)!r}")
    return shorten(text)


def _check_schema(text: str) -> str:
    for error in jsonschema_rs.iter_errors(_SCHEMA, _decode(text)):
        fail(f"{error.message} in {shorten(text)!r}")
    return shorten(text)


def _decode(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return fail(f"not JSON: {shorten(text)!r}")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(size: int, pixel: bytes) -> bytes:
    """A PNG square of one colour."""
    rows = (b"\0" + pixel * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _pdf(text: str) -> bytes:
    """A PDF page with one line of text."""
    content = f"BT /F1 24 Tf 40 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>\nstream\n%b\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n%b" % (size, table)
    return body + table + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, len(body))


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


_COLOUR = {"type": "text", "text": "Which colour does this image show? One word, in English."}
_RED = {"type": "image_url", "image_url": {"url": _data_url("image/png", _png(32, b"\xff\x00\x00"))}}
_WORD = {"type": "text", "text": "Which word is written in this file? Only the word."}


def image(model: str) -> Steps:
    """The model recognizes a red square in a data URL."""
    return _recognize(model, [_COLOUR, _RED], "red")


def pdf(model: str) -> Steps:
    """The model reads a one-word page sent as `file`."""
    data = _data_url("application/pdf", _pdf("walnut"))
    part = {"type": "file", "file": {"filename": "word.pdf", "file_data": data}}
    return _recognize(model, [_WORD, part], "walnut")


def image_link(url: str) -> Check:
    """A check for an image given by URL, run on request only because the provider fetches it. Any answer passes."""

    def steps(model: str) -> Steps:
        part = {"type": "image_url", "image_url": {"url": url}}
        return shorten(text_of(ok((yield chat(model, [_COLOUR, part])), "messages")))

    return Check("image_link", "media", steps)


def _recognize(model: str, parts: list[dict[str, Any]], word: str) -> Steps:
    """The model names what the last part shows, or at least the part costs more prompt tokens."""
    text = text_of(ok((yield chat(model, parts)), "messages"))
    if word not in text.lower():
        seen = f"expected {word}, but it said {shorten(text)!r}"
        return (
            yield from not_shown(seen, chat(model, parts[:1], max_completion_tokens=FEW_TOKENS), chat(model, parts))
        )
    return shorten(text)


def reasoning(model: str) -> Steps:
    """Reasoning is in `reasoning_content`, or counted as hidden tokens, or the parameter is reported as dropped."""
    probe = chat(model, _SUM, reasoning_effort="high", max_completion_tokens=_THINKING_TOKENS)
    answer = ok((yield probe), "reasoning_effort")
    found = message_of(answer).get("reasoning_content")
    text_of(answer)
    details = (answer.get("usage") or {}).get("completion_tokens_details") or {}
    if not found and details.get("reasoning_tokens"):
        return f"{details['reasoning_tokens']} hidden tokens"
    expect(
        isinstance(found, str) and found != "",
        f"reasoning_content is {found!r} and no reasoning tokens are counted",
    )
    return shorten(str(found))


def reasoning_streamed(model: str) -> Steps:
    """Reasoning comes before the text and is not mixed with it."""
    probe = stream(model, _SUM, reasoning_effort="high", max_completion_tokens=_THINKING_TOKENS)
    answer = read((yield probe), "reasoning_effort")
    thought, places = answer.text(0, "reasoning_content"), answer.deltas(0)
    answer.checked_text()
    details = (answer.usage() or {}).get("completion_tokens_details") or {}
    if not thought and details.get("reasoning_tokens"):
        return f"{details['reasoning_tokens']} hidden tokens"
    expect(bool(thought), "no reasoning_content, and no reasoning tokens are counted")
    first = next(place for place, delta in enumerate(places) if delta.get("content"))
    expect(not any(delta.get("reasoning_content") for delta in places[first:]), "reasoning follows the text")
    return shorten(thought)


JSON = checks("json", json_object, json_object_streamed, json_schema, json_schema_streamed)
MEDIA = checks("media", image, pdf)
REASONING = checks("reasoning", reasoning, reasoning_streamed)
