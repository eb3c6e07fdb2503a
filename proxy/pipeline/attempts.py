"""Orchestrates: one deployment asked for one call: its retries, its attempts, and what stands in for what it lacks.

DeploymentAsk        an answer of one deployment, in as many asks as it takes (`emulate`)
an ask        is tried again where a failure may pass, until a delta has left
an attempt    one request upstream, its intent row committed before it leaves
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from itertools import count
from typing import cast

from msgspec import Struct

from proxy.metering import prices, tokens
from proxy.metering.ledger import Ledger
from proxy.pipeline import emulate
from proxy.pipeline.call import Attempt, Call
from proxy.pipeline.json_check import JSONCheck
from proxy.pipeline.native import NativeAnswer
from proxy.pipeline.stop_sequences import StopSequences
from proxy.pipeline.stream_reader import StreamReader, UsageDrain
from proxy.providers.base.contract import Built, build, is_native, parse
from proxy.routing.names import Deployment
from proxy.schema.chat import (
    AnyRequest,
    AnyResponse,
    ChatChunk,
    ChatRequest,
    ChatResponse,
)
from proxy.schema.errors import BadRequest, ProxyError, UpstreamError, UpstreamTimeout, UpstreamTruncated
from proxy.schema.records import Outcome
from proxy.upstream.upstream import Upstream

AT_ONCE = 16  # of one call's asks: more would be a flood to the vendor, and wait too long for its `max_concurrent`
MAX_BACKOFF_S = 8.0
MAX_RETRY_AFTER_S = 10.0  # a provider that asks for more is left for the next candidate
_MAX_NAMED, _MAX_NAME = 32, 64  # names of parameters that are told of, and characters of each


class Resources(Struct, frozen=True):
    """What one configuration asks with. `random` in [0, 1) is the share of a wait that is waited; the first is at most
    `backoff_s`, each later one at most twice the one before.
    """

    upstreams: Mapping[str, Upstream]
    ledger: Ledger
    config_version: str
    random: Callable[[], float]
    backoff_s: float


class DeploymentAsk:
    """One deployment, asked for one call, at most `tries` times at one go: the `Ask` that is lent to what asks more
    than once.
    """

    def __init__(self, resources: Resources, call: Call, deployment: Deployment, tries: int) -> None:
        self.tried = 0  # attempts, one after the other, of the ask that made most
        self._resources = resources
        self._call = call
        self._deployment = deployment
        self._upstream = resources.upstreams[deployment.provider_name]
        self._tries = min(deployment.provider.retries + 1, tries)
        self.at_once = min(deployment.provider.max_concurrent or AT_ONCE, AT_ONCE)
        self._attempts: list[Attempt] = []
        self._adapted: list[str] = []  # what several asks stand in for
        self._check: JSONCheck | None = None

    async def answer(self, request: AnyRequest) -> AnyResponse:
        """The whole answer, in as many asks as it takes."""
        seats = self._seats(request)
        response = await (emulate.complete_together(self, seats) if seats else self._ask(request))
        if self._check is None:
            return response
        return await emulate.checked(self, cast(ChatRequest, request), cast(ChatResponse, response), self._check)

    def answer_stream(self, request: ChatRequest) -> AsyncGenerator[list[ChatChunk], None]:
        """The same as a stream. JSON is not checked: what is wrong with it shows when it has left."""
        seats = self._seats(request)
        return emulate.stream_together(self, seats) if seats else self.stream(request)

    def _seats(self, request: AnyRequest) -> list[ChatRequest]:
        """What to ask at once where one ask cannot bring all choices; [] where it can."""
        if request.n == 1:
            return []
        most = self._deployment.provider.max_choices(self._deployment.model)
        if most is None or most >= request.n:
            return []
        self._adapted.append("n")
        return emulate.seats(cast(ChatRequest, request), most)

    async def withdraw(self) -> None:
        """Nothing of this deployment's answer is used: what it did is paid, but no part of the call's answer."""
        leftovers = []
        for attempt in self._attempts:
            if attempt in self._call.answered:
                self._call.answered.remove(attempt)
            if attempt.leftover is not None:
                leftovers.append(attempt.leftover())
                attempt.leftover = None
        await asyncio.gather(*leftovers)
        for attempt in self._attempts:
            attempt.end(Outcome.CANCELLED)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        return cast(ChatResponse, await self._ask(request))

    async def _ask(self, request: AnyRequest) -> AnyResponse:
        before: Attempt | None = None
        for tried in count(1):
            attempt, built, cut = await self._begin(request, before)
            try:
                response = await self._whole(attempt, built)
                return response if cut is None else cut.whole(cast(ChatResponse, response))
            except UpstreamError as error:
                attempt.note_failure(error)
                await self._wait_or_raise(error, tried)
            before = attempt
        raise RuntimeError("the attempts ended without a failure")

    async def stream(self, request: ChatRequest) -> AsyncGenerator[list[ChatChunk], None]:
        before: Attempt | None = None
        for tried in count(1):
            attempt, built, cut = await self._begin(request, before)
            is_committed = False
            try:
                async with aclosing(self._streamed(attempt, built, cut)) as batches:
                    async for batch in batches:
                        is_committed = True
                        yield batch
                return
            except UpstreamError as error:
                attempt.note_failure(error)
                if is_committed:
                    raise
                await self._wait_or_raise(error, tried)
            before = attempt

    async def _wait_or_raise(self, error: UpstreamError, tried: int) -> None:
        """Returns when the deployment may be asked again."""
        self.tried = max(self.tried, tried)
        retry_after_s = error.retry_after_s or 0.0
        if not error.retryable or tried >= self._tries or retry_after_s > MAX_RETRY_AFTER_S:
            raise error
        ceiling_s: float = min(MAX_BACKOFF_S, self._resources.backoff_s * 2 ** (tried - 1))
        self._call.time.begin_wait()
        try:
            await asyncio.sleep(max(self._resources.random() * ceiling_s, retry_after_s))
        finally:
            self._call.time.end_wait()

    async def _begin(self, request: AnyRequest, before: Attempt | None) -> tuple[Attempt, Built, StopSequences | None]:
        """Builds the request and commits its intent row. Nothing has left when this raises."""
        call, deployment, ledger = self._call, self._deployment, self._resources.ledger
        try:
            built = build(deployment.provider, request, deployment.model)
        except RecursionError:  # it could just be read, and is written from deeper in the stack
            raise BadRequest("The JSON body is nested too deeply.", code="invalid_json") from None
        attempt = Attempt(call, deployment, request)
        if is_native(deployment.provider, request):
            attempt.native = NativeAnswer()
        cut = self._emulate(attempt, built)
        opening = attempt.opening(_bound(request, deployment, built.http.body))
        before = before or (call.attempts[-1] if call.attempts else None)
        call.attempts.append(attempt)
        self._attempts.append(attempt)
        try:
            if before is None:
                await ledger.open(call.opening(self._resources.config_version), opening)
            else:
                if before.ended is not None:
                    ledger.end(before.ended)
                await ledger.intend(opening)
        except ProxyError:
            if before is not None:  # its row does not exist
                call.attempts.remove(attempt)
                self._attempts.remove(attempt)
            raise
        return attempt, built, cut

    def _emulate(self, attempt: Attempt, built: Built) -> StopSequences | None:
        """Notes what the vendor is not told as the client said it, and readies what stands in for it.

        Raises BadRequest where the request is `strict` and something is lost, and for a schema or stops that cannot be
        checked.
        """
        request = attempt.request
        attempt.dropped, attempt.adapted = _named(built.dropped), _named(built.adapted)
        if built.unchecked_json:
            if request.stream:
                attempt.adapted = [*attempt.adapted, "response_format"]
            elif self._check is None:
                self._check = JSONCheck(request.fields.get("response_format") or {})
        if request.strict and (lost := list(dict.fromkeys([*attempt.dropped, *attempt.adapted]))):
            message = f"{self._deployment.name} cannot be sent {', '.join(lost)} as asked for (routing.strict)."
            raise BadRequest(message, param=lost[0], code="unsupported_parameter")
        if self._adapted or built.stops:
            attempt.adapted = [*attempt.adapted, *self._adapted, *(["stop"] if built.stops else [])]
        return StopSequences(built.stops) if built.stops else None

    async def _whole(self, attempt: Attempt, built: Built) -> AnyResponse:
        attempt.note_sent()
        async with self._upstream.exchange(built, attempt.id, stream=False) as exchange:
            attempt.note_accepted(exchange.status, exchange.request_id)
            try:
                answer = await exchange.body()
                attempt.note_received()
                response = parse(self._upstream.provider, attempt.request, answer)
            except (UpstreamTruncated, UpstreamTimeout):
                limit = attempt.request.output_limit(_model_limit(self._deployment))
                attempt.lost_bytes = exchange.body_bytes if limit is None else min(exchange.body_bytes, 4 * limit)
                raise
        attempt.note_whole(response)
        attempt.request.check(response)
        if attempt.native is not None:
            attempt.native.whole = answer.body
        attempt.note_answered()
        return response

    async def _streamed(
        self, attempt: Attempt, built: Built, cut: StopSequences | None
    ) -> AsyncGenerator[list[ChatChunk], None]:
        """One attempt's chunks. A client that leaves after the finish leaves the rest of the stream to
        `Attempt.leftover`.
        """
        provider = self._upstream.provider
        reader = StreamReader(attempt, provider.stream_decoder(cast(ChatRequest, attempt.request)), provider.timeout_s)
        attempt.note_sent()
        async with AsyncExitStack() as stack:
            exchange = await stack.enter_async_context(self._upstream.exchange(built, attempt.id, stream=True))
            attempt.note_accepted(exchange.status, exchange.request_id)
            held: list[ChatChunk] = []
            try:
                while (chunks := await reader.next(exchange)) is not None:
                    held += chunks if cut is None else cut.feed(chunks)
                    if held and attempt.committed:
                        yield held
                        held = []
            except (asyncio.CancelledError, GeneratorExit):
                if attempt.finished and attempt.fold.usage is None:
                    attempt.leftover = UsageDrain(stack.pop_all(), exchange, reader).drain
                raise
            if held:
                yield held
        attempt.note_answered()


def _bound(request: AnyRequest, deployment: Deployment, body: bytes) -> int | None:
    """An upper bound of one attempt's cost in nano-USD; None: no price is known, or no limit of its output."""
    price = deployment.price
    if price is None:
        return None
    input_bound = tokens.input_bound(request, body)
    limit = request.output_limit(_model_limit(deployment))
    if limit is None and price.output:
        return None
    return prices.upper_bound(price, input_bound, limit or 0)


def _model_limit(deployment: Deployment) -> int | None:
    """The most tokens the model can write in one choice; None: nobody says."""
    price = deployment.price
    return None if price is None else price.max_output or price.context


def _named(names: list[str]) -> list[str]:
    """What headers, rows and errors can repeat of the names of parameters, which are the client's own words."""
    shown = [
        "".join(letter if letter.isprintable() and letter != "," else "?" for letter in name[:_MAX_NAME])
        for name in names[:_MAX_NAMED]
    ]
    return [*shown, "..."] if len(names) > _MAX_NAMED else shown
