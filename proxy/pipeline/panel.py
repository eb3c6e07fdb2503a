"""Orchestrates: the panel of one call: it asks the seats concurrently and the judges afterwards, on the call's budget.

An ensemble sees it as `ensembles.base.Panel`. Whatever ends the ensemble (its answer, an error, a client that
disconnects) ends all asks that still run before anything else happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from proxy.ensembles.base import Decided, Reply, Seat
from proxy.ensembles.plan import OWN_LIMIT, PanelPlan, Place, shrunk
from proxy.ensembles.questions import streamed_request, whole_request
from proxy.pipeline.call import Call
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.emulate import cancel_all
from proxy.pipeline.gate import CommitGate
from proxy.pipeline.panel_record import PanelRecord
from proxy.pipeline.panel_report import Asked, report
from proxy.pipeline.seating import Seated
from proxy.routing.ask import Origin, Sink
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse
from proxy.schema.errors import BudgetSpent, CostLimit, ProxyError, UpstreamTimeout
from proxy.schema.fold import Fold
from proxy.schema.records import NANO_PER_USD, Outcome
from proxy.schema.unfold import chunks_of
from proxy.storage.base import Room


class PanelAnswer(Struct, frozen=True):
    """The answer of an ensemble, whole even if it was streamed by chunks; None: a model's stream was passed on."""

    response: ChatResponse | None
    attempts: tuple[str, ...]
    report: dict[str, Any]


async def answered(dispatcher: Dispatcher, call: Call, seated: Seated, sink: Sink | None) -> PanelAnswer:
    """The answer of the call's ensemble; a streamed one goes to `sink`.

    If a budget has no room for the whole panel, the panel shrinks, as long as nothing was asked. Raises BudgetSpent if
    the smallest panel does not fit either, QuorumMissed, and the errors of models that the ensemble depends on.
    """
    plan = seated.plan
    most = plan.ensemble.max_cost_usd
    if most is not None:
        call.bounds = call.bounds.within(round(most * NANO_PER_USD), f"{OWN_LIMIT} of {plan.name}")
    while True:
        call.bound_nano = plan.bound_nano or 0
        call.note_adapted([*plan.adapted])
        run = _Run(dispatcher, call, sink)
        panel = CallPanel(run, plan)
        call.recorded = PanelRecord(seated.name, seated.strategy, panel.asked)
        try:
            decided = await panel.decided()
            call.recorded.note(decided, panel.streamed)
        except BudgetSpent as spent:
            plan = await _smaller(dispatcher, call, seated, plan, spent)
            continue
        if sink is not None and decided.response is not None:
            await run.write(chunks_of(decided.response))
        return PanelAnswer(decided.response, decided.attempts, report(call, plan, decided.report, panel.asked))


async def _smaller(
    dispatcher: Dispatcher, call: Call, seated: Seated, plan: PanelPlan, spent: BudgetSpent
) -> PanelPlan:
    """The panel to try instead of `plan`, which did not fit a budget. Raises `spent` if none would fit."""
    room = spent.room
    if call.attempts or spent.is_of_attempt or not isinstance(room, Room):
        raise spent
    if await dispatcher.resources.holds.may_be_freed(call, room):
        return plan
    smaller = shrunk(plan, room.left_nano, f"the budget {room.charge.budget!r} has room for no more")
    if smaller is None:
        try:
            smaller = seated.again(room.left_nano)
        except CostLimit:
            raise spent from None
    if smaller.bound_nano is None or smaller.bound_nano >= (plan.bound_nano or 0):
        raise spent
    return smaller


