"""Translates: `/v1/embeddings` to and from `/v2/embed`. Vectors are always asked as numbers."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.content import Fields
from proxy.providers.base.contract import Built, HTTPRequest, HTTPResponse
from proxy.providers.cohere.errors import error_in
from proxy.providers.cohere.usage import billed_usage
from proxy.providers.openai.embeddings import is_vector
from proxy.providers.openai.response import decode
from proxy.schema.chat import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.json import encode

EMBED_BATCH = 96
JSON_HEADERS = {"content-type": "application/json", "accept": "application/json"}
_NATIVE = ("max_tokens", "truncate", "priority")


def build_embeddings(request: EmbeddingsRequest, model: str) -> Built:
    """`input_type` (`search_query`, `classification`, ...) passes on: models since v3 need to be told.

    Raises BadRequest for inputs that are lists of tokens: their numbers mean nothing to the vendor's tokenizer.
    """
    if not all(isinstance(text, str) for text in request.inputs):
        raise BadRequest(
            f"{model} takes texts, not lists of tokens. Send `input` as text.",
            param="input",
            code="unsupported_content",
        )
    fields = Fields(request.fields)
    fields.take("model", "input", "encoding_format", "dimensions")
    body: dict[str, Any] = {"model": model, "texts": request.inputs}
    body["input_type"] = fields.take("input_type") or "search_document"
    body["embedding_types"] = ["float"]
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    for name in _NATIVE:
        value = fields.take(name)
        if value is not None:
            body[name] = value
    return Built(HTTPRequest("POST", "/v2/embed", JSON_HEADERS, encode(body)), fields.rest(), fields.adapted)


def parse_embeddings(response: HTTPResponse) -> EmbeddingsResponse:
    """Raises UpstreamError when the answer holds no vectors."""
    body = decode(response.body)
    error = error_in(body)
    if error is not None:
        raise error
    found = body.get("embeddings")
    vectors = found.get("float") if isinstance(found, dict) else found
    if not isinstance(vectors, list) or not all(is_vector(vector) for vector in vectors):
        message = "The provider's answer has no embeddings as numbers."
        raise UpstreamError(message, retryable=True, upstream_status=response.status)
    answer: dict[str, Any] = {"embeddings": vectors}
    usage = billed_usage(body.get("meta"))
    if usage is not None:
        answer["usage"] = usage
    return cast(EmbeddingsResponse, answer)
