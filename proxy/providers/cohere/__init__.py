"""Translates: Cohere's own API, version 2: `/v2/chat` with documents and citations, `/v2/embed`, `/v2/rerank`.

Facts of November 2026 (the vendor's SDK 7.3.1, recorded traffic).
"""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.base.contract import Built, HTTPResponse, Provider, StreamDecoder
from proxy.providers.cohere.embed import build_embeddings, parse_embeddings
from proxy.providers.cohere.errors import error_from
from proxy.providers.cohere.messages import DIALECT
from proxy.providers.cohere.request import build_chat
from proxy.providers.cohere.rerank import build_rerank, parse_rerank
from proxy.providers.cohere.response import parse
from proxy.providers.cohere.stream import CohereStreamDecoder
from proxy.providers.cohere.tools import names_of
from proxy.schema.chat import ChatRequest, ChatResponse, ResponseMessage
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.records import JsonObject
from proxy.schema.rerank import RerankRequest, RerankResponse


class Cohere(Provider, frozen=True, kw_only=True):
    """api.cohere.com, or a private deployment by `base_url`."""

    type: ClassVar[str] = DIALECT
    base: ClassVar[str | None] = "https://api.cohere.com"
    key_env: ClassVar[tuple[str, ...]] = ("COHERE_API_KEY", "CO_API_KEY")
    catalogue: ClassVar[str | None] = "cohere"
    id_headers: ClassVar[tuple[str, ...]] = ("x-debug-trace-id", "x-request-id", "cf-ray")
    choices_at_once: ClassVar[int | None] = 1
    embeddings_batch: ClassVar[int | None] = 96

    def build_request(self, request: ChatRequest, model: str) -> Built:
        return build_chat(request, model, self.parameters)

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        answer = parse(response, request)
        return answer if request is None else names_of(request, self.parameters).restore(answer)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response, self.id_headers)

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        return names_of(request, self.parameters).restoring(CohereStreamDecoder(request))

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """The plan behind the calls. It belongs in the history, and OpenAI clients drop it."""
        plan, calls = message.get("reasoning_content"), message.get("tool_calls")
        return {calls[0]["id"]: {"tool_plan": plan}} if plan and calls else {}

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        return build_embeddings(request, model)

    def parse_embeddings(self, response: HTTPResponse) -> EmbeddingsResponse:
        return parse_embeddings(response)

    def build_rerank(self, request: RerankRequest, model: str) -> Built:
        return build_rerank(request, model)

    def parse_rerank(self, response: HTTPResponse) -> RerankResponse:
        return parse_rerank(response)
