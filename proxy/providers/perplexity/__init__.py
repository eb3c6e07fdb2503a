"""Translates: Perplexity's Agent API, `POST /v1/responses` (facts checked in November 2026).

Its older chat API, which ended on 2026-09-27, was OpenAI-shaped: answers in that shape are still read, because gateways
in front of it remain.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from typing import Any, ClassVar

from proxy.providers.base.contract import Built, HTTPResponse, Provider
from proxy.providers.openai import embeddings
from proxy.providers.openai.errors import ErrorRules, error_from
from proxy.providers.openai.response import decode
from proxy.providers.openai.response import parse as parse_chat
from proxy.providers.perplexity.request import build
from proxy.providers.perplexity.response import parse
from proxy.providers.perplexity.stream import PerplexityStreamDecoder
from proxy.schema.chat import ChatRequest, ChatResponse, EmbeddingsRequest, EmbeddingsResponse, ResponseMessage, Usage
from proxy.schema.errors import UpstreamError
from proxy.schema.records import JsonObject, Tokens

_EMBEDDINGS = ("model", "input", "dimensions")


class Perplexity(Provider, frozen=True, kw_only=True):
    """Models of Perplexity's own (`perplexity/sonar`) and of others, all of which can search the web."""

    error_rules: ClassVar[ErrorRules] = ErrorRules(
        codes={"too_many_prompt_tokens": (400, "context_length_exceeded")}, statuses={422: 400}
    )

    @property
    def default_base_url(self) -> str | None:
        return "https://api.perplexity.ai"

    @property
    def key_variables(self) -> tuple[str, ...]:
        """At the vendor's own address a key is needed, at an address of one's own only if the file says so."""
        if self.api_key_env is None and self.base_url is None:
            return ("PERPLEXITY_API_KEY", "PPLX_API_KEY")
        return super().key_variables

    @property
    def root(self) -> str:
        """Its address has no `/v1`, OpenAI's SDKs are given one with it."""
        return "" if (self.base_url or "").rstrip("/").endswith("/v1") else "/v1"

    def max_choices(self, model: str) -> int | None:
        return 1

    def build_request(self, request: ChatRequest, model: str) -> Built:
        return build(f"{self.root}/responses", request, model, self.parameters)

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        body = decode(response.body)
        return parse_chat(response, self.error_rules) if "choices" in body else parse(body, self.error_rules)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response, self.error_rules)

    def stream_decoder(self, request: ChatRequest) -> PerplexityStreamDecoder:
        return PerplexityStreamDecoder(self.error_rules)

    def tokens(self, usage: Usage) -> Tokens:
        """`num_search_queries` counts calls of the web search, which are billed beside the tokens."""
        prompt, output = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        details, output_details = usage.get("prompt_tokens_details", {}), usage.get("completion_tokens_details", {})
        read = min(_count(details.get("cached_tokens")), prompt)
        written = min(_count(details.get("cache_write_tokens")), prompt - read)
        return Tokens(
            input=prompt - read - written,
            cache_read=read,
            cache_write=written,
            output=output,
            reasoning=min(_count(output_details.get("reasoning_tokens")), output),
            searches=_count(usage.get("num_search_queries")),
        )

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """Signatures of thoughts, which Google's models behind this API want back with their calls."""
        state: dict[str, JsonObject] = {}
        for call in message.get("tool_calls") or []:
            signature: Any = call.get("extra_content")
            if isinstance(signature, dict) and "id" in call:
                state[call["id"]] = {"extra_content": signature}
        return state

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """Its vectors are whole numbers from -128 to 127, in base64; it knows no other format that we could read."""
        embeddings.texts_only(request, model)
        body = {name: value for name, value in request.fields.items() if name in _EMBEDDINGS}
        body |= {"model": model, "encoding_format": "base64_int8"}
        dropped = [name for name in request.fields if name not in (*_EMBEDDINGS, "encoding_format")]
        return embeddings.built(f"{self.root}/embeddings", body, dropped)

    def parse_embeddings(self, response: HTTPResponse) -> EmbeddingsResponse:
        return embeddings.parse(response, self.error_rules, _int8)


def _int8(text: str) -> list[float]:
    """Raises ValueError for what is no base64."""
    numbers = array("b")
    try:
        numbers.frombytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("no base64") from error
    return [float(number) for number in numbers]


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
