"""Translates: the bundled model; llama.cpp's server speaks OpenAI's chat API on a loopback port."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from proxy.providers.base.call_ids import Offer
from proxy.providers.base.contract import Built, HTTPResponse, StreamDecoder
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.selfhosted import SelfHosted
from proxy.providers.embedded.forced_call import ForcedCall, ForcedCallDecoder, forced_call, with_calls
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.constraints import NotBlank, one_of
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest
from proxy.schema.records import LocalModelSpec
from proxy.schema.rerank import RerankRequest

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# At llama.cpp's own temperature the default model names "L'Étoile" as the capital of France; at this one, Paris. DRY
# breaks loops, in which such a model otherwise runs to its limit, and the bias ends answers that ramble. Penalties on
# every repetition cost right answers (`python -m bench.embedded`).
SAMPLING = {
    "temperature": 0.2,
    "top_p": 0.9,
    "dry_multiplier": 0.8,
    "dry_allowed_length": 2,  # with 1, words of the prompt could not be quoted
    "logit_bias": {"2": 2},  # the end of the answer
}
# Tokens of an answer, unless the client or `parameters` set a limit.
DEFAULT_LIMIT = 256
# Measured with SmolLM2-135M, 12 seeded answers to each of four requests: without it up to 5 of 36 ran into a limit of
# 400 tokens, with it none of 48; a lower temperature makes it worse.
JSON_PENALTY = 0.3  # of repetition, unless the client or `parameters` set one
ABOUT = "SmolLM2, 135M parameters: it shows that the wire works, not what models can do."
_JSON_SAMPLING = {"temperature": 0.2, "top_p": 0.9}
_DEFAULT_MODEL_ID = "smollm2-135m"
# llama.cpp silently ignores these.
_IGNORED = (
    *("user", "service_tier", "store", "metadata", "prediction", "modalities", "audio", "verbosity"),
    *("web_search_options", "safety_identifier", "moderation", "functions", "function_call"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
# The chat template of the default model has no place for tools: llama.cpp leaves them out and forces no call (measured:
# the prompt has as many tokens with tools as without). Nor does this model think.
_BEYOND_DEFAULT = ("tools", "tool_choice", "parallel_tool_calls", "reasoning_effort")


class Embedded(SelfHosted, frozen=True, kw_only=True):
    """`model_path` names any GGUF file (null: SmolLM2-135M-Instruct), `context` its window in tokens."""

    model_path: NotBlank | None = None
    start: Annotated[str, one_of("on_first_use", "at_start")] = "on_first_use"
    context: Annotated[int, Meta(ge=256)] = 2048

    type: ClassVar[str] = "embedded"

    def build_request(self, request: ChatRequest, model: str) -> Built:
        """The request, on a connection of its own: an idle one would occupy one of the child's HTTP threads, and the
        server closes it at unpredictable times.
        """
        for index, message in enumerate(request.messages):
            if message.role not in _ROLES:  # llama.cpp accepts any word
                raise BadRequest(
                    f"Unknown role {message.role[:64]!r}. Known: {', '.join(_ROLES)}.", param=f"messages.{index}.role"
                )
            if isinstance(message.content, list) and any(part.get("type") != "text" for part in message.content):
                raise BadRequest(
                    f"{model} reads only text: message {index} contains something else.",
                    param=f"messages.{index}.content",
                    code="unsupported_content",
                )
        built = super().build_request(request, model)
        return replace(built, http=replace(built.http, headers={**built.http.headers, "connection": "close"}))

    def shape(self, draft: Draft) -> None:
        """A custom GGUF file's abilities depend on its template, so it gets everything that llama.cpp reads.

        Raises BadRequest for a forced call that no function can satisfy.
        """
        super().shape(draft)
        draft.drop(*_IGNORED)
        if self.model_path is None:
            self._shape_default(draft)
        wanted = draft.body.get("response_format")
        if isinstance(wanted, dict) and wanted.get("type") != "text":
            draft.body.setdefault("frequency_penalty", JSON_PENALTY)

    def _shape_default(self, draft: Draft) -> None:
        """Makes the default model answer sensibly, and make a forced call."""
        if draft.body.get("tool_choice") not in (None, "auto", "none"):
            draft.only_functions()
        if (forced := forced_call(draft.body)) is not None:
            _force(draft, forced)
        for name, nothing in (("tools", []), ("reasoning_effort", "none")):
            if draft.body.get(name) == nothing:
                del draft.body[name]
        draft.drop(*_BEYOND_DEFAULT)
        wanted = draft.body.get("response_format")
        is_json = isinstance(wanted, dict) and wanted.get("type") != "text"
        for name, value in (_JSON_SAMPLING if is_json else SAMPLING).items():
            if draft.body.get(name) is None:
                draft.body[name] = value
        if draft.body.get("max_tokens") is None:
            draft.body["max_tokens"] = DEFAULT_LIMIT

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        answer = super().parse_response(response, request)
        forced = self._forced(request)
        return answer if forced is None else with_calls(answer, forced, Offer(request))

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        decoder = super().stream_decoder(request)
        forced = self._forced(request)
        return decoder if forced is None else ForcedCallDecoder(decoder, forced, Offer(request))

    def _forced(self, request: ChatRequest | None) -> ForcedCall | None:
        return forced_call(request.fields) if self.model_path is None and request is not None else None

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """Refused: llama.cpp embeds an input in one batch, and batches here are small so that chats do not wait. A chat
        model also makes poor vectors.
        """
        raise self._lacks("embeddings", model)

    def build_rerank(self, request: RerankRequest, model: str) -> Built:
        raise self._lacks("rerank", model)

    @property
    def local_model(self) -> LocalModelSpec | None:
        return LocalModelSpec(self.model_path, self.context, self.start)

    @property
    def about(self) -> str | None:
        return ABOUT if self.model_path is None else None

    @property
    def free(self) -> bool:
        return True


def _force(draft: Draft, forced: ForcedCall) -> None:
    """Replaces tools and choice by a schema, and by a message that describes the functions."""
    schema = {"name": "call", "strict": True, "schema": forced.schema}
    draft.body["response_format"] = {"type": "json_schema", "json_schema": schema}
    draft.body["messages"] = [{"role": "system", "content": forced.instruction}, *draft.messages]
    for name in ("tools", "tool_choice"):
        del draft.body[name]
    draft.adapt("tools")
    if draft.body.get("parallel_tool_calls") is False:
        del draft.body["parallel_tool_calls"]


def model_id(spec: LocalModelSpec) -> str:
    """The name of the model in URLs and rows: letters, digits, `.`, `_` and `-` only."""
    if spec.model_path is None:
        return _DEFAULT_MODEL_ID
    return re.sub(r"[^a-z0-9._-]+", "-", PurePath(spec.model_path).stem.lower()).strip("-.") or "model"
