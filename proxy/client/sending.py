"""Performs I/O: one request to the proxy, with the retries that the proxy allows, or its stream of events.

refused (408, 409, 429, 5xx), or not connected    retried, unless the answer has `x-should-retry: false`
broken off, or no answer in time                  not retried: the call may have been made and billed
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import httpx
import msgspec
from msgspec import Struct

from proxy import __version__
from proxy.client.errors import (
    ConnectionBroken,
    ConnectionFailed,
    MultiModelError,
    RequestTimeout,
    UnexpectedAnswer,
    error_of,
    wait_of,
)
from proxy.client.session import IN_PROCESS, Session
from proxy.schema.errors import UpstreamError
from proxy.schema.sse import EventFraming

T = TypeVar("T")
MOST_WAIT_S = 60.0  # an answer that asks for more is an error at once, with `retry_after`
_LOOK_S = 5.0
_DONE = b"[DONE]"


class Retries(Struct, frozen=True):
    """At most `most` retries; the first waits about `delay_s` seconds, each further one twice as long as the
    previous one.
    """

    most: int = 3
    delay_s: float = 2.0

    def wait_s(self, error: MultiModelError, done: int) -> float | None:
        """Seconds before the next retry after `done` of them; None: no more retries."""
        if done >= self.most or not error.is_retryable:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= MOST_WAIT_S else None
        return float(min(MOST_WAIT_S, self.delay_s * 2**done) * random.uniform(0.5, 1.0))


class Received(Struct, frozen=True):
    """A whole answer: a JSON object, and its headers."""

    data: dict[str, Any]
    headers: Mapping[str, str]


def _encoded(body: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(body, enc_hook=_plain)


def _plain(value: Any) -> str:
    """The plain value of a text subclass, such as a rendered prompt."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


