"""Translates: OpenAI's own dialect, the parent of every OpenAI-shaped one (facts checked in November 2026).

A dialect that differs overrides the class variables below, or a method where the difference is more than a name.
"""

from __future__ import annotations

from typing import Any, ClassVar

from proxy.codec import encode
from proxy.errors import UpstreamError
from proxy.providers.base import Built, HTTPRequest, HTTPResponse, Provider
from proxy.providers.openai.errors import error_from
from proxy.providers.openai.response import parse
from proxy.providers.openai.stream import OpenAIStreamDecoder
from proxy.records import Tokens
from proxy.schema import ChatRequest, ChatResponse, Usage


class OpenAI(Provider, frozen=True, kw_only=True):
    """api.openai.com and every server that speaks its chat API, by `type: openai` and `base_url`."""

    organization_env: str | None = None

    base: ClassVar[str | None] = "https://api.openai.com/v1"
    key_env: ClassVar[str | None] = "OPENAI_API_KEY"
    output_limit: ClassVar[str | None] = (
        None  # the one name the vendor reads for the output limit; None: as the client sent it
    )
    developer_role: ClassVar[bool] = True  # False: `developer` goes out as `system`
    stream_usage: ClassVar[bool] = True  # False: refuses stream_options, sends usage unasked
    lists_models: ClassVar[bool] = False  # True: only the server itself knows which models it has

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
    def chat_path(self) -> str:
        return "/chat/completions"

    @property
    def models_path(self) -> str | None:
        """Where its list of models is to be read; None where the price list knows them."""
        if self.local_model is not None or not (self.lists_models or self.base_url):
            return None
        return self.chat_path.removesuffix("/chat/completions") + "/models"

    def build_request(self, request: ChatRequest, model: str) -> Built:
        adapted: list[str] = []
        # A limit of the request stands above a default under either name: what it may cost was bounded by it.
        limits = ("max_tokens", "max_completion_tokens") if request.max_tokens is not None else ()
        defaults = {name: value for name, value in self.parameters.items() if value is not None and name not in limits}
        body: dict[str, Any] = {**defaults, **request.fields, "model": model}
        if request.stream:
            body["stream"] = True
            if self.stream_usage:
                body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
            else:
                body.pop("stream_options", None)
        self._name_limit(body, adapted)
        self._name_roles(body, adapted)
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if request.stream else "application/json",
        }
        return Built(HTTPRequest("POST", self.chat_path, headers, encode(body)), adapted=adapted)

    def _name_limit(self, body: dict[str, Any], adapted: list[str]) -> None:
        """Servers that know one of the two names ignore the other, and write on for as long as they please."""
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}.get(
            self.output_limit or ""
        )
        if self.output_limit is None or other is None or other not in body:
            return
        value = body.pop(other)
        body[self.output_limit] = min(value, body.get(self.output_limit, value))  # of two limits the smaller one
        adapted.append(other)

    def _name_roles(self, body: dict[str, Any], adapted: list[str]) -> None:
        messages = body["messages"]
        if self.developer_role or not any(message["role"] == "developer" for message in messages):
            return
        body["messages"] = [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]
        adapted.append("messages.role")

    def parse_response(self, response: HTTPResponse) -> ChatResponse:
        return parse(response)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response)

    def stream_decoder(self, request: ChatRequest) -> OpenAIStreamDecoder:
        return OpenAIStreamDecoder(request.n)

    def tokens(self, usage: Usage) -> Tokens:
        prompt, output = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        details, output_details = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
        read = min(_count(details.get("cached_tokens")), prompt)
        written = min(_count(details.get("cache_write_tokens")), prompt - read)
        reasoning = min(_count(output_details.get("reasoning_tokens")), output)
        return Tokens(prompt - read - written, read, written, output, reasoning)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
