"""Translates: `/v1/embeddings`: bodies into checked requests, vectors into OpenAI's answer."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import cast

from msgspec import Struct

from proxy.pipeline.call import Call
from proxy.pipeline.format import StreamWriter
from proxy.pipeline.trace import trace
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode, encode_sized
from proxy.schema.long_text import joined
from proxy.server.formats.body import check_model, in_range, request_fields, view_of, without_nulls, without_output

MAX_INPUTS = 2048  # OpenAI's own limit
MAX_DIMENSIONS = 65_536
_FORMATS = ("float", "base64")
_SLICE = 48 * 1024  # numbers encoded at once: a multiple of 3, so that no padding comes in between


class EmbeddingsBody(Struct, frozen=True):
    """The fields of an embeddings request that the proxy reads: texts, or token ids."""

    model: str
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


_KNOWN = frozenset(EmbeddingsBody.__struct_fields__)


def decode_embeddings(body: bytes) -> EmbeddingsRequest:
    """Decodes and checks an embeddings request. Raises BadRequest, which names the field (`input.3`: the fourth)."""
    fields = request_fields(body, _KNOWN)
    view = view_of(fields, EmbeddingsBody)
    check_model(view.model)
    in_range("dimensions", view.dimensions, MAX_DIMENSIONS)
    if view.encoding_format not in (None, *_FORMATS):
        raise BadRequest("encoding_format: expected `float` or `base64`.", param="encoding_format")
    return EmbeddingsRequest(
        model=view.model,
        size=len(body),
        inputs=_inputs(view.input),
        dimensions=view.dimensions,
        base64=view.encoding_format == "base64",
        fields=without_nulls(fields, _KNOWN),
    )


def _inputs(given: str | list[str | int | list[int]]) -> list[str] | list[list[int]]:
    """The inputs as a list. A single text or a single list of token ids is wrapped; empty inputs are rejected."""
    if isinstance(given, str):
        if not given:
            raise BadRequest("input: expected a non-empty text.", param="input")
        return [given]
    if not given:
        raise BadRequest("input: expected at least one input, got an empty list.", param="input")
    kind = type(given[0])
    for index, each in enumerate(given):
        if type(each) is not kind:
            message = f"input.{index}: expected the same as input.0: all texts, all token ids, or all lists of them."
            raise BadRequest(message, param=f"input.{index}")
        if each == "" or each == []:
            raise BadRequest(f"input.{index}: is empty. Leave it out.", param=f"input.{index}")
    if kind is int:
        return [cast("list[int]", given)]
    if len(given) > MAX_INPUTS:
        message = f"input: expected at most {MAX_INPUTS} inputs, got {len(given)}."
        raise BadRequest(message, param="input")
    return cast("list[str] | list[list[int]]", given)


class EmbeddingsFormat:
    """`/v1/embeddings` in OpenAI's shape."""

    paths = ("/v1/embeddings", "/embeddings")

    def decode(self, body: bytes) -> EmbeddingsRequest:
        return decode_embeddings(body)

    def unread(self, model: str) -> EmbeddingsRequest:
        return EmbeddingsRequest(model=model, inputs=[], fields={})

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        """OpenAI's answer: numbers, or base64 of little-endian float32."""
        vectors = cast(EmbeddingsResponse, answer)["embeddings"]
        write = _base64 if cast(EmbeddingsRequest, call.request).base64 else _same
        data = [
            {"object": "embedding", "index": index, "embedding": write(vector)} for index, vector in enumerate(vectors)
        ]
        usage = without_output(call.usage())
        model = call.answering.deployment.name
        named = {"id": f"embd-{call.id}", "object": "list"}  # Mistral's SDK requires an id
        body = {**named, "data": data, "model": model, "usage": usage, **trace(call)}
        return encode_sized(body, call.answer_bytes)

    def writer(self, call: Call) -> StreamWriter:
        raise TypeError("embeddings are not streamed")

    def error(self, error: ProxyError) -> bytes:
        return encode(error.body())


def _same(vector: list[float]) -> list[float]:
    return vector


def _base64(vector: list[float]) -> str:
    return joined([_base64_slice(vector[at : at + _SLICE]) for at in range(0, len(vector), _SLICE)])


def _base64_slice(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
