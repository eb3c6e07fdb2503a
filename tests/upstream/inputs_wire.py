"""Translates: embeddings and rankings of OpenAI-shaped servers (shapes: the `openai` package 3.54; vLLM for rankings).

Everything follows from the request. An input's vector is `vector(input, dimensions)`, a document's score the share of
the query's words that it holds; an input's tokens are its words. With the mode `no_finish` the last vector is missing,
and the last ranked document is one that was not sent.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.openai_wire import OpenAIWire
from tests.upstream.wire import Ask, Frame, Refused

_encode = msgspec.json.Encoder().encode


def vector(text: str | list[int], dimensions: int = 4) -> list[float]:
    """Eighths between 0 and 32, which float32 holds exactly; like texts are no neighbours."""
    seed = zlib.crc32(_encode(text))
    return [((seed >> place % 24) % 256) / 8 for place in range(dimensions)]


def tokens(text: str | list[int]) -> int:
    return len(text.split()) if isinstance(text, str) else len(text)


def relevance(query: str, document: str) -> float:
    words = set(query.lower().split())
    return len(words & set(document.lower().split())) / len(words)


class _Embeddings(Struct):
    model: str
    input: list[str | int | list[int]] | str
    encoding_format: str = "float"
    dimensions: int = 4


class _Rerank(Struct):
    model: str
    query: str
    documents: list[str]
    top_n: int | None = None


class InputsWire(OpenAIWire):
    """`/embeddings` and `/rerank`; errors and headers are OpenAI's."""

    def claims(self, path: str) -> bool:
        return path.endswith(("/embeddings", "/v1/rerank"))

    def lookup(self, request: Request) -> tuple[int, bytes] | None:
        return None

    def ask(self, request: Request, seq: int) -> Ask:
        if request.method != "POST":
            raise Refused(405, self.error(405, None, ""))
        kind = _Rerank if request.path.endswith("/rerank") else _Embeddings
        try:
            body: Any = msgspec.json.decode(request.body, type=kind)
        except msgspec.ValidationError as error:
            raise Refused(400, self.error(400, "invalid_type", "")) from error
        return Ask(body.model, False, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        raise RuntimeError("vectors and rankings are not streamed")

    def whole(self, ask: Ask, script: Script) -> Frame:
        answer, used = _ranking(ask, script) if isinstance(ask.body, _Rerank) else _vectors(ask, script)
        usage = None if script.usage == "never" else {"prompt_tokens": used, "total_tokens": used}
        return Frame(_encode(answer | ({"usage": usage} if usage else {})), finish=True, end=True, usage=usage)


def _vectors(ask: Ask, script: Script) -> tuple[dict[str, Any], int]:
    given = ask.body.input
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector(each, ask.body.dimensions), ask)}
        for index, each in enumerate(inputs)
    ]
    data = data[: len(data) - script.no_finish]
    return {"object": "list", "data": data, "model": ask.model}, sum(map(tokens, inputs))


def _written(numbers: list[float], ask: Ask) -> str | list[float]:
    if ask.body.encoding_format == "float":
        return numbers
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _ranking(ask: Ask, script: Script) -> tuple[dict[str, Any], int]:
    query, documents = ask.body.query, ask.body.documents
    places = sorted(range(len(documents)), key=lambda place: -relevance(query, documents[place]))[: ask.body.top_n]
    ranked: list[dict[str, Any]] = [
        {
            "index": place,
            "relevance_score": relevance(query, documents[place]),
            "document": {"text": documents[place]},
        }
        for place in places
    ]
    if script.no_finish:
        ranked[-1] |= {"index": len(documents)}
    used = sum(tokens(query) + tokens(document) for document in documents)
    return {"id": f"rerank-{ask.seq}", "model": ask.model, "results": ranked}, used
