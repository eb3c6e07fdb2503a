"""Translates: a body for Anthropic without the parts of other vendors' answers that it would refuse: their thoughts,
sources, and tool call ids with characters that it does not allow.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import structs

from proxy.providers.base.answers import listed
from proxy.schema.request import NativeBody
from proxy.server.formats.messages.conversation import MARK, is_foreign_source

_WRONG = re.compile(r"[^a-zA-Z0-9_-]")
_IDS = {"tool_use": "id", "tool_result": "tool_use_id"}


def without_foreign(native: NativeBody, messages: list[dict[str, Any]]) -> NativeBody:
    """The body without these parts. The change is reported."""
    kept = [each for message in messages if (each := _message(message)) is not None]
    return structs.replace(native.changed({"messages": kept}), adapted=(*native.adapted, "messages"))


def _message(message: dict[str, Any]) -> dict[str, Any] | None:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    blocks = [_block(block) for block in content if not is_foreign_thought(block)]
    return {**message, "content": blocks} if blocks or not content else None


def _block(block: dict[str, Any]) -> dict[str, Any]:
    if any(map(is_foreign_source, listed(block.get("citations")))):
        block = {**block, "citations": [each for each in block["citations"] if not is_foreign_source(each)] or None}
    name = _IDS.get(str(block.get("type")))
    return block if name is None else {**block, name: _WRONG.sub("_", block[name])}


def is_foreign_thought(block: dict[str, Any]) -> bool:
    signature = block.get("signature")
    return block.get("type") == "thinking" and isinstance(signature, str) and signature.startswith(MARK)
