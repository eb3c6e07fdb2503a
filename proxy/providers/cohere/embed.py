"""Translates: `/v1/embeddings` to and from `/v2/embed`. Vectors are always requested as numbers."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import is_vector
from proxy.providers.base.contract import Built, HTTPResponse, post_json
from proxy.providers.base.fields import Fields, texts_only
from proxy.providers.cohere.errors import body_of
from proxy.providers.cohere.usage import billed_usage
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import UpstreamError

_NATIVE = ("max_tokens", "truncate", "priority")


def build_embeddings(request: EmbeddingsRequest, model: str) -> Built:
    """The request. `input_type` (`search_query`, `classification`, ...) passes through: models since v3 require it.
    Raises BadRequest for lists of tokens.
    """
    texts_only(request, model)
    fields = Fields(request.fields)
    fields.take("model", "input", "encoding_format", "dimensions")
    body: dict[str, Any] = {"model": model, "texts": request.inputs}
    body["input_type"] = fields.take("input_type") or "search_document"
    body["embedding_types"] = ["float"]
    if request.dimensions is not None:
        body["output_dimension"] = request.dimensions
    body |= fields.take_all(_NATIVE)
    return Built(post_json("/v2/embed", body, request), fields.rest(), fields.adapted)


def parse_embeddings(response: HTTPResponse) -> EmbeddingsResponse:
    """Raises UpstreamError when the answer holds no vectors."""
    body = body_of(response)
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
