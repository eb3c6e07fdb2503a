"""Performs I/O: reads a request's body under a cap, and watches for the client to disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import cast

from litestar.types import Receive, Scope

from proxy.schema.errors import ProxyError
from proxy.server.api.dialects import in_dialect
from proxy.server.api.inflate import TooMuch, encoding_of, inflated
from proxy.server.http1.peer import EXTENSION, Peer
from proxy.server.http1.refusal import overloaded

LINGER_S = 1.0
LINGER_BODIES = 4  # after a 413, how much more is read and discarded, in units of the largest body
MAX_INFLATED_BYTES = 256 * 1024 * 1024
_SMALL_BYTES = 16 * 1024  # a compressed body up to this size is decompressed on the loop
_AT_ONCE_BYTES = 256 * 1024  # the size it may grow to there: about a millisecond
_THREADS = 2


class ClientGone(Exception):
    """The client closed its connection while its request was read."""


class BodyTooLarge(ProxyError):
    """413, and the connection is closed: the rest of the body is not read."""

    def __init__(self, max_bytes: int) -> None:
        message = f"The body is larger than {max_bytes / (1024 * 1024):g} MB. Raise server.max_body_mb to allow this."
        super().__init__(message, status=413, code="request_too_large", headers={"connection": "close"})


class Bodies:
    """Decompresses the bodies of requests, each of at most `max_bytes` before and after.

    A few kilobytes may grow into megabytes. So large ones grow in threads, few at a time, and all of them together keep
    within `max_inflated_bytes` until their requests have ended.
    """

    def __init__(self, max_bytes: int, max_inflated_bytes: int = MAX_INFLATED_BYTES) -> None:
        self.max_bytes = max_bytes
        self.inflated_bytes = 0
        self._max_inflated_bytes = max_inflated_bytes
        self._turns = asyncio.Semaphore(_THREADS)

    async def read(self, receive: Receive, headers: Mapping[str, str]) -> bytes:
        """The whole body of a request, decompressed. Raises ProxyError, after discarding what remains, and
        ClientGone.
        """
        try:
            body = await read_body(receive, headers, self.max_bytes, may_be_compressed=True)
        except BodyTooLarge:
            await discard_rest(receive, LINGER_BODIES * self.max_bytes)
            raise
        return await self.inflated(body, headers["content-encoding"]) if "content-encoding" in headers else body

    async def inflated(self, body: bytes, header: str) -> bytes:
        """The body without this content-encoding. The end of the task that serves the request frees it."""
        if (encoding := encoding_of(header)) is None:
            return body
        try:
            grown = await self._grown(body, encoding)
        except TooMuch:
            megabytes = self.max_bytes / (1024 * 1024)
            message = f"The decompressed body is larger than {megabytes:g} MB. Raise server.max_body_mb to allow this."
            raise ProxyError(message, status=413, code="request_too_large") from None
        self.inflated_bytes += len(grown)
        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(partial(self._release, len(grown)))
        if self.inflated_bytes > self._max_inflated_bytes:
            raise self._full()
        return grown

    async def _grown(self, body: bytes, encoding: str) -> bytes:
        if len(body) <= _SMALL_BYTES:
            with suppress(TooMuch):
                return inflated(body, encoding, min(_AT_ONCE_BYTES, self.max_bytes))
        async with self._turns:
            if self.inflated_bytes >= self._max_inflated_bytes:
                raise self._full()
            return await asyncio.to_thread(inflated, body, encoding, self.max_bytes)

    def _release(self, size: int, _: object) -> None:
        self.inflated_bytes -= size

    def _full(self) -> ProxyError:
        message = "Other requests use all the memory for bodies. Try again in a moment."
        return overloaded(message)


async def read_body(
    receive: Receive, headers: Mapping[str, str], max_bytes: int, *, may_be_compressed: bool = False
) -> bytes:
    """The body as it was sent, at most `max_bytes` of it.

    Raises ProxyError 413 as soon as it is known to be larger, 415 for another type.
    """
    kind = headers.get("content-type", "application/json")
    if kind != "application/json":
        kind = kind.split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        message = f"Send JSON with the header `content-type: application/json`; got {kind[:64]!r}."
        raise ProxyError(message, status=415, code="unsupported_media_type")
    if "content-encoding" in headers and encoding_of(headers["content-encoding"]) and not may_be_compressed:
        raise ProxyError("Send the body without content-encoding.", status=415, code="unsupported_media_type")
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise BodyTooLarge(max_bytes)
    body = bytearray()  # grows in place, where joining pieces would copy all of a large body at once
    while True:
        message_in = await receive()
        if message_in["type"] != "http.request":
            raise ClientGone
        piece = message_in.get("body", b"")
        if len(body) + len(piece) > max_bytes:
            raise BodyTooLarge(max_bytes)
        is_last = not message_in.get("more_body", False)
        if is_last and not body:
            return piece
        body += piece
        if is_last:
            return cast(bytes, body)


async def discard_rest(receive: Receive, max_bytes: int) -> None:
    """Reads on for a moment, `max_bytes` at most: a connection closed with unread bytes is reset, and a client
    that reads its answer only after sending its last byte would lose it.
    """
    try:
        async with asyncio.timeout(LINGER_S):
            while max_bytes > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                max_bytes -= len(message.get("body", b""))
    except TimeoutError:
        return


class Places:
    """Limits the requests served at once. One more than `limit` is refused: in a queue that grows faster than it is
    served, clients would get no answer at all. A place is taken once the body has arrived, so that half a request
    holds none.

    `paths`: those of the endpoints that call models, whose requests are refused at their head while all places
    are taken, before anything is read or checked.
    """

    def __init__(self, limit: int, paths: Iterable[str] = ()) -> None:
        self.limit = limit
        self.taken = 0
        self.refused = 0
        full = self._error()
        self._full = {path: in_dialect(path, full) for path in paths}

    def refusal(self, method: str, path: str, coming: int = 0) -> ProxyError | None:
        """Why a request is refused at its head; None: it is not. `coming`: the places that others are about to take."""
        if self.taken + coming < self.limit or method != "POST" or (full := self._full.get(path)) is None:
            return None
        self.refused += 1
        return full

    def __enter__(self) -> None:
        if self.taken >= self.limit:
            self.refused += 1
            raise self._error()
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.taken -= 1

    def _error(self) -> ProxyError:
        message = f"The proxy is already serving {self.limit} requests (server.max_in_flight). Try again in a moment."
        return overloaded(message)


class LeaveWatch:
    """Calls `on_gone` if the client disconnects while the block runs.

    Our own protocol calls back at once. Under another ASGI server this takes a task that awaits `receive`.
    """

    def __init__(self, scope: Scope, receive: Receive, on_gone: Callable[[], None]) -> None:
        self._scope = scope
        self._receive = receive
        self._on_gone = on_gone
        self._end: Callable[[], object]

    def __enter__(self) -> None:
        peer = (self._scope.get("extensions") or {}).get(EXTENSION)
        if isinstance(peer, Peer):
            self._end = peer.on_disconnect(self._on_gone)
        else:
            self._end = asyncio.get_running_loop().create_task(self._wait()).cancel

    def __exit__(self, *_: object) -> None:
        self._end()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self._on_gone()
