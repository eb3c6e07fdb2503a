"""Translates: `/v1/embeddings` to and from `batchEmbedContents`."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from proxy.providers.base.answers import decoded
from proxy.providers.base.contract import Built, HTTPResponse, post_json
from proxy.providers.base.fields import Fields, texts_only
from proxy.providers.google.errors import error_in
from proxy.providers.google.usage import usage_of
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.records import Tokens
from proxy.schema.usage import Usage, UsageReport


class _Values(Struct):
    values: list[float]


class _Body(Struct, rename="camel"):
    embeddings: list[_Values] | None = None
    usage_metadata: Any = None
    error: Any = None


_body = msgspec.json.Decoder(_Body)


def build_embeddings(request: EmbeddingsRequest, model: str, path: str) -> Built:
    """The request. `task_type` and `title` pass through. Raises BadRequest for lists of tokens."""
    texts_only(request, model)
    fields = Fields(request.fields)
    fields.take("model", "input", "encoding_format", "dimensions")
    options: dict[str, Any] = {}
    if request.dimensions is not None:
        options["outputDimensionality"] = request.dimensions
    for name, snake in (("taskType", "task_type"), ("title", "title")):
        value = fields.take(name, snake)
        if value is not None:
            options[name] = value
    named = f"models/{model.removeprefix('models/')}"
    asked = [{"model": named, "content": {"parts": [{"text": text}]}, **options} for text in request.inputs]
    return Built(post_json(path, {"requests": asked}, request), fields.rest(), fields.adapted)


def parse_embeddings(response: HTTPResponse) -> EmbeddingsResponse:
    """The vectors. Raises UpstreamError if there are none. Most answers have no usage."""
    try:
        body = decoded(response.body, _body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        body = _Body()
    if body.error:
        raise error_in(body.error)
    if not body.embeddings or not all(each.values for each in body.embeddings):
        message = "The provider's answer has no embeddings."
        raise UpstreamError(message, retryable=True, upstream_status=response.status)
    answer: dict[str, Any] = {"embeddings": [each.values for each in body.embeddings]}
    usage = usage_of(body.usage_metadata, 0)
    if usage is not None and (prompt := usage.billed.prompt or usage.shown["total_tokens"]):
        shown: Usage = {"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt}
        answer["usage"] = UsageReport(shown, Tokens(input=prompt))
    return cast(EmbeddingsResponse, answer)
