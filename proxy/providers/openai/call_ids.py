"""Translates: ids of other vendors' calls into ids that OpenAI's APIs accept: both limit their length.

A long id becomes its hash, the same in a call and in its result.
"""

from __future__ import annotations

import hashlib
from typing import Any

from proxy.providers.compatible.request import Draft

# The chat API has refused ids of 41 characters with 400 `string_above_max_length` (microsoft/autogen#6377,
# langgenius/dify#28987), and accepts 51 at times (vercel/ai#17233, July 2026).
MAX_IN_CHAT = 40
_DIGITS = 35


def short(identity: str, most: int) -> str:
    """The id itself if it has at most `most` characters."""
    if len(identity) <= most:
        return identity
    return f"call_{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()[:_DIGITS]}"


def shorten(draft: Draft) -> None:
    """Shortens the ids in the history of a chat request."""
    for index, message in enumerate(draft.messages):
        changed: dict[str, Any] = {}
        answered: Any = message.get("tool_call_id")
        calls: Any = message.get("tool_calls")
        if _is_long(answered):
            changed["tool_call_id"] = short(answered, MAX_IN_CHAT)
        if calls and any(_is_long(call.get("id")) for call in calls):
            changed["tool_calls"] = [
                {**call, "id": short(call["id"], MAX_IN_CHAT)} if _is_long(call.get("id")) else call for call in calls
            ]
        if changed:
            draft.put_message(index, {**message, **changed})


def _is_long(identity: Any) -> bool:
    return isinstance(identity, str) and len(identity) > MAX_IN_CHAT
