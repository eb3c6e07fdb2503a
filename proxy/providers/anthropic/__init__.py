"""Translates: Anthropic's own API, `/v1/messages`, in its version of 2023-06-01.

Facts of November 2026 (the vendor's SDK 2.12, recorded traffic).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Self

from msgspec.structs import replace

from proxy.providers.anthropic.errors import error_from
from proxy.providers.anthropic.messages import DIALECT
from proxy.providers.anthropic.names import Names
from proxy.providers.anthropic.native import PASSED, defaults_of, marked, thinking_within
from proxy.providers.anthropic.request import API_VERSION, build_chat
from proxy.providers.anthropic.stream import AnthropicStreamDecoder, parse
from proxy.providers.base.contract import Built, HTTPResponse, Provider
from proxy.providers.base.images import ImageRule
from proxy.schema.chat import ChatRequest, ChatResponse, ResponseMessage
from proxy.schema.constraints import one_of
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import UpstreamError
from proxy.schema.records import JsonObject
from proxy.schema.request import NativeBody


class Anthropic(Provider, frozen=True, kw_only=True):
    """api.anthropic.com, or a `base_url` that speaks its API, with or without a final `/v1`."""

    cache: Annotated[str, one_of("auto", "off")] = "off"

    type: ClassVar[str] = DIALECT
    # At most 4,784 tokens, or 1,600 in models before 4.7.
    image_rules: ClassVar[tuple[ImageRule, ...]] = (ImageRule(re.compile("claude-"), 5_000),)
    base: ClassVar[str | None] = "https://api.anthropic.com"
    key_env: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY",)
    catalogue: ClassVar[str | None] = "anthropic"
    id_headers: ClassVar[tuple[str, ...]] = ("request-id", "x-request-id", "cf-ray")
    choices_at_once: ClassVar[int | None] = 1

    usual_headers: ClassVar[Mapping[str, str]] = MappingProxyType({"anthropic-version": API_VERSION})  # required

    def authorize(self, key: str) -> dict[str, str]:
        return {"x-api-key": key}

    @property
    def models_path(self) -> str | None:
        """Servers at another address list their models, in this vendor's form or in OpenAI's."""
        return None if self.base_url is None else f"{self._root}/models?limit=1000"

    def build_request(self, request: ChatRequest, model: str) -> Built:
        ours = self._betas() if self.base_url is None else None
        return build_chat(request, model, self.parameters, f"{self._root}/messages", ours, self.writes_cache)

    @property
    def writes_cache(self) -> bool:
        return self.cache == "auto"

    def caching(self, mode: str) -> Self:
        return replace(self, cache=mode)

    @property
    def native_root(self) -> str:
        return self._root

    def build_native(self, request: AnyRequest, native: NativeBody, model: str) -> Built:
        """The native request. Changes to the body are reported. The operator's `anthropic-beta` values are added."""
        betas, ours = native.headers.get("anthropic-beta"), self._betas()
        if betas and ours:
            native = replace(native, headers={**native.headers, "anthropic-beta": ",".join([betas, *ours])})
        if self.writes_cache:
            native = marked(native, request, model)
        added = defaults_of(native, self.parameters, model) if self.parameters else {}
        if native.limit in native.changes:
            added |= thinking_within(native.changed(added))
        return self.built_native(native, model, added)

    def native_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name.startswith(PASSED)}

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        return parse(response, self._names(request), request)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response, self.id_headers)

    def stream_decoder(self, request: ChatRequest) -> AnthropicStreamDecoder:
        return AnthropicStreamDecoder(self._names(request), request)

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """The signed thoughts before a turn's calls. The vendor requires them back unchanged with the result of any of
        these calls.
        """
        blocks = dict(message).get("thinking_blocks")
        if not blocks:
            return {}
        return {call["id"]: {"thinking_blocks": blocks} for call in message.get("tool_calls") or []}

    @property
    def _root(self) -> str:
        return self.version_path("/v1")

    def _betas(self) -> list[str]:
        return [value for name, value in self.headers.items() if name.lower() == "anthropic-beta" and value]

    def _names(self, request: ChatRequest | None) -> Names:
        return Names({**self.parameters, **(request.fields if request is not None else {})})
