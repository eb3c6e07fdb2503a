"""Who is asked, and the most that it may cost: pure, over routes that are passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from proxy.ensembles.base import Ensemble, Member
from proxy.ensembles.plan import MAX_DEPTH, LeftOut, PanelPlan, Planner
from proxy.metering.pricing import ModelPrice
from proxy.providers.openai import OpenAI
from proxy.routing.deployment import Deployment, Route
from proxy.routing.panelists import PREFIX, diverse
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest, CostLimit, ProxyError
from proxy.schema.hints import Hints
from tests.ensembles.first import First

CHEAP = ModelPrice(input=0, output=10.0, max_output=100_000)
TOKENS = 100
SEAT = TOKENS * 10_000  # nano-USD


def deployment(name: str, price: ModelPrice | None = CHEAP) -> Deployment:
    provider, _, model = name.partition("/")
    return Deployment(provider, OpenAI(), model, price)


class Router:
    """Names are deployments; `missing` ones cannot be called, `barred` ones not by this key."""

    def __init__(
        self,
        pool: Sequence[str] = ("a/pool", "b/pool", "c/pool"),
        prices: Mapping[str, ModelPrice | None] | None = None,
        missing: Mapping[str, int] | None = None,
    ) -> None:
        self._pool = pool
        self._prices = prices or {}
        self._missing = missing or {}

    def _deployment(self, name: str) -> Deployment:
        return deployment(name, self._prices.get(name, CHEAP))

    def route(self, name: str, request: ChatRequest) -> Route:
        if name in self._missing:
            raise ProxyError(f"no {name}", status=self._missing[name], code="model_not_found")
        if name.startswith(PREFIX):
            return Route(name, (deployment("a/inside"),), ensemble=name.removeprefix(PREFIX))
        return Route(name, (self._deployment(name),))

    def pool(self) -> Sequence[Deployment]:
        return [self._deployment(name) for name in self._pool]


def request(max_tokens: int | None = TOKENS, hints: Hints | None = None, **fields: Any) -> ChatRequest:
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    return ChatRequest(
        model="ensemble:x",
        messages=[Message("user", "hi")],
        max_tokens=max_tokens,
        hints=hints or Hints(),
        fields={"messages": [{"role": "user", "content": "Hi"}], **fields},
    )


def planned(
    ensemble: Ensemble,
    asked: ChatRequest | None = None,
    router: Router | None = None,
    limit_nano: int | None = None,
    others: Mapping[str, Ensemble] | None = None,
) -> PanelPlan:
    planner = Planner(others or {}, router or Router())
    return planner.plan("ensemble:x", ensemble, asked or request(), limit_nano)


def names(plan: PanelPlan) -> list[str]:
    return [seat.deployment for seat in plan.seats]


# --- seats ------------------------------------------------------------------------------------------------------------


def test_each_member_has_a_seat_in_its_order() -> None:
    """With its weight, and what it is asked."""
    plan = planned(First(members=["a/x", Member("b/y", weight=2, temperature=0.1)]))
    assert [(seat.index, seat.name, seat.weight) for seat in plan.seats] == [(0, "a/x", 1.0), (1, "b/y", 2.0)]
    assert [seat.request.fields.get("temperature") for seat in plan.seats] == [None, 0.1]


def test_members_get_one_whole_question_each() -> None:
    """Without the stream, the choices and the hints of the client's request."""
    asked = request(stream=True, stream_options={"include_usage": True}, hints=Hints(max_cost_usd=1, strict=True))
    (seat,) = planned(First(members=["a/x"]), asked).seats
    assert not {"stream", "stream_options", "n"} & set(seat.request.fields)
    assert (seat.request.stream, seat.request.n, seat.request.hints) == (False, 1, Hints(strict=True))


def test_a_members_limit_never_raises_that_of_the_request() -> None:
    """A key's limit is in the request, too."""
    plan = planned(First(members=[Member("a/x", max_tokens=1000), Member("b/x", max_tokens=10)]))
    assert [seat.request.max_tokens for seat in plan.seats] == [TOKENS, 10]


