"""On one snapshot an explanation is the route that a call takes: over ten thousand random requests."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.config import load
from proxy.config.namespace import build_names
from proxy.metering.price_book import PriceBook
from proxy.pipeline import hints
from proxy.pipeline.admission import Admission, KeyPolicies
from proxy.pipeline.bounds import UNBOUNDED
from proxy.pipeline.call import Call
from proxy.pipeline.limits import Limits
from proxy.pipeline.timing import Clock
from proxy.routing.allowed import Views
from proxy.routing.decision import Candidate
from proxy.routing.deployment import Route
from proxy.routing.explain import explained
from proxy.routing.fallback import FallbackOrder
from proxy.routing.health import DeploymentHealth, State, least_bad
from proxy.routing.plan import ask_bound
from proxy.routing.router import Router
from proxy.schema.errors import AllDown, CostLimit, ProxyError, UpstreamError
from proxy.schema.records import Caller
from proxy.server.formats.chat import CHAT
from tests.pipeline.asks import PRICING, ROUTING, body

REQUESTS = 10_000
FAR = 2_000.0
OPEN = DeploymentHealth(200.0, 300.0, 90.0, breaker="open", rests_until=FAR, why="upstream_error")
NAMED_A_TIME = DeploymentHealth(rests_until=FAR, named_until=FAR, why="rate_limit_exceeded")
NAMES = ("fake/a", "fake/b", "fake/c", "fake/d", "fake/v", "fake/z")
STATES = (
    State(
        "some are well",
        1_000.0,
        {
            "fake/a": DeploymentHealth(900.0, 1200.0, 50.0),
            "fake/b": OPEN,
            "fake/c": DeploymentHealth(100.0, 150.0, 20.0, error_rate=0.2),
        },
    ),
    State(
        "all failed, the last name longest ago",
        1_000.0,
        {name: replace(OPEN, failed_at=990.0 - place) for place, name in enumerate(NAMES)},
    ),
    State(
        "all rest: some vendors named a time",
        1_000.0,
        {
            **dict.fromkeys(NAMES, NAMED_A_TIME),
            "fake/b": DeploymentHealth(rests_until=1_001.0, failed_at=5.0, why="rate_limit_exceeded"),
            "fake/c": replace(OPEN, failed_at=4.0),
        },
    ),
    State("all vendors named a time", 1_000.0, dict.fromkeys(NAMES, NAMED_A_TIME)),
)


class Board:
    """What a `HealthBoard` says while its snapshot is `state`."""

    def __init__(self, state: State) -> None:
        self.state = state

    def may_try(self, name: str) -> bool:
        return self.state.of(name).rests_until <= self.state.now

    def rest_of(self, name: str) -> tuple[float, str, bool]:
        health = self.state.of(name)
        return max(0.0, health.rests_until - self.state.now), health.why, health.named_until > self.state.now

    def badness(self, name: str) -> tuple[bool, float]:
        health = self.state.of(name)
        return least_bad(health.named_until if health.named_until > self.state.now else None, health.failed_at)


def asked_first(route: Route, call: Call, state: State) -> str | None:
    """What the attempt loop would ask; None: nobody."""
    try:
        return FallbackOrder(route, call.request, Board(state), call, 4).next().name
    except (AllDown, UpstreamError):
        return None


def costly(call: Call, candidate: Candidate) -> list[str]:
    """The reason of a call not to ask this candidate, if it could cost more than the client allows."""
    deployment = candidate.deployment
    refusal = call.refusal(deployment.name, ask_bound(call.request, deployment))
    return [] if refusal is None else [refusal.message]


def admission(folder: Path, seed: list[float], states: list[State]) -> Admission:
    """On the first of these states, which changes nothing by itself."""
    (folder / "routing_rules.yaml").write_text(ROUTING.format(upstream="http://127.0.0.1:9/v1", db=folder / "usage.db"))
    (folder / "pricing.yaml").write_text(PRICING)
    config = load(folder / "routing_rules.yaml", folder / "pricing.yaml", {})
    book = PriceBook(config.pricing, {})
    views = Views(build_names(config, book, {}), book)
    router = Router(views, book, lambda: seed[0], state=lambda session: states[0], version="v1")
    return Admission(KeyPolicies(config.keys, None, Limits(1)), router)


def test_ten_thousand_explanations_equal_their_routes(tmp_path: Path) -> None:
    """The order of candidates and the one that is asked first, or the same error; both ways with the seed that the
    router drew. Also where no deployment is well, and where none may be asked.
    """
    draw, seed, states = random.Random(7), [0.0], [STATES[0]]
    admits = admission(tmp_path, seed, states)
    nobody: Counter[str] = Counter()
    clock = Clock(lambda: 1, lambda: 1.0)
    kinds: set[str] = set()

    async def both(sent: bytes, caller: Caller, headers: dict[str, str]) -> None:
        request = hints.applied(CHAT.decode(sent), headers)
        call = Call("c", caller, request, clock)
        try:
            route = await admits.admit(call, headers)
        except ProxyError as error:
            kinds.add(error.code or "")
            try:
                await admits.decide(caller, request, headers)
            except ProxyError as other:
                assert (other.code, other.message) == (error.code, error.message)
                return
            raise AssertionError(f"explained, but refused: {error.message}") from None
        call.bounds = UNBOUNDED.narrowed(request, headers)
        try:
            told = await admits.decide(caller, request, headers)
        except CostLimit as error:
            kinds.add(error.code or "")
            with pytest.raises(CostLimit) as refused:
                asked_first(route, call, states[0])
            assert refused.value.code == error.code
            return
        except ProxyError as error:  # what a named model cannot take is found when it is asked
            assert error.code == "unsupported_content"
            return
        kinds.add(told.step)
        if told.step == "named":
            able = [each.deployment for each in told.candidates if each.rejected is None]
            assert {each.name for each in route.candidates if each in able} == {
                each.name for each in told.route.candidates
            }
        else:
            refused_names = {each.deployment.name for each in told.candidates if each.rejected in costly(call, each)}
            kinds.update(["too expensive"] if refused_names else [])
            left = tuple(each for each in route.candidates if each.name not in refused_names)
            assert told.route == replace(route, candidates=left)
        first = asked_first(route, call, states[0])
        assert (told.chosen.name if told.chosen is not None else None) == first == explained(told)["chosen"]
        nobody[states[0].id] += first is None

    async def all_of_them() -> None:
        for _ in range(REQUESTS):
            seed[0], states[0] = draw.random(), draw.choice(STATES)
            headers = {"x-team": draw.choice(["finance", "law"])} if draw.random() < 0.3 else {}
            await both(body(draw), Caller(draw.choice(["narrow", "other"])), headers)

    asyncio.run(all_of_them())
    assert {"rule", "task", "strategy", "preferred_model", "named", "model_not_allowed"} <= kinds
    assert {"too expensive", "max_cost_exceeded", "price_unknown"} <= kinds
    assert nobody["some are well"] == nobody["all failed, the last name longest ago"] == 0
    assert nobody["all vendors named a time"] > nobody["all rest: some vendors named a time"] > 0
