"""Performs I/O: the only HTTP to providers. One Upstream per provider: its origin, keys, time-outs and limits.

Each configuration has its own Upstreams. The Pools under them outlive a reload that leaves their origin as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import cast

from proxy.providers.base.contract import Built, HTTPRequest, HTTPResponse, Provider
from proxy.providers.base.errors import request_id
from proxy.schema.errors import Received, UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamUnavailable
from proxy.schema.records import Endpoint, Outcome
from proxy.upstream.deadline import Deadline
from proxy.upstream.inflate import can_inflate, inflated, unzipped
from proxy.upstream.keys import Keys, Lease, redact
from proxy.upstream.pools import Pool
from proxy.upstream.transports.base import MAX_PIECE_BYTES, Answer, ConnectFailed, ConnectionLost, HeaderBlock, Outgoing
from proxy.upstream.unreached import Unreached, tell_nobody
from proxy.upstream.whole_json import is_whole_json
from proxy.upstream.wrong_path import as_wrong_path

MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 256 * 1024

Origin = Callable[[], Awaitable[Endpoint]]


def _ignore() -> None:
    return


class Upstream:
    """One configured provider. `origin` returns its current address: the embedded model moves when it restarts.

    `keys`: if there are several, or their limits are known; None: the origin's own key serves every request. `warn`
    receives the event, `provider` and `reason` when no connection can be made. `other_api`: models that the
    vendor's first API has refused, and whether only with tools.
    """

    def __init__(
        self,
        name: str,
        provider: Provider,
        origin: Origin,
        pool: Pool,
        keys: Keys | None = None,
        warn: Callable[..., object] = tell_nobody,
    ) -> None:
        self.name = name
        self.provider = provider
        self.pool = pool
        self.origin = origin
        self.keys = keys
        self.other_api: set[tuple[str, bool]] = set()
        self.unreached = Unreached(name, provider.timeout_s.connect, warn)
        self._prepared: dict[str | None, tuple[Endpoint, HeaderBlock]] = {}  # by the variable of the key

    @property
    def active(self) -> int:
        """Requests in flight."""
        return self.pool.transport.active

    def exchange(self, built: Built, attempt_id: str, stream: bool, on_sent: Callable[[], None] = _ignore) -> Exchange:
        """A request, sent when the exchange is entered. Leaving it closes a connection that was not read to its end.

        `on_sent` is called once, when the request leaves: not while it waits for one of `max_concurrent` places or for
        a connection. Entering raises UpstreamError for everything but a 2xx answer of the right kind.
        """
        headers = {**built.http.headers, "x-client-request-id": attempt_id}
        request = HTTPRequest(built.http.method, built.http.path, headers, built.http.body)
        return Exchange(self, request, on_sent, total_s=None if stream else self.provider.timeout_s.total)

    async def fetch(self, path: str, max_bytes: int) -> HTTPResponse:
        """The answer to a small GET outside of calls: it is no attempt and occupies no place.

        Raises UpstreamError.
        """
        request, total_s = HTTPRequest("GET", path, {"accept": "application/json"}), self.provider.timeout_s.total
        while True:
            try:
                async with Exchange(self, request, total_s=total_s, takes_place=False) as exchange:
                    return await exchange.body(max_bytes)
            except UpstreamError as error:
                if not error.other_key:  # the refused one rests, so no key is tried twice
                    raise

    def outgoing(self, request: HTTPRequest, endpoint: Endpoint, variable: str | None = None) -> Outgoing:
        """The request with its origin and credentials. If header names collide, the key's wins, then the request's.

        `variable` names the key of `endpoint` among several.
        """
        prepared = self._prepared.get(variable)
        if prepared is None or prepared[0] is not endpoint:
            prepared = self._prepared[variable] = endpoint, HeaderBlock(self._origin_headers(endpoint))
        fixed = prepared[1]
        if not fixed.names.isdisjoint(request.headers):
            key = self._key_headers(endpoint)
            own = {name: value for name, value in request.headers.items() if name not in key}
            others = {name: value for name, value in self._origin_headers(endpoint).items() if name not in own}
            fixed, headers = HeaderBlock(others), own
        else:
            headers = request.headers
        url = endpoint.base_url + request.path
        if endpoint.query:
            url += endpoint.query.replace("?", "&") if "?" in request.path else endpoint.query
        return Outgoing(request.method, url, fixed, headers, request.body)

    def _origin_headers(self, endpoint: Endpoint) -> dict[str, str]:
        headers = {"accept-encoding": "identity", **self.provider.usual_headers}
        secret = {name: value.reveal() for name, value in endpoint.secret_headers.items()}
        for more in (self.provider.headers, endpoint.headers, secret, self._key_headers(endpoint)):
            headers |= {name.lower(): value for name, value in more.items()}
        return headers

    def _key_headers(self, endpoint: Endpoint) -> dict[str, str]:
        if endpoint.key is None:
            return {}
        return {name.lower(): value for name, value in self.provider.authorize(endpoint.key.reveal()).items()}


_SENT = HTTPRequest("", "", {})


class Exchange:
    """One request in flight, from its place among `max_concurrent` to the end of its answer.

    An async context manager: entering it sends the request and waits for the headers of its answer. `read` is bounded
    by the time-out of its phase. A block that is left without an error has all it needs of the answer: the connection
    is kept if the end of the body follows soon. Any other exit, including cancellation, closes it at once.
    """

    status: int
    headers: dict[str, str]

    def __init__(
        self,
        upstream: Upstream,
        request: HTTPRequest,
        on_sent: Callable[[], None] = _ignore,
        *,
        total_s: float | None,
        takes_place: bool = True,
    ) -> None:
        """`total_s` bounds a whole answer; None: the answer is streamed."""
        self.sent = False
        self.body_bytes = 0
        self._upstream = upstream
        self._name = upstream.name
        self._timeouts = upstream.provider.timeout_s
        self._request = request
        self._on_sent = on_sent
        self._total_s = total_s
        self._total_at: float | None = None
        self._is_call = takes_place
        self._places = upstream.pool.places if takes_place else None
        self._has_place = False
        loop = asyncio.get_running_loop()
        self._deadline, self._now = Deadline(loop), loop.time
        self._endpoint: Endpoint | None = None
        self.expected = (0, 0)  # tokens of the prompt and of the answer, if the keys have a limit
        self.lease: Lease | None = None
        self._answer: Answer | None = None
        self._unyielded = 0

    async def __aenter__(self) -> Exchange:
        try:
            if self._places is not None:
                await self._take_place(self._places)
            endpoint, variable = await self._upstream.origin(), None
            if (keys := self._upstream.keys) is not None:
                self.lease = keys.take(*self.expected) if self._is_call else keys.borrow()
                variable, endpoint = self.lease.key.variable, self.lease.key.endpoint or endpoint
            self._endpoint = endpoint
            answer = await self._send(self._upstream.outgoing(self._request, endpoint, variable))
            answer = self._answer = inflated(answer)
            self._request = _SENT  # its body may be large, and the answer may take minutes
            self.status, self.headers = answer.status, answer.headers
            self._upstream.pool.note(answer.headers)
            if not self._is_as_wanted():
                await self._reject()
        except BaseException as error:
            self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    @property
    def request_id(self) -> str | None:
        """The vendor's own id of this request, for its support desk."""
        return request_id(self.headers, self._upstream.provider.id_headers)

    async def read(self, by: float, outcome: Outcome) -> bytes:
        """The next bytes, `b""` at the end. Raises UpstreamTimeout with `outcome` when none come by the loop time `by`,
        UpstreamTruncated when the connection breaks.
        """
        assert self._answer is not None
        if self._unyielded >= MAX_PIECE_BYTES:  # a provider that is always ready must not starve others
            self._unyielded = 0
            await asyncio.sleep(0)
        try:
            piece = await self._deadline.wait(self._answer.read(), by)
        except TimeoutError:
            raise self._timed_out(outcome) from None
        except ConnectionLost:
            raise UpstreamTruncated(f"{self._name} closed the connection before its answer ended.") from None
        self._unyielded += len(piece)
        return piece

    async def body(self, limit: int = MAX_ANSWER_BYTES) -> HTTPResponse:
        """The whole answer. Raises UpstreamError over `limit` bytes.

        Complete JSON is a whole answer, even if the connection breaks or stalls before HTTP ends the body.
        """
        assert self._answer is not None
        answer = bytearray()  # grows in place, where joining pieces would copy all of a large answer at once
        while True:
            piece = self._answer.read_nowait()
            if piece is None:
                try:
                    piece = await self._next_of_body()
                except (UpstreamTruncated, UpstreamTimeout):
                    if not await is_whole_json(answer):
                        raise
                    piece = b""
            if not piece:
                return HTTPResponse(self.status, self.headers, unzipped(cast(bytes, answer)))
            self.body_bytes += len(piece)
            if self.body_bytes > limit:
                message = f"{self._name} sent an answer of more than {limit} bytes."
                raise UpstreamError(message, upstream_status=self.status)
            answer += piece

    async def _next_of_body(self) -> bytes:
        idle_at = self._now() + self._timeouts.idle
        if self._total_at is not None and self._total_at < idle_at:
            return await self.read(self._total_at, Outcome.TIMEOUT_TOTAL)
        return await self.read(idle_at, Outcome.TIMEOUT_IDLE)

    async def _take_place(self, places: asyncio.Semaphore) -> None:
        """Waits for a place as long as for a connection."""
        if places.locked():
            try:
                await self._deadline.wait(places.acquire(), self._now() + self._timeouts.connect)
            except TimeoutError:
                limit = self._upstream.provider.max_concurrent
                message = f"{self._name} has its {limit} requests (max_concurrent) in flight."
                raise UpstreamUnavailable(message, code="overloaded") from None
        else:
            await places.acquire()
        self._has_place = True

    async def _send(self, request: Outgoing) -> Answer:
        timeouts, is_stream = self._timeouts, self._total_s is None
        by = self._now() + (timeouts.first_token if self._total_s is None else self._total_s)
        if not is_stream:
            self._total_at = by
        try:
            sending = self._upstream.pool.transport.send(request, timeouts.connect, self._note_sent)
            return await self._deadline.wait(sending, by)
        except TimeoutError:
            seconds = timeouts.first_token if is_stream else timeouts.total
            outcome = Outcome.TIMEOUT_FIRST_TOKEN if is_stream else Outcome.TIMEOUT_TOTAL
            if not self.sent:  # `connect` is longer than the phase itself
                outcome = Outcome.TIMEOUT_CONNECT
            raise UpstreamTimeout(f"{self._name} did not answer within {seconds:g} s.", outcome) from None
        except (ConnectFailed, ConnectionLost) as failure:
            is_lost = isinstance(failure, ConnectionLost)
            if is_lost and self._upstream.provider.local_model is not None:  # our own process: no work goes on
                raise UpstreamUnavailable(f"The process of {self._name} ended before it answered.") from None
            raise self._upstream.unreached.error(failure, self._now()) from None

    def _note_sent(self) -> None:
        if not self.sent:
            self.sent = True
            self._on_sent()

    def _timed_out(self, outcome: Outcome) -> UpstreamTimeout:
        seconds, what = {
            Outcome.TIMEOUT_FIRST_TOKEN: (self._timeouts.first_token, "no first token"),
            Outcome.TIMEOUT_TOTAL: (self._timeouts.total, "no whole answer"),
        }.get(outcome, (self._timeouts.idle, "nothing more"))
        return UpstreamTimeout(f"{self._name} sent {what} within {seconds:g} s.", outcome)

    def _is_as_wanted(self) -> bool:
        """True for a 2xx answer that can be read. Its first bytes show whether it is of the requested kind."""
        encoding = self.headers.get("content-encoding")
        return 200 <= self.status < 300 and (not encoding or can_inflate(encoding))

    async def _reject(self) -> None:
        """Raises the error of an answer. A redirect is never followed: the key belongs to its origin alone."""
        status = self.status
        if 300 <= status < 400 or status < 200:
            message = f"{self._name} answered {status}, a redirect, which is not followed. Is its base_url right?"
            raise UpstreamError(message, upstream_status=status)
        if status >= 400:
            answer = await self.body(MAX_ERROR_BYTES)
            error = self._upstream.provider.parse_error(answer)
            if (wrong := as_wrong_path(error, self._upstream.provider.base_url)) is not None:
                error = wrong
            elif answer.body.lstrip()[:1] == b"{":
                error.received = Received(status, answer.headers, bytes(answer.body))
            if error.status not in (400, 404, 413, 422):
                # "Incorrect API key provided" would read as if the caller's key were meant.
                of_key = f" ({self.lease.key.variable})" if self.lease and self.lease.key.variable else ""
                error.message = f"{self._name}{of_key}: {error.message}"
            raise error
        message = f"{self._name} sent a compressed answer, although none was requested."
        raise UpstreamError(message, upstream_status=status)

    def no_stream(self) -> UpstreamError:
        """The error for an answer that is neither a stream nor JSON, such as a page of HTML."""
        shown = self.headers.get("content-type", "no content type").split(";")[0][:64]
        message = f"{self._name} answered with {shown} instead of an event stream."
        return UpstreamError(message, upstream_status=self.status)

    def _leave(self, error: BaseException | None) -> None:
        self._deadline.close()
        if self._answer is not None:
            self._answer.close(complete=error is None)
        if self._has_place and self._places is not None:
            self._has_place = False
            self._places.release()
        if isinstance(error, UpstreamError):
            if self._answer is not None and error.upstream_status is None:
                error.upstream_status = self._answer.status  # the vendor did answer, but its answer was broken
            if error.is_refusal and error.status in (401, 403, 429):  # as for an error status: not the caller's key
                error.message = f"{self._name}: {error.message}"
            if (endpoint := self._endpoint) is not None:
                for secret in (endpoint.key, *endpoint.secret_headers.values()):
                    if secret is not None:
                        redact(secret, error)
        if self.lease is not None and self._upstream.keys is not None:
            if not self.sent:
                self.lease.give_back()
            elif isinstance(error, UpstreamError):
                status = self._answer.status if self._answer is not None else 0
                self._upstream.keys.note_failure(self.lease, error, status, self._is_call)
