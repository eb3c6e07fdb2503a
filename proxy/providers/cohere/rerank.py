"""Translates: `/v1/rerank` to and from `/v2/rerank`, which has the same shape."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.contract import Built, HTTPResponse, post_json
from proxy.providers.base.fields import Fields
from proxy.providers.cohere.errors import body_of
from proxy.providers.cohere.usage import billed_usage
from proxy.schema.errors import UpstreamError
from proxy.schema.rerank import RerankRequest, RerankResponse

_NATIVE = ("max_tokens_per_doc", "relevant_spans", "priority")


def build_rerank(request: RerankRequest, model: str) -> Built:
    """The request, without `return_documents`: the vendor never returns texts, and the caller has them."""
    fields = Fields(request.fields)
    fields.take("model", "query", "documents", "top_n", "return_documents")
    body: dict[str, Any] = {"model": model, "query": request.query, "documents": request.documents}
    if request.top_n is not None:
        body["top_n"] = request.top_n
    body |= fields.take_all(_NATIVE)
    return Built(post_json("/v2/rerank", body, request), fields.rest(), fields.adapted)


def parse_rerank(response: HTTPResponse) -> RerankResponse:
    """The ranking. Raises UpstreamError if the answer is not one."""
    body = body_of(response)
    results = body.get("results")
    if not isinstance(results, list) or not all(_is_ranked(result) for result in results):
        raise UpstreamError("The provider's answer has no ranking.", retryable=True, upstream_status=response.status)
    ranked = [{"index": result["index"], "relevance_score": result["relevance_score"]} for result in results]
    answer: dict[str, Any] = {"results": sorted(ranked, key=lambda each: -each["relevance_score"])}
    if isinstance(body.get("id"), str):
        answer["id"] = body["id"]
    usage = billed_usage(body.get("meta"))
    if usage is not None:
        answer["usage"] = usage
        if usage.billed.searches:
            answer["searches"] = usage.billed.searches
    return cast(RerankResponse, answer)


def _is_ranked(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return (
        type(value.get("index")) is int and value["index"] >= 0 and type(value.get("relevance_score")) in (int, float)
    )
