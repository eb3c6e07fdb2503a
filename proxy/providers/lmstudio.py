"""Translates: the dialect of LM Studio."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.base.tools import tool_name
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.selfhosted import SelfHosted

# Parameters that it does not list as supported (its documentation of 2026-04).
_IGNORED = (
    *("logprobs", "top_logprobs", "parallel_tool_calls", "user", "service_tier", "store", "metadata", "prediction"),
    *("modalities", "audio", "verbosity", "web_search_options", "safety_identifier", "moderation", "functions"),
    *("function_call", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
)


class LMStudio(SelfHosted, frozen=True, kw_only=True):
    type: ClassVar[str] = "lmstudio"
    base: ClassVar[str | None] = "http://localhost:1234/v1"
    other_api: ClassVar[str | None] = "/api/v0"
    ranks: ClassVar[bool | None] = False
    choices_at_once: ClassVar[int | None] = 1

    def shape(self, draft: Draft) -> None:
        """It refuses a tool choice that is an object, and `json_object`."""
        draft.narrow_tools()
        SelfHosted.shape(self, draft)
        draft.body.pop("n", None)  # one choice per call
        draft.drop(*_IGNORED)
        name = tool_name(draft.body.get("tool_choice"))
        if name is not None:
            draft.only_tool(name)
            draft.body["tool_choice"] = "required"
        wanted = draft.body.get("response_format")
        if isinstance(wanted, dict) and wanted.get("type") == "json_object":
            schema = {"name": "object", "schema": {"type": "object"}}
            draft.body["response_format"] = {"type": "json_schema", "json_schema": schema}
            draft.adapt("response_format")
