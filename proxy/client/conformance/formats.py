"""Translates: the checks of JSON answers, of pictures and files, and of thinking."""

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
    ok,
    shown,
    text_of,
    unshown,
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
_THINKING_TOKENS = 2048  # the least that some vendors take with thinking is above 1024


def json_object(model: str) -> Steps:
    reply = yield chat(model, _ASK, response_format={"type": "json_object"})
    return _whole(ok(reply, "response_format"), _object)


def json_object_streamed(model: str) -> Steps:
    reply = yield stream(model, _ASK, response_format={"type": "json_object"})
    return _streamed(read(reply, "response_format"), _object)


def json_schema(model: str) -> Steps:
    """With a reference and a choice of types, strict."""
    return _whole(ok((yield chat(model, _ASK, response_format=_FORMAT)), "response_format"), _fits)


def json_schema_streamed(model: str) -> Steps:
    return _streamed(read((yield stream(model, _ASK, response_format=_FORMAT)), "response_format"), _fits)


def _whole(answer: dict[str, Any], judged: Callable[[str], str]) -> str:
    text = text_of(answer)
    at_limit(finish_of(answer), answer.get("usage"))
    return judged(text)


def _streamed(answer: Stream, judged: Callable[[str], str]) -> str:
    text = answer.said()
    at_limit(answer.finish(), answer.usage())
    return judged(text)


def _object(text: str) -> str:
    expect(isinstance(_decoded(text), dict), f"not an object: {shown(text)!r}")
    return shown(text)


def _fits(text: str) -> str:
    for error in jsonschema_rs.iter_errors(_SCHEMA, _decoded(text)):
        fail(f"{error.message} in {shown(text)!r}")
    return shown(text)


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return fail(f"not JSON: {shown(text)!r}")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(size: int, pixel: bytes) -> bytes:
    """A square of one colour."""
    rows = (b"\0" + pixel * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _pdf(text: str) -> bytes:
    """One page with one line."""
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


_COLOUR = {"type": "text", "text": "Which colour has this picture? One word, in English."}
_RED = {"type": "image_url", "image_url": {"url": _data_url("image/png", _png(32, b"\xff\x00\x00"))}}
_WORD = {"type": "text", "text": "Which word is written in this file? Only the word."}


def image(model: str) -> Steps:
    """A red square, in a data URL."""
    return _seen(model, [_COLOUR, _RED], "red")


def pdf(model: str) -> Steps:
    """A page with one word, as `file`."""
    data = _data_url("application/pdf", _pdf("walnut"))
    part = {"type": "file", "file": {"filename": "word.pdf", "file_data": data}}
    return _seen(model, [_WORD, part], "walnut")


def image_link(url: str) -> Check:
    """Asked for by its URL, since somebody else fetches it: the model says anything about it."""

    def steps(model: str) -> Steps:
        part = {"type": "image_url", "image_url": {"url": url}}
        return shown(text_of(ok((yield chat(model, [_COLOUR, part])), "messages")))

    return Check("image_link", "media", steps)


def _seen(model: str, parts: list[dict[str, Any]], word: str) -> Steps:
    """What is in the last part, or at least it is more to read."""
    text = text_of(ok((yield chat(model, parts)), "messages"))
    if word not in text.lower():
        seen = f"it should have seen {word}, and said {shown(text)!r}"
        return (yield from unshown(seen, chat(model, parts[:1], max_completion_tokens=FEW_TOKENS), chat(model, parts)))
    return shown(text)


def reasoning(model: str) -> Steps:
    """Thoughts in `reasoning_content`, or the parameter reported as dropped."""
    probe = chat(model, _SUM, reasoning_effort="high", max_completion_tokens=_THINKING_TOKENS)
    answer = ok((yield probe), "reasoning_effort")
    found = message_of(answer).get("reasoning_content")
    text_of(answer)
    details = (answer.get("usage") or {}).get("completion_tokens_details") or {}
    if not found and details.get("reasoning_tokens"):
        return f"{details['reasoning_tokens']} hidden tokens"
    expect(
        isinstance(found, str) and found != "", f"reasoning_content is {found!r} and no reasoning tokens are counted"
    )
    return shown(str(found))


def reasoning_streamed(model: str) -> Steps:
    """Before the text, not mixed with it."""
    probe = stream(model, _SUM, reasoning_effort="high", max_completion_tokens=_THINKING_TOKENS)
    answer = read((yield probe), "reasoning_effort")
    thought, places = answer.text(0, "reasoning_content"), answer.deltas(0)
    answer.said()
    details = (answer.usage() or {}).get("completion_tokens_details") or {}
    if not thought and details.get("reasoning_tokens"):
        return f"{details['reasoning_tokens']} hidden tokens"
    expect(bool(thought), "no reasoning_content, and no reasoning tokens are counted")
    first = next(place for place, delta in enumerate(places) if delta.get("content"))
    expect(not any(delta.get("reasoning_content") for delta in places[first:]), "thoughts follow the text")
    return shown(thought)


JSON = checks("json", json_object, json_object_streamed, json_schema, json_schema_streamed)
MEDIA = checks("media", image, pdf)
REASONING = checks("reasoning", reasoning, reasoning_streamed)
