"""Translates: requests to and answers of servers at another address than OpenAI's, whose dialect is unknown.

Such a server gets the client's fields unchanged, as far as servers agree on them. The thoughts of earlier answers go
back under their original name, which our answers note in `reasoning_field`, or not at all: some servers need them
before tool calls, and some refuse the name that others read.
"""

from __future__ import annotations

import re
from typing import Any, cast

from proxy.providers.base.answers import mapping
from proxy.providers.base.content import ECHOES, REASONING_FIELD
from proxy.providers.compatible.request import Draft
from proxy.providers.compatible.stream import CompatibleStreamDecoder
from proxy.schema.chat import ChatChunk, ChatResponse

# Servers known to accept the role `developer`.
_TAKE_DEVELOPER = re.compile(
    r"https://(?:[\w.-]+\.)?(?:openai\.azure\.com|services\.ai\.azure\.com|cognitiveservices\.azure\.com|openrouter\.ai|"
    r"api\.x\.ai)(?:[:/]|$)"
)
_READ_BACK = ("reasoning", "reasoning_content", "reasoning_details", "thinking_blocks", "extra_content")
_OURS = ECHOES - {*_READ_BACK, "provider_specific_fields"}  # fields of our answers that no server reads
_PLAIN, _PLAIN_ROLES = frozenset(("role", "content")), ("user", "assistant", "system")
_THEIRS = "reasoning"  # the servers' other name for thoughts
_UNREAD = _OURS | {"reasoning_content", REASONING_FIELD}  # an earlier answer without these is sent unchanged


def shape(draft: Draft, base_url: str, reasoning_back: str | None) -> None:
    if all(map(_is_plain, draft.messages)):
        return
    if _TAKE_DEVELOPER.match(base_url) is None:
        draft.name_roles()
    if reasoning_back is not None:
        draft.give_back_reasoning(reasoning_back)
    for index, message in enumerate(draft.messages):
        kept = _answer(message) if message["role"] == "assistant" else message
        if None in kept.values():
            kept = {name: kept[name] for name in kept if kept[name] is not None or name == "content"}
        if kept is not message:
            draft.put_message(index, kept)


def _is_plain(message: dict[str, Any]) -> bool:
    """True for a message that every server accepts unchanged: a role that all know, and content."""
    return message.keys() == _PLAIN and message["role"] in _PLAIN_ROLES


def _answer(message: dict[str, Any]) -> dict[str, Any]:
    if message.keys().isdisjoint(_UNREAD):
        return message
    kept = {name: value for name, value in message.items() if name not in _OURS}
    name, thought = message.get(REASONING_FIELD), kept.get("reasoning_content")
    if thought is None:
        return kept
    if name == _THEIRS or _THEIRS in kept:
        del kept["reasoning_content"]
        kept.setdefault(_THEIRS, thought)
    elif not message.get("tool_calls"):
        del kept["reasoning_content"]
    return kept


class ElsewhereStreamDecoder(CompatibleStreamDecoder):
    """The end of each choice notes the original name of its thoughts, if it is not ours."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._theirs: set[int] = set()

    def at_end_marker(self) -> list[ChatChunk]:
        return self._told(super().at_end_marker())

    def _named(self) -> list[ChatChunk]:
        return self._told(super()._named())

    def _choice(self, raw: dict[str, Any], place: int, answer_id: object) -> dict[str, Any]:
        choice = super()._choice(raw, place, answer_id)
        if _is_theirs(raw.get("delta")):
            self._theirs.add(choice["index"])
        return self._tell(choice)

    def _told(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        for chunk in chunks if self._theirs else []:
            for choice in chunk["choices"]:
                self._tell(cast("dict[str, Any]", choice))
        return chunks

    def _tell(self, choice: dict[str, Any]) -> dict[str, Any]:
        if choice.get("finish_reason") and choice["index"] in self._theirs:
            choice["delta"] = {**choice.get("delta", {}), REASONING_FIELD: _THEIRS}
        return choice


def named_by_theirs(body: dict[str, Any]) -> set[int]:
    """The positions of choices in a whole answer whose thoughts have another name."""
    choices = body.get("choices")
    return {place for place, each in enumerate(choices if isinstance(choices, list) else []) if _is_theirs(_said(each))}


def told(answer: ChatResponse, places: set[int]) -> ChatResponse:
    for place in places:
        message: Any = answer["choices"][place]["message"]
        message[REASONING_FIELD] = _THEIRS
    return answer


def _said(choice: Any) -> dict[str, Any]:
    return mapping(mapping(choice).get("message"))


def _is_theirs(part: Any) -> bool:
    return bool(isinstance(part, dict) and part.get(_THEIRS) and not part.get("reasoning_content"))
