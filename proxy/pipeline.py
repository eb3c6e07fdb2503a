"""Orchestrates: the life of one request, in order, on one screen.

    bytes -> codec -> ChatRequest -> gate (limits, what the key may use, names) -> Route
          -> dispatch (ledger.open, attempts) -> wire -> ledger.settle (committed) -> last bytes

Settle before the end: what tells a client that its answer is complete leaves only after its row is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from proxy import wire
from proxy.codec import decode_chat, named_model
from proxy.dispatch import Dispatcher
from proxy.errors import BadRequest, ProxyError, UpstreamError
from proxy.ledger import Ledger
from proxy.metering import Call, Clock
from proxy.permits import Gate
from proxy.records import CallEnd, Caller, Outcome
from proxy.routing.names import Route
from proxy.schema import ChatRequest


class Pipeline:
    """Serves chat requests on one configuration. `on_end` is told of every call that ended (the log line)."""

    def __init__(
        self,
        gate: Gate,
        dispatcher: Dispatcher,
        ledger: Ledger,
        clock: Clock,
        on_end: Callable[[Call, CallEnd], None],
        config_version: str = "",
    ) -> None:
        self.config_version = config_version
        self._gate = gate
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._clock = clock
        self._on_end = on_end
        self._drains: set[asyncio.Task[None]] = set()

    async def admit(self, call_id: str, caller: Caller, body: bytes) -> tuple[Call, Route]:
        """The call and its route. Raises BadRequest, or ProxyError for a name that nobody answers to or that is not for
        this caller, and for a limit that is reached; metered as rejected where the body names a model.
        """
        started = self._clock.monotonic_s()
        try:
            request = decode_chat(body)
        except BadRequest as error:
            if (model := named_model(body)) is not None:
                refused = ChatRequest(model=model, messages=[], fields={})
                self._reject(Call(call_id, caller, refused, self._clock, started), error)
            raise
        call = Call(call_id, caller, request, self._clock, started)
        try:
            return call, await self._gate.admit(call)
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

    async def complete(self, call: Call, route: Route) -> bytes:
        """The whole answer, settled. Raises ProxyError."""
        try:
            response = await self._dispatcher.complete(call, route)
            await self._settle(call, Outcome.OK)
        except ProxyError as error:
            await self._settle(call, _outcome(error), error)
            raise
        except BaseException as error:
            self._abandon(call, error)
            raise
        return wire.whole(response, call.completion_id, call.answering.deployment.name, call.created, call.usage())

    async def stream(self, call: Call, route: Route) -> AsyncGenerator[bytes, None]:
        """The answer's frames. Raises ProxyError; whether that is a status or a frame is for the API layer to know."""
        writer: wire.ChunkWriter | None = None
        try:
            async with aclosing(self._dispatcher.stream(call, route)) as batches:
                async for batch in batches:
                    if writer is None:
                        name = call.answering.deployment.name
                        writer = wire.ChunkWriter(call.completion_id, name, call.created, call.request.include_usage)
                    if frames := writer.write(batch):
                        yield frames
            await self._settle(call, Outcome.OK)
        except ProxyError as error:
            await self._settle(call, _outcome(error), error)
            raise
        except BaseException as error:
            self._abandon(call, error)
            raise
        if writer is not None:
            yield writer.tail(call.usage())

    async def close(self) -> None:
        """Waits for the streams that are being drained; each takes a second at most."""
        await asyncio.gather(*self._drains, return_exceptions=True)

    async def _settle(self, call: Call, outcome: Outcome, error: ProxyError | None = None) -> None:
        call.settled = end = call.end(outcome, error)
        try:
            if call.attempts:
                await self._ledger.settle(end)
            else:
                self._ledger.reject(call.opening(self.config_version), end)
        finally:
            self._ended(call, end)

    def _ended(self, call: Call, end: CallEnd) -> None:
        call.note_ended()
        self._on_end(call, end)

    def _abandon(self, call: Call, error: BaseException) -> None:
        """The client left, the server stops, or a bug: settles without waiting for anything."""
        if call.settled is not None:
            return
        attempt = call.attempts[-1] if call.attempts else None
        if attempt is not None and attempt.leftover is not None:
            task = asyncio.get_running_loop().create_task(self._drain(call, error))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)
        else:
            self._close(call, error)

    async def _drain(self, call: Call, error: BaseException) -> None:
        try:
            leftover = call.answering.leftover
            if leftover is not None:
                await leftover()
        finally:
            self._close(call, error)

    def _close(self, call: Call, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            end = call.end(Outcome.CLIENT_CLOSED if call.client_gone else Outcome.CANCELLED)
        else:
            end = call.end(Outcome.UNKNOWN)
        call.settled = end
        self._ledger.close(end)
        self._ended(call, end)


def _outcome(error: ProxyError) -> Outcome:
    if isinstance(error, UpstreamError):
        return error.outcome
    return Outcome.REJECTED if isinstance(error, BadRequest) or error.status in (429, 503) else Outcome.UPSTREAM_ERROR
