"""Translates: references to items of our earlier answers, by their ids, into the items themselves, and back.

Some clients send references unless they are told `store: false` (Vercel's AI SDK, November 2026). The ids are known
before their items, so they cannot carry the content: answers are stored (`pipeline/reasoning_state.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.schema.errors import BadRequest
from proxy.schema.json import encode_sized

INSTEAD = "Send the item itself: some SDKs do so with `store: false`."
_OURS = re.compile(r"(?:msg|rs|fc|ctc|ig)_([0-9a-f]{26})_\d+")  # the id of a call between the item's kind and index


def item_id(prefix: str, call_id: str, place: int) -> str:
    return f"{prefix}_{call_id}_{place}"


def answer_of(identity: str) -> str | None:
    """The name under which the answer with this item is stored; None for an item that is not ours."""
    found = _OURS.fullmatch(identity)
    return None if found is None else answer_name(found[1])


def answer_name(call_id: str) -> str:
    return f"resp_{call_id}"


def kept(output: list[dict[str, Any]], size: int) -> bytes:
    """The items of one answer to store. No vendor needs images back. `size`: the answer's approximate bytes."""
    pictures = "image_generation_call"
    items = [{**item, "result": None} if item["type"] == pictures else item for item in output]
    return encode_sized(items, size)


def put_in(items: list[Any], answers: Mapping[str, bytes]) -> list[Any]:
    """The items, with references replaced by the items of earlier `answers`. Raises BadRequest if one is missing."""
    found = {item["id"]: item for data in answers.values() for item in msgspec.json.decode(data)}
    return [_meant(item, place, found) for place, item in enumerate(items)]


def _meant(item: dict[str, Any], place: int, found: dict[str, Any]) -> dict[str, Any]:
    if not refers(item) or answer_of(item["id"]) is None:
        return item
    if item["id"] not in found:
        message = (
            f"input.{place}.id: no item {item['id']!r} is stored here. Answers are stored for an hour after their last "
            f"use, unless the request sets `store: false`. {INSTEAD}"
        )
        raise BadRequest(message, param=f"input.{place}.id")
    return dict(found[item["id"]])


def refers(item: dict[str, Any]) -> bool:
    """True for a reference; its `type` may be left out."""
    kind = item.get("type")
    return kind == "item_reference" or (kind is None and "id" in item and not item.keys() & {"role", "content"})
