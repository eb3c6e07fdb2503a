"""Orchestrates: the life of one request, in order, on one screen.

    bytes -format.decode-> request -hints-> request -admission (limits, what the key may use, names)-> Route
      -> reasoning state restored -> dispatch (ledger.open, attempts) -> answer, or chunks
      -> reasoning state kept, ledger.settle (committed) -> format.whole / writer.tail -> last bytes

Settle before the end: what tells a client that its answer is complete leaves only after its row is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import cast

from proxy.metering.ledger import Ledger
from proxy.pipeline import hints
from proxy.pipeline.admission import Admission
from proxy.pipeline.call import Call
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.format import Format, StreamWriter
from proxy.pipeline.reasoning_state import ReasoningState
from proxy.pipeline.timing import Clock
from proxy.routing.names import Route
from proxy.schema.chat import AnyResponse, ChatResponse
from proxy.schema.errors import BadRequest, ProxyError, UpstreamError
from proxy.schema.json import named_model
from proxy.schema.records import CallEnd, Caller, Outcome

_NO_HEADERS: Mapping[str, str] = {}


class Pipeline:
    """Serves requests on one configuration. `on_end` is told of every call that ended (the log line)."""

    def __init__(
        self,
        admission: Admission,
        dispatcher: Dispatcher,
        reasoning: ReasoningState,
        ledger: Ledger,
        clock: Clock,
        on_end: Callable[[Call, CallEnd], None],
    ) -> None:
        self.config_version = dispatcher.config_version
        self._admission = admission
        self._dispatcher = dispatcher
        self._reasoning = reasoning
        self._ledger = ledger
        self._clock = clock
        self._on_end = on_end
        self._drains: set[asyncio.Task[None]] = set()

    async def admit(
        self, call_id: str, caller: Caller, body: bytes, format: Format, headers: Mapping[str, str] = _NO_HEADERS
    ) -> tuple[Call, Route]:
        """The call and its route. Raises BadRequest for a body or hint that cannot be used, ProxyError for a name that
        nobody answers to or that is not for this caller, and for a limit that is reached. A refusal is metered as
        rejected where the body names a model.
        """
        started = self._clock.monotonic_s()
        try:
            request = hints.applied(format.decode(body), headers)
        except BadRequest as error:
            if (model := named_model(body)) is not None:
                self._reject(Call(call_id, caller, format.unread(model), self._clock, started), error)
            raise
        call = Call(call_id, caller, request, self._clock, started)
        try:
            return call, await self._admission.admit(call)
        except ProxyError as error:
            self._reject(call, error)
            raise
        except BaseException:
            call.note_ended()
            raise

    def _reject(self, call: Call, error: ProxyError) -> None:
        end = call.end(Outcome.REJECTED, error)
        self._ledger.reject(call.opening(self.config_version), end)
        self._ended(call, end)

    async def complete(self, call: Call, route: Route, format: Format) -> bytes:
        """The whole answer, settled. Raises ProxyError."""
        try:
            answer = await self._answer(call, route)
            await self._settle(call, Outcome.OK)
        except ProxyError as error:
            await self._settle(call, _outcome(error), error)
            raise
        except BaseException as error:
            self._abandon(call, error)
            raise
        return format.whole(call, answer)

    async def _answer(self, call: Call, route: Route) -> AnyResponse:
        """Whoever answers the first part of a request answers all parts: vectors of two models cannot be compared."""
        request = call.request = await self._reasoning.restore(call.caller, call.request)
        answers: list[AnyResponse] = []
        for part in request.parts(candidate.provider.embeddings_batch for candidate in route.candidates):
            answers.append(await self._dispatcher.complete(call, route, part))
            route = Route(route.requested, (call.answering.deployment,))
        answer: AnyResponse = request.joined(answers)
        messages = [choice["message"] for choice in cast(ChatResponse, answer).get("choices", ())]
        await self._reasoning.keep(call.caller, call.answering.deployment, messages, call.request)
        return answer

    async def stream(self, call: Call, route: Route, writer: StreamWriter) -> AsyncGenerator[bytes, None]:
        """The answer's frames. Raises ProxyError; whether that is a status or a frame is for the API layer to know."""
        is_begun = False
        try:
            call.request = await self._reasoning.restore(call.caller, call.request)
            async with aclosing(self._dispatcher.stream(call, route)) as batches:
                async for batch in batches:
                    is_begun = True
                    if frames := writer.write(batch):
                        yield frames
            messages = [message for attempt in call.answered for message in attempt.fold.tool_messages()]
            await self._reasoning.keep(call.caller, call.answering.deployment, messages, call.request)
            await self._settle(call, Outcome.OK)
        except ProxyError as error:
            await self._settle(call, _outcome(error), error)
            raise
        except BaseException as error:
            self._abandon(call, error)
            raise
        if is_begun:
            yield writer.tail(call.usage())

    async def close(self) -> None:
        """Waits for the streams that are being drained; each takes a second at most."""
        await asyncio.gather(*self._drains, return_exceptions=True)

    async def _settle(self, call: Call, outcome: Outcome, error: ProxyError | None = None) -> None:
        call.settled = end = call.end(outcome, error)
        try:
            if call.attempts:
                self._tell_ends(call)
                await self._ledger.settle(end)
            else:
                self._ledger.reject(call.opening(self.config_version), end)
        finally:
            self._ended(call, end)

    def _tell_ends(self, call: Call) -> None:
        """The ends of its attempts go before the call's own."""
        for end in call.ends:
            self._ledger.end(end)

    def _ended(self, call: Call, end: CallEnd) -> None:
        call.note_ended()
        self._on_end(call, end)

    def _abandon(self, call: Call, error: BaseException) -> None:
        """The client left, the server stops, or a bug: settles without waiting for anything."""
        if call.settled is not None:
            return
        if any(attempt.leftover for attempt in call.attempts):
            task = asyncio.get_running_loop().create_task(self._drain(call, error))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)
        else:
            self._close(call, error)

    async def _drain(self, call: Call, error: BaseException) -> None:
        try:
            await asyncio.gather(*(attempt.leftover() for attempt in call.attempts if attempt.leftover is not None))
        finally:
            self._close(call, error)

    def _close(self, call: Call, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            end = call.end(Outcome.CLIENT_CLOSED if call.client_gone else Outcome.CANCELLED)
        else:
            end = call.end(Outcome.UNKNOWN)
        call.settled = end
        self._tell_ends(call)
        self._ledger.close(end)
        self._ended(call, end)


def _outcome(error: ProxyError) -> Outcome:
    if isinstance(error, UpstreamError):
        return error.outcome
    return Outcome.REJECTED if isinstance(error, BadRequest) or error.status in (429, 503) else Outcome.UPSTREAM_ERROR
