"""Translates: the attempts of a call, in order, into a tree whose leaf costs add up to the cost of the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.schema.records import NANO_PER_USD

Node = dict[str, Any]


def attempt_tree(attempts: Sequence[Mapping[str, Any]]) -> list[Node]:
    """Each attempt is a leaf, with `cost_usd` for its `cost_nano`.

    An attempt that caused others becomes a group: itself, the attempts it caused, and `cost_usd`, their sum (None: one
    of them is unknown). `parent` is the id of the cause, `seat` the place among concurrent attempts.
    """
    ids = {attempt["id"] for attempt in attempts}
    caused: dict[str | None, list[Mapping[str, Any]]] = {}
    for attempt in attempts:
        parent = attempt["parent"] if attempt["parent"] in ids else None
        caused.setdefault(parent, []).append(attempt)
    return [_node(attempt, caused)[0] for attempt in caused.get(None, [])]


def _node(attempt: Mapping[str, Any], caused: Mapping[str | None, list[Mapping[str, Any]]]) -> tuple[Node, int | None]:
    """The node of an attempt, and its cost in nano-USD."""
    cost_nano = attempt["cost_nano"]
    leaf = {name: value for name, value in attempt.items() if name != "cost_nano"} | {"cost_usd": _usd(cost_nano)}
    followers = [_node(each, caused) for each in caused.get(attempt["id"], [])]
    if not followers:
        return leaf, cost_nano
    costs = [cost_nano, *(cost for _, cost in followers)]
    total = None if None in costs else sum(costs)
    nodes = [leaf, *(node for node, _ in followers)]
    return {"seat": attempt["seat"], "cost_usd": _usd(total), "attempts": nodes}, total


def _usd(nano: int | None) -> float | None:
    return None if nano is None else nano / NANO_PER_USD