def test_further_seats_of_one_model_differ() -> None:
    """In seed and temperature, unless those are given or the request is strict."""
    three = First(members=["a/x", "a/x", Member("a/x", seed=9, temperature=0.0)])
    fields = [(s.request.fields.get("seed"), s.request.fields.get("temperature")) for s in planned(three).seats]
    assert fields == [(None, None), (1, 0.7), (9, 0.0)]
    given = planned(three, request(seed=40, temperature=1.5))
    assert [seat.request.fields["seed"] for seat in given.seats] == [40, 41, 9]
    assert given.seats[1].request.fields["temperature"] == 1.5
    strict = planned(three, request(hints=Hints(strict=True)))
    assert "seed" not in strict.seats[1].request.fields


def test_without_members_they_are_picked_from_diverse_providers() -> None:
    """First one of each, then the second of each; at last the same model again, with a seed of its own."""
    pool = ("a/1", "a/2", "b/1", "a/3")
    assert names(planned(First(size=3), router=Router(pool))) == ["a/1", "b/1", "a/2"]
    lone = planned(First(size=3), router=Router(("local/x",)))
    assert names(lone) == ["local/x"] * 3
    assert [seat.request.fields.get("seed") for seat in lone.seats] == [None, 1, 2]
    assert len({seat.request.fields.get("temperature") for seat in lone.seats}) == 3


def test_free_seats_are_filled_from_the_pool() -> None:
    """By models that have no seat yet."""
    router = Router(("a/x", "b/y"), missing={"z/gone": 404})
    plan = planned(First(members=["a/x", "z/gone"]), router=router)
    assert names(plan) == ["a/x", "b/y"]
    assert plan.left_out == (LeftOut("z/gone", "no z/gone", "b/y"),)


def test_a_follower_without_a_provider_is_replaced_but_a_forbidden_one_is_not() -> None:
    """A key must not get another judge unnoticed."""
    plan = planned(First(members=["a/x"], last="z/gone"), router=Router(missing={"z/gone": 503}))
    assert plan.followers[0].deployment == "a/pool"
    assert plan.left_out[0].instead == "a/pool"
    with pytest.raises(ProxyError, match="no z/gone"):
        planned(First(members=["a/x"], last="z/gone"), router=Router(missing={"z/gone": 403}))


def test_nobody_at_all_is_the_error_of_the_first_member() -> None:
    """An empty pool cannot help."""
    with pytest.raises(ProxyError, match="no z/gone"):
        planned(First(members=["z/gone"]), router=Router((), missing={"z/gone": 404}))


@pytest.mark.parametrize(("seats", "quorum"), [(1, 1), (2, 1), (3, 2), (5, 2)])
def test_the_usual_quorum_is_two_or_of_fewer_than_three_all_but_one(seats: int, quorum: int) -> None:
    assert planned(First(size=seats)).quorum == quorum


def test_a_quorum_beyond_the_seats_is_refused() -> None:
    """400, which names the key."""
    with pytest.raises(BadRequest, match="min_answers is 4, and there are 3 seats") as caught:
        planned(First(size=3, min_answers=4))
    assert caught.value.param == "routing.ensemble.min_answers"


def test_a_member_that_cannot_take_the_request_is_refused_or_left_out() -> None:
    """Refused by name if the client chose the ensemble; left out if a rule did."""
    prices = {"a/x": ModelPrice(input=1, output=1, supports=["images"])}
    asked, ensemble = request(tools=[{"type": "function"}]), First(members=["a/x", "b/y"])
    with pytest.raises(BadRequest, match="its member a/x does not support tools"):
        planned(ensemble, asked, Router(prices=prices))
    routed = Planner({}, Router(prices=prices), is_routed=True).plan("ensemble:x", ensemble, asked)
    assert names(routed) == ["b/y", "a/pool"]


def test_diverse_takes_turns() -> None:
    """Each deployment once."""
    found = diverse([deployment(name) for name in ("a/1", "a/1", "a/2", "b/1", "c/1", "b/2")], 9)
    assert [each.name for each in found] == ["a/1", "b/1", "c/1", "a/2", "b/2"]


# --- ensembles inside -------------------------------------------------------------------------------------------------


def test_the_bound_of_a_panel_inside_counts_as_its_own_sum() -> None:
    """All seats and followers add up, at every depth."""
    inner = First(members=["a/1", "b/1", "c/1"])
    plan = planned(First(members=["ensemble:in", "d/1"]), others={"in": inner})
    assert [place.bound_nano for place in plan.places] == [3 * SEAT, SEAT]
    assert (plan.bound_nano, plan.asks) == (4 * SEAT, 4)
    assert plan.seats[0].deployment == ""


