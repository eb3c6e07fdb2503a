"""Translates: OpenAI's chat API as many servers speak it. Not a vendor, but a base for vendors.

A vendor that differs overrides the class variables below, and `shape` for differences beyond names.
"""

from __future__ import annotations

from typing import Any, ClassVar

from proxy.providers.base.content import REASONING_FIELD
from proxy.providers.base.contract import Built, HTTPResponse, Provider, StreamDecoder
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.names import names_of
from proxy.providers.compatible import embeddings, rerank
from proxy.providers.compatible.errors import error_from
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.response import parse
from proxy.providers.compatible.stream import CompatibleStreamDecoder
from proxy.schema.chat import ChatRequest, ChatResponse, ResponseMessage
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.records import JsonObject
from proxy.schema.request import NativeBody
from proxy.schema.rerank import RerankRequest, RerankResponse

COMPLETIONS = "completions"  # the dialect of bodies of OpenAI's older endpoint


class Compatible(Provider, frozen=True, kw_only=True):
    """A server that speaks OpenAI's chat API."""

    stream_usage: ClassVar[bool] = True  # False: refuses stream_options, sends usage unasked
    lists_models: ClassVar[bool] = False  # True: only the server itself knows which models it has
    ranks: ClassVar[bool | None] = None  # has /rerank; None: a server at a custom address may
    reasoning_back: ClassVar[str | None] = "reasoning_content"  # where it reads the thoughts of earlier answers
    error_rules: ClassVar[ErrorRules] = ErrorRules()
    completes: ClassVar[bool] = False  # has /completions, and knows or refuses each of its fields
    counts_call_ids: ClassVar[bool] = True  # some models do, on any server: `functions.look:0`

    @property
    def root(self) -> str:
        """The path between the base URL and the names of the endpoints."""
        return ""

    @property
    def native_root(self) -> str:
        return self.root

    @property
    def has_completions(self) -> bool:
        """`completes`, or what is known about the server at another address."""
        return self.completes

    def takes_native(self, native: NativeBody) -> bool:
        return self.has_completions if native.dialect == COMPLETIONS else super().takes_native(native)

    @property
    def models_path(self) -> str | None:
        """The path of the server's list of models; None if the price list is the source."""
        if self.local_model is not None or not (self.lists_models or self.base_url):
            return None
        return f"{self.root}/models"

    def build_request(self, request: ChatRequest, model: str) -> Built:
        draft = Draft(request, model, self.parameters)
        self.shape(draft)
        if request.unlimited:
            draft.lift_limit(self.takes_no_limit)
        return draft.built(f"{self.root}/chat/completions", stream_usage=self.stream_usage)

    def shape(self, draft: Draft) -> None:
        """Changes what the vendor would refuse or ignore; `draft` records losses. Does nothing unless overridden."""

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        answer = parse(response, self.error_rules, request)
        return answer if request is None else names_of(request, self.parameters).restore(answer)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response, self.id_headers, self.error_rules)

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        return names_of(request, self.parameters).restoring(CompatibleStreamDecoder(request, self.error_rules))

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """State for servers that refuse a tool result without the thoughts before its call (DeepSeek and others), or
        without their signature (Google's models; Anthropic's and OpenAI's behind OpenRouter).
        """
        calls: list[Any] = [call for call in message.get("tool_calls") or [] if "id" in call]
        if self.reasoning_back is None or not calls:
            return {}
        signed = {call["id"]: call["extra_content"] for call in calls if isinstance(call.get("extra_content"), dict)}
        state: dict[str, JsonObject] = {call_id: {"extra_content": extra} for call_id, extra in signed.items()}
        for name in ("reasoning_content", "reasoning_details", REASONING_FIELD):
            if thought := message.get(name):
                state.setdefault(calls[0]["id"], {})[name] = thought
        return state

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """The request for base64, a quarter of the size of numbers; servers that do not support it send numbers."""
        body = {**request.fields, "model": model, "encoding_format": "base64"}
        return embeddings.built(f"{self.root}/embeddings", body, request, [])

    def parse_embeddings(self, response: HTTPResponse) -> EmbeddingsResponse:
        return embeddings.parse(response, self.error_rules)

    def build_rerank(self, request: RerankRequest, model: str) -> Built:
        if self.ranks is False or (self.ranks is None and self.base_url is None):
            raise self._lacks("rerank", model)
        return rerank.build(f"{self.root}/rerank", request, model)

    def parse_rerank(self, response: HTTPResponse) -> RerankResponse:
        return rerank.parse(response, self.error_rules)
