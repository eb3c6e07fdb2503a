"""Translates: reasoning items of the Responses API into `reasoning_details` of a message, and back.

The form is OpenRouter's, which clients know and send back. `index` is the position of the item among reasoning, text
and calls: the API requires each item of reasoning at its original position, before what followed from it.
"""

from __future__ import annotations

from typing import Any

from proxy.providers.base.answers import objects
from proxy.providers.compatible.responses.answer import Item, is_call

_FORMAT = "openai-responses-v1"


def details_of(items: list[Item]) -> list[dict[str, Any]]:
    """The encrypted reasoning among the items of an answer, with its summaries."""
    details: list[dict[str, Any]] = []
    place, has_text = 0, False
    for item in items:
        kind = item.get("type")
        if kind == "reasoning":
            details += _details(item, place)
        elif kind == "message" and not has_text:
            has_text = True
        elif not is_call(item):
            continue
        place += 1
    return details


def _details(item: Item, place: int) -> list[dict[str, Any]]:
    """The details of one item; none without encrypted content, because the vendor could not read the item again."""
    identity, data = item.get("id"), item.get("encrypted_content")
    if not isinstance(identity, str) or not isinstance(data, str) or not data:
        return []
    head = {"id": identity, "format": _FORMAT, "index": place}
    summary = "\n\n".join(part["text"] for part in objects(item.get("summary")) if isinstance(part.get("text"), str))
    told = [{"type": "reasoning.summary", "summary": summary, **head}] if summary else []
    return [*told, {"type": "reasoning.encrypted", "data": data, **head}]


def put_back(items: list[Item], details: object) -> list[Item]:
    """The items of an earlier answer with its reasoning in its original place. None of it comes last: it belongs to
    what follows it.
    """
    whole = list(items)
    for index, item in _reasoning(details) if items else ():
        whole.insert(min(max(index, 0), len(whole) - 1), item)
    return whole


def _reasoning(details: object) -> list[tuple[int, Item]]:
    """Items and their positions, in order. Details of other vendors are skipped."""
    found: dict[str, tuple[int, Item]] = {}
    for detail in objects(details):
        identity, index = detail.get("id"), detail.get("index")
        if detail.get("format") != _FORMAT or not isinstance(identity, str) or not isinstance(index, int):
            continue
        _, item = found.setdefault(identity, (index, {"type": "reasoning", "id": identity, "summary": []}))
        if isinstance(detail.get("data"), str):
            item["encrypted_content"] = detail["data"]
        elif isinstance(detail.get("summary"), str):
            item["summary"] = [{"type": "summary_text", "text": detail["summary"]}]
    return sorted((each for each in found.values() if "encrypted_content" in each[1]), key=lambda each: each[0])
