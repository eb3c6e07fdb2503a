"""Orchestrates: the life of one request, in order, on one screen.

    bytes -format.decode-> request -hints-> request -admission (rate limits, allow-list, names)-> Route
      -> restore reasoning state -> dispatch (ledger.open, attempts) -> answer, or chunks
      -> keep reasoning state -> ledger.settle (committed) -> format.whole / writer.tail -> last bytes

Settle before the end: the bytes that mark an answer as complete are sent only after the call's row is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from msgspec.structs import replace

from proxy.metering.same_wait import SameWait
from proxy.metering.standing import left_nano
from proxy.pipeline import hints, panel, site
from proxy.pipeline.admission import Admission
from proxy.pipeline.bounds import Bounds
from proxy.pipeline.call import Call
from proxy.pipeline.conditions import marked
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.format import Format, StreamWriter
from proxy.pipeline.frames import last_frames, sink_of
from proxy.pipeline.labels import labels
from proxy.pipeline.off_loop import LARGE_BYTES, take_apart
from proxy.pipeline.reasoning_state import ReasoningState
from proxy.pipeline.running import CallOutput, RunningCall, deadline_passed, stopping
from proxy.pipeline.seating import Seated
from proxy.pipeline.timing import Clock
from proxy.routing.decision import Decision
from proxy.routing.deployment import Route
from proxy.routing.named import named
from proxy.routing.plan import plan
from proxy.routing.stored_facts import decided
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.endpoints import AnyRequest, AnyResponse
from proxy.schema.errors import BadRequest, BudgetSpent, CostLimit, ProxyError, StorageUnavailable, UpstreamError
from proxy.schema.json import named_model
from proxy.schema.records import NANO_PER_USD, CallEnd, Caller, Outcome

DEADLINE_S = 900.0
_NO_HEADERS: Mapping[str, str] = {}


class Pipeline:
    """Serves requests on one configuration. `on_end` receives every ended call (the log line, metrics)."""

    def __init__(
        self,
        admission: Admission,
        dispatcher: Dispatcher,
        reasoning: ReasoningState,
        clock: Clock,
        on_end: Callable[[Call, CallEnd], None],
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.config_version = dispatcher.resources.config_version
        self._admission = admission
        self._dispatcher = dispatcher
        self._reasoning = reasoning
        self._ledger = dispatcher.resources.ledger
        self._off_loop = dispatcher.resources.off_loop
        self._begin_trace = dispatcher.resources.begin_trace
        self._clock = clock
        self._on_end = on_end
        self._bounds = Bounds(deadline_s, deadline_s)
        self._late: SameWait | None = None
        self._running: set[RunningCall] = set()

    async def admit(
        self, call_id: str, caller: Caller, body: bytes, format: Format, headers: Mapping[str, str] = _NO_HEADERS
    ) -> tuple[Call, Route]:
        """The call and its route.

        Raises BadRequest for an invalid body or hint, and ProxyError for an unknown or forbidden model or an exhausted
        limit. A refusal is metered as rejected if the body names a model.
        """
        started = self._clock.monotonic_s()
        try:
            request = await self._read(caller, body, format, headers)
        except BadRequest as error:
            if error.code != "invalid_json":
                model = await self._off_loop.run(len(body), partial(named_model, body))
                if model is not None:
                    call = Call(call_id, caller, format.unread(model), self._clock, started)
                    if self._begin_trace is not None:
                        call.trace = self._begin_trace(call, headers)
                    self._reject(call, error)
            raise
        call = Call(call_id, caller, request, self._clock, started)
        if self._begin_trace is not None:
            call.trace = self._begin_trace(call, headers)
        call.bounds = self._bounds.narrowed(request, headers)
        call.labels = labels(request, headers)
        try:
            route = await self._admission.admit(call, headers)
            if call.decision is not None:
                call.decided = decided(call.decision, self._dispatcher.resources.mentioned)
            if (seated := call.seated) is not None:
                call.decided = replace(call.decided, strategy=seated.strategy, ensemble=seated.name)
            return call, route
        except ProxyError as error:
            self._reject(call, error)
            raise
        except BaseException:
            call.note_ended()
            raise

    async def decide(
        self, caller: Caller, body: bytes, format: Format, headers: Mapping[str, str] = _NO_HEADERS
    ) -> tuple[Decision, dict[str, Any] | None]:
        """The decision that a call would get now, and what the budgets would do. Nothing is called, metered or counted.

        Raises as `admit` does.
        """
        request = await self._read(caller, body, format, headers)
        now_ns = self._clock.unix_ns()
        return await self._admission.foresee(caller, request, headers, now_ns)

    async def _read(self, caller: Caller, body: bytes, format: Format, headers: Mapping[str, str]) -> AnyRequest:
        if len(body) <= LARGE_BYTES:
            request = format.decode(body)
        else:
            request = await self._off_loop.run(len(body), partial(format.decode, body))
        if request.references:
            answers = await self._reasoning.answers(caller, request.references)
            size = len(body) + sum(map(len, answers.values()))
            request = await self._off_loop.run(size, partial(request.resolved, answers))
        request = hints.applied(request, headers)
        return await site.applied(request, self._dispatcher.resources.sites) if "site" in request.fields else request

    def _reject(self, call: Call, error: ProxyError) -> None:
        if error.param == "messages":  # of a conversation that is too long for all models
            error.rename(call.request.own_path(error.param))
        end = call.end(Outcome.REJECTED, error)
        self._ledger.reject(call.opening(self.config_version), end)
        self._ended(call, end)

    def start(self, call: Call, route: Route, format: Format, sink: CallOutput | None = None) -> RunningCall:
        """Starts the call in its own task. Its output goes to the client, and ends once the call is settled."""
        running = RunningCall(call, format, sink)
        self._running.add(running)
        work, deadline_s = self._run(running, route), call.bounds.deadline_s
        if deadline_s == self._bounds.deadline_s:  # nearly all calls have this one: one timer serves them
            if self._late is None:
                self._late = SameWait(asyncio.get_running_loop(), deadline_s, self._expire)
            self._late.watch(running.begin(work, self._running.discard))
        else:
            running.start(work, deadline_s, self._running.discard)
        return running

    def _expire(self, task: asyncio.Future[None]) -> None:
        for running in [each for each in self._running if each.runs(task)]:
            running.expire()

    async def _run(self, running: RunningCall, route: Route) -> None:
        call, output = running.call, running.sink
        try:
            call.request = await self._reasoning.restore(call.caller, call.request)
            if call.seated is None and (
                len(route.candidates) > 1 or call.request.n > 1
            ):  # else the first attempt's own bound is the plan's
                call.bound_nano = plan(route, call.request).bound_nano or 0
            if call.request.hints.trace:
                call.traced = call.decision or marked(
                    named(route, call.request, self.config_version, call.caller.key_id), call.request
                )
            try:
                end = await self._answer(running, route)
            except BudgetSpent as spent:
                end = await self._answer(running, await self._admission.downgraded(call, route, spent))
            if call.referable is not None:
                await self._reasoning.keep_answer(call.caller, *call.referable)
        except BaseException as error:
            failure = await self._fail(call, error)
            output.end(error=failure)
            if failure is error and not isinstance(error, ProxyError) and output.is_discarded:
                raise  # a bug that nothing else would report
        else:
            output.end(end)

    async def _answer(self, running: RunningCall, route: Route) -> bytes:
        if running.call.seated is not None:
            return await self._ask_panel(running, running.call.seated)
        if running.call.request.stream:
            return await self._stream(running.call, route, running.writer, running.sink)
        return await self._complete(running.call, route, running.format)

    async def _complete(self, call: Call, route: Route, format: Format) -> bytes:
        """All parts of a request go to the deployment that answers the first: vectors of two models do not compare."""
        request, answers = call.request, []
        for part in request.parts(candidate.provider.embeddings_batch for candidate in route.candidates):
            answer = await self._dispatcher.complete(call, route, part)
            answers.append(answer)
            route = Route(route.requested, answer.deployments[-1:])
        call.note_answered([attempt for answer in answers for attempt in answer.attempts])
        self._dispatcher.note_warm(call)
        response: AnyResponse = request.joined([answer.response for answer in answers])
        messages = [choice["message"] for choice in cast(ChatResponse, response).get("choices", ())]
        if call.text is not None:
            call.text.note_whole(messages, call.answer_bytes)
        await self._reasoning.keep(call.caller, call.answering.deployment, messages, request)
        await self._settle(call, Outcome.OK)
        if call.answer_bytes <= LARGE_BYTES:
            return format.whole(call, response)
        return await self._off_loop.run(call.answer_bytes, partial(_written, format, call, response))

    async def _ask_panel(self, running: RunningCall, seated: Seated) -> bytes:
        """The answer of an ensemble: its body, or the last frames of its stream."""
        call, request = running.call, cast(ChatRequest, running.call.request)
        sink = sink_of(running.writer, running.sink, self._off_loop) if request.stream else None
        if sink is not None and call.text is not None:
            sink = call.text.folding(sink)
        answer = await panel.answered(self._dispatcher, call, seated, sink)
        call.note_answered(answer.attempts)
        call.panel_report = answer.report
        if answer.response is None:
            messages = [message for attempt in call.answered for message in attempt.tally.tool_messages()]
        else:
            messages = [choice["message"] for choice in answer.response["choices"]]
            if sink is None and call.text is not None:
                call.text.note_whole(messages, call.answer_bytes)
        await self._reasoning.keep(call.caller, call.answering.deployment, messages, request)
        await self._settle(call, Outcome.OK)
        if answer.response is None or sink is not None:
            return await last_frames(running.writer, call.usage(), running.sink, self._off_loop)
        return await self._off_loop.run(call.answer_bytes, partial(running.format.whole, call, answer.response))

    async def _stream(self, call: Call, route: Route, writer: StreamWriter, output: CallOutput) -> bytes:
        """Writes all frames except the last ones, which it returns."""
        sink = sink_of(writer, output, self._off_loop)
        request = cast(ChatRequest, call.request)
        heard = sink if call.text is None else call.text.folding(sink)
        answer = await self._dispatcher.stream(call, route, heard, call.gate, request)
        call.note_answered(answer.attempts)
        self._dispatcher.note_warm(call)
        messages = [message for attempt in call.answered for message in attempt.tally.tool_messages()]
        await self._reasoning.keep(call.caller, call.answering.deployment, messages, request)
        await self._settle(call, Outcome.OK)
        return await last_frames(writer, call.usage(), output, self._off_loop)

    async def _fail(self, call: Call, error: BaseException) -> BaseException:
        """Settles a call that failed or was cancelled. Returns the error for its reader."""
        if isinstance(error, asyncio.CancelledError) and call.cancelled_by is Outcome.TIMEOUT_TOTAL:
            error = deadline_passed(call.bounds.deadline_s, call.bounds.whose)
        if isinstance(error, ProxyError):
            if isinstance(error, UpstreamError) and error.received is not None:
                error.status = error.received.status  # the client gets the vendor's own error
            with contextlib.suppress(asyncio.CancelledError):  # the ledger already has the row
                await self._settle(call, _outcome(error), error)
            return error
        if call.settled is None:
            is_cancelled = isinstance(error, asyncio.CancelledError)
            outcome = (call.cancelled_by or Outcome.CANCELLED) if is_cancelled else Outcome.UNKNOWN
            call.settled = end = call.end(outcome)
            self._ledger.close(end)
            self._ended(call, end)
        return stopping() if isinstance(error, asyncio.CancelledError) else error

    async def _settle(self, call: Call, outcome: Outcome, error: ProxyError | None = None) -> None:
        if call.settled is not None:
            return
        call.settled = end = call.end(outcome, error)
        try:
            if call.is_open:
                await self._ledger.settle(end)
            elif isinstance(error, StorageUnavailable):
                self._ledger.close(end)  # a concurrent ask may be opening the call; otherwise this does nothing
            else:
                self._ledger.reject(call.opening(self.config_version), end)
        finally:
            self._ended(call, end)

    def _ended(self, call: Call, end: CallEnd) -> None:
        call.note_ended()
        self._on_end(call, end)

    def budget_left_usd(self, call: Call) -> float | None:
        """What is left of the caller's own budget: that of its key, or without a key the overall one."""
        own = [charge for charge in call.charges if charge.pays or call.caller.key_id is None]
        left = left_nano(own, self._ledger.spending)
        return None if left is None else left / NANO_PER_USD

    def stop_calls(self) -> None:
        """Cancels every running call. Its client gets an error: a status, or the last frame of a stream."""
        for running in list(self._running):
            running.stop()

    async def close(self) -> None:
        """Waits for calls whose clients have disconnected, and cancels the others: their owners are closed."""
        self.stop_calls()
        for running in list(self._running):
            await running.ended()
        if self._late is not None:
            self._late.close()


def _outcome(error: ProxyError) -> Outcome:
    if isinstance(error, UpstreamError):
        return error.outcome
    return (
        Outcome.REJECTED
        if isinstance(error, BadRequest | CostLimit) or error.status in (429, 503)
        else Outcome.UPSTREAM_ERROR
    )


def _written(format: Format, call: Call, response: AnyResponse) -> bytes:
    """A large answer for the client. Values are freed in steps, except messages, which may have other readers."""
    body = format.whole(call, response)
    dropped = cast(dict[str, Any], response)
    for choice in dropped.get("choices", ()):
        choice.pop("message", None)
    take_apart(dropped)
    return body
