"""A change of the configuration, tried on past calls: who moves where, at what cost, losing what."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.metering.pricing import ModelPrice
from proxy.providers.openai import OpenAI
from proxy.routing.decision import Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts
from proxy.routing.replay import Decide, replay
from proxy.schema.errors import ProxyError
from proxy.schema.records import PastCall, Tokens

DAY_NS = 86_400 * 10**9
PRICES = {
    "cheap": ModelPrice(input=1.0, output=1.0, supports=["tools"], context=100),
    "dear": ModelPrice(input=3.0, output=3.0, supports=["tools", "images"], context=1000),
    "unknown": None,
}


def call(requested: str = "auto", day: float = 0.0) -> PastCall:
    return PastCall(int(day * DAY_NS), "ann", requested, "p/old", None, Tokens(input=500_000, output=500_000))


def to(**routes: str) -> Decide:
    """Requested name -> model, or model and rule after a slash, or an error where there is none."""

    def decide(past: PastCall) -> Decision:
        if past.requested_model not in routes:
            raise ProxyError("There is no such model.", status=404, code="model_not_found")
        model, _, rule = routes[past.requested_model].partition("/")
        route = Route(past.requested_model, (Deployment("p", OpenAI(), model, PRICES[model]),))
        return Decision(route, Facts(), rule=rule or None)

    return decide


def run(calls: list[PastCall], before: Decide, after: Decide, day: float = 2.0) -> dict[str, Any]:
    return replay(calls, before, after, int(day * DAY_NS))


def test_calls_that_move_are_counted_with_their_cost_per_day() -> None:
    """Two calls in two days, each a dollar instead of three."""
    told = run([call(day=1), call(day=0)], to(auto="dear"), to(auto="cheap"))
    assert (told["calls"], told["changed"]) == (2, 2)
    assert told["cost_usd_per_day"] == pytest.approx({"before": 3.0, "after": 1.0, "difference": -2.0})
    (change,) = told["changes"]
    assert (change["requested"], change["calls"], change["before"], change["after"]) == ("auto", 2, "p/dear", "p/cheap")
    assert change["cost_usd_per_day"] == pytest.approx(-2.0)
    assert change["capabilities_lost"] == ["images", "context 1000 -> 100"]


def test_nothing_changes_between_equal_configurations() -> None:
    """And nothing is lost."""
    told = run([call("a"), call("b")], to(a="cheap", b="dear"), to(a="cheap", b="dear"))
    assert (told["changed"], told["changes"], told["cost_usd_per_day"]["difference"]) == (0, [], 0.0)


def test_a_call_that_would_be_refused_is_a_change() -> None:
    """With the error that it would get; its cost is no saving."""
    told = run([call("a"), call("b")], to(a="dear", b="cheap"), to(b="cheap"))
    (change,) = told["changes"]
    assert (change["after"], change["refused"]) == (None, "404 model_not_found: There is no such model.")
    assert told["cost_usd_per_day"]["difference"] == 0.0


def test_rules_that_no_longer_match_are_named() -> None:
    """A rule may stay in the file and never be reached."""
    calls = [call("a"), call("b"), call("c")]
    before = to(a="cheap/first", b="cheap/second", c="cheap/first")
    after = to(a="cheap/first", b="cheap/first", c="cheap/third")
    told = run(calls, before, after)
    assert told["rules"] == [
        {"name": "first", "before": 2, "after": 2},
        {"name": "second", "before": 1, "after": 0},
        {"name": "third", "before": 0, "after": 1},
    ]
    assert (told["rules_no_longer_matching"], told["changed"]) == (["second"], 0)


def test_an_unknown_price_is_said_and_counts_on_neither_side() -> None:
    """Otherwise a model without a price would look free."""
    told = run([call("a"), call("b")], to(a="dear", b="dear"), to(a="unknown", b="dear"))
    assert (told["unpriced_calls"], told["changed"]) == (1, 1)
    assert told["cost_usd_per_day"]["difference"] == 0.0


def test_a_call_that_the_old_configuration_refuses_is_left_out() -> None:
    """A model that a server listed then, or a key's list that has changed since."""
    told = run([call("gone"), call("a")], to(a="cheap"), to(a="cheap", gone="dear"))
    assert told["not_replayed"] == [
        {"requested": "gone", "calls": 1, "why": "404 model_not_found: There is no such model."}
    ]


def test_few_calls_are_not_blown_up() -> None:
    """The rate is that of an hour at least."""
    told = replay([call()], to(auto="dear"), to(auto="cheap"), 10**9)
    assert told["cost_usd_per_day"]["before"] == pytest.approx(3.0 * 24)


def test_without_calls_nothing_is_said() -> None:
    """A new database."""
    told = run([], to(), to())
    assert (told["calls"], told["changes"], told["cost_usd_per_day"]["difference"]) == (0, [], 0.0)
