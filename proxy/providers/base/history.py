"""Translates: the order of a conversation into the one that vendors require."""

from __future__ import annotations

from typing import Any

from proxy.providers.base.answers import listed, objects

_TEXTS = ("text", "refusal", "thinking", "document")  # documents: Cohere's, which are texts
_SHOWN = "The result of this tool is shown below."
_INTRODUCTION = "Shown by the tool:"


def order_of(messages: list[dict[str, Any]]) -> list[int]:
    """The indices of the messages, with each tool's result right after the message that called it: a user may have
    written in between, and vendors refuse that or lose the result.
    """
    groups: list[list[int]] = []
    open_calls: dict[object, list[int]] = {}  # id of a call without a result -> the group of its message
    for index, message in enumerate(messages):
        group = None
        if message.get("role") == "tool":
            group = open_calls.pop(message.get("tool_call_id"), None)
        if group is not None:
            group.append(index)
            continue
        is_answer = message.get("role") == "assistant"
        if is_answer and index and messages[index - 1].get("role") == "assistant":
            groups[-1].append(index)  # one turn in several messages
        else:
            groups.append([index])
        if is_answer:
            open_calls |= {_hashable(call.get("id")): groups[-1] for call in objects(message.get("tool_calls"))}
    return [index for group in groups for index in group]


def results_beside_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages in that order; the same list if nothing changes."""
    order = order_of(messages)
    return messages if order == list(range(len(messages))) else [messages[index] for index in order]


def has_media(message: dict[str, Any]) -> bool:
    """True for a tool's result that is more than text."""
    if message.get("role") != "tool":
        return False
    return any(not isinstance(part, dict) or part.get("type") not in _TEXTS for part in listed(message.get("content")))


def media_after_results(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation for vendors whose tool results are text: media in a result follow the results, in a message
    of the user. The same list if there are none.
    """
    if not any(map(has_media, messages)):
        return messages
    moved: list[dict[str, Any]] = []
    media: list[Any] = []
    for message in messages:
        if media and message.get("role") != "tool":
            moved.append({"role": "user", "content": media})
            media = []
            if message.get("role") == "user":  # some chat templates refuse two users in a row
                moved[-1]["content"] = [*moved[-1]["content"], *_parts(message.get("content"))]
                moved[-1] = {**message, **moved[-1]}
                continue
        if has_media(message):
            texts = [part for part in message["content"] if part.get("type") in _TEXTS]
            media = media or [{"type": "text", "text": _INTRODUCTION}]
            media += [part for part in message["content"] if part.get("type") not in _TEXTS]
            message = {**message, "content": _joined(texts) or _SHOWN}
        moved.append(message)
    return [*moved, {"role": "user", "content": media}] if media else moved


def _joined(texts: list[dict[str, Any]]) -> Any:
    """The parts joined to one text, which all servers accept; the parts themselves if they hold more than text."""
    if any(part.keys() != {"type", "text"} for part in texts):
        return texts
    return "\n".join(str(part["text"]) for part in texts)


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return listed(content)


def _hashable(value: object) -> object:
    return value if isinstance(value, str) else None
