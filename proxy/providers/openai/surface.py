"""Translates: a chat request into one with only the fields of OpenAI's own chat API, which refuses all others.

Checked in November 2026 (the `openai` package 3.54). Removed fields are reported; the operator's `parameters` stay.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from proxy.providers.base.content import ECHOES
from proxy.providers.compatible.request import Draft

_FIELDS = frozenset(
    {
        *(
            "model",
            "messages",
            "stream",
            "stream_options",
            "max_completion_tokens",
            "max_tokens",
            "temperature",
            "top_p",
        ),
        *("frequency_penalty", "presence_penalty", "n", "stop", "seed", "logit_bias", "logprobs", "top_logprobs"),
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format"),
        *("reasoning_effort", "verbosity", "modalities", "audio", "prediction", "service_tier", "store", "metadata"),
        *("user", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        *("web_search_options", "moderation"),
    }
)
_TEXT = frozenset({"role", "content", "name"})
_MESSAGES = {
    "system": _TEXT,
    "developer": _TEXT,
    "user": _TEXT,
    "assistant": _TEXT | {"refusal", "audio", "tool_calls", "function_call", "annotations"},
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "function": _TEXT,
}
_PART = ("type", "prompt_cache_breakpoint")


def keep_known(draft: Draft, parameters: Collection[str]) -> None:
    draft.keep_only(_FIELDS.union(parameters))
    draft.plain_tools()
    draft.plain_calls()
    for index, message in enumerate(draft.messages):
        known = _MESSAGES.get(message["role"])
        if known is None:
            continue  # left to the vendor to refuse
        for name in message:
            if name not in known and name not in ECHOES and message[name] is not None:
                draft.note_dropped(f"messages.{name}"[:96])
        kept = {name: value for name, value in message.items() if name in known}
        if isinstance(kept.get("content"), list):
            kept["content"] = [_part(draft, part) for part in kept["content"]]
        if kept != message:
            draft.put_message(index, kept)


def _part(draft: Draft, part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in part:
        return part
    for name in part:
        if name not in (*_PART, kind):
            draft.note_dropped(f"messages.content.{name}"[:96])
    return {name: value for name, value in part.items() if name in (*_PART, kind)}
