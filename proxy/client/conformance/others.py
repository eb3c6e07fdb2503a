"""Translates: the checks of the endpoints beside chat: embeddings and the list of models."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Any

from proxy.client.conformance.base import Probe, Reply, Steps, Unsupported, checks, error_of, expect, fail, ok
from proxy.schema.json import encode

_TEXTS = ["one", "two words"]
_NO_ROUTE = (404, 405, 501)
_TOLERANCE = 1e-5  # the rounding of a float32 written in decimal


def floats(model: str) -> Steps:
    """There is one list of numbers per text, in order."""
    vectors = [_numbers(each) for each in _data((yield _embed(model, "float")))]
    return f"{len(vectors)} vectors of {len(vectors[0])} numbers"


def base64_same(model: str) -> Steps:
    """Base64 holds the same numbers as little-endian float32. OpenAI's SDKs request this encoding."""
    plain = [_numbers(each) for each in _data((yield _embed(model, "float")))]
    packed = [_unpack(each) for each in _data((yield _embed(model, "base64")))]
    for left, right in zip(plain, packed, strict=True):
        expect(len(left) == len(right), f"{len(left)} numbers, {len(right)} in base64")
        alike = all(
            math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) for a, b in zip(left, right, strict=True)
        )
        expect(alike, "the numbers differ")
    return "the same numbers"


def vector_usage(model: str) -> Steps:
    reply = yield _embed(model, "float")
    _data(reply)
    usage = ok(reply).get("usage")
    read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    expect(type(read) is int and read > 0, f"usage is {usage!r}")
    return f"{read} tokens"


def listed(model: str) -> Steps:
    """The list has objects with an id. A server without a model list answers 404."""
    rows = _rows((yield Probe("/models")))
    wrong = [row for row in rows if not isinstance(row, dict) or not isinstance(row.get("id"), str)]
    expect(not wrong, f"a model is {wrong[:1]!r}")
    expect(bool(rows), "the list is empty")
    return f"{len(rows)} models"


def _embed(model: str, encoding: str) -> Probe:
    body = {"model": model, "input": _TEXTS, "encoding_format": encoding}
    return Probe("/embeddings", encode(body))


def _data(reply: Reply) -> list[Any]:
    """The vectors. A 4xx in OpenAI's shape means that the server, or the model, openly lacks embeddings."""
    if reply.status in _NO_ROUTE or (400 <= reply.status < 500 and error_of(reply).get("message")):
        raise Unsupported(f"{reply.status}: {error_of(reply).get('message', 'no such path')}")
    rows = ok(reply).get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        fail(f"data is {str(rows)[:60]}")
    found = [row.get("index") for row in rows]
    expect(found == list(range(len(_TEXTS))), f"the indexes are {found}")
    return [row.get("embedding") for row in rows]


def _numbers(found: Any) -> list[float]:
    good = isinstance(found, list) and bool(found) and all(type(each) in (int, float) for each in found)
    expect(good, f"an embedding is {str(found)[:60]}")
    return list(found)


def _unpack(found: Any) -> list[float]:
    try:
        data = base64.b64decode(found, validate=True)
    except (binascii.Error, TypeError, ValueError):
        fail(f"an embedding is not base64: {str(found)[:60]}")
    expect(len(data) % 4 == 0 and bool(data), f"{len(data)} bytes are not a list of float32")
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _rows(reply: Reply) -> list[Any]:
    if reply.status in _NO_ROUTE:
        raise Unsupported(f"{reply.status}: no list of models")
    answer = ok(reply)
    expect(answer.get("object") == "list", f"object is {answer.get('object')!r}")
    rows = answer.get("data")
    return rows if isinstance(rows, list) else fail(f"data is {str(rows)[:60]}")


VECTORS = checks("embeddings", floats, base64_same, vector_usage)
MODELS = checks("models", listed)
