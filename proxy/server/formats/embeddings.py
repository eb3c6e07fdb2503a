"""Translates: a request to `/v1/embeddings` into a checked one and its parts, and vectors into OpenAI's answer."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterable
from typing import Any, cast

from msgspec import Struct, structs

from proxy.schema.chat import EmbeddingsRequest, EmbeddingsResponse, Usage
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.json import encode
from proxy.server.formats.body import check_model, in_range, request_fields, view_of, without_nulls

MAX_INPUTS = 2048  # OpenAI's own limit
MAX_DIMENSIONS = 65_536
_FORMATS = ("float", "base64")


class EmbeddingsBody(Struct, frozen=True):
    """The fields of an embeddings request that the proxy reads: texts, or token ids."""

    model: str
    input: str | list[str | int | list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None
    user: str | None = None


_KNOWN = frozenset(EmbeddingsBody.__struct_fields__)


def decode_embeddings(body: bytes) -> EmbeddingsRequest:
    """An embeddings request from its bytes. Raises BadRequest that names the field, `input.3` for the fourth input."""
    fields = request_fields(body, _KNOWN)
    view = view_of(fields, EmbeddingsBody)
    check_model(view.model)
    in_range("dimensions", view.dimensions, MAX_DIMENSIONS)
    if view.encoding_format not in (None, *_FORMATS):
        raise BadRequest("encoding_format: expected `float` or `base64`.", param="encoding_format")
    return EmbeddingsRequest(
        model=view.model,
        inputs=_inputs(view.input),
        dimensions=view.dimensions,
        base64=view.encoding_format == "base64",
        fields=without_nulls(fields, _KNOWN),
    )


def _inputs(given: str | list[str | int | list[int]]) -> list[str] | list[list[int]]:
    """One text, several, one list of token ids or several: always several, none of them empty."""
    if isinstance(given, str):
        if not given:
            raise BadRequest("input: expected a text that is not empty.", param="input")
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


def parts(request: EmbeddingsRequest, limits: Iterable[int | None]) -> list[EmbeddingsRequest]:
    """The request in pieces that every one of the providers takes; `limits`: how many inputs each takes at once."""
    most = min((limit for limit in limits if limit is not None), default=len(request.inputs))
    if len(request.inputs) <= most:
        return [request]
    starts = range(0, len(request.inputs), most)
    return [_part(request, request.inputs[start : start + most]) for start in starts]


def _part(request: EmbeddingsRequest, inputs: Any) -> EmbeddingsRequest:
    return structs.replace(request, inputs=inputs, fields={**request.fields, "input": inputs})


def check(request: EmbeddingsRequest, response: EmbeddingsResponse) -> None:
    """Raises UpstreamError where there is not one vector for each input."""
    if len(response["embeddings"]) != len(request.inputs):
        message = f"The provider sent {len(response['embeddings'])} embeddings for {len(request.inputs)} inputs."
        raise UpstreamError(message)


def joined(answers: list[EmbeddingsResponse]) -> EmbeddingsResponse:
    """All vectors in the order of the inputs."""
    return {"embeddings": [vector for answer in answers for vector in answer["embeddings"]]}


def whole(response: EmbeddingsResponse, request: EmbeddingsRequest, model: str, usage: Usage) -> bytes:
    """OpenAI's answer: numbers, or base64 of little-endian float32."""
    written = _base64 if request.base64 else _same
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector)}
        for index, vector in enumerate(response["embeddings"])
    ]
    shown = {name: value for name, value in usage.items() if name != "completion_tokens"}
    return encode({"object": "list", "data": data, "model": model, "usage": shown})


def _same(vector: list[float]) -> list[float]:
    return vector


def _base64(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")
