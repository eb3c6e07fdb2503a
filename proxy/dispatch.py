"""Orchestrates: the one attempt loop. It retries and falls back until `COMMITTED` closes, and never after.

    COMMITTED     the first content, reasoning, tool or refusal delta: from here on no second model may answer
    HEADERS_SENT  the first byte to the client (the API layer's gate): from here on errors are frames

Every attempt's intent row is committed before its request leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing

from proxy import prices, tokens
from proxy.errors import ProxyError, UpstreamError, UpstreamTimeout, UpstreamTruncated
from proxy.ledger import Ledger
from proxy.metering import Attempt, Call
from proxy.providers.base import Built
from proxy.reading import Leftover, StreamReading
from proxy.records import Outcome
from proxy.routing.names import Deployment, Route
from proxy.schema import ChatChunk, ChatRequest, ChatResponse
from proxy.upstream import Upstream

MAX_ATTEMPTS = 4
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
        self._upstreams = upstreams
        self._ledger = ledger
        self._config_version = config_version
        self._random = random
        self._backoff_s = backoff_s

    async def complete(self, call: Call, route: Route) -> ChatResponse:
        """The whole answer. Raises the last candidate's UpstreamError, or StorageUnavailable before anything was
        sent.
        """
        async with aclosing(self._attempts(call, route)) as attempts:
            async for attempt, built in attempts:
                try:
                    return await self._whole(attempt, built)
                except UpstreamError as error:
                    attempt.note_failure(error)
        raise self._exhausted(call)

    async def stream(self, call: Call, route: Route) -> AsyncGenerator[list[ChatChunk], None]:
        """The answer in batches of chunks, the first of them once `COMMITTED` is closed. Raises as `complete` does."""
        async with aclosing(self._attempts(call, route)) as attempts:
            async for attempt, built in attempts:
                try:
                    async with aclosing(self._streamed(attempt, built)) as batches:
                        async for batch in batches:
                            yield batch
                    return
                except UpstreamError as error:
                    attempt.note_failure(error)
                    if attempt.committed:
                        raise
        raise self._exhausted(call)

    async def _attempts(self, call: Call, route: Route) -> AsyncGenerator[tuple[Attempt, Built], None]:
        """The next attempt, its intent committed, for as long as the one before failed and another may be made."""
        queue = list(route.candidates)
        while queue and len(call.attempts) < MAX_ATTEMPTS:
            attempt, built = await self._begin(call, queue[0])
            yield attempt, built
            if attempt.failure is None:
                return
            wait_s = self._retry_in(call, attempt)
            if wait_s is not None:
                call.begin_wait()
                await asyncio.sleep(wait_s)
                call.end_wait()
            else:
                queue = self._fall_back(queue, route, attempt.failure)

    async def _begin(self, call: Call, deployment: Deployment) -> tuple[Attempt, Built]:
        """Builds the request and commits its intent row. Nothing has left when this raises."""
        built = deployment.provider.build_request(call.request, deployment.model)
        attempt = Attempt(call, deployment)
        attempt.dropped, attempt.adapted = built.dropped, built.adapted
        opening = attempt.opening(_bound(call.request, deployment, built.http.body))
        before = call.attempts[-1] if call.attempts else None
        call.attempts.append(attempt)
        try:
            if before is None:
                await self._ledger.open(call.opening(self._config_version), opening)
            else:
                await self._ledger.intend(before.end(Outcome.UPSTREAM_ERROR), opening)
        except ProxyError:
            if before is not None:
                call.attempts.pop()  # its row does not exist; the one before is the call's last
            raise
        return attempt, built

    def _retry_in(self, call: Call, attempt: Attempt) -> float | None:
        """Seconds until the same deployment is tried again; None: it is not."""
        error, deployment = attempt.failure, attempt.deployment
        tries = sum(other.deployment.name == deployment.name for other in call.attempts)
        if error is None or not error.retryable or tries > deployment.provider.retries:
            return None
        if (error.retry_after_s or 0.0) > MAX_RETRY_AFTER_S:
            return None
        ceiling_s: float = min(MAX_BACKOFF_S, self._backoff_s * 2 ** (tries - 1))
        return max(self._random() * ceiling_s, error.retry_after_s or 0.0)

    def _fall_back(self, queue: list[Deployment], route: Route, error: UpstreamError) -> list[Deployment]:
        """Who is asked instead. A request that is wrong in itself is not carried from one provider to the next."""
        if error.code == "context_length_exceeded" and route.context_fallback:
            return [d for d in route.context_fallback if d.name != queue[0].name]
        if error.code in _FILTERED and route.content_fallback:
            return [d for d in route.content_fallback if d.name != queue[0].name]
        return [] if error.status in _CLIENT_FAULTS else queue[1:]

    def _exhausted(self, call: Call) -> ProxyError:
        error = call.answering.failure
        if error is None:
            raise RuntimeError("the attempts ended without a failure")
        if error.status >= 500:
            error.headers["x-should-retry"] = (
                "false"  # all candidates were tried; the client's retries would multiply ours
            )
        return error

    async def _whole(self, attempt: Attempt, built: Built) -> ChatResponse:
        upstream = self._upstreams[attempt.deployment.provider_name]
        attempt.note_sent()
        async with upstream.exchange(built, attempt.id, stream=False) as exchange:
            attempt.note_accepted(exchange.status, exchange.request_id)
            try:
                answer = await exchange.body()
                attempt.note_received()
                response = upstream.provider.parse_response(answer)
            except (UpstreamTruncated, UpstreamTimeout):
                attempt.lost_bytes = exchange.body_bytes
                raise
        attempt.note_whole(response)
        return response

    async def _streamed(self, attempt: Attempt, built: Built) -> AsyncGenerator[list[ChatChunk], None]:
        """One attempt's chunks. A client that leaves after the finish leaves the rest of the stream to
        `Attempt.leftover`.
        """
        upstream = self._upstreams[attempt.deployment.provider_name]
        reader = StreamReading(
            attempt, upstream.provider.stream_decoder(attempt.call.request), upstream.provider.timeout_s
        )
        attempt.note_sent()
        async with AsyncExitStack() as stack:
            exchange = await stack.enter_async_context(upstream.exchange(built, attempt.id, stream=True))
            attempt.note_accepted(exchange.status, exchange.request_id)
            held: list[ChatChunk] = []
            try:
                while (chunks := await reader.next(exchange)) is not None:
                    held += chunks
                    if held and attempt.committed:
                        yield held
                        held = []
            except (asyncio.CancelledError, GeneratorExit):
                if attempt.finished and attempt.fold.usage is None:
                    attempt.leftover = Leftover(stack.pop_all(), exchange, reader).drain
                raise
            if held:
                yield held


def _bound(request: ChatRequest, deployment: Deployment, body: bytes) -> int | None:
    """An upper bound of one attempt's cost in nano-USD; None: no price is known, or no limit of its output."""
    price = deployment.price
    if price is None:
        return None
    limit = request.max_tokens or price.max_output or price.context
    if limit is None and price.output:
        return None
    return prices.upper_bound(price, tokens.input_bound(body, len(request.messages)), (limit or 0) * request.n)
