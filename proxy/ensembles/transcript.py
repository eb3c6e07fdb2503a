"""Translates: a conversation and its answers into texts for another model: marked as data, cut to size.

Members' texts may try to steer the model that reads them. So each text is put between markers with a code derived from
all texts together: none of them can contain it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from proxy.ensembles.tool_votes import calls_of, parts_of
from proxy.schema.chat import Message, ResponseMessage

MAX_CONVERSATION = 24_000  # characters of a conversation that a judge or a validator reads
MAX_ANSWER = 12_000  # ... and of one answer
_HEAD = 0.4  # share of the kept part that comes from the beginning
_PARTS = {"image_url": "image", "input_audio": "audio", "video_url": "video", "file": "file"}


def cut(text: str, limit: int) -> str:
    """The text; without its middle if it is longer than `limit`."""
    if len(text) <= limit:
        return text
    head = int(limit * _HEAD)
    return f"{text[:head]}\n[... {len(text) - limit} characters left out ...]\n{text[len(text) - limit + head :]}"


def clean(text: str) -> str:
    """The text without lone surrogates, which no JSON can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def answer_text(message: ResponseMessage, limit: int = MAX_ANSWER) -> str:
    """A member's answer as text: its content, tool calls and refusal."""
    pieces = [_content_text(message.get("content"), limit)]
    if refusal := message.get("refusal"):
        pieces.append(f"[refuses: {cut(refusal, limit)}]")
    pieces += _calls(calls_of(message), limit)
    return clean(cut("\n".join(filter(None, pieces)), limit)) or "[an empty answer]"


def conversation_text(messages: Sequence[Message], limit: int = MAX_CONVERSATION) -> str:
    """The conversation as text. Of a long one the first and last messages stay, and always the very last."""
    head = _that_fit(messages[:-1], int(limit * _HEAD))
    rest = messages[: len(head) - 1 : -1] if head else messages[::-1]
    tail = _that_fit(rest, max(limit // 2, limit - sum(map(len, head))))
    left_out = len(messages) - len(head) - len(tail)
    gap = [f"[... {left_out} messages left out ...]"] if left_out else []
    return clean("\n\n".join([*head, *gap, *reversed(tail)]))


def marked(pieces: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The pieces (title and text) between markers, and the markers' code."""
    pieces = list(pieces)
    code = hashlib.sha256("\0".join(text for _, text in pieces).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return "\n\n".join(f"<{title} {code}>\n{text}\n</{title} {code}>" for title, text in pieces), code


def _that_fit(messages: Sequence[Message], limit: int) -> list[str]:
    """The texts of the first messages, as many as fit; the very first one is cut if necessary."""
    found: list[str] = []
    room = limit
    for message in messages:
        text = _message_text(message, limit)
        if found and len(text) > room:
            break
        found.append(text)
        room -= len(text)
    return found


def _message_text(message: Message, limit: int) -> str:
    pieces = [_content_text(message.content, limit), *_calls(message.tool_calls, limit)]
    return cut(f"{message.role[:32]}: " + "\n".join(filter(None, pieces)), limit)


def _content_text(content: str | list[dict[str, Any]] | None, limit: int) -> str:
    if not isinstance(content, list):
        return cut(content or "", limit)
    return cut("\n".join(_part_text(part, limit) for part in content), limit)


def _part_text(part: dict[str, Any], limit: int) -> str:
    if isinstance(text := part.get("text"), str):
        return cut(text, limit)
    return f"[{_PARTS.get(str(part.get('type')), 'other content')}]"


def _calls(calls: Sequence[Any] | None, limit: int) -> list[str]:
    found = []
    for call in calls or ():
        _, name, arguments = parts_of(call)
        found.append(f"[calls the tool {name[:64]} with {cut(arguments or '{}', limit)}]")
    return found
