"""Translates: embeddings of OpenAI-shaped servers, the request and the answer's vectors."""

from __future__ import annotations

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Callable
from typing import Any, cast

from proxy.providers.base.contract import Built, HTTPRequest, HTTPResponse
from proxy.providers.openai.errors import ErrorRules, error_in
from proxy.providers.openai.request import headers
from proxy.providers.openai.response import decode
from proxy.schema.chat import EmbeddingsRequest, EmbeddingsResponse, Usage
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.json import encode


def texts_only(request: EmbeddingsRequest, model: str) -> None:
    """Raises BadRequest for lists of token ids, which only OpenAI's own tokenizers make sense of."""
    if any(not isinstance(each, str) for each in request.inputs):
        message = f"{model} takes texts, not lists of token ids: only OpenAI's own models can read those."
        raise BadRequest(message, param="input", code="unsupported_content")


def built(path: str, body: dict[str, Any], dropped: list[str]) -> Built:
    return Built(HTTPRequest("POST", path, headers(stream=False), encode(body)), dropped)


def float32(text: str) -> list[float]:
    """The numbers of little-endian float32 in base64. Raises ValueError for anything else."""
    numbers = array("f")
    try:
        numbers.frombytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def parse(
    response: HTTPResponse, rules: ErrorRules, numbers: Callable[[str], list[float]] = float32
) -> EmbeddingsResponse:
    """Vectors as lists of numbers or as base64, read by `numbers`: servers that ignore `encoding_format` send lists.
    Raises UpstreamError when the answer has no vectors, or some are missing.
    """
    body = decode(response.body)
    error = error_in(body, rules)
    if error is not None:
        raise error
    data = body.get("data")
    if not isinstance(data, list) or not data or not all(isinstance(each, dict) for each in data):
        raise UpstreamError("The provider's answer has no embeddings.", retryable=True)
    places = [each.get("index", place) for place, each in enumerate(data)]
    if not all(isinstance(place, int) for place in places) or sorted(places) != list(range(len(data))):
        raise UpstreamError("The provider's answer lacks some of the embeddings.", retryable=True)
    vectors: list[list[float]] = [[]] * len(data)
    for place, each in zip(places, data, strict=True):
        vectors[place] = _vector(each.get("embedding"), numbers)
    answer: dict[str, Any] = {"embeddings": vectors}
    if isinstance(body.get("model"), str):
        answer["model"] = body["model"]
    usage = input_usage(body.get("usage"))
    if usage is not None:
        answer["usage"] = usage
    return cast(EmbeddingsResponse, answer)


def _vector(value: object, numbers: Callable[[str], list[float]]) -> list[float]:
    vector: list[float] = []
    if is_vector(value):
        vector = cast("list[float]", value)
    elif isinstance(value, str):
        try:
            vector = numbers(value)
        except ValueError:
            vector = []
        if not math.isfinite(sum(vector)):
            vector = []  # a model that ran out of numbers; JSON has none of these
    if not vector:
        raise UpstreamError("The provider's answer has an embedding that is no vector.", retryable=True)
    return vector


def is_vector(value: object) -> bool:
    """Numbers, at least one; whole ones of a size that a float holds."""
    numbers = value if isinstance(value, list) else []
    return bool(numbers) and all(
        type(number) is float or (type(number) is int and -(2**53) <= number <= 2**53) for number in numbers
    )


def input_usage(raw: object) -> Usage | None:
    """Usage of an answer without output; `total_tokens` alone stands for the prompt. None where there is none."""
    if not isinstance(raw, dict):
        return None
    count = next((raw[name] for name in ("prompt_tokens", "total_tokens") if isinstance(raw.get(name), int)), None)
    if count is None or count < 0:
        return None
    return cast(Usage, {**raw, "prompt_tokens": count, "completion_tokens": 0, "total_tokens": count})
