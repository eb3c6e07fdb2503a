"""Translates: rankings of OpenAI-shaped servers, which adopted Cohere's shape (vLLM, LocalAI, llama.cpp, Together)."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.contract import Built, HTTPResponse, post_json
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.usage import input_usage_of
from proxy.providers.compatible.errors import body_of
from proxy.schema.errors import UpstreamError
from proxy.schema.rerank import Ranked, RerankRequest, RerankResponse

_OURS = ("model", "query", "documents", "top_n", "return_documents")


def build(path: str, request: RerankRequest, model: str) -> Built:
    """The request. The answer needs no documents: they are restored here from the request."""
    body: dict[str, Any] = {"model": model, "query": request.query, "documents": request.documents}
    if request.top_n is not None:
        body["top_n"] = request.top_n
    body |= {name: value for name, value in request.fields.items() if name not in _OURS}
    return Built(post_json(path, body, request))


def parse(response: HTTPResponse, rules: ErrorRules) -> RerankResponse:
    """The ranking, sorted here because LocalAI and llama.cpp do not. Raises UpstreamError if the answer is not one."""
    body = body_of(response, rules)
    results = body.get("results")
    if not isinstance(results, list):
        raise UpstreamError("The provider's answer has no ranking.", retryable=True)
    ranked = sorted((_ranked(each) for each in results), key=lambda each: -each["relevance_score"])
    answer: dict[str, Any] = {"results": ranked}
    if isinstance(body.get("id"), str):
        answer["id"] = body["id"]
    usage = input_usage_of(body.get("usage"))
    if usage is not None:
        answer["usage"] = usage
    return cast(RerankResponse, answer)


def _ranked(raw: object) -> Ranked:
    index, score = (raw.get("index"), raw.get("relevance_score")) if isinstance(raw, dict) else (None, None)
    if not isinstance(index, int) or index < 0 or not isinstance(score, int | float):
        raise UpstreamError("The provider's answer has a ranked document without index or score.", retryable=True)
    return {"index": index, "relevance_score": score}
