"""`routing.max_cost_usd` and `routing.strict`: an explanation leaves out what a call would not ask."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import structs

from proxy.pipeline.bounds import UNBOUNDED
from proxy.pipeline.call import Call
from proxy.pipeline.conditions import marked, within
from proxy.routing.decision import Candidate, Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.hints import Hints
from tests.pipeline.test_dispatch import Losing
from tests.pipeline.world import PRICE, World, asked, new_call, whole

DEAR = structs.replace(PRICE, output=1_000.0)
STRICT, CHEAP = Hints(strict=True), Hints(strict=True, max_cost_usd=0.1)


def decision(deployments: Sequence[Deployment]) -> Decision:
    return Decision(Route("x", tuple(deployments)), Facts(), candidates=tuple(map(Candidate, deployments)))


def chosen(world: World, names: str) -> list[Deployment]:
    """Deployments by letters: `c` loses the parameter `seed`, `d` is dear."""
    kinds = {"c": Deployment("c", Losing(retries=0), "m", PRICE)}
    dear = world.deployment("d")
    kinds["d"] = Deployment("d", dear.provider, "m", DEAR)
    return [kinds.get(name) or world.deployment(name) for name in names]


def asking(hints: Hints) -> Call:
    call = new_call(seed=1, max_tokens=1_000)
    call.request = structs.replace(call.request, hints=hints)
    call.bounds = UNBOUNDED.narrowed(call.request, {})
    return call


@pytest.mark.parametrize(
    ("names", "hints", "left"),
    [("acb", STRICT, "ab"), ("ab", STRICT, "ab"), ("adb", CHEAP, "ab"), ("dca", CHEAP, "a"), ("cab", Hints(), "cab")],
)
async def test_the_candidates_that_a_call_would_pass_over_are_rejected(names: str, hints: Hints, left: str) -> None:
    call, world = asking(hints), World(whole())
    told = within(decision(chosen(world, names)), call.request)
    assert "".join(each.provider_name for each in told.route.candidates) == left
    assert {each.deployment.provider_name for each in told.candidates if each.rejected} == set(names) - set(left)
    await world.complete(call, Route("x", tuple(chosen(world, names))))
    assert asked(call)[-1] == left[0]


@pytest.mark.parametrize(("names", "hints"), [("cab", STRICT), ("d", CHEAP), ("dc", CHEAP), ("c", STRICT)])
async def test_what_a_call_refuses_the_explanation_refuses(names: str, hints: Hints) -> None:
    """The loss of the first candidate is the client's mistake."""
    call, world = asking(hints), World()
    with pytest.raises(ProxyError) as told:
        within(decision(chosen(world, names)), call.request)
    with pytest.raises(ProxyError) as done:
        await world.complete(call, Route("x", tuple(chosen(world, names))))
    assert (told.value.code, told.value.message) == (done.value.code, done.value.message)
    assert isinstance(told.value, BadRequest) == names.startswith("c")


def test_the_decision_of_a_call_keeps_its_route() -> None:
    """And builds no request for candidates that it may never ask."""
    before = decision(chosen(World(), "adc"))
    after = marked(before, asking(CHEAP).request)
    assert after.route == before.route
    assert [each.rejected is None for each in after.candidates] == [True, False, True]
