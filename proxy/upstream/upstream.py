"""Performs I/O: the only HTTP to providers. One Upstream per provider: its origin, its key, its time-outs, its caps.

A configuration has its own Upstreams; the Pools under them outlive a reload that leaves their origin as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from msgspec.structs import replace

from proxy.providers.base.contract import Built, HTTPRequest, HTTPResponse, Provider
from proxy.schema.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamUnavailable
from proxy.schema.records import Endpoint, Outcome, Secret
from proxy.upstream.transports.base import Answer, ConnectFailed, ConnectionLost, ConnectTimedOut, Transport

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 256 * 1024
# By what name vendors call it (fact pages, November 2026); Google has none, Together's edge may send Cloudflare's only.
_ID_HEADERS = ("x-request-id", "request-id", "mistral-correlation-id", "x-debug-trace-id", "cf-ray")
_MIN_SECRET = 8  # what is shorter (`none`, `ollama`) is no secret, and may be a word of the message

Origin = Callable[[], Awaitable[Endpoint]]


class Exchange:
    """One request in flight: `read` under the time-outs of its phase, `aclose` at any moment."""

    def __init__(self, name: str, answer: Answer, provider: Provider, total_at: float | None) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._name = name
        self._answer = answer
        self._timeouts = provider.timeout_s
        self._total_at = total_at
        self.body_bytes = 0

    @property
    def request_id(self) -> str | None:
        """The vendor's own id of this request, for its support desk."""
        named = (self.headers.get(name) for name in _ID_HEADERS)
        value = next((value for value in named if value), None)
        return value[:128] if value and value.isprintable() else None

    async def read(self, by: float, outcome: Outcome) -> bytes:
        """The next bytes, `b""` at the end. Raises UpstreamTimeout with `outcome` when none come by the loop time
        `by`.
        """
        try:
            async with asyncio.timeout_at(by):
                return await self._answer.read()
        except TimeoutError:
            raise self._timed_out(outcome) from None
        except ConnectionLost:
            raise UpstreamTruncated(f"{self._name} closed the connection before its answer ended.") from None

    async def body(self, limit: int = MAX_ANSWER_BYTES) -> HTTPResponse:
        """The whole answer. Raises UpstreamError over `limit` bytes."""
        loop = asyncio.get_running_loop()
        pieces: list[bytes] = []
        while True:
            idle_at = loop.time() + self._timeouts.idle
            if self._total_at is not None and self._total_at < idle_at:
                piece = await self.read(self._total_at, Outcome.TIMEOUT_TOTAL)
            else:
                piece = await self.read(idle_at, Outcome.TIMEOUT_IDLE)
            if not piece:
                return HTTPResponse(self.status, self.headers, b"".join(pieces))
            self.body_bytes += len(piece)
            if self.body_bytes > limit:
                raise UpstreamError(
                    f"{self._name} sent an answer of more than {limit} bytes.", upstream_status=self.status
                )
            pieces.append(piece)

    async def aclose(self) -> None:
        await self._answer.close()

    def _timed_out(self, outcome: Outcome) -> UpstreamTimeout:
        seconds, what = {
            Outcome.TIMEOUT_FIRST_TOKEN: (self._timeouts.first_token, "no first token"),
            Outcome.TIMEOUT_TOTAL: (self._timeouts.total, "no whole answer"),
        }.get(outcome, (self._timeouts.idle, "nothing more"))
        return UpstreamTimeout(f"{self._name} sent {what} within {seconds:g} s.", outcome)


class Pool:
    """The connections to one provider at one address, and the places that `max_concurrent` gives its requests."""

    def __init__(self, transport: Transport, max_concurrent: int | None = None) -> None:
        self.transport = transport
        self.places = asyncio.Semaphore(max_concurrent) if max_concurrent else None
        self.users = 0


