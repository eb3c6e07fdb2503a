"""Orchestrates: who is asked for one call, how often, after what wait. It retries and falls back until `COMMITTED`
closes, and never after.

    COMMITTED     the first content, reasoning, tool or refusal delta: from here on no second model may answer
    HEADERS_SENT  the first byte to the client (the API layer's gate): from here on errors are frames

    Dispatcher    falls back from deployment to deployment
    Asking        asks one deployment, with its retries; what that deployment lacks is made of several asks (`emulate`)
    attempt       one request upstream, its intent row committed before it leaves
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from itertools import count
from typing import cast

from proxy import prices, tokens
from proxy.errors import BadRequest, ProxyError, UpstreamError, UpstreamTimeout, UpstreamTruncated
from proxy.json_answers import JSONCheck
from proxy.ledger import Ledger
from proxy.metering import Attempt, Call
from proxy.providers.base import Built, build, parse
from proxy.reading import Leftover, StreamReading
from proxy.records import Outcome
from proxy.routing import content, emulate
from proxy.routing.names import Deployment, Route
from proxy.schema import AnyRequest, AnyResponse, ChatChunk, ChatRequest, ChatResponse
from proxy.stops import StopCut
from proxy.upstream import Upstream

MAX_ATTEMPTS = 4  # of one ask, one after the other
BACKOFF_S = 0.5  # ceiling of the first wait; full jitter, doubles
MAX_BACKOFF_S = 8.0
MAX_RETRY_AFTER_S = 10.0  # a provider that asks for more is left for the next candidate
_CLIENT_FAULTS = (400, 413, 422)  # another model would say the same
_FILTERED = ("content_filter", "content_policy_violation")


class Dispatcher:
    """Runs a route's deployments until one answers."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        ledger: Ledger,
        config_version: str,
        random: Callable[[], float],
        backoff_s: float = BACKOFF_S,
    ) -> None:
        self.upstreams = upstreams
        self.ledger = ledger
        self.config_version = config_version
        self.random = random
        self.backoff_s = backoff_s

    async def complete(self, call: Call, route: Route, request: AnyRequest | None = None) -> AnyResponse:
        """The whole answer to `request` (None: the call's own; a call may ask for several, one after the other).

        Raises the last candidate's UpstreamError, BadRequest for what the first cannot be sent, or StorageUnavailable
        before anything was sent.
        """
        request = request or call.request
        course = _Course(route, request)
        while True:
            asking = Asking(self, call, course)
            try:
                return await asking.answer(request)
            except (UpstreamError, BadRequest) as error:
                await asking.withdraw()
                course.fall_back(error, asking.tried)

    async def stream(self, call: Call, route: Route) -> AsyncGenerator[list[ChatChunk], None]:
        """The answer in batches of chunks, the first of them once `COMMITTED` is closed. Raises as `complete` does."""
        request = call.request
        if not isinstance(request, ChatRequest):
            raise TypeError("only chat is streamed")
        course = _Course(route, request)
        while True:
            asking = Asking(self, call, course)
            is_committed = False
            try:
                async with aclosing(asking.answer_stream(request)) as batches:
                    async for batch in batches:
                        is_committed = True
                        yield batch
                return
            except (UpstreamError, BadRequest) as error:
                await asking.withdraw()
                if is_committed:
                    raise
                course.fall_back(error, asking.tried)


