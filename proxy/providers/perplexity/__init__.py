"""Translates: Perplexity's Agent API, `POST /v1/responses` (facts checked in November 2026).

Answers in the OpenAI shape of its older chat API, which ended on 2026-09-27, are still read, because gateways in front
of it remain.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from typing import Any, ClassVar

from proxy.providers.base.answers import decode
from proxy.providers.base.contract import Built, HTTPResponse, Provider, StreamDecoder
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.fields import texts_only
from proxy.providers.base.names import names_of
from proxy.providers.compatible import embeddings
from proxy.providers.compatible.errors import error_from
from proxy.providers.compatible.response import parse as parse_chat
from proxy.providers.compatible.responses.stream import EitherDecoder
from proxy.providers.compatible.stream import CompatibleStreamDecoder
from proxy.providers.perplexity.request import build
from proxy.providers.perplexity.response import PerplexityReader
from proxy.providers.perplexity.stream import PerplexityStreamDecoder
from proxy.schema.chat import ChatRequest, ChatResponse, ResponseMessage
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.records import JsonObject

_EMBEDDINGS = ("model", "input", "dimensions")


class Perplexity(Provider, frozen=True, kw_only=True):
    """Perplexity's own models (`perplexity/sonar`) and others, all of which can search the web."""

    type: ClassVar[str] = "perplexity"
    searches_always: ClassVar[bool] = True
    base: ClassVar[str | None] = "https://api.perplexity.ai"
    key_env: ClassVar[tuple[str, ...]] = ("PERPLEXITY_API_KEY", "PPLX_API_KEY")
    catalogue: ClassVar[str | None] = "perplexity"
    choices_at_once: ClassVar[int | None] = 1
    error_rules: ClassVar[ErrorRules] = ErrorRules(
        codes={"too_many_prompt_tokens": (400, "context_length_exceeded")}, statuses={422: 400}
    )

    @property
    def root(self) -> str:
        """`/v1`, unless the address has it: Perplexity's own does not, but users of OpenAI's SDKs add it."""
        return self.version_path("/v1")

    def build_request(self, request: ChatRequest, model: str) -> Built:
        return build(f"{self.root}/responses", request, model, self.parameters)

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        body = decode(response.body)
        if "choices" in body:
            answer = parse_chat(response, self.error_rules, request)
        else:
            answer = PerplexityReader(self.error_rules, request).parse(body)
        return answer if request is None else names_of(request, self.parameters).restore(answer)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response, self.id_headers, self.error_rules)

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        own = PerplexityStreamDecoder(PerplexityReader(self.error_rules, request))
        either = EitherDecoder(CompatibleStreamDecoder(request, self.error_rules, expected=1), own)
        return names_of(request, self.parameters).restoring(either)

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """Thought signatures, which Google's models behind this API require back with their calls."""
        state: dict[str, JsonObject] = {}
        for call in message.get("tool_calls") or []:
            signature: Any = call.get("extra_content")
            if isinstance(signature, dict) and "id" in call:
                state[call["id"]] = {"extra_content": signature}
        return state

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """The request for vectors of integers from -128 to 127 in base64, the only format of the API that we
        can read.
        """
        texts_only(request, model)
        body = {name: value for name, value in request.fields.items() if name in _EMBEDDINGS}
        body |= {"model": model, "encoding_format": "base64_int8"}
        dropped = [name for name in request.fields if name not in (*_EMBEDDINGS, "encoding_format")]
        return embeddings.built(f"{self.root}/embeddings", body, request, dropped)

    def parse_embeddings(self, response: HTTPResponse) -> EmbeddingsResponse:
        return embeddings.parse(response, self.error_rules, _int8)


def _int8(text: str) -> list[float]:
    """The numbers. Raises ValueError for text that is not base64."""
    numbers = array("b")
    try:
        numbers.frombytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("no base64") from error
    return [float(number) for number in numbers]
