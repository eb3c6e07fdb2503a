"""Orchestrates: fallback. Each ask moves from deployment to deployment until its gate closes, never after.

COMMITTED     the first content, reasoning, tool or refusal delta: no other model may answer after it
HEADERS_SENT  the first byte to the client (the API layer's gate): errors are frames after it

Dispatcher     asks the deployments of a route until one answers
CallAsk        asks models by name on behalf of one call; ensembles use it
FallbackOrder  picks the next deployment, by each one's standing on the HealthBoard (routing)
Hedge          asks a second deployment if the first is late
AttemptLoop    asks one deployment, with retries
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

from msgspec import Struct

from proxy.pipeline.attempts import AttemptLoop
from proxy.pipeline.call import Call
from proxy.pipeline.gate import CommitGate
from proxy.pipeline.hedge import Hedge, late_after_s, race
from proxy.pipeline.resources import Resources
from proxy.routing.allowed import Allowed
from proxy.routing.ask import CALL, Answer, Origin, Sink
from proxy.routing.deployment import Deployment, Route
from proxy.routing.fallback import FallbackOrder
from proxy.routing.router import Router
from proxy.routing.standing import Probe
from proxy.routing.sticky import is_home
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, BudgetSpent, CostLimit, UpstreamError

MIN_CACHED_TOKENS = 1024  # the shortest prompt that OpenAI, Anthropic and Google cache (checked in November 2026)

Answering = Coroutine[Any, Any, Answer]


class _Question(Struct, frozen=True):
    """The request of one ask, and where its answer goes. `sink` None: the answer is whole, not streamed."""

    call: Call
    request: AnyRequest
    origin: Origin
    gate: CommitGate
    sink: Sink | None = None


class _Try:
    """One deployment, asked within one ask. If its breaker is half open, this is the probe until `run` ends."""

    def __init__(
        self, resources: Resources, question: _Question, order: FallbackOrder, deployment: Deployment, tries: int
    ) -> None:
        self.deployment = deployment
        self.loop = AttemptLoop(resources, question.call, deployment, tries, question.gate)
        self.loop.order = order
        self._board = resources.board
        self._question = question

    def run(self) -> Answering:
        """An awaitable for the answer. Raises as `AttemptLoop` does."""
        question = self._question
        if question.sink is None:
            asking = self.loop.answer(question.request, question.origin)
        else:
            asking = self.loop.answer_stream(cast(ChatRequest, question.request), question.sink, question.origin)
        probe = self._board.enter(self.deployment.name)
        return asking if probe is None else self._probing(probe, asking)

    async def _probing(self, probe: Probe, asking: Answering) -> Answer:
        try:
            return await asking
        finally:
            self._board.leave(probe)


class Dispatcher:
    """Asks the deployments of routes."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources

    def complete(self, call: Call, route: Route, request: AnyRequest, origin: Origin = CALL) -> Answering:
        """The whole answer to `request`.

        Raises AllDown if several candidates failed or rest, the UpstreamError of a lone one, BadRequest for a request
        the first candidate cannot take, CostLimit, or StorageUnavailable before anything was sent.
        """
        return self._answer(route, _Question(call, request, origin, CommitGate()))

    def stream(
        self, call: Call, route: Route, sink: Sink, gate: CommitGate, request: ChatRequest, origin: Origin = CALL
    ) -> Answering:
        """The answer, streamed into `sink`; `gate` closes with its first batch. Raises as `complete` does."""
        return self._answer(route, _Question(call, request, origin, gate, sink))

    def note_warm(self, call: Call) -> None:
        """Notes that the deployment that answered has the conversation in its prompt cache, unless it is too short."""
        decision = call.decision
        session = "" if decision is None else decision.facts.session
        if decision is not None and session and (end := call.answering.ended) is not None:
            used, name = end.tokens, call.answering.deployment.name
            if used.cache_read or used.cache_write or used.prompt >= MIN_CACHED_TOKENS:
                home = is_home(decision, name)
                self.resources.board.sessions.note(session, name, used.prompt + used.output, is_home=home)

    async def _answer(self, route: Route, question: _Question) -> Answer:
        resources, call = self.resources, question.call
        tries = resources.router.max_retries + 1
        order = FallbackOrder(route, question.request, resources.board, call, tries)
        while True:
            deployment = order.next()
            late_s = late_after_s(resources, deployment, question.request) if resources.router.hedge.enabled else None
            if late_s is not None and order.tries_left > 1:
                answer = await self._hedged(order, question, deployment, late_s)
                if answer is not None:
                    return answer
                continue
            one = _Try(resources, question, order, deployment, order.tries_here)
            try:
                return await one.run()
            except (UpstreamError, BadRequest, CostLimit) as error:
                if question.gate.is_closed or (isinstance(error, BudgetSpent) and not error.is_of_attempt):
                    raise
                order.note_failure(deployment, error, one.loop.tried)

    async def _hedged(
        self, order: FallbackOrder, question: _Question, deployment: Deployment, late_s: float
    ) -> Answer | None:
        """The answer of this deployment, or of the next one if this one is late; None: all that ran have failed."""
        hedge = Hedge(self.resources, question.call, order, question.request)
        first = _Try(self.resources, question, order, deployment, order.tries_left - 1)
        answer: Answer | None = None

        def second() -> _Try | None:
            other = hedge.second(deployment)
            return None if other is None else _Try(self.resources, question, order, other, 1)

        try:
            raced = await race(first, second, late_s, question.gate)
            answer = raced.answer
        finally:
            hedge.end(answer)
        if answer is None:
            if all(isinstance(error, BudgetSpent) and not error.is_of_attempt for _, error in raced.failures):
                raise raced.failures[0][1]
            for runner, error in raced.failures:
                order.note_failure(runner.deployment, error, cast(_Try, runner).loop.tried)
        return answer


class CallAsk:
    """The `Ask` of one call, limited to the models that its caller may use."""

    def __init__(self, dispatcher: Dispatcher, router: Router, call: Call, allowed: Allowed | None) -> None:
        self._dispatcher = dispatcher
        self._router = router
        self._call = call
        self._allowed = allowed

    async def ask(self, name: str, request: AnyRequest, origin: Origin = CALL) -> Answer:
        route = await self._router.route(name, self._allowed)
        return await self._dispatcher.complete(self._call, route, request, origin)

    async def stream(self, name: str, request: ChatRequest, sink: Sink, origin: Origin = CALL) -> Answer:
        route = await self._router.route(name, self._allowed)
        return await self._dispatcher.stream(self._call, route, sink, CommitGate(), request, origin)