class Pools:
    """Every Pool in use, shared by the configurations that mean the same by it; closed when the last gives it back."""

    def __init__(self, connect: Callable[[Provider], Transport]) -> None:
        self._connect = connect
        self._pools: dict[tuple[object, ...], Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, name: str, provider: Provider) -> Pool:
        """The pool of the provider called `name`. Raises OSError for a `ca_file` that cannot be used."""
        address = provider.base_url or provider.default_base_url
        key = (name, address, provider.transport, provider.ca_file, provider.max_concurrent)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self._connect(provider), provider.max_concurrent)
        pool.users += 1
        return pool

    def give_back(self, pool: Pool) -> None:
        """Who took it uses it no more; none of its exchanges is under way."""
        pool.users -= 1
        if pool.users == 0:
            self._pools = {key: other for key, other in self._pools.items() if other is not pool}
            task = asyncio.ensure_future(pool.transport.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Waits for the connections that are being closed."""
        await asyncio.gather(*self._closing)


class Upstream:
    """One configured provider as it runs. `origin` answers where it is now (the embedded model moves when it
    restarts).
    """

    def __init__(self, name: str, provider: Provider, origin: Origin, pool: Pool) -> None:
        self.name = name
        self.provider = provider
        self.pool = pool
        self._origin = origin

    @property
    def active(self) -> int:
        """Requests in flight."""
        return self.pool.transport.active

    @asynccontextmanager
    async def exchange(self, built: Built, attempt_id: str, stream: bool) -> AsyncIterator[Exchange]:
        """Sends a request. Leaving the block, also by cancellation, closes a connection that was not read to its end.

        Raises UpstreamError for everything but a 2xx answer of the right kind.
        """
        total_s = None if stream else self.provider.timeout_s.total
        headers = {**built.http.headers, "x-client-request-id": attempt_id}
        async with self._place(), self._exchange(replace(built.http, headers=headers), total_s) as exchange:
            yield exchange

    async def fetch(self, path: str, max_bytes: int) -> HTTPResponse:
        """The answer to a small GET beside the calls: it is no attempt, and takes none of their places.

        Raises UpstreamError.
        """
        request = HTTPRequest("GET", path, {"accept": "application/json"})
        async with self._exchange(request, self.provider.timeout_s.total) as exchange:
            return await exchange.body(max_bytes)

    @asynccontextmanager
    async def _exchange(self, request: HTTPRequest, total_s: float | None) -> AsyncIterator[Exchange]:
        """`total_s` None: a stream is wanted."""
        endpoint = await self._origin()
        total_at = None if total_s is None else asyncio.get_running_loop().time() + total_s
        answer: Answer | None = None
        try:
            answer = await self._send(request, endpoint, total_at)
            exchange = Exchange(self.name, answer, self.provider, total_at)
            try:
                await self._accept(exchange, stream=total_at is None)
                yield exchange
            finally:
                await exchange.aclose()
        except UpstreamError as error:
            if answer is not None and error.upstream_status is None:
                error.upstream_status = answer.status  # the vendor did answer; what it answered was broken
            if endpoint.key is not None:
                _remove(endpoint.key, error)
            raise

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of `max_concurrent` places; waits for one as long as for a connection."""
        places = self.pool.places
        if places is None:
            yield
            return
        try:
            async with asyncio.timeout(self.provider.timeout_s.connect):
                await places.acquire()
        except TimeoutError:
            message = f"{self.name} has its {self.provider.max_concurrent} requests (max_concurrent) in flight."
            raise UpstreamUnavailable(message, code="overloaded") from None
        try:
            yield
        finally:
            places.release()

    async def _send(self, request: HTTPRequest, endpoint: Endpoint, total_at: float | None) -> Answer:
        timeouts = self.provider.timeout_s
        headers = {"accept-encoding": "identity", **self.provider.headers, **endpoint.headers, **request.headers}
        if endpoint.key is not None:
            headers |= self.provider.authorize(endpoint.key.reveal())
        by = total_at if total_at is not None else asyncio.get_running_loop().time() + timeouts.first_token
        try:
            async with asyncio.timeout_at(by):
                return await self.pool.transport.send(
                    request.method, endpoint.base_url + request.path, headers, request.body, timeouts.connect
                )
        except TimeoutError:
            raise self._silent(Outcome.TIMEOUT_FIRST_TOKEN if total_at is None else Outcome.TIMEOUT_TOTAL) from None
        except ConnectTimedOut:
            message = f"{self.name} did not accept a connection within {timeouts.connect:g} s."
            raise UpstreamTimeout(message, Outcome.TIMEOUT_CONNECT) from None
        except ConnectFailed:
            message = f"{self.name} cannot be reached. Is the server up, and is its base_url right?"
            raise UpstreamUnavailable(message) from None
        except ConnectionLost:
            raise UpstreamTruncated(f"{self.name} closed the connection without an HTTP answer.") from None

    def _silent(self, outcome: Outcome) -> UpstreamTimeout:
        timeouts = self.provider.timeout_s
        seconds = timeouts.first_token if outcome is Outcome.TIMEOUT_FIRST_TOKEN else timeouts.total
        return UpstreamTimeout(f"{self.name} did not answer within {seconds:g} s.", outcome)

    async def _accept(self, exchange: Exchange, stream: bool) -> None:
        """Raises the error of a non-2xx answer; a redirect is never followed, the key belongs to its origin alone."""
        status = exchange.status
        if 300 <= status < 400 or status < 200:
            raise UpstreamError(
                f"{self.name} answered {status}, a redirect; it is not followed.", upstream_status=status
            )
        if status >= 400:
            error = self.provider.parse_error(await exchange.body(MAX_ERROR_BYTES))
            if error.status not in (400, 404, 413, 422):
                # "Incorrect API key provided" would read as if the caller's key were meant.
                error.message = f"{self.name}: {error.message}"
            raise error
        encoding = exchange.headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise UpstreamError(
                f"{self.name} sent a compressed answer though none was asked for.", upstream_status=status
            )
        kind = exchange.headers.get("content-type", "").lower()
        if stream and kind and "event-stream" not in kind:
            await self._reject_kind(exchange, kind)

    async def _reject_kind(self, exchange: Exchange, kind: str) -> None:
        """A stream was asked for and something else came: an error in a 200, or a page of HTML."""
        response = await exchange.body(MAX_ERROR_BYTES)
        if "json" in kind:
            self.provider.parse_response(response)
        shown = kind.split(";")[0][:64]
        raise UpstreamError(
            f"{self.name} answered with {shown} instead of an event stream.", upstream_status=exchange.status
        )


def _remove(key: Secret, error: UpstreamError) -> None:
    """Some providers quote the key in their errors; callers must not learn it (S31)."""
    secret = key.reveal()
    if len(secret) < _MIN_SECRET:
        return
    for name in ("message", "type", "param", "code"):
        value = getattr(error, name)
        if value is not None:
            setattr(error, name, value.replace(secret, "[redacted]"))
    error.args = (error.message,)
    error.headers = {name: value.replace(secret, "[redacted]") for name, value in error.headers.items()}
