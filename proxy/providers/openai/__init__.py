"""Translates: OpenAI's own dialect, the parent of every OpenAI-shaped one (facts checked in November 2026).

A dialect that differs overrides the class variables below, and `shape` where the difference is more than a name.
"""

from __future__ import annotations

from typing import Any, ClassVar

from proxy.providers.base.contract import Built, HTTPResponse, Provider
from proxy.providers.openai import embeddings, rerank
from proxy.providers.openai.errors import ErrorRules, error_from
from proxy.providers.openai.request import Draft
from proxy.providers.openai.response import parse
from proxy.providers.openai.rules import obey, rules_of
from proxy.providers.openai.stream import OpenAIStreamDecoder
from proxy.schema.chat import (
    ChatRequest,
    ChatResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    RerankRequest,
    RerankResponse,
    ResponseMessage,
    Usage,
)
from proxy.schema.errors import UpstreamError
from proxy.schema.records import JsonObject, Tokens

_MAX_STOPS = 4
_MAX_INPUTS = 2048


class OpenAI(Provider, frozen=True, kw_only=True):
    """api.openai.com and every server that speaks its chat API, by `type: openai` and `base_url`."""

    type: ClassVar[str] = "openai"

    organization_env: str | None = None

    base: ClassVar[str | None] = "https://api.openai.com/v1"
    key_env: ClassVar[str | None] = "OPENAI_API_KEY"
    stream_usage: ClassVar[bool] = True  # False: refuses stream_options, sends usage unasked
    lists_models: ClassVar[bool] = False  # True: only the server itself knows which models it has
    ranks: ClassVar[bool | None] = None  # has /rerank; None: at an address of one's own it may
    reasoning_back: ClassVar[str | None] = "reasoning_content"  # where it reads the thoughts of its earlier answers
    error_rules: ClassVar[ErrorRules] = ErrorRules()

    @property
    def default_base_url(self) -> str | None:
        return self.base

    @property
    def key_variables(self) -> tuple[str, ...]:
        """At the vendor's own address a key is needed, at an address of one's own only if the file says so."""
        if self.api_key_env is None and self.base_url is None and self.key_env:
            return (self.key_env,)
        return super().key_variables

    @property
    def header_variables(self) -> dict[str, str]:
        return {"openai-organization": self.organization_env} if self.organization_env else {}

    @property
    def root(self) -> str:
        """What stands between the base URL and the names of the endpoints."""
        return ""

    @property
    def models_path(self) -> str | None:
        """Where its list of models is to be read; None where the price list knows them."""
        if self.local_model is not None or not (self.lists_models or self.base_url):
            return None
        return f"{self.root}/models"

    def build_request(self, request: ChatRequest, model: str) -> Built:
        draft = Draft(request, model, self.parameters)
        self.shape(draft)
        return draft.built(f"{self.root}/chat/completions", stream_usage=self.stream_usage)

    def shape(self, draft: Draft) -> None:
        """OpenAI refuses what it does not know in a message, and some models what others take. Servers at another
        address get what the client said: some read fields of answers that come back, and some need them.
        """
        rules = rules_of(draft.model)
        if rules is not None:
            obey(draft, rules)
        if rules is not None or self.base_url is None:
            draft.strip_echoes(keep=("annotations",))
            draft.refuse_parts(("video_url",))
            draft.refuse_parts(("image_url", "input_audio", "file"), roles=("system", "developer", "assistant", "tool"))
        elif self.reasoning_back is not None:
            draft.give_back_reasoning(self.reasoning_back)
        draft.cap_stops(_MAX_STOPS)

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        return parse(response, self.error_rules)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response, self.error_rules)

    def stream_decoder(self, request: ChatRequest) -> OpenAIStreamDecoder:
        return OpenAIStreamDecoder(request.n, self.error_rules)

    def tokens(self, usage: Usage) -> Tokens:
        prompt, output = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        details, output_details = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
        read = min(_count(details.get("cached_tokens")), prompt)
        written = min(_count(details.get("cache_write_tokens")), prompt - read)
        reasoning = min(_count(output_details.get("reasoning_tokens")), output)
        return Tokens(
            input=prompt - read - written,
            cache_read=read,
            cache_write=written,
            output=output,
            reasoning=reasoning,
            searches=_count(usage.get("num_search_queries")),  # Perplexity's older API
        )

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """Kept for servers that refuse a tool's result without the thoughts before its call (DeepSeek and others) or
        without their signature (Google's models; Anthropic's and OpenAI's behind OpenRouter).
        """
        calls: list[Any] = [call for call in message.get("tool_calls") or [] if "id" in call]
        if self.reasoning_back is None or not calls:
            return {}
        signed = {call["id"]: call["extra_content"] for call in calls if isinstance(call.get("extra_content"), dict)}
        state: dict[str, JsonObject] = {call_id: {"extra_content": extra} for call_id, extra in signed.items()}
        for name in ("reasoning_content", "reasoning_details"):
            if thought := message.get(name):
                state.setdefault(calls[0]["id"], {})[name] = thought
        return state

    @property
    def counts_call_ids(self) -> bool:
        """Some models do it whoever serves them: `functions.look:0`."""
        return True

    @property
    def embeddings_batch(self) -> int | None:
        return _MAX_INPUTS

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """Base64 is a quarter of the size of numbers; servers that do not know it send numbers."""
        body = {**request.fields, "model": model, "encoding_format": "base64"}
        return embeddings.built(f"{self.root}/embeddings", body, [])

    def parse_embeddings(self, response: HTTPResponse) -> EmbeddingsResponse:
        return embeddings.parse(response, self.error_rules)

    def build_rerank(self, request: RerankRequest, model: str) -> Built:
        if self.ranks is False or (self.ranks is None and self.base_url is None):
            raise self._lacks("rerank", model)
        return rerank.build(f"{self.root}/rerank", request, model)

    def parse_rerank(self, response: HTTPResponse) -> RerankResponse:
        return rerank.parse(response, self.error_rules)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