class _Run:
    """State that the panels of one call share: the call, the client's stream, and the numbers of the asks."""

    def __init__(self, dispatcher: Dispatcher, call: Call, sink: Sink | None) -> None:
        self.dispatcher = dispatcher
        self.call = call
        self.sink = sink
        self._numbers = 0
        self._opening = asyncio.Lock()
        self._opener: int | None = None
        self._is_open = call.is_open
        call.on_open = self._note_open

    def number(self) -> int:
        """The number of the next ask: the seat of its attempts."""
        self._numbers += 1
        return self._numbers - 1

    async def turn(self, number: int) -> None:
        """Returns when this ask may begin. Only an open call can have several attempts, so asks try to open it one at a
        time, and then all begin.
        """
        if self._is_open:
            return
        await self._opening.acquire()
        if self._is_open:
            self._opening.release()
        else:
            self._opener = number

    def _note_open(self) -> None:
        if not self._is_open:
            self._is_open = True
            self._release()

    def note_ended(self, number: int) -> None:
        """An ask has ended. If it has not opened the call, the next one tries."""
        if self._opener == number:
            self._release()

    def _release(self) -> None:
        if self._opener is not None:
            self._opener = None
            self._opening.release()

    def attempts_of(self, number: int, before: int) -> tuple[str, ...]:
        """The attempts of one ask and those that they caused. `before`: how many the call had when the ask began."""
        found: list[str] = []
        for attempt in self.call.attempts[before:]:
            origin = attempt.origin
            if origin.parent in found or (origin.seat == number and (number or origin.parent is None)):
                found.append(attempt.id)
        return tuple(found)

    async def write(self, batches: Sequence[list[ChatChunk]]) -> None:
        """Writes to the client, no faster than it reads."""
        if self.sink is not None:
            for batch in batches:
                if (wait := self.sink(batch)) is not None:
                    await wait


