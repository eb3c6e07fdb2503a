"""Orchestrates: hedging. If the first deployment is late, a second one is asked too; the first content wins.

Both share one gate, so that only one of them can win. The loser is cancelled at once and metered as `cancelled`: its
possible cost is its hold, and `router.hedge.max_extra_cost_ratio` caps the sum of those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from msgspec import Struct

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.emulate import cancel_all
from proxy.pipeline.gate import CommitGate
from proxy.pipeline.resources import Resources
from proxy.routing.ask import Answer
from proxy.routing.deployment import Deployment
from proxy.routing.fallback import FallbackOrder
from proxy.routing.plan import attempt_bound
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, CostLimit, UpstreamError

Failure = UpstreamError | BadRequest | CostLimit


class Runner(Protocol):
    """One deployment being asked."""

    @property
    def deployment(self) -> Deployment: ...

    def run(self) -> Coroutine[Any, Any, Answer]: ...


class Raced(Struct):
    """The result of a race: an answer, or the failure of each deployment that was asked."""

    answer: Answer | None
    failures: list[tuple[Runner, Failure]]


def late_after_s(resources: Resources, deployment: Deployment, request: AnyRequest) -> float | None:
    """When a second deployment may be asked; None: never."""
    settings = resources.router.hedge
    if not settings.enabled or not request.may_race:
        return None
    if isinstance(settings.after, str):
        return resources.board.late_after_s(deployment.name, request.stream)
    return float(settings.after)


class Hedge:
    """The permission of one ask to ask a second deployment. `end` records what that cost."""

    def __init__(self, resources: Resources, call: Call, order: FallbackOrder, request: AnyRequest) -> None:
        self._resources = resources
        self._call = call
        self._order = order
        self._request = request
        self._reserved: int | None = None
        self._first_attempt = len(call.attempts)

    def second(self, first: Deployment) -> Deployment | None:
        """The deployment to ask beside `first`; None: no other one is well, or time, money or a budget is lacking."""
        call, board = self._call, self._resources.board
        other = None if call.is_late else self._order.peek(besides=first.name)
        if other is None or board.is_open(other.name):
            return None
        bounds = [attempt_bound(self._request, each) for each in (first, other)]
        known = [bound for bound in bounds if bound is not None]
        ratio = self._resources.router.hedge.max_extra_cost_ratio
        if len(known) < 2 or not board.hedges.reserve(max(known), ratio):
            return None
        self._reserved = max(known)
        return other if board.takes_extra(first.name, call.caller.key_id) else None  # at most a fifth of its calls

    def end(self, answer: Answer | None) -> None:
        """Records the hedge's extra cost: everything that did not become the answer."""
        if self._reserved is None:
            return
        used = set() if answer is None else set(answer.attempts)
        lost = [each.ended for each in self._call.attempts[self._first_attempt :] if each.id not in used]
        self._resources.board.hedges.settle(self._reserved, sum(end.cost_nano or 0 for end in lost if end is not None))


async def race(first: Runner, second: Callable[[], Runner | None], late_s: float, gate: CommitGate) -> Raced:
    """Runs `first`, and also what `second` returns if nothing arrived within `late_s`.

    Raises a failure after the winner's first content: then no other deployment may take over.
    """
    running: dict[asyncio.Task[Answer], Runner] = {asyncio.create_task(first.run()): first}
    failures: list[tuple[Runner, Failure]] = []

    def cancel_losers(winner: Attempt) -> None:
        for task, runner in running.items():
            if runner.deployment is not winner.deployment:
                task.cancel()

    try:
        _, pending = await asyncio.wait(running, timeout=late_s)
        if pending and not gate.is_closed and (other := second()) is not None:
            running[asyncio.create_task(other.run())] = other
            gate.on_close = cancel_losers
        while True:
            for task in list(running):
                if not task.done():
                    continue
                runner = running.pop(task)
                if task.cancelled() or (gate.attempt and gate.attempt.deployment is not runner.deployment):
                    task.cancelled() or task.exception()
                    continue
                error = task.exception()
                if error is None:
                    return Raced(task.result(), failures)
                if gate.is_closed or not isinstance(error, Failure):
                    raise error
                failures.append((runner, error))
            if not running:
                return Raced(None, failures)
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gate.on_close = None
        await cancel_all(running)
