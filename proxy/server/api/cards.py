"""Translates: a route into one entry of `/v1/models`."""

from __future__ import annotations

from typing import Any

from proxy.routing.deployment import Deployment, Route


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