class CallPanel:
    """Implements `ensembles.base.Panel` for one ensemble of one call; those inside it have panels of their own.

    `is_final`: the client's answer may come from here, so a stream is passed on.
    """

    def __init__(self, run: _Run, plan: PanelPlan, *, is_final: bool = True) -> None:
        self.name = plan.name
        self.request = plan.request
        self.seats: Sequence[Seat] = plan.seats
        self.asked: list[Asked] = []
        self.streamed: Reply | None = None  # the reply passed on to the client as it arrived
        self._run = run
        self._plan = plan
        self._is_final = is_final
        self._ends_s = run.call.clock.monotonic_s() + plan.ensemble.timeout_s
        self._running: set[asyncio.Future[Any]] = set()
        self._latest: str | None = None  # the attempt that answered last: the cause of the next ask

    async def decided(self) -> Decided:
        """Lets the ensemble decide. None of its asks runs on after that."""
        try:
            return await self._plan.ensemble.decide(self)
        finally:
            await cancel_all(self._running)

    async def replies(self, seats: Sequence[Seat]) -> AsyncGenerator[Reply, None]:
        places = dict(zip((seat.index for seat in self._plan.seats), self._plan.places, strict=True))
        limit_s = self._plan.ensemble.member_timeout_s
        tasks = [
            asyncio.ensure_future(self._ask(replace(places[seat.index], request=seat.request), seat, "member", limit_s))
            for seat in seats
        ]
        self._running.update(tasks)
        waiting = set(tasks)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in [each for each in tasks if each in done]:
                    yield task.result()
        finally:
            await cancel_all(tasks)
            self._running.difference_update(tasks)

    async def ask(self, name: str, request: ChatRequest, role: str) -> Reply:
        place = self._place(name, whole_request(request))
        return await self._ask(place, None, role, self._plan.ensemble.member_timeout_s)

    async def stream(self, name: str, request: ChatRequest, role: str) -> Reply:
        sink = self._run.sink
        if sink is None or not self._is_final:
            return await self.ask(name, request, role)
        place, said = self._place(name, streamed_request(request)), Fold()

        def keep(batch: list[ChatChunk]) -> Awaitable[None] | None:
            for chunk in batch:
                said.add(chunk)
            return sink(batch)

        reply = await self._ask(place, None, role, self._plan.ensemble.timeout_s, keep)
        if reply.error is None:
            self.streamed = reply = replace(reply, streamed=said.response())
        return reply

    def progress(self, text: str) -> None:
        run = self._run
        if run.sink is not None and run.call.request.hints.progress and not run.call.gate.is_closed:
            run.sink([cast(ChatChunk, {"choices": [{"index": 0, "delta": {"reasoning_content": f"{text}\n"}}]})])

    # --- one ask ------------------------------------------------------------------------------------------------------

    def _place(self, name: str, request: ChatRequest) -> Place:
        """The place of a follower, or of a member that is asked again."""
        seated = dict(zip((seat.name for seat in self._plan.seats), self._plan.places, strict=True))
        place = self._plan.follower(name) or seated.get(name)
        if place is None:
            raise KeyError(f"{self.name} asks {name!r}, which is neither a member nor a follower")
        return replace(place, request=request)

    async def _ask(self, place: Place, seat: Seat | None, role: str, limit_s: float, sink: Sink | None = None) -> Reply:
        """The result of one ask. Raises BudgetSpent if nothing was asked yet, and a stream's failure once it began."""
        run, call = self._run, self._run.call
        number, before, began = run.number(), len(call.attempts), call.clock.monotonic_s()
        asked = Asked(place, role, seat)
        self.asked.append(asked)
        limit_s = max(0.0, min(limit_s, self._ends_s - began))
        reply = Reply(seat, is_cancelled=True)
        try:
            async with asyncio.timeout(limit_s):
                reply = await self._one(place, seat, number, sink, asked)
        except TimeoutError:
            reply = Reply(seat, error=_too_slow(place.name, limit_s))
        except ProxyError as error:
            is_first = isinstance(error, BudgetSpent) and not error.is_of_attempt and not call.attempts
            if is_first:
                raise
            reply = Reply(seat, error=error)
        finally:
            asked.attempts = run.attempts_of(number, before) or asked.attempts
            asked.latency_ms = (call.clock.monotonic_s() - began) * 1000
            asked.note(reply)
        if reply.error is not None and sink is not None and call.gate.is_closed:
            raise reply.error
        return replace(reply, attempts=reply.attempts or asked.attempts, latency_ms=asked.latency_ms)

    async def _one(self, place: Place, seat: Seat | None, number: int, sink: Sink | None, asked: Asked) -> Reply:
        if place.panel is not None:
            return await self._nested(place, place.panel, seat, sink, asked)
        dispatcher, call = self._run.dispatcher, self._run.call
        origin = Origin(self._latest if seat is None else None, number)
        await self._run.turn(number)
        try:
            if sink is None:
                answer = await dispatcher.complete(call, place.route, place.request, origin)
            else:
                gate = CommitGate(call.gate)
                answer = await dispatcher.stream(call, place.route, sink, gate, place.request, origin)
        except BudgetSpent as spent:
            if spent.is_of_attempt or call.attempts:  # else there is no room for the panel, which ends all asks
                self._run.note_ended(number)
            raise
        except BaseException:
            self._run.note_ended(number)
            raise
        self._latest = answer.attempts[-1]
        names = tuple(each.name for each in answer.deployments)
        return Reply(seat, cast("ChatResponse | None", answer.response), attempts=answer.attempts, deployments=names)

    async def _nested(self, place: Place, plan: PanelPlan, seat: Seat | None, sink: Sink | None, asked: Asked) -> Reply:
        """The answer of an ensemble that is a member or a follower of this one."""
        panel = CallPanel(self._run, replace(plan, request=place.request), is_final=sink is not None)
        asked.inner = plan, panel.asked
        try:
            decided = await panel.decided()
        finally:
            asked.attempts = tuple(each for inner in panel.asked for each in inner.attempts)
        asked.decided = decided.report
        if sink is not None and decided.response is not None:
            await self._run.write(chunks_of(decided.response))
        response = decided.response if sink is None else None
        return Reply(seat, response, attempts=decided.attempts, deployments=tuple(dict.fromkeys(_answering(panel))))


def _answering(panel: CallPanel) -> list[str]:
    return [name for each in panel.asked for name in each.deployments]


def _too_slow(name: str, limit_s: float) -> UpstreamTimeout:
    return UpstreamTimeout(f"{name} did not answer within {limit_s:g} s.", Outcome.TIMEOUT_TOTAL)
