"""Translates: the dialect of Ollama, which ignores unknown fields (server source of August 2026)."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.base.content import parts, refuse
from proxy.providers.base.tools import tool_name
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.selfhosted import SelfHosted

# The fields that its endpoint reads (server source of 2026-08-21).
_READS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "max_tokens", "seed", "stop", "temperature", "top_p"),
        *("frequency_penalty", "presence_penalty", "response_format", "tools", "reasoning", "reasoning_effort"),
        *("logprobs", "top_logprobs"),
    }
)
_EFFORTS = ("none", "low", "medium", "high", "max")  # it refuses others (its error of September 2026 lists these)


class Ollama(SelfHosted, frozen=True, kw_only=True):
    """Its default address has no `/v1`, and users leave it out: the path is added here."""

    type: ClassVar[str] = "ollama"
    base: ClassVar[str | None] = "http://localhost:11434"
    other_api: ClassVar[str | None] = "/api"
    reasoning_back: ClassVar[str | None] = "reasoning"
    ranks: ClassVar[bool | None] = False
    choices_at_once: ClassVar[int | None] = 1

    @property
    def root(self) -> str:
        return self.version_path("/v1")

    def shape(self, draft: Draft) -> None:
        draft.name_limit("max_tokens")
        draft.name_roles()
        draft.narrow_tools()
        if isinstance(draft.body.get("reasoning_effort"), str):
            draft.level_effort(_EFFORTS)
        self._choose(draft)
        draft.body.pop("n", None)  # one choice per call
        draft.keep_only(_READS)
        draft.give_back_reasoning("reasoning")
        draft.move_media()
        draft.flatten_texts(("system", "user", "assistant", "tool"))
        draft.refuse_parts(("video_url", "file"))
        draft.return_thoughts()
        for index, message in enumerate(draft.messages):
            if message.get("content") is None and not message.get("tool_calls"):
                draft.put_message(index, {**message, "content": ""})
            for part in parts(message.get("content"), f"messages.{index}.content"):
                if part.kind == "image" and part.data is None:
                    raise refuse(part, draft.model, "Ollama accepts images only as data URLs")
        draft.strip_echoes(keep=("reasoning",))

    def _choose(self, draft: Draft) -> None:
        """Ollama has no `tool_choice`. For `none` no tools are sent, for a named tool only that one."""
        choice = draft.body.get("tool_choice")
        if choice == "none":
            for field in ("tools", "tool_choice"):
                draft.body.pop(field, None)
        elif (name := tool_name(choice)) is not None:
            draft.only_tool(name)
            draft.body.pop("tool_choice")
            draft.adapt("tool_choice")
