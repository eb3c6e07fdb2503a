"""Translates: `/v1/rerank` and `/v2/rerank`: bodies into checked requests, rankings into Cohere's two answers."""

from __future__ import annotations

from typing import Any, cast

from msgspec import Struct

from proxy.pipeline.call import Call
from proxy.pipeline.format import StreamWriter
from proxy.pipeline.trace import trace
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode
from proxy.schema.records import MAX_TOKENS
from proxy.schema.rerank import RerankRequest, RerankResponse
from proxy.server.formats.body import check_model, in_range, request_fields, view_of, without_nulls, without_output

MAX_DOCUMENTS = 10_000  # Cohere's own limit


class Document(Struct, frozen=True):
    """A document as an object, as in Cohere's v1 API."""

    text: str


class RerankBody(Struct, frozen=True):
    """The fields of a rerank request that the proxy reads; documents are texts, or objects with a text."""

    model: str
    query: str
    documents: list[str | Document]
    top_n: int | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: int | None = None


_KNOWN = frozenset(RerankBody.__struct_fields__)


def decode_rerank(body: bytes) -> RerankRequest:
    """Decodes and checks a rerank request. Raises BadRequest, which names the field (`documents.3`: the fourth)."""
    fields = request_fields(body, _KNOWN)
    view = view_of(fields, RerankBody)
    check_model(view.model)
    if not view.query.strip():
        raise BadRequest("query: expected a non-empty text.", param="query")
    documents = [document if isinstance(document, str) else document.text for document in view.documents]
    if not documents or len(documents) > MAX_DOCUMENTS:
        message = f"documents: expected 1 to {MAX_DOCUMENTS} documents, got {len(documents)}."
        raise BadRequest(message, param="documents")
    if "" in documents:
        place = f"documents.{documents.index('')}"
        raise BadRequest(f"{place}: is empty. Leave it out.", param=place)
    in_range("top_n", view.top_n, MAX_TOKENS)
    in_range("max_tokens_per_doc", view.max_tokens_per_doc, MAX_TOKENS)
    return RerankRequest(
        model=view.model,
        size=len(body),
        query=view.query,
        documents=documents,
        top_n=view.top_n,
        return_documents=bool(view.return_documents),
        fields=without_nulls(fields, _KNOWN),
    )


class RerankFormat:
    """`/v1/rerank` in Cohere's shape."""

    paths: tuple[str, ...] = ("/v1/rerank", "/rerank")

    def decode(self, body: bytes) -> RerankRequest:
        return decode_rerank(body)

    def unread(self, model: str) -> RerankRequest:
        return RerankRequest(model=model, query="", documents=[], fields={})

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        """Cohere's answer, with the model that answered and the cost."""
        response = cast(RerankResponse, answer)
        body: dict[str, Any] = {
            "id": f"rerank-{call.id}",
            "model": call.answering.deployment.name,
            "results": _results(call, response),
        }
        if "searches" in response:
            body["meta"] = _billed(response)
        return encode({**body, "usage": without_output(call.usage()), **trace(call)})

    def writer(self, call: Call) -> StreamWriter:
        raise TypeError("rankings are not streamed")

    def error(self, error: ProxyError) -> bytes:
        return encode(error.body())


class CohereRerankFormat(RerankFormat):
    """`/v2/rerank`, exactly as Cohere's API answers there. The cost is in the headers."""

    paths: tuple[str, ...] = ("/v2/rerank",)

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        response = cast(RerankResponse, answer)
        meta = {"api_version": {"version": "2"}, **(_billed(response) if "searches" in response else {})}
        body = {"id": f"rerank-{call.id}", "results": _results(call, response), "meta": meta}
        return encode({**body, **trace(call)})

    def error(self, error: ProxyError) -> bytes:
        """The error's body. Cohere's errors are a message; OpenAI's fields are added beside it."""
        return encode({"message": error.message, **error.body()})


def _results(call: Call, response: RerankResponse) -> list[dict[str, Any]]:
    request = cast(RerankRequest, call.request)
    results: list[dict[str, Any]] = []
    for each in response["results"][: request.top_n]:
        result: dict[str, Any] = {"index": each["index"], "relevance_score": each["relevance_score"]}
        if request.return_documents:
            result["document"] = {"text": request.documents[each["index"]]}
        results.append(result)
    return results


def _billed(response: RerankResponse) -> dict[str, Any]:
    return {"billed_units": {"search_units": response["searches"]}}
