"""Performs I/O: carries httpx's requests to an ASGI application in the same event loop, in pieces as they arrive.

httpx's own ASGITransport returns an answer only once it is whole, which is useless for streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import httpx

_PIECES = 16  # of a body that may wait for their reader
_LEAVE_S = 2.0  # how long a call may take to end once its client has disconnected
Message = MutableMapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class InProcessTransport(httpx.AsyncBaseTransport):
    """Belongs to one event loop. Closing it ends the calls that still run."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._open: set[_Exchange] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(request, await request.aread())
        self._open.add(exchange)
        exchange.start(self._app, self._open.discard)
        try:
            start = await exchange.head()
        except BaseException:
            exchange.leave()
            raise
        return httpx.Response(start["status"], headers=list(start["headers"]), stream=exchange)

    async def aclose(self) -> None:
        for exchange in list(self._open):
            await exchange.aclose()


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer; as a stream, the answer's body."""

    def __init__(self, request: httpx.Request, body: bytes) -> None:
        self._request = request
        self._body: bytes | None = body
        self._timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(_PIECES)
        self._left = asyncio.Event()
        self._failure: BaseException | None = None
        self._task: asyncio.Task[None]

    def start(self, app: App, ended: Callable[[_Exchange], None]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            ended(self)
            if not task.cancelled():
                self._failure = task.exception()

        self._task = asyncio.get_running_loop().create_task(self._run(app))
        self._task.add_done_callback(done)

    async def head(self) -> Message:
        """The start of the answer."""
        message = await self._next()
        if message is None or message["type"] != "http.response.start":
            raise httpx.RemoteProtocolError("the application gave no answer", request=self._request)
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._next()) is not None:
            if body := message.get("body", b""):
                yield body
            if not message.get("more_body", False):
                return
        raise httpx.RemoteProtocolError("the application did not end its answer", request=self._request)

    def leave(self) -> None:
        """Tells the application that the client has disconnected, and a pending reader that nothing will come."""
        self._left.set()
        while not self._messages.empty():  # so that no writer waits for room
            self._messages.get_nowait()
        self._messages.put_nowait(None)

    async def aclose(self) -> None:
        self.leave()
        await asyncio.wait([self._task], timeout=_LEAVE_S)
        self._task.cancel()

    async def _run(self, app: App) -> None:
        try:
            await app(self._scope(), self._receive, self._send)
        finally:
            if not self._left.is_set():
                await self._messages.put(None)

    async def _next(self) -> Message | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._messages.get()
        except TimeoutError:
            raise httpx.ReadTimeout("", request=self._request) from None

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None and not self._left.is_set():
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._left.is_set():
            await self._messages.put(message)

    def _scope(self) -> dict[str, Any]:
        url = self._request.url
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._request.method,
            "scheme": url.scheme,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in self._request.headers.raw],
            "client": None,
            "server": (url.host, url.port),
        }
