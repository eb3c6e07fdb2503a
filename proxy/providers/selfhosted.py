"""Translates: OpenAI-shaped servers people run themselves. They know `max_tokens` and `system`, and need no key."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.base.content import parts, refuse
from proxy.providers.openai import OpenAI
from proxy.providers.openai.errors import ErrorRules
from proxy.providers.openai.request import Draft, tool_name

# What Ollama's endpoint reads; it ignores everything else (server source of 2026-08-21).
_OLLAMA_READS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "seed", "stop", "temperature", "top_p"),
        *("frequency_penalty", "presence_penalty", "response_format", "tools", "reasoning", "reasoning_effort"),
        *("logprobs", "top_logprobs"),
    }
)
# What LM Studio does not list among the parameters it takes (its documentation of 2026-04).
_LM_STUDIO_IGNORES = (
    *("logprobs", "top_logprobs", "parallel_tool_calls", "user", "service_tier", "store", "metadata", "prediction"),
    *("modalities", "audio", "verbosity", "web_search_options", "safety_identifier", "moderation", "functions"),
    *("function_call", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)


class SelfHosted(OpenAI, frozen=True, kw_only=True):
    """What these servers have in common; `base_url` defaults to the port each listens on out of the box."""

    key_env: ClassVar[str | None] = None
    lists_models: ClassVar[bool] = True
    ranks: ClassVar[bool | None] = True
    reasoning_back: ClassVar[str | None] = None
    error_rules: ClassVar[ErrorRules] = ErrorRules(statuses={422: 400})

    @property
    def embeddings_batch(self) -> int | None:
        return None

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.strip_echoes()


class Ollama(SelfHosted, frozen=True, kw_only=True):
    """Its own address has no `/v1`, and people write it so: the path is added here."""

    base: ClassVar[str | None] = "http://localhost:11434"
    reasoning_back: ClassVar[str | None] = "reasoning"
    ranks: ClassVar[bool | None] = False

    @property
    def root(self) -> str:
        return "" if (self.base_url or "").rstrip("/").endswith("/v1") else "/v1"

    def max_choices(self, model: str) -> int | None:
        return 1

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.narrow_tools()
        self._choose(draft)
        draft.body.pop("n", None)  # one call, one choice
        draft.keep_only(_OLLAMA_READS)
        draft.give_back_reasoning("reasoning")
        draft.flatten_texts(("system", "user", "assistant", "tool"))
        draft.refuse_parts(("video_url", "file"))
        for index, message in enumerate(draft.messages):
            if message.get("reasoning_content") and not message.get("reasoning"):
                message = {**message, "reasoning": message["reasoning_content"]}
                draft.put_message(index, message)
            if message.get("content") is None and not message.get("tool_calls"):
                draft.put_message(index, {**message, "content": ""})
            for part in parts(message.get("content"), f"messages.{index}.content"):
                if part.kind == "image" and part.data is None:
                    raise refuse(part, draft.model, "Ollama takes images as data URLs only")
        draft.strip_echoes(keep=("reasoning",))

    def _choose(self, draft: Draft) -> None:
        """It knows no `tool_choice`: none is said by sending no tools, a named one by sending only that."""
        choice = draft.body.get("tool_choice")
        if choice == "none":
            for field in ("tools", "tool_choice"):
                draft.body.pop(field, None)
        elif (name := tool_name(choice)) is not None:
            draft.only_tool(name)
            draft.body.pop("tool_choice")
            draft.adapt("tool_choice")


class VLLM(SelfHosted, frozen=True, kw_only=True):
    """It reads `reasoning_content` of earlier answers, and many of its models need it in a loop of tool calls."""

    base: ClassVar[str | None] = "http://localhost:8000/v1"
    reasoning_back: ClassVar[str | None] = "reasoning_content"

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.give_back_reasoning("reasoning_content")
        draft.strip_echoes(keep=("reasoning_content", "reasoning"))


class LMStudio(SelfHosted, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "http://localhost:1234/v1"
    ranks: ClassVar[bool | None] = False

    def max_choices(self, model: str) -> int | None:
        return 1

    def shape(self, draft: Draft) -> None:
        """It refuses a tool choice that is an object, and `json_object`."""
        draft.narrow_tools()
        SelfHosted.shape(self, draft)
        draft.body.pop("n", None)  # one call, one choice
        draft.drop(*_LM_STUDIO_IGNORES)
        name = tool_name(draft.body.get("tool_choice"))
        if name is not None:
            draft.only_tool(name)
            draft.body["tool_choice"] = "required"
        wanted = draft.body.get("response_format")
        if isinstance(wanted, dict) and wanted.get("type") == "json_object":
            schema = {"name": "object", "schema": {"type": "object"}}
            draft.body["response_format"] = {"type": "json_schema", "json_schema": schema}
            draft.adapt("response_format")


class LocalAI(SelfHosted, frozen=True, kw_only=True):
    base: ClassVar[str | None] = "http://localhost:8080/v1"
    error_rules: ClassVar[ErrorRules] = ErrorRules(
        statuses={422: 400}, phrases=((500, "could not load model", 404, "model_not_found"),)
    )
