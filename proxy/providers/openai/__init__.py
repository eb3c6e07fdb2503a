"""Translates: OpenAI's own dialects, with the rules of its models (facts checked in November 2026).

It has two: the chat API, and the Responses API for requests that the chat API refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, ClassVar

from proxy.providers.base.contract import Built, HTTPResponse, StreamDecoder
from proxy.providers.base.fields import LIMITS, texts_only
from proxy.providers.base.images import ImageRule
from proxy.providers.base.names import names_of
from proxy.providers.compatible import Compatible
from proxy.providers.compatible.errors import body_of
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.response import parse_body
from proxy.providers.compatible.responses.stream import EitherDecoder, ResponsesDecoder
from proxy.providers.compatible.stream import CompatibleStreamDecoder
from proxy.providers.openai import elsewhere, responses
from proxy.providers.openai.images import IMAGE_RULES
from proxy.providers.openai.rules import ModelRules, name_effort, needs_responses, obey, rules_of
from proxy.providers.openai.surface import keep_known
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.constraints import Variable, one_of
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import UpstreamError
from proxy.schema.request import NativeBody

_MAX_STOPS = 4
_EMBEDS = re.compile(r"(?:openai/)?text-embedding-(?:3-(?:small|large)|ada-002)")
_OWN = re.compile(r"https://(?:[\w-]+\.)?api\.openai\.com(?:[:/]|$)")


@lru_cache(64)  # needed several times per request
def _is_openais(base_url: str) -> bool:
    return _OWN.match(base_url) is not None


class OpenAI(Compatible, frozen=True, kw_only=True):
    """api.openai.com and every server that speaks its chat API, by `type: openai` and `base_url`.

    `api`: `chat`, `responses`, or `by_model`, which uses the Responses API for requests that OpenAI's chat API refuses.
    The default is `by_model` for OpenAI itself. Servers at another address get chat requests, and what they refuse with
    the advice to use the Responses API goes there. `completions`: the server
    accepts bodies of `/v1/completions` unchanged.
    """

    organization_env: Variable | None = None
    completions: bool = False
    api: Annotated[str, one_of("by_model", "chat", "responses")] | None = None

    type: ClassVar[str] = "openai"
    is_generic: ClassVar[bool] = True
    image_rules: ClassVar[tuple[ImageRule, ...]] = IMAGE_RULES
    audio_tokens_per_s: ClassVar[int | None] = 10
    base: ClassVar[str | None] = "https://api.openai.com/v1"
    key_env: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    catalogue: ClassVar[str | None] = "openai"
    embeddings_batch: ClassVar[int | None] = 2048

    @property
    def header_variables(self) -> dict[str, str]:
        return {"openai-organization": self.organization_env} if self.organization_env else {}

    @property
    def takes_no_limit(self) -> str | None:
        """-1 is sent to a server at another address, which may be llama.cpp's."""
        return None if self._is_own else "sent"

    @property
    def has_completions(self) -> bool:
        return self.completions

    @property
    def _is_own(self) -> bool:
        return self.base_url is None or _is_openais(self.base_url)

    @property
    def _has_responses(self) -> bool:
        return self._is_own if self.api is None else self.api != "chat"

    def choices_per_call(self, request: AnyRequest, model: str) -> int | None:
        """One for the Responses API, which gives a single answer."""
        if self._has_responses and isinstance(request, ChatRequest) and self._draft(request, model)[2]:
            return 1
        return self.max_choices(model)

    def least_output(self, request: AnyRequest, model: str) -> int:
        least = responses.LEAST_OUTPUT
        has_responses = self._has_responses or request.other_api
        if not has_responses or not isinstance(request, ChatRequest) or (request.max_tokens or least) >= least:
            return 1
        return least if self._draft(request, model)[2] else 1

    @property
    def native_root(self) -> str:
        return self.root

    def takes_native(self, native: NativeBody) -> bool:
        """True for bodies of the Responses API, if the server has that API."""
        if native.dialect == "openai-responses":
            return self._has_responses
        return super().takes_native(native)

    def native_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name.startswith("openai-")}

    def build_request(self, request: ChatRequest, model: str) -> Built:
        draft, rules, takes_responses = self._draft(request, model)
        if takes_responses:
            thinks = bool(rules.efforts) if rules is not None else "reasoning_effort" in draft.body
            return responses.build(draft, f"{self.root}/responses", thinks=thinks)
        self._shape_chat(draft, rules)
        if request.unlimited:
            draft.lift_limit(self.takes_no_limit)
        return draft.built(f"{self.root}/chat/completions", stream_usage=self.stream_usage)

    def _draft(self, request: ChatRequest, model: str) -> tuple[Draft, ModelRules | None, bool]:
        """The draft after the rules of the model, and whether it goes to the Responses API."""
        draft, rules = Draft(request, model, self.parameters), rules_of(model)
        is_chat = not (self._has_responses or request.other_api)
        if not is_chat:
            name_effort(draft)
        effort = obey(draft, rules, is_chat=is_chat) if rules is not None else "none"
        if is_chat:
            return draft, rules, False
        takes_responses = self.api == "responses" or request.other_api or needs_responses(draft, rules, effort)
        if not takes_responses:
            draft.drop("reasoning")
        return draft, rules, takes_responses

    def _shape_chat(self, draft: Draft, rules: ModelRules | None) -> None:
        """OpenAI refuses unknown fields, and some models refuse parameters that others accept. Servers at another
        address get the client's fields unchanged, in terms that all of them accept.
        """
        draft.move_media()
        is_own = self._is_own
        is_openais = rules is not None or is_own
        if is_openais:
            draft.strip_echoes(keep=("annotations",))
            draft.refuse_parts(("video_url",))
            draft.refuse_parts(("image_url", "input_audio", "file"), roles=("system", "developer", "assistant"))
            if all(name in draft.body for name in LIMITS):
                draft.name_limit(LIMITS[0])
        if is_own:
            keep_known(draft, self.parameters)
        elif self.base_url is not None:
            elsewhere.shape(draft, self.base_url, None if is_openais else self.reasoning_back)
        draft.cap_stops(_MAX_STOPS)

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        body = body_of(response, responses.FAILED)
        if "output" in body and "choices" not in body:
            answer = responses.OpenAIReader(responses.FAILED, request).parse(body)
        else:
            places = set() if self._is_own else elsewhere.named_by_theirs(body)
            answer = elsewhere.told(parse_body(body, request), places)
        return answer if request is None else names_of(request, self.parameters).restore(answer)

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        """The error. If a server in front of OpenAI refuses what OpenAI's chat API refuses, it names the key to set;
        without that key the other API is tried.
        """
        error = super().parse_error(response)
        if not self._has_responses and error.status in {400, 404} and "v1/responses" in error.message:
            error.other_api = self.api is None
            error.message += " For this provider, set `api: by_model` in routing_rules.yaml."
        return error

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        kind = CompatibleStreamDecoder if self._is_own else elsewhere.ElsewhereStreamDecoder
        chat = kind(request, self.error_rules)
        names = names_of(request, self.parameters)
        if not (self._has_responses or request.other_api):
            return names.restoring(chat)
        return names.restoring(EitherDecoder(chat, ResponsesDecoder(responses.OpenAIReader(responses.FAILED, request))))

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """The request. Token ids are those of OpenAI's tokenizers: to other models they mean other words."""
        if not self._is_own and _EMBEDS.fullmatch(model) is None:
            texts_only(request, model)
        return super().build_embeddings(request, model)
