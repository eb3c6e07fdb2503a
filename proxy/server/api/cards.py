"""Translates: a route into one entry of `/v1/models`, and the list into a page for Anthropic's clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from proxy.routing.deployment import Deployment, Route
from proxy.schema.errors import BadRequest

MAX_PAGE = 1000
_PAGE = 20  # Anthropic's default
_PAGING = ("limit", "after_id", "before_id")  # OpenAI's list has no pages


def model_card(route: Route, created: int) -> dict[str, Any]:
    """One model in OpenAI's shape, with its deployment, sizes in tokens and prices in USD per 1M tokens. An ensemble
    lists the models that it asks; it has no price of its own.
    """
    name, deployment = route.requested, route.candidates[0]
    if route.ensemble:
        asks = [each.name for each in route.candidates]
        head = {"id": name, "object": "model", "created": created, "owned_by": "ensemble"}
        return {**head, "asks": asks, "pricing": None}
    entry: dict[str, Any] = {"id": name, "object": "model", "created": created, "owned_by": deployment.provider_name}
    if deployment.name != name:
        entry["resolves_to"] = deployment.name
    return entry | _facts(deployment)


def _facts(deployment: Deployment) -> dict[str, Any]:
    price = deployment.price
    if price is None:
        return {"pricing": None}
    facts: dict[str, Any] = {
        "pricing": {"input": price.input, "output": price.output, "cached_input": price.cached_input}
    }
    sizes = {
        "context_length": deployment.context,
        "max_output_tokens": price.max_output,
        "capabilities": price.supports,
    }
    facts |= {key: value for key, value in sizes.items() if value is not None}
    return facts | ({"shutdown_date": price.retires} if price.retires else {})


def is_anthropics(query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """True for a client of Anthropic's model list: its SDKs send the version, Claude Code a limit."""
    return "anthropic-version" in headers or any(name in query for name in _PAGING)


def anthropic_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """The same entry with the fields that Anthropic's clients read."""
    created = datetime.fromtimestamp(card["created"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "display_name": card["id"], "created_at": created, **card}


def anthropic_page(cards: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of the list. Raises BadRequest for an invalid limit."""
    text = query.get("limit", str(_PAGE))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MAX_PAGE:
        raise BadRequest(f"limit: expected 1 to {MAX_PAGE}.", param="limit")
    limit, ids = int(text), [card["id"] for card in cards]
    begin, end = 0, len(cards)
    if (after := query.get("after_id")) in ids:
        begin = ids.index(after) + 1
    if (before := query.get("before_id")) in ids:
        end = ids.index(before)
        begin = max(begin, end - limit)
    page = [anthropic_card(card) for card in cards[begin:end][:limit]]
    more = begin > 0 if "before_id" in query else end - begin > limit
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return {"object": "list", "data": page, "has_more": more, "first_id": first, "last_id": last}
