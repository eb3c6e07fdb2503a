"""Translates: the model that comes with the product; llama.cpp's server speaks OpenAI's chat API on a loopback port."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, ClassVar

from msgspec import Meta
from msgspec.structs import replace

from proxy.providers.base.contract import Built
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.selfhosted import SelfHosted
from proxy.schema.chat import ChatRequest
from proxy.schema.constraints import NotBlank, one_of
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest
from proxy.schema.records import LocalModelSpec
from proxy.schema.rerank import RerankRequest

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
# Measured with SmolLM2-135M, 12 seeded answers to each of four requests: without it up to 5 of 36 ran into a limit of
# 400 tokens, with it none of 48; a lower temperature makes it worse.
JSON_PENALTY = 0.3  # of repetition, unless the client or `parameters` set one
_DEFAULT_MODEL_ID = "smollm2-135m"
# llama.cpp takes them without a word and does nothing about them.
_IGNORED = (
    *("user", "service_tier", "store", "metadata", "prediction", "modalities", "audio", "verbosity"),
    *("web_search_options", "safety_identifier", "moderation", "functions", "function_call"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
# The chat template of the default model has no place for tools: llama.cpp leaves them out, and forces no call
# (measured: as many tokens are read with tools as without). Nor does this model think.
_BEYOND_DEFAULT = ("tools", "tool_choice", "parallel_tool_calls", "reasoning_effort")


class Embedded(SelfHosted, frozen=True, kw_only=True):
    """`model_path` names any GGUF file (null: SmolLM2-135M-Instruct), `context` its window in tokens."""

    model_path: NotBlank | None = None
    start: Annotated[str, one_of("on_first_use", "at_start")] = "on_first_use"
    context: Annotated[int, Meta(ge=256)] = 2048

    type: ClassVar[str] = "embedded"

    def build_request(self, request: ChatRequest, model: str) -> Built:
        """Each request has a connection of its own: an idle one would occupy one of the child's HTTP threads, and the
        server closes it at moments of its own choosing.
        """
        for index, message in enumerate(request.messages):
            if message.role not in _ROLES:  # llama.cpp takes any word
                raise BadRequest(
                    f"Unknown role {message.role[:64]!r}. Known: {', '.join(_ROLES)}.", param=f"messages.{index}.role"
                )
            if isinstance(message.content, list) and any(part.get("type") != "text" for part in message.content):
                raise BadRequest(
                    f"{model} reads text only: message {index} holds something else.",
                    param=f"messages.{index}.content",
                    code="unsupported_content",
                )
        built = super().build_request(request, model)
        return replace(built, http=replace(built.http, headers={**built.http.headers, "connection": "close"}))

    def shape(self, draft: Draft) -> None:
        """What a GGUF file of one's own can do depends on its template: it is sent all that llama.cpp reads.

        Raises BadRequest for a call that the default model is made to make and cannot.
        """
        super().shape(draft)
        draft.drop(*_IGNORED)
        if self.model_path is None:
            if draft.body.get("tool_choice", "auto") not in (None, "auto", "none"):
                raise BadRequest(
                    f"{draft.model} cannot call tools. Leave `tool_choice` out, or name a model that can.",
                    param="tool_choice",
                    code="unsupported_parameter",
                )
            for name, nothing in (("tools", []), ("reasoning_effort", "none")):
                if draft.body.get(name) == nothing:
                    del draft.body[name]
            draft.drop(*_BEYOND_DEFAULT)
        wanted = draft.body.get("response_format")
        if isinstance(wanted, dict) and wanted.get("type") != "text":
            draft.body.setdefault("frequency_penalty", JSON_PENALTY)

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """Refused: llama.cpp embeds an input in one batch, and batches here are small so that chats do not wait; and
        what a chat model has inside makes poor vectors.
        """
        raise self._lacks("embeddings", model)

    def build_rerank(self, request: RerankRequest, model: str) -> Built:
        raise self._lacks("rerank", model)

    @property
    def local_model(self) -> LocalModelSpec | None:
        return LocalModelSpec(self.model_path, self.context, self.start)

    @property
    def free(self) -> bool:
        return True


def model_id(spec: LocalModelSpec) -> str:
    """The name of the model in URLs and rows: letters, digits, `.`, `_` and `-` only."""
    if spec.model_path is None:
        return _DEFAULT_MODEL_ID
    return re.sub(r"[^a-z0-9._-]+", "-", PurePath(spec.model_path).stem.lower()).strip("-.") or "model"