def test_an_ensemble_that_contains_itself_is_refused() -> None:
    """At the latest here: the check of the file comes first."""
    own = First(members=["ensemble:in"])
    with pytest.raises(BadRequest, match=f"deeper than {MAX_DEPTH} levels"):
        planned(own, others={"in": own})


def test_a_call_asks_a_bounded_number_of_times() -> None:
    """Wide panels inside wide panels."""
    wide = First(members=[f"a/{number}" for number in range(16)])
    with pytest.raises(BadRequest, match="would make 80 requests; at most 64 are allowed"):
        planned(First(members=["ensemble:in"] * 5), others={"in": wide})


# --- money ------------------------------------------------------------------------------------------------------------


def test_a_follower_reads_all_answers() -> None:
    """Its bound covers them, with four bytes for each token."""
    dear = ModelPrice(input=1.0, output=0.0, max_output=100)
    alone = planned(First(members=["a/x", "b/x"], last="j/j"), router=Router(prices={"j/j": dear}))
    more = planned(First(members=["a/x", "b/x", "c/x"], last="j/j"), router=Router(prices={"j/j": dear}))
    grown = (more.followers[0].bound_nano or 0) - (alone.followers[0].bound_nano or 0)
    assert grown == (4 * TOKENS + 2048) * 1000


def test_the_panel_shrinks_by_weight_then_by_price_and_then_from_the_end() -> None:
    """Never below its quorum."""
    prices = {"b/dear": ModelPrice(input=0, output=30.0, max_output=100_000)}
    members: list[str | Member] = [Member("a/light", weight=0.5), "b/dear", "c/1", "d/1"]
    ensemble, router = First(members=members), Router(prices=prices)
    for limit, expected in (
        (6 * SEAT, ["a/light", "b/dear", "c/1", "d/1"]),
        (5 * SEAT, ["b/dear", "c/1", "d/1"]),
        (4 * SEAT, ["c/1", "d/1"]),
        (2 * SEAT, ["c/1", "d/1"]),
    ):
        plan = planned(ensemble, router=router, limit_nano=limit)
        assert names(plan) == expected
        assert (plan.bound_nano or 0) <= limit
        assert [seat.index for seat in plan.seats] == list(range(len(expected)))
    with pytest.raises(CostLimit, match=r"could cost up to \$0.002000 with 2 members") as caught:
        planned(ensemble, router=router, limit_nano=2 * SEAT - 1)
    assert caught.value.code == "max_cost_exceeded"


def test_an_answer_without_a_limit_gets_one_before_members_are_left_out() -> None:
    """The model's own limit is far above what an answer needs. A strict request is left as it is."""
    ensemble = First(members=["a/1", "b/1", "c/1"])
    plan = planned(ensemble, request(None), limit_nano=3 * 4096 * 10_000)
    assert (len(plan.seats), plan.adapted, plan.seats[0].request.max_tokens) == (3, ("max_completion_tokens",), 4096)
    short = planned(ensemble, request(None), limit_nano=2 * 256 * 10_000)
    assert (len(short.seats), short.seats[0].request.max_tokens) == (2, 256)
    with pytest.raises(CostLimit):
        planned(ensemble, request(None, Hints(strict=True)), limit_nano=2 * 256 * 10_000)


def test_the_ensembles_own_limit_holds_as_well() -> None:
    """The lower of the two. A panel inside has its own."""
    ensemble = First(members=["a/1", "b/1", "c/1"], max_cost_usd=0.002)
    assert len(planned(ensemble).seats) == 2
    assert len(planned(ensemble, limit_nano=10 * SEAT).seats) == 2
    outer = planned(First(members=["ensemble:in"]), others={"in": ensemble})
    assert outer.bound_nano == 2 * SEAT


def test_a_member_without_a_price_goes_first_where_the_cost_has_a_limit() -> None:
    """If too few are left, it is 402 `price_unknown`. Without a limit it is asked."""
    router = Router(prices={"a/x": None})
    ensemble = First(members=["a/x", "b/x", "c/x"])
    assert planned(ensemble, router=router).bound_nano is None
    assert names(planned(ensemble, router=router, limit_nano=9 * SEAT)) == ["b/x", "c/x"]
    with pytest.raises(CostLimit, match="a/x has no known price") as caught:
        planned(First(members=["a/x"]), router=router, limit_nano=9 * SEAT)
    assert caught.value.code == "price_unknown"
