"""Translates: Google's own API for Gemini: `generateContent`, `streamGenerateContent`, `batchEmbedContents`.

Facts of November 2026 (the vendor's SDK google-genai 3.3, recorded traffic).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar
from urllib.parse import quote

from proxy.providers.base.contract import Built, HTTPResponse, Provider, StreamDecoder
from proxy.providers.base.images import ImageRule, patches
from proxy.providers.google.contents import DIALECT
from proxy.providers.google.embeddings import build_embeddings, parse_embeddings
from proxy.providers.google.errors import error_from
from proxy.providers.google.own_parts import kept_notes
from proxy.providers.google.request import build_chat
from proxy.providers.google.stream import GoogleStreamDecoder, parse
from proxy.providers.google.tools import names_of
from proxy.schema.chat import ChatRequest, ChatResponse, ResponseMessage
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.records import JsonObject


class Google(Provider, frozen=True, kw_only=True):
    """generativelanguage.googleapis.com, or a `base_url` that speaks its API, with or without a final version."""

    type: ClassVar[str] = DIALECT
    # 2,240 tokens at the highest resolution; tiles in earlier models.
    image_rules: ClassVar[tuple[ImageRule, ...]] = (
        ImageRule(re.compile(r"(?:models/)?gemini-[3-9]"), 2_400),
        ImageRule(re.compile(r"(?:models/)?gemini-"), patches(256, 258)),
    )
    audio_tokens_per_s: ClassVar[int | None] = 32
    base: ClassVar[str | None] = "https://generativelanguage.googleapis.com"
    key_env: ClassVar[tuple[str, ...]] = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    catalogue: ClassVar[str | None] = "google"
    telemetry_name: ClassVar[str | None] = "gcp.gemini"
    choices_at_once: ClassVar[int | None] = 1  # "Only one candidate can be specified": most models say so
    embeddings_batch: ClassVar[int | None] = 100  # "at most 100 requests can be in one batch"

    def authorize(self, key: str) -> dict[str, str]:
        """The key in a header, never as `?key=`: URLs get into logs."""
        return {"x-goog-api-key": key}

    def build_request(self, request: ChatRequest, model: str) -> Built:
        method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        return build_chat(request, model, self.parameters, self._path(model, method))

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        answer = parse(response, request)
        return answer if request is None else names_of(request, self.parameters).restore(answer)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        return error_from(response, self.id_headers)

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        return names_of(request, self.parameters).restoring(GoogleStreamDecoder(request.n, request))

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """The signatures of thoughts, each with the call that it belongs to; the first also carries the vendor's other
        own data.
        """
        state: dict[str, JsonObject] = {}
        notes = kept_notes(message)
        for place, call in enumerate(message.get("tool_calls") or []):
            given: dict[str, Any] = dict(call)
            signature = given.get("extra_content", {}).get("google", {}).get("thought_signature")
            kept: JsonObject = {"thought_signature": signature} if signature else {}
            if notes and place == 0:
                kept["parts"] = notes
            if kept:
                state[call["id"]] = kept
        return state

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        return build_embeddings(request, model, self._path(model, "batchEmbedContents"))

    def parse_embeddings(self, response: HTTPResponse) -> EmbeddingsResponse:
        return parse_embeddings(response)

    def _path(self, model: str, method: str) -> str:
        """The path, with the id as one segment, which must not lead upwards, because proxies may decode it."""
        if ".." in model:
            raise BadRequest("The model's id is not valid for this provider.", param="model")
        version = self.version_path("/v1beta", "/v1", "/v1alpha")
        return f"{version}/models/{quote(model.removeprefix('models/'), safe='')}:{method}"
