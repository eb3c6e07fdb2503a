"""Orchestrates: the life of one request, in order, on one screen.

    bytes -> codec -> ChatRequest -> gate (limits, what the key may use, names) -> Route
          -> vault.restore -> dispatch (ledger.open, attempts) -> wire
          -> vault.keep, ledger.settle (committed) -> last bytes

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
from proxy.pipeline.reasoning_state import ReasoningState
from proxy.pipeline.timing import Clock
from proxy.routing.names import Route
from proxy.schema.chat import (
    AnyRequest,
    AnyResponse,
    ChatRequest,
    ChatResponse,
    EmbeddingsRequest,
    EmbeddingsResponse,
    RerankRequest,
    RerankResponse,
)
from proxy.schema.errors import BadRequest, ProxyError, UpstreamError
from proxy.schema.records import CallEnd, Caller, Outcome
from proxy.server.formats import chat_stream as wire
from proxy.server.formats import embeddings, rerank
from proxy.server.formats.body import named_model
from proxy.server.formats.chat import decode_chat

_NO_HEADERS: Mapping[str, str] = {}
_DECODERS: dict[type[AnyRequest], Callable[[bytes], AnyRequest]] = {
    ChatRequest: decode_chat,
    EmbeddingsRequest: embeddings.decode_embeddings,
    RerankRequest: rerank.decode_rerank,
}


class Pipeline:
    """Serves requests on one configuration. `on_end` is told of every call that ended (the log line)."""

    def __init__(
        self,
        gate: Admission,
        dispatcher: Dispatcher,
        vault: ReasoningState,
        ledger: Ledger,
        clock: Clock,
        on_end: Callable[[Call, CallEnd], None],
    ) -> None:
        self.config_version = dispatcher.config_version
        self._gate = gate
        self._dispatcher = dispatcher
        self._vault = vault
        self._ledger = ledger
        self._clock = clock
        self._on_end = on_end
        self._drains: set[asyncio.Task[None]] = set()

    async def admit(
        self,
        call_id: str,
        caller: Caller,
        body: bytes,
        kind: type[AnyRequest] = ChatRequest,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> tuple[Call, Route]:
        """The call and its route; `kind`: what its endpoint takes. Raises BadRequest, or ProxyError for a name that
        nobody answers to or that is not for this caller, and for a limit that is reached; metered as rejected where the
        body names a model.
        """
        started = self._clock.monotonic_s()
        try:
            request = hints.applied(_DECODERS[kind](body), headers)
        except BadRequest as error:
            if error.code != "invalid_json" and (model := named_model(body)) is not None:
                self._reject(Call(call_id, caller, _unread(kind, model), self._clock, started), error)
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
            answer = await self._answer(call, route)
            await self._settle(call, Outcome.OK)
        except ProxyError as error:
            await self._settle(call, _outcome(error), error)
            raise
        except BaseException as error:
            self._abandon(call, error)
            raise
        return _written(call, answer)

    async def _answer(self, call: Call, route: Route) -> AnyResponse:
        if isinstance(call.request, EmbeddingsRequest):
            return await self._embed(call, route, call.request)
        call.request = await self._vault.restore(call.caller, call.request)
        answer = await self._dispatcher.complete(call, route)
        if "choices" in answer:
            messages = [choice["message"] for choice in cast(ChatResponse, answer)["choices"]]
            await self._vault.keep(call.caller, call.answering.deployment, messages, call.request)
        return answer

    async def _embed(self, call: Call, route: Route, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """All vectors from one model, asked as often as its provider demands, one part after the other: vectors of
        two models cannot be compared, so whoever answers the first part answers all of them.
        """
        answers: list[EmbeddingsResponse] = []
        for part in embeddings.parts(request, [each.provider.embeddings_batch for each in route.candidates]):
            answers.append(cast(EmbeddingsResponse, await self._dispatcher.complete(call, route, part)))
            route = Route(route.requested, (call.answering.deployment,))
        return embeddings.joined(answers)

    async def stream(self, call: Call, route: Route) -> AsyncGenerator[bytes, None]:
        """The answer's frames. Raises ProxyError; whether that is a status or a frame is for the API layer to know."""
        writer: wire.ChunkWriter | None = None
        try:
            call.request = await self._vault.restore(call.caller, call.request)
            async with aclosing(self._dispatcher.stream(call, route)) as batches:
                async for batch in batches:
                    if writer is None:
                        name = call.answering.deployment.name
                        wants_usage = isinstance(call.request, ChatRequest) and call.request.include_usage
                        writer = wire.ChunkWriter(call.completion_id, name, call.created, wants_usage)
                    if frames := writer.write(batch):
                        yield frames
            messages = [message for attempt in call.answered for message in attempt.fold.tool_messages()]
            await self._vault.keep(call.caller, call.answering.deployment, messages, call.request)
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
                self._tell_earlier(call)
                await self._ledger.settle(end)
            else:
                self._ledger.reject(call.opening(self.config_version), end)
        finally:
            self._ended(call, end)

    def _tell_earlier(self, call: Call) -> None:
        """The call's end brings the end of its last attempt; others may have run beside it."""
        if earlier := call.earlier:
            self._ledger.end(call.id, earlier)

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
        self._tell_earlier(call)
        self._ledger.close(end)
        self._ended(call, end)


def _written(call: Call, answer: AnyResponse) -> bytes:
    """The answer of a settled call, as its endpoint gives it."""
    request, model, usage = call.request, call.answering.deployment.name, call.usage()
    if isinstance(request, EmbeddingsRequest):
        return embeddings.whole(cast(EmbeddingsResponse, answer), request, model, usage)
    if isinstance(request, RerankRequest):
        return rerank.whole(cast(RerankResponse, answer), request, f"rerank-{call.id}", model, usage)
    return wire.whole(cast(ChatResponse, answer), call.completion_id, model, call.created, usage)


def _unread(kind: type[AnyRequest], model: str) -> AnyRequest:
    """What stands for a request that could not be read, in its row and in the log."""
    if kind is EmbeddingsRequest:
        return EmbeddingsRequest(model=model, inputs=[], fields={})
    if kind is RerankRequest:
        return RerankRequest(model=model, query="", documents=[], fields={})
    return ChatRequest(model=model, messages=[], fields={})


def _outcome(error: ProxyError) -> Outcome:
    if isinstance(error, UpstreamError):
        return error.outcome
    return Outcome.REJECTED if isinstance(error, BadRequest) or error.status in (429, 503) else Outcome.UPSTREAM_ERROR
