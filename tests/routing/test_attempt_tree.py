"""The tree of attempts: every attempt is a leaf once, and leaf costs add up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.attempt_tree import attempt_tree


def row(name: str, parent: str | None = None, cost_nano: int | None = 1_000, seat: int = 0) -> dict[str, Any]:
    return {"id": name, "parent": parent, "seat": seat, "outcome": "ok", "cost_nano": cost_nano}


def leaves(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [leaf for node in nodes for leaf in (leaves(node["attempts"]) if "attempts" in node else [node])]


def test_attempts_of_the_call_itself_are_a_list() -> None:
    """Retries and fallbacks follow each other; none caused another."""
    tree = attempt_tree([row("a"), row("b", cost_nano=0)])
    assert [(node["id"], node["cost_usd"]) for node in tree] == [("a", 1e-6), ("b", 0.0)]


def test_an_attempt_that_caused_another_is_in_a_group_with_it() -> None:
    """A JSON repair follows from the answer that it repairs."""
    (group,) = attempt_tree([row("a", seat=2), row("b", "a", 500)])
    assert (group["seat"], group["cost_usd"]) == (2, 1.5e-6)
    assert [(leaf["id"], leaf["parent"]) for leaf in group["attempts"]] == [("a", None), ("b", "a")]


def test_the_cost_of_a_group_is_unknown_if_one_of_it_is() -> None:
    """Unknown is never zero."""
    (group,) = attempt_tree([row("a"), row("b", "a", None)])
    assert (group["cost_usd"], [leaf["cost_usd"] for leaf in group["attempts"]]) == (None, [1e-6, None])


def test_an_attempt_whose_parent_has_no_row_is_on_top() -> None:
    """No attempt is lost."""
    assert [node["id"] for node in attempt_tree([row("b", "withdrawn")])] == ["b"]


@given(st.lists(st.tuples(st.integers(-1, 20), st.integers(0, 10**12)), max_size=20))
def test_every_attempt_is_one_leaf_and_the_costs_add_up(shape: list[tuple[int, int]]) -> None:
    """Whatever caused what."""
    rows = [
        row(str(place), str(parent) if 0 <= parent < place else None, cost)
        for place, (parent, cost) in enumerate(shape)
    ]
    found = leaves(attempt_tree(rows))
    assert sorted(leaf["id"] for leaf in found) == sorted(each["id"] for each in rows)
    assert sum(leaf["cost_usd"] for leaf in found) == pytest.approx(sum(cost for _, cost in shape) / 1e9)