class Sender:
    """Sends to one proxy; `base_url` ends in /v1."""

    def __init__(self, session: Session, base_url: str, timeout_s: float, retries: Retries) -> None:
        self._session = session
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._retries = retries

    async def get(self, path: str, parameters: Mapping[str, str]) -> Received:
        return await self._whole("GET", path, params=parameters)

    async def post(self, path: str, body: Mapping[str, Any]) -> Received:
        return await self._whole("POST", path, content=_encoded(body), headers=_JSON)

    async def put(self, path: str, body: Mapping[str, Any]) -> Received:
        return await self._whole("PUT", path, content=_encoded(body), headers=_JSON)

    async def delete(self, path: str) -> Received:
        return await self._whole("DELETE", path)

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Received, None]:
        """The JSON objects of a stream, each with the headers of the answer. Closing it ends the call."""
        content = _encoded(body)
        async with self._answer("POST", path, content=content, headers=_JSON) as response:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise await self._unexpected(response, await response.aread())
            framing = EventFraming()
            async with aclosing(_pieces(response)) as pieces:
                async for piece in pieces:
                    for event in framing.feed(piece):
                        if event.data == _DONE:
                            return
                        yield Received(_event(event.data, response.headers), response.headers)
        raise ConnectionBroken(
            f"{self._place} ended the stream before the answer was complete. The part received so far may be billed."
        )

    async def _whole(self, method: str, path: str, **request: Any) -> Received:
        async with self._answer(method, path, **request) as response:
            content = await response.aread()
            data = _object(content)
            if data is None:
                raise await self._unexpected(response, content)
            return Received(data, response.headers)

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **request: Any) -> AsyncIterator[httpx.Response]:
        """A response with a good status, its body unread. Raises MultiModelError."""
        client = await self._session.client()
        done = 0
        while True:
            try:
                response = await self._begun(client, client.build_request(method, path, **request))
                break
            except MultiModelError as error:
                wait_s = self._retries.wait_s(error, done)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
            done += 1
        try:
            yield response
        except httpx.HTTPError as error:
            raise self._failed(error) from error
        except UpstreamError as error:  # an event that is too large
            raise UnexpectedAnswer(error.message) from error
        finally:
            await response.aclose()

    async def _begun(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """One attempt. Raises MultiModelError for an error status too."""
        try:
            response = await client.send(request, stream=True)
            if response.is_success:
                return response
            try:
                content = await response.aread()
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise self._failed(error) from error
        data = _object(content)
        error_fields = (data or {}).get("error")
        if isinstance(error_fields, dict) and "message" in error_fields:
            found = error_of(response.status_code, error_fields, response.headers)
            is_unknown_route = found.status in (404, 405) and found.param is None
            if not is_unknown_route or await self._version() == __version__:
                raise found
        raise await self._unexpected(response, content)

    # --- what went wrong ----------------------------------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return "The proxy in this process" if self._base_url == IN_PROCESS else self._base_url

    def _failed(self, error: httpx.HTTPError) -> MultiModelError:
        why = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            if "SSL" in why or "certificate" in why.lower():
                return _final(ConnectionFailed(f"{self._place} cannot be reached securely: {why}. {_TLS}"))
            more = f" {_TLS}" if self._base_url.startswith("https:") else ""
            return ConnectionFailed(f"Nothing answers at {self._place}: {why}. {_DOWN}{more}")
        if isinstance(error, httpx.TimeoutException):
            paid = "The call may have been made and billed: GET /v1/requests lists it."
            return RequestTimeout(f"{self._place} did not answer within {self._timeout_s:g} s (timeout_s). {paid}")
        return ConnectionBroken(f"The connection to {self._place} broke: {why}. The call may have been made; {_LOG}")

    async def understood(self, read: Callable[[], T]) -> T:
        """The result of `read` for an answer. Raises UnexpectedAnswer, which says whose answer it is."""
        try:
            return read()
        except UnexpectedAnswer as error:
            version = await self._version()
            whose = "is not this product" if version is None else f"has version {version}, this client {__version__}"
            raise UnexpectedAnswer(f"{error.message} {self._place} {whose}. {_SAME}") from error

    async def _unexpected(self, response: httpx.Response, content: bytes) -> UnexpectedAnswer:
        """The error for an answer that this product, or this version of it, does not give."""
        status, kind = response.status_code, response.headers.get("content-type", "").partition(";")[0]
        what = "a web page (HTML)" if _is_html(kind, content) else kind or "no content"
        version = await self._version()
        if version is None:
            what = f"answered {status} with {what}"
            fix = "base_url must be the proxy's own address, like http://localhost:8000: a login page, another server"
            message = f"{self._place} {what}, not as this product does. {fix} or a gateway answers there."
            return _with_status(message, response)
        path = response.request.url.path
        message = (
            f"The proxy at {self._place} has version {version}, this client {__version__}, and it answered {status}"
        )
        return _with_status(f"{message} to {path}. {_SAME}", response)

    async def _version(self) -> str | None:
        """The version of the answering proxy; None: it is not this product."""
        try:
            client = await self._session.client()
            address = f"{self._base_url.removesuffix('/v1')}/health"
            answer = _object((await client.get(address, timeout=_LOOK_S)).content) or {}
        except httpx.HTTPError:
            return None
        is_ours = isinstance(answer.get("config"), dict) and "database" in answer
        return str(answer.get("version")) if is_ours else None


_JSON = {"content-type": "application/json"}
_DOWN = (
    "Start the server with `proxy serve`, or correct base_url. Without a server: MultiModelAPI(settings=APISettings())."
)
_TLS = "A proxy on this machine is reached with http://, one behind TLS with https://."
_SAME = "Install the same version on both sides, or correct base_url."
_LOG = "GET /v1/requests lists it."


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body, and nothing else: its iterator must be closed before the response is."""
    pieces = response.aiter_bytes()
    try:
        async for piece in pieces:
            yield piece
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]


def _event(data: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    found = _object(data)
    if found is None:
        raise UnexpectedAnswer("An event of the stream is not a JSON object.")
    if isinstance(error := found.get("error"), dict):
        raise error_of(None, error, headers)
    return found


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_html(kind: str, content: bytes) -> bool:
    return kind == "text/html" or content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html"))


def _final(error: ConnectionFailed) -> ConnectionFailed:
    error.is_retryable = False
    return error


def _with_status(message: str, response: httpx.Response) -> UnexpectedAnswer:
    """The error for a status; a gateway whose proxy is just starting may be asked again."""
    found = UnexpectedAnswer(message, status=response.status_code, retry_after=wait_of(response.headers))
    found.is_retryable = response.status_code in (502, 503, 504)
    return found
