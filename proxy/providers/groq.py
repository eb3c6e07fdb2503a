"""Translates: Groq's dialect, which refuses unknown properties (facts checked in November 2026)."""

from __future__ import annotations

import re
from typing import ClassVar

from proxy.providers.base.contract import Built
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.json_schema import json_instruction
from proxy.providers.compatible import Compatible
from proxy.providers.compatible.request import Draft
from proxy.schema.embeddings import EmbeddingsRequest

_MAX_STOPS = 4
_FIELDS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_completion_tokens", "temperature", "top_p", "stop"),
        *("seed", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format"),
        *("service_tier", "user", "reasoning_effort", "reasoning_format", "include_reasoning", "documents"),
        *("disable_tool_validation", "compound_custom", "search_settings", "citation_options"),
        *("include_domains", "exclude_domains"),
    }
)
_MESSAGES = {
    "system": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "tool_calls", "function_call"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "function": frozenset({"role", "content", "name"}),
}
_PARTS = ("text", "refusal", "image_url", "document")
_TEXT_ROLES = ("system", "assistant", "tool", "function")
_TIERS = {"auto": "auto", "default": "on_demand", "flex": "flex", "priority": "performance"}
_TIERS |= {tier: tier for tier in ("on_demand", "performance")}
_TEXT_ONLY = re.compile(r"(openai/gpt-oss|groq/compound|compound|llama-3|llama3|mixtral|gemma|deepseek-r1|qwen/qwen3-)")
_GPT_OSS = re.compile(r"openai/gpt-oss")
_HYBRID = re.compile(r"qwen/qwen3|deepseek-r1")
_TOGGLED = re.compile(r"qwen/qwen3-32b")  # thinking on or off, without levels


class Groq(Compatible, frozen=True, kw_only=True):
    type: ClassVar[str] = "groq"
    base: ClassVar[str | None] = "https://api.groq.com/openai/v1"
    key_env: ClassVar[tuple[str, ...]] = ("GROQ_API_KEY",)
    catalogue: ClassVar[str | None] = "groq"
    choices_at_once: ClassVar[int | None] = 1
    ranks: ClassVar[bool | None] = False
    reasoning_back: ClassVar[str | None] = None
    error_rules: ClassVar[ErrorRules] = ErrorRules(
        statuses={422: 400},
        again=frozenset({"tool_use_failed", "json_validate_failed", "output_parse_failed"}),
    )

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_completion_tokens")
        draft.name_roles()
        draft.body.pop("stream_options", None)  # ours follows, without OpenAI's own options
        draft.body.pop("n", None)  # one choice per call
        draft.narrow_tools()
        draft.only_functions()
        draft.plain_tools()
        draft.plain_calls()
        draft.move_media()
        draft.strip_echoes()
        draft.name_tier(_TIERS)
        self._level_reasoning(draft)
        draft.keep_only(_FIELDS)
        draft.cap_stops(_MAX_STOPS)
        draft.keep_message_fields(_MESSAGES)
        draft.only_parts(_PARTS)
        draft.flatten_texts(_MESSAGES)
        draft.refuse_parts(("image_url",), roles=_MESSAGES if _TEXT_ONLY.match(draft.model) else _TEXT_ROLES)
        _plain_parts(draft)
        _ask_for_json(draft)

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        raise self._lacks("embeddings", model)

    def _level_reasoning(self, draft: Draft) -> None:
        """Each family has its own levels; `reasoning_format` and `include_reasoning` exclude each other."""
        body, model = draft.body, draft.model
        if _GPT_OSS.match(model):
            self._level(draft, ("low", "medium", "high"))
            draft.drop("reasoning_format")
        elif _TOGGLED.match(model):
            if body.get("reasoning_effort") not in (None, "none", "default"):
                body["reasoning_effort"] = "none" if body["reasoning_effort"] == "minimal" else "default"
                draft.adapt("reasoning_effort")
        elif _HYBRID.match(model):
            self._level(draft, ("none", "low", "medium", "high"))
        else:
            draft.drop_effort()
            if "include_reasoning" in body:
                draft.drop("reasoning_format")
            return
        if _HYBRID.match(model):
            self._format(draft)

    def _level(self, draft: Draft, levels: tuple[str, ...]) -> None:
        if isinstance(draft.body.get("reasoning_effort"), str):
            draft.level_effort(levels)

    def _format(self, draft: Draft) -> None:
        """Raw reasoning appears as <think> in the content. It is never sent by default, nor with tools or JSON, where
        Groq refuses it.
        """
        body = draft.body
        if "reasoning_format" in body:
            draft.drop("include_reasoning")
        structured = bool(draft.tools()) or (body.get("response_format") or {}).get("type", "text") != "text"
        if body.get("reasoning_format") == "raw" and structured:
            draft.adapt("reasoning_format")
            body["reasoning_format"] = "parsed"
        elif "reasoning_format" not in body and "include_reasoning" not in body:
            body["reasoning_format"] = "parsed"


def _plain_parts(draft: Draft) -> None:
    """Strips texts beside images: a part may only have its type and its content."""
    for index, message in enumerate(draft.messages):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        for name in {name: None for part in content for name in part if name not in ("type", part["type"])}:
            draft.note_dropped(f"messages.content.{name}"[:96])
        kept = [{name: part[name] for name in ("type", part["type"]) if name in part} for part in content]
        draft.put_message(index, {**message, "content": kept})


def _ask_for_json(draft: Draft) -> None:
    """ "json mode cannot be combined with tool/function calling", with any model: an instruction replaces it."""
    wanted = draft.body.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if not draft.tools() or kind not in ("json_object", "json_schema"):
        return
    inner = draft.body.pop("response_format").get("json_schema")
    schema = inner.get("schema") if kind == "json_schema" and isinstance(inner, dict) else None
    said = draft.messages
    place = next((index for index, message in enumerate(said) if message["role"] != "system"), len(said))
    asked = {"role": "system", "content": json_instruction(schema, with_tools=True)}
    draft.body["messages"] = [*said[:place], asked, *said[place:]]
    draft.adapt("response_format")
    draft.unchecked_json = True