class _Course:
    """Who is asked next for one request. Raises BadRequest where none of the candidates takes what it holds."""

    def __init__(self, route: Route, request: AnyRequest) -> None:
        self._route = route
        self._parts = content.held(request)
        self._queue = self._able(route.candidates)
        self._failure: UpstreamError | None = None
        self.tries_left = MAX_ATTEMPTS
        if not self._queue and (refusal := content.refusal(self._parts, route.candidates[0])) is not None:
            raise refusal

    @property
    def deployment(self) -> Deployment:
        return self._queue[0]

    def fall_back(self, error: UpstreamError | BadRequest, tried: int) -> None:
        """On to the next candidate; raises the last failure when there is none.

        What cannot be sent is the caller's mistake where it is found first; of a later candidate it only says that this
        one does not stand in.
        """
        if isinstance(error, UpstreamError):
            self._failure = error
            self.tries_left -= tried
            self._queue = self._instead(error)
        elif self._failure is None:
            raise error
        else:
            self._queue = self._queue[1:]
        failure = self._failure
        if self._queue and self.tries_left > 0:
            return
        if failure.status >= 500:  # all candidates were tried; the client's retries would multiply ours
            failure.headers["x-should-retry"] = "false"
        raise failure

    def _instead(self, error: UpstreamError) -> list[Deployment]:
        """Who is left. A request that is wrong in itself is not carried from one provider to the next."""
        route, failed = self._route, self.deployment.name
        if error.code == "context_length_exceeded" and route.context_fallback:
            return [d for d in self._able(route.context_fallback) if d.name != failed]
        if error.code in _FILTERED and route.content_fallback:
            return [d for d in self._able(route.content_fallback) if d.name != failed]
        return [] if error.status in _CLIENT_FAULTS else self._queue[1:]

    def _able(self, deployments: tuple[Deployment, ...]) -> list[Deployment]:
        """Those that take what the request holds."""
        if not self._parts:
            return list(deployments)
        return [d for d in deployments if content.refusal(self._parts, d) is None]


