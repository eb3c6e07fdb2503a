"""Orchestrates: one deployment for one call: attempts, retries, and emulation of features the vendor lacks.

AttemptLoop   gets one answer from one deployment, in one ask or several (`emulate`)
an ask        is retried where that may help, until its gate COMMITTED closes
an attempt    is one upstream request; its intent row is committed before it is sent

A vendor never gets a second copy of a request that it may still be processing. Only refusals (error statuses) and
requests that never arrived are retried here, and time-outs where `router.retry_after_timeout` says so. Any other
failure moves on to the next candidate, or ends the call. No retry without room in the retry budgets, the call's time
and its cost, nor while the deployment's breaker is open.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count
from typing import cast

from proxy.metering import tokens
from proxy.pipeline import emulate
from proxy.pipeline.admission import EXPECTED_OUTPUT
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.conditions import changed
from proxy.pipeline.gate import CommitGate
from proxy.pipeline.native import NativeAnswer
from proxy.pipeline.off_loop import LARGE_BYTES
from proxy.pipeline.resources import Resources
from proxy.pipeline.stop_sequences import StopSequences
from proxy.pipeline.stream_reader import StreamReader, in_turns
from proxy.providers.base.building import build, passes
from proxy.providers.base.contract import Built
from proxy.providers.base.reading import parse
from proxy.routing.ask import Answer, Origin, Sink
from proxy.routing.deployment import Deployment
from proxy.routing.fallback import FallbackOrder
from proxy.routing.plan import attempt_bound
from proxy.schema.attempt_state import AttemptState
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.endpoints import AnyRequest, AnyResponse
from proxy.schema.errors import BadRequest, BudgetSpent, ProxyError, Received, UpstreamError, UpstreamTimeout
from proxy.schema.json_check import JSONCheck
from proxy.schema.records import AttemptEnd, Outcome
from proxy.upstream.keys import Lease
from proxy.upstream.upstream import Exchange

AT_ONCE = 16  # concurrent asks of one call: more would flood the vendor, or queue too long for its `max_concurrent`
MAX_BACKOFF_S = 8.0
MAX_RETRY_AFTER_S = 10.0  # a longer Retry-After moves the call to the next candidate
_MAX_NAMED, _MAX_NAME = 32, 64  # parameter names reported to the client, and characters of each


class AttemptLoop:
    """Asks one deployment for one call, each time with at most `tries` attempts. Implements `emulate.SeatAsk`."""

    def __init__(self, resources: Resources, call: Call, deployment: Deployment, tries: int, gate: CommitGate) -> None:
        self.tried = 0  # the most attempts that any one ask has made
        self.order: FallbackOrder | None = None  # tells whether another deployment may be asked instead
        self.off_loop = resources.off_loop
        self.at_once = min(deployment.provider.max_concurrent or AT_ONCE, AT_ONCE)
        self._resources = resources
        self._call = call
        self._deployment = deployment
        self._upstream = resources.upstreams[deployment.provider_name]
        self._tries = min(deployment.provider.retries + 1, tries) if resources.router.auto_retry else 1
        self._gate = gate
        self._adapted: list[str] = []  # parameters emulated by several asks
        self._check: JSONCheck | None = None

    async def answer(self, request: AnyRequest, origin: Origin) -> Answer:
        """The whole answer, of one ask or several. Raises UpstreamError, BadRequest, CostLimit, StorageUnavailable."""
        while seats := self._seats(request):
            try:
                answer = await emulate.complete_together(self, seats, origin.parent)
                break
            except BudgetSpent as error:
                request = await self._resources.holds.shortened_for_seats(self._call, self._deployment, request, error)
        else:
            answer = await self._ask(request, origin, None)
        if self._check is None:
            return answer
        sizes = [seat.n for seat in seats] or [request.n]
        return await emulate.checked(self, cast(ChatRequest, request), answer, self._check, sizes)

    async def answer_stream(self, request: ChatRequest, sink: Sink, origin: Origin) -> Answer:
        """The same, streamed. JSON is not checked: by the time an error shows, the text has been sent."""
        while seats := self._seats(request):
            try:
                return await emulate.stream_together(self, seats, sink, origin.parent)
            except BudgetSpent as error:
                shorter = await self._resources.holds.shortened_for_seats(self._call, self._deployment, request, error)
                request = cast(ChatRequest, shorter)
        return await self._ask(request, origin, sink, self._gate)

    def _seats(self, request: AnyRequest) -> list[ChatRequest]:
        """The concurrent requests that together produce all choices; [] if one request is enough."""
        if request.n == 1:
            return []
        chat = cast(ChatRequest, request)
        seats = emulate.seats(chat, self._deployment.provider.choices_per_call(chat, self._deployment.model))
        if len(seats) > chat.questions:
            self._adapted.append("n")
        return seats if len(seats) > 1 else []

    async def complete(self, request: AnyRequest, origin: Origin) -> Answer:
        return await self._ask(request, origin, None)

    async def stream(self, request: ChatRequest, sink: Sink, origin: Origin) -> Answer:
        return await self._ask(request, origin, sink, CommitGate(self._gate))

    async def _ask(
        self, request: AnyRequest, origin: Origin, sink: Sink | None, gate: CommitGate | None = None
    ) -> Answer:
        """`gate`: a stream's own. With a single ask it is the gate of the loop, which a hedge shares."""
        gate = gate or CommitGate(self._gate)
        self._resources.board.budgets.note_request(self._deployment.provider_name, self._call.caller.key_id)
        refused: UpstreamError | None = None
        if self._deployment.model in self._upstream.other_api and request.fields.get("tools"):
            request = request.by_other_api() or request
        for tried in count(1):
            attempt = await self._resources.holds.open(self._call, self._deployment, request, origin)
            try:
                response = await self._run(attempt, sink, gate)
                if refused is not None:
                    self._upstream.other_api.add(self._deployment.model)
                return Answer(response, (attempt.id,), (self._deployment,))
            except UpstreamError as error:
                if gate.is_closed:
                    raise
                if refused is not None and error.upstream_status in (404, 405):  # the server has no such API
                    raise refused from error
                if error.other_api and (again := request.by_other_api()) is not None:
                    request, refused = again, error
                    continue
                await self._wait_or_raise(error, request, tried)
        raise RuntimeError("the attempts ended without a failure")

    async def _wait_or_raise(self, error: UpstreamError, request: AnyRequest, tried: int) -> None:
        """Sleeps until the next retry. Raises `error` if there is none."""
        self.tried = max(self.tried, tried)
        wait_s = self._wait_s(error, tried)
        if wait_s is None or not (error.other_key or self._may_repeat(request, wait_s)):
            raise error
        self._call.time.begin_wait()
        try:
            await asyncio.sleep(wait_s)
        finally:
            self._call.time.end_wait()
        if wait_s and self._resources.board.is_open(self._deployment.name):
            raise error  # its breaker has opened in the meantime; only a probe may close it

    def _wait_s(self, error: UpstreamError, tried: int) -> float | None:
        """The back-off before the next retry, with full jitter; None: a retry would not help."""
        resources, retry_after_s = self._resources, error.retry_after_s or 0.0
        may_resend = error.resendable or (resources.router.retry_after_timeout and isinstance(error, UpstreamTimeout))
        if not may_resend or tried >= self._tries or retry_after_s > MAX_RETRY_AFTER_S:
            return None
        if error.other_key:
            return 0.0
        if (retry_after_s or error.status == 429) and self.order is not None and self.order.peek(self._deployment.name):
            return None  # the vendor asked for time, and another deployment may answer at once
        ceiling_s: float = min(MAX_BACKOFF_S, resources.backoff_s * 2 ** (tried - 1))
        return max(resources.random() * ceiling_s, retry_after_s)

    def _may_repeat(self, request: AnyRequest, wait_s: float) -> bool:
        """True if the call has time and money for another attempt, and the retry budgets have room."""
        call, name = self._call, self._deployment.name
        if wait_s >= call.time_left_s:
            return False
        if call.limits_cost and call.refusal(name, attempt_bound(request, self._deployment)):
            return False
        return self._resources.board.takes_extra(name, call.caller.key_id)

    # --- one attempt --------------------------------------------------------------------------------------------------

    async def _run(self, attempt: Attempt, sink: Sink | None, gate: CommitGate) -> AnyResponse | None:
        """The answer; None if it was streamed into `sink`. The attempt has ended when this returns or raises."""
        exchange: Exchange | None = None
        try:
            response: AnyResponse | None = None
            if attempt.request.size <= LARGE_BYTES:
                built = self._build(attempt)
            else:
                built = await self._resources.off_loop.run(attempt.request.size, partial(self._build, attempt))
            exchange = self._exchange(attempt, built, stream=sink is not None)
            del built  # its body may be large, and the exchange lets go of it once it is sent
            if sink is None:
                response = await self._whole(attempt, exchange)
            else:
                await self._streamed(attempt, exchange, sink, gate)
            if attempt.request.fields.get("tools"):
                attempt.note_tool_calls(response)
            if attempt.lacks_price and (book := self._deployment.book) is not None:
                await book.load()
        except UpstreamError as error:
            if error.received is not None:
                self._note_received(attempt, error, error.received)
            elif error.param is not None:
                error.rename(attempt.request.own_path(error.param))
            attempt.fail(error)
            raise
        except ProxyError as error:
            attempt.end(Outcome.REJECTED, error.code)
            raise
        except asyncio.CancelledError:
            attempt.end(self._call.cancelled_by or Outcome.CANCELLED)
            raise
        except BaseException:
            attempt.end(Outcome.UNKNOWN)
            raise
        else:
            attempt.end(Outcome.OK)
            return response
        finally:
            if attempt.ended is not None:
                if exchange is not None and exchange.lease is not None:
                    _settle(exchange.lease, attempt.ended)
                self._resources.ledger.end(attempt.ended)
                attempt.tell(self._resources.board)
                self._resources.observe(attempt)

    def _note_received(self, attempt: Attempt, error: UpstreamError, received: Received) -> None:
        """Keeps the vendor's own error for clients that speak its dialect."""
        if attempt.native is None:
            error.received = None
        else:
            error.headers |= self._upstream.provider.native_headers(received.headers)

    def _exchange(self, attempt: Attempt, built: Built, stream: bool) -> Exchange:
        """The exchange that sends the request."""
        exchange = self._upstream.exchange(built, attempt.id, stream=stream, on_sent=attempt.note_sent)
        if self._upstream.keys is not None and self._upstream.keys.counts_tokens:
            prompt, limit = tokens.estimate_prompt(attempt.request), attempt.request.output_limit(EXPECTED_OUTPUT)
            exchange.expected = prompt, limit or 0
        return exchange

    def _build(self, attempt: Attempt) -> Built:
        """The vendor's request. Dropped and adapted parameters are recorded on the attempt.

        Raises BadRequest for content the vendor cannot take, for any loss in a `strict` request, and for a schema or
        stop sequences that cannot be checked.
        """
        request, deployment = attempt.request, self._deployment
        try:
            built = build(deployment.provider, request, deployment.model)
        except RecursionError:  # encoding runs deeper in the stack than decoding did
            raise BadRequest("The JSON body is nested too deeply.", code="invalid_json") from None
        if passes(deployment.provider, request):
            attempt.native = NativeAnswer()
        if built.dropped or built.adapted:
            attempt.dropped, attempt.adapted = _printable_names(built.dropped), _printable_names(built.adapted)
        if built.unchecked_json:
            if request.stream:
                attempt.adapted = [*attempt.adapted, "response_format"]
            elif self._check is None:
                self._check = JSONCheck(request.fields.get("response_format") or {})
        if request.hints.strict and (lost := list(dict.fromkeys([*attempt.dropped, *attempt.adapted]))):
            raise changed(deployment.name, lost)
        if self._adapted or built.stops:
            attempt.adapted = [*attempt.adapted, *self._adapted, *(["stop"] if built.stops else [])]
        attempt.cut = StopSequences(built.stops) if built.stops else None
        return built

    async def _whole(self, attempt: Attempt, exchange: Exchange) -> AnyResponse:
        attempt.begin_wait()
        async with exchange:
            attempt.note_accepted(exchange.status, exchange.request_id)
            if attempt.native is not None:
                attempt.native.headers = self._upstream.provider.native_headers(exchange.headers)
            answer = await exchange.body()
            attempt.note_received()
            size = len(answer.body)
            self._call.answer_bytes += size
            if size <= LARGE_BYTES:
                response = parse(self._upstream.provider, attempt.request, answer)
            else:
                reading = partial(parse, self._upstream.provider, attempt.request, answer)
                response = await self._resources.off_loop.run(size, reading)
        attempt.note_whole(response)
        attempt.request.check(response)
        if attempt.native is not None and answer.body[:64].lstrip().startswith(b"{"):
            attempt.native.whole = answer.body
        else:
            attempt.native = None  # an event stream, or a list of them: the client waits for one object
        if attempt.cut is None:
            return response
        return await self._resources.off_loop.run(size, partial(attempt.cut.whole, cast(ChatResponse, response)))

    async def _streamed(self, attempt: Attempt, exchange: Exchange, sink: Sink, gate: CommitGate) -> None:
        provider, cut = self._upstream.provider, attempt.cut
        attempt.begin_wait()
        async with exchange:
            attempt.note_accepted(exchange.status, exchange.request_id)
            if attempt.native is not None:
                attempt.native.headers = provider.native_headers(exchange.headers)
            decoder = provider.stream_decoder(cast(ChatRequest, attempt.request))
            reader = StreamReader(attempt, decoder, provider.timeout_s, exchange, self._resources.off_loop)
            batch = []
            try:
                while (chunks := await reader.next()) is not None:
                    batch += chunks if cut is None else cut.feed(chunks)
                    if not batch or not attempt.committed:
                        continue
                    if gate.attempt is not attempt and not await gate.claim(attempt):
                        raise asyncio.CancelledError
                    for turn in in_turns(batch) if reader.is_large else (batch,):
                        if (wait := sink(turn)) is not None:
                            await reader.pause(wait)
                    batch = []
            except asyncio.CancelledError:
                if attempt.state is AttemptState.FINISHED:
                    await reader.drain()
                raise


def _settle(lease: Lease, ended: AttemptEnd) -> None:
    """Corrects the reservation in the key's minute. Of an answer that never arrived, only the prompt counts."""
    used = ended.tokens
    lease.settle(max(used.prompt, lease.prompt) if ended.usage_source == "unknown" else used.total)


def _printable_names(names: list[str]) -> list[str]:
    """Parameter names made safe for headers, rows and errors: clients choose them."""
    shown = [
        "".join(letter if letter.isprintable() and letter != "," else "?" for letter in name[:_MAX_NAME])
        for name in names[:_MAX_NAMED]
    ]
    return [*shown, "..."] if len(names) > _MAX_NAMED else shown
