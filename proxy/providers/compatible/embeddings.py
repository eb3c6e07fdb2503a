"""Translates: embeddings of OpenAI-shaped servers, the request and the answer's vectors."""

from __future__ import annotations

import base64
import binascii
import math
import sys
from array import array
from collections.abc import Callable
from typing import Any, cast

from proxy.providers.base.answers import is_vector
from proxy.providers.base.contract import Built, HTTPResponse, post_json
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.usage import input_usage_of
from proxy.providers.compatible.errors import body_of
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import UpstreamError


def built(path: str, body: dict[str, Any], request: EmbeddingsRequest, dropped: list[str]) -> Built:
    return Built(post_json(path, body, request), dropped)


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
    Raises UpstreamError if the answer has no vectors, or some are missing.
    """
    body = body_of(response, rules)
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
    usage = input_usage_of(body.get("usage"))
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
            vector = []  # NaN or infinity from a model; JSON has neither
    if not vector:
        raise UpstreamError("The provider's answer has an embedding that is not a vector.", retryable=True)
    return vector