class Asking:
    """One deployment, asked for one call: the `Ask` that is lent to what asks more than once."""

    def __init__(self, dispatcher: Dispatcher, call: Call, course: _Course) -> None:
        self.tried = 0  # attempts, one after the other, of the ask that made most
        self._dispatcher = dispatcher
        self._call = call
        self._deployment = course.deployment
        self._upstream = dispatcher.upstreams[course.deployment.provider_name]
        self._tries = min(course.deployment.provider.retries + 1, course.tries_left)
        self._attempts: list[Attempt] = []
        self._adapted: list[str] = []  # what several asks stand in for
        self._check: JSONCheck | None = None

    async def answer(self, request: AnyRequest) -> AnyResponse:
        """The whole answer, in as many asks as it takes."""
        if not isinstance(request, ChatRequest):
            return await self._ask(request)
        seats = self._seats(request)
        response = await (emulate.complete_together(self, seats) if seats else self.complete(request))
        return response if self._check is None else await emulate.checked(self, request, response, self._check)

    def answer_stream(self, request: ChatRequest) -> AsyncGenerator[list[ChatChunk], None]:
        """The same as a stream. JSON is not checked: what is wrong with it shows when it has left."""
        seats = self._seats(request)
        return emulate.stream_together(self, seats) if seats else self.stream(request)

    def _seats(self, request: ChatRequest) -> list[ChatRequest]:
        """What to ask at once where one ask cannot bring all choices; [] where it can."""
        if request.n == 1:
            return []
        most = self._deployment.provider.max_choices(self._deployment.model)
        if most is None or most >= request.n:
            return []
        self._adapted.append("n")
        return emulate.seats(request, most)

    async def withdraw(self) -> None:
        """Nothing of this deployment's answer is used: what it did is paid, but no part of the call's answer."""
        for attempt in self._attempts:
            if attempt in self._call.answered:
                self._call.answered.remove(attempt)
            leftover, attempt.leftover = attempt.leftover, None
            if leftover is not None:
                await leftover()
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
        ceiling_s: float = min(MAX_BACKOFF_S, self._dispatcher.backoff_s * 2 ** (tried - 1))
        self._call.begin_wait()
        try:
            await asyncio.sleep(max(self._dispatcher.random() * ceiling_s, retry_after_s))
        finally:
            self._call.end_wait()

    async def _begin(self, request: AnyRequest, before: Attempt | None) -> tuple[Attempt, Built, StopCut | None]:
        """Builds the request and commits its intent row. Nothing has left when this raises."""
        call, deployment, ledger = self._call, self._deployment, self._dispatcher.ledger
        try:
            built = build(deployment.provider, request, deployment.model)
        except RecursionError:  # it could just be read, and is written from deeper in the stack
            raise BadRequest("The JSON body is nested too deeply.", code="invalid_json") from None
        attempt = Attempt(call, deployment, request)
        cut = self._emulate(attempt, built)
        opening = attempt.opening(_bound(request, deployment, built.http.body))
        before = before or (call.attempts[-1] if call.attempts else None)
        call.attempts.append(attempt)
        self._attempts.append(attempt)
        try:
            if before is None:
                await ledger.open(call.opening(self._dispatcher.config_version), opening)
            else:
                await ledger.intend(before.ended, opening)
        except ProxyError:
            if before is not None:  # its row does not exist
                call.attempts.remove(attempt)
                self._attempts.remove(attempt)
            raise
        return attempt, built, cut

    def _emulate(self, attempt: Attempt, built: Built) -> StopCut | None:
        """Notes what the vendor is not told as the client said it, and readies what stands in for it.

        Raises BadRequest where the request is `strict` and something is lost, and for a schema or stops that cannot be
        checked.
        """
        request = attempt.request
        attempt.dropped, attempt.adapted = built.dropped, built.adapted
        if isinstance(request, ChatRequest) and built.unchecked_json:
            if request.stream:
                attempt.adapted = [*built.adapted, "response_format"]
            elif self._check is None:
                self._check = JSONCheck(request.fields.get("response_format") or {})
        if request.strict and (lost := list(dict.fromkeys([*attempt.dropped, *attempt.adapted]))):
            message = f"{self._deployment.name} cannot be sent {', '.join(lost)} as asked for (routing.strict)."
            raise BadRequest(message, param=lost[0], code="unsupported_parameter")
        if self._adapted or built.stops:
            attempt.adapted = [*attempt.adapted, *self._adapted, *(["stop"] if built.stops else [])]
        return StopCut(built.stops) if built.stops else None

    async def _whole(self, attempt: Attempt, built: Built) -> AnyResponse:
        attempt.note_sent()
        async with self._upstream.exchange(built, attempt.id, stream=False) as exchange:
            attempt.note_accepted(exchange.status, exchange.request_id)
            try:
                answer = await exchange.body()
                attempt.note_received()
                response = parse(self._upstream.provider, attempt.request, answer)
            except (UpstreamTruncated, UpstreamTimeout):
                attempt.lost_bytes = exchange.body_bytes
                raise
        attempt.note_whole(response)
        return response

    async def _streamed(
        self, attempt: Attempt, built: Built, cut: StopCut | None
    ) -> AsyncGenerator[list[ChatChunk], None]:
        """One attempt's chunks. A client that leaves after the finish leaves the rest of the stream to
        `Attempt.leftover`.
        """
        provider = self._upstream.provider
        reader = StreamReading(attempt, provider.stream_decoder(cast(ChatRequest, attempt.request)), provider.timeout_s)
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
                    attempt.leftover = Leftover(stack.pop_all(), exchange, reader).drain
                raise
            if held:
                yield held
        attempt.note_answered()


def _bound(request: AnyRequest, deployment: Deployment, body: bytes) -> int | None:
    """An upper bound of one attempt's cost in nano-USD; None: no price is known, or no limit of its output."""
    price = deployment.price
    if price is None:
        return None
    input_bound = tokens.input_bound(body, len(request.texts()))
    if not isinstance(request, ChatRequest):
        return prices.upper_bound(price, input_bound, 0)
    limit = request.max_tokens or price.max_output or price.context
    if limit is None and price.output:
        return None
    return prices.upper_bound(price, input_bound, (limit or 0) * request.n)
