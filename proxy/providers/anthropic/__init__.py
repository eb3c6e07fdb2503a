"""Translates: Anthropic's own API, `/v1/messages`, in its version of 2023-06-01.

Facts of November 2026 (the vendor's SDK 2.12, recorded traffic).
"""

from __future__ import annotations

from proxy.providers.anthropic.errors import error_from
from proxy.providers.anthropic.names import Names
from proxy.providers.anthropic.request import API_VERSION, build_chat
from proxy.providers.anthropic.stream import AnthropicStreamDecoder, parse
from proxy.providers.anthropic.usage import tokens_of
from proxy.providers.base.contract import Built, HTTPResponse, Provider
from proxy.schema.chat import ChatRequest, ChatResponse, ResponseMessage, Usage
from proxy.schema.errors import UpstreamError
from proxy.schema.records import JsonObject, Tokens


class Anthropic(Provider, frozen=True, kw_only=True):
    """api.anthropic.com, or a `base_url` that speaks like it, `/v1` at its end or not."""

    @property
    def default_base_url(self) -> str:
        return "https://api.anthropic.com"

    @property
    def key_variables(self) -> tuple[str, ...]:
        """At the vendor's own address a key is needed, at an address of one's own only if the file says so."""
        if self.api_key_env is None and self.base_url is None:
            return ("ANTHROPIC_API_KEY",)
        return super().key_variables

    def authorize(self, key: str) -> dict[str, str]:
        """With the version, which the vendor wants in every request, also in those that are not built here."""
        return {"x-api-key": key, "anthropic-version": API_VERSION}

    def max_choices(self, model: str) -> int:
        return 1

    @property
    def models_path(self) -> str | None:
        """Servers at another address list what they serve, in this vendor's form or in OpenAI's."""
        return None if self.base_url is None else f"{self._root}/models?limit=1000"

    def build_request(self, request: ChatRequest, model: str) -> Built:
        betas = [value for name, value in self.headers.items() if name.lower() == "anthropic-beta" and value]
        ours = betas if self.base_url is None else None
        return build_chat(request, model, self.parameters, f"{self._root}/messages", ours)

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        return parse(response, self._names(request))

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response)

    def stream_decoder(self, request: ChatRequest) -> AnthropicStreamDecoder:
        return AnthropicStreamDecoder(self._names(request))

    def tokens(self, usage: Usage) -> Tokens:
        return tokens_of(usage)

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """The signed thoughts before a turn's calls: the vendor wants them back, unchanged, with any of them."""
        blocks = dict(message).get("thinking_blocks")
        if not blocks:
            return {}
        return {call["id"]: {"thinking_blocks": blocks} for call in message.get("tool_calls") or []}

    @property
    def _root(self) -> str:
        return "" if (self.base_url or "").rstrip("/").endswith("/v1") else "/v1"

    def _names(self, request: ChatRequest | None) -> Names:
        return Names({**self.parameters, **(request.fields if request is not None else {})})
