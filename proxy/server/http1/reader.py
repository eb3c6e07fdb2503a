"""Translates: the bytes of one connection into requests. It reads no socket and no clock.

httptools parses. Added here: an `Upgrade` is ignored (RFC 9110, 7.8), because httptools would end the message at its
head and read the body as the next request; heads and chunk framing have limits; trailers do not count as headers; and
only transfer codings that are decoded are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote

import httptools
from msgspec import Struct

from proxy.schema.errors import ProxyError

MAX_HEAD_BYTES = 64 * 1024  # more than the guard allows, so that the guard refuses what it can
_MAX_FRAMING_BYTES = 64 * 1024  # of chunk sizes, extensions and trailers, plus 16 for each byte of the body
_OF_BODIES = frozenset((b"content-length", b"transfer-encoding", b"expect"))  # headers


class Head(Struct, frozen=True):
    """One request without its body. `length` None: chunked; 0: no body."""

    method: str
    path: str
    raw_path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    expects_continue: bool
    length: int | None

    def may_be_refused_alone(self, most: int) -> bool:
        """True if its connection stays usable when the body is discarded: it is short, and sure to come. A client that
        asks before sending it need not send it once refused (RFC 9110, 10.1.1).
        """
        return self.keep_alive and not self.expects_continue and self.length is not None and self.length <= most

    def scope(self, origin: Mapping[str, Any]) -> dict[str, Any]:
        """The request in ASGI's form. `origin`: the common part of all requests of a connection."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.version,
            "method": self.method,
            "path": self.path,
            "raw_path": self.raw_path,
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "state": {},
            "extensions": {},
            **origin,
        }


class Events(Protocol):
    """The receiver of requests. For each: `begin`, `head`, `body` for each piece, `end`."""

    def begin(self) -> None: ...
    def head(self, head: Head) -> None: ...
    def body(self, piece: bytes) -> None: ...
    def end(self) -> None: ...


class _Refused(Exception):
    """Ends the parsing from within a callback of httptools, which hides the error raised in it."""


_OURS = (_Refused, httptools.HttpParserInvalidURLError, UnicodeDecodeError)


class RequestReader:
    """The reader of one connection. After an error, and after a request that closes its connection, it is `done`."""

    def __init__(self, events: Events) -> None:
        self.done = False
        self._in_head = True  # also between two requests
        self._events = events
        self._parser = httptools.HttpRequestParser(self)
        self._error: ProxyError | None = None
        self._resuming = False  # the parser reads a head that we wrote
        self._in_body = False
        self._has_ended = False  # a request, in this read
        self._keeps_alive = True
        self._parsed_url = b""
        self._target = ("", b"", b"")
        self._length: int | None = 0
        self._head_bytes = self._wire_bytes = self._body_bytes = 0

    def feed(self, data: bytes) -> None:
        """Parses more bytes. Raises ProxyError for anything but a request. Bytes after the last request are dropped."""
        if self.done:
            return
        self._has_ended = False
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            if self.done:
                return
            self.done = True
            inner = error.__context__
            if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(inner, _OURS):
                raise (inner or error) from None  # a bug of ours is not the client's fault
            raise self._error or _refusal(400, "This is not an HTTP/1.1 request.") from None
        if self._in_head and not self._has_ended:  # a head that starts within a read is counted from the next read on
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.done = True
                raise _refusal(431, f"The request's head is larger than {MAX_HEAD_BYTES // 1024} KB.")
        elif self._in_body:
            self._wire_bytes += len(data)
            if self._wire_bytes > _MAX_FRAMING_BYTES + 17 * self._body_bytes:
                self.done = True
                raise _refusal(400, "The chunks of the body are mostly framing.")

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._resume()

    def _resume(self) -> None:
        """Starts a new parser after the head of a request that asked for an upgrade."""
        self._parser = httptools.HttpRequestParser(self)
        if self._in_body:
            framing = b"transfer-encoding: chunked" if self._length is None else b"content-length: %d" % self._length
            self._resuming = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n")
            self._resuming = False

    # --- called by httptools ---

    def on_message_begin(self) -> None:
        if self._resuming:
            return
        if self.done:
            raise _Refused
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes, self._in_head = 0, True
        self._events.begin()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # after a body it is a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        self._in_head = False
        version = "1.1" if self._parser.get_http_version() == "1.1" else "1.0"
        method = self._parser.get_method().decode("ascii")
        if method == "CONNECT":
            self._refuse(405, "CONNECT is not supported.")
        expects_continue = False
        self._length = 0
        for name, value in self._headers:
            if name not in _OF_BODIES:
                continue
            if name == b"content-length":
                self._length = int(value)
            elif name == b"transfer-encoding":
                self._check_coding(value, version)
            else:
                expects_continue = version == "1.1" and value.lower() == b"100-continue"
        self._in_body = self._length != 0
        self._wire_bytes = self._body_bytes = 0
        self._keeps_alive = version == "1.1" and self._parser.should_keep_alive()
        if self._url != self._parsed_url:  # on a kept connection it is nearly always the same
            url = httptools.parse_url(self._url)
            path = url.path.decode("ascii")
            self._target = (unquote(path) if "%" in path else path, url.path, url.query or b"")
            self._parsed_url = self._url
        path, raw_path, query = self._target
        self._events.head(
            Head(
                method=method,
                path=path,
                raw_path=raw_path,
                query=query,
                version=version,
                headers=self._headers,
                keep_alive=self._keeps_alive,
                expects_continue=expects_continue,
                length=self._length,
            )
        )

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        self._events.body(piece)

    def on_message_complete(self) -> None:
        if self._in_body and self._parser.should_upgrade():
            return  # only the head has ended
        self._in_body = False
        self._in_head = self._has_ended = True
        self.done = not self._keeps_alive
        self._events.end()

    def _check_coding(self, value: bytes, version: str) -> None:
        if version != "1.1":
            self._refuse(400, "HTTP/1.0 has no Transfer-Encoding.")
        if self._length is None:
            self._refuse(400, "Send one Transfer-Encoding.")
        if value.strip().lower() != b"chunked":
            self._refuse(501, "The only supported Transfer-Encoding is `chunked`.")
        self._length = None

    def _refuse(self, status: int, message: str) -> None:
        self._error = _refusal(status, message)
        raise _Refused


def _refusal(status: int, message: str) -> ProxyError:
    code = "method_not_allowed" if status == 405 else "invalid_value"
    return ProxyError(message, status=status, code=code)
