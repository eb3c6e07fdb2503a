"""Translates: Together's dialect: OpenAI's, with names from its early server (facts of November 2026)."""

from __future__ import annotations

import re
from typing import ClassVar

from proxy.providers.base.contract import Built
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.fields import stop_list, texts_only
from proxy.providers.compatible import Compatible, embeddings
from proxy.providers.compatible.request import Draft
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest

_LACKS = (
    *("service_tier", "store", "metadata", "user", "prediction", "modalities", "audio", "verbosity"),
    *("parallel_tool_calls", "web_search_options", "safety_identifier", "moderation", "functions", "function_call"),
    *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)
_THINKS_BACK = re.compile(r"deepseek|kimi|glm|minimax", re.IGNORECASE)  # need their reasoning back between tool calls
_ALWAYS_THINKS = re.compile(r"gpt-oss", re.IGNORECASE)
_MEDIA = ("image_url", "video_url", "audio_url", "input_audio")
_EMBEDDINGS = ("model", "input", "truncate_prompt_tokens")


class Together(Compatible, frozen=True, kw_only=True):
    type: ClassVar[str] = "together"
    base: ClassVar[str | None] = "https://api.together.ai/v1"
    key_env: ClassVar[tuple[str, ...]] = ("TOGETHER_API_KEY",)
    catalogue: ClassVar[str | None] = "together"
    stream_usage: ClassVar[bool] = False
    lists_models: ClassVar[bool] = True  # more than fifty, and they change every month
    ranks: ClassVar[bool | None] = True
    reasoning_back: ClassVar[str | None] = "reasoning"
    error_rules: ClassVar[ErrorRules] = ErrorRules(
        statuses={422: 400},
        phrases=((403, "tokens", 400, "context_length_exceeded"),),
        headers={
            "x-ratelimit-limit": "x-ratelimit-limit-requests",
            "x-ratelimit-remaining": "x-ratelimit-remaining-requests",
            "x-ratelimit-reset": "x-ratelimit-reset-requests",
        },
    )

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.narrow_tools()
        draft.only_functions()
        draft.drop(*_LACKS)
        if stops := stop_list(draft.body.get("stop")):
            draft.body["stop"] = stops  # a bare string is refused
        self._name_logprobs(draft)
        self._level_reasoning(draft)
        if _THINKS_BACK.search(draft.model):
            draft.return_thoughts()
            draft.give_back_reasoning("reasoning")
            draft.strip_echoes(keep=("reasoning",))
        else:
            draft.strip_echoes()
        draft.move_media()
        draft.only_parts(("text", "refusal", *_MEDIA))
        draft.flatten_texts(("system", "user", "assistant", "tool"))
        draft.refuse_parts(_MEDIA, roles=("system", "assistant", "tool"))

    def _name_logprobs(self, draft: Draft) -> None:
        """Renames log probability fields: its `logprobs` is OpenAI's `top_logprobs`."""
        wanted, top = draft.body.get("logprobs"), draft.body.pop("top_logprobs", None)
        if wanted is True:
            draft.body["logprobs"] = max(1, top) if isinstance(top, int) else 1
        elif wanted is False:
            draft.body.pop("logprobs")

    def _level_reasoning(self, draft: Draft) -> None:
        effort = draft.body.get("reasoning_effort")
        if not isinstance(effort, str):
            return
        if effort == "none" and not _ALWAYS_THINKS.search(draft.model):
            del draft.body["reasoning_effort"]
            draft.body["reasoning"] = {"enabled": False}
        else:
            draft.level_effort(("low", "medium", "high"))

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        texts_only(request, model)
        if request.dimensions is not None:
            raise BadRequest(
                f"{model} supports only one vector length. Leave `dimensions` out.",
                param="dimensions",
                code="unsupported_parameter",
            )
        body = {name: value for name, value in request.fields.items() if name in _EMBEDDINGS} | {"model": model}
        ours = (*_EMBEDDINGS, "encoding_format")
        return embeddings.built("/embeddings", body, request, [name for name in request.fields if name not in ours])
