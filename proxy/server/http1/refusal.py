"""Translates: refusals at the head of a request into bytes. Under overload they are most of the answers, so a repeated
one is encoded only once, and a new connection's request is parsed only as far as its refusal needs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.server.api.answers import NO_STORE, new_id, raw_headers

WHOLE_MAX = 64 * 1024  # bytes of a request that `whole_post` recognises
_CLOSE = b"connection: close\r\n"
_POST = re.compile(rb"POST (/[\w/.-]+) HTTP/1\.1\r\n")
# Headers that determine the end of a request and whether another may follow, and continuation lines.
_FIELDS = re.compile(
    rb"\n(content-length|connection|transfer-encoding|expect|upgrade|[ \t])[ \t]*:?[ \t]*([^\r\n]*)", re.I
)


def overloaded(message: str) -> ProxyError:
    """The error of a request that is refused because of overload."""
    return ProxyError(message, status=503, code="overloaded", headers={"retry-after": "1"})


class RefusalWriter:
    """Keeps the last refusal. `default_headers` are the server's, a new list whenever one of them changes."""

    def __init__(self) -> None:
        self._error: ProxyError | None = None
        self._default_headers: object = None
        self._head = self._tail = b""

    def write(self, error: ProxyError, default_headers: Sequence[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
        """A whole answer."""
        if error is not self._error or default_headers is not self._default_headers:
            self._encode(error, default_headers)
        close = b"" if keep_alive else _CLOSE
        return b"%b%bx-request-id: %b\r\n%b" % (self._head, close, new_id().encode(), self._tail)

    def _encode(self, error: ProxyError, default_headers: Sequence[tuple[bytes, bytes]]) -> None:
        body = encode(error.body())
        headers = (
            *default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *raw_headers({**NO_STORE, **error.headers}),
        )
        lines = [STATUS_LINE[error.status], *(name + b": " + value + b"\r\n" for name, value in headers)]
        self._head, self._tail = b"".join(lines), b"\r\n" + body
        self._error, self._default_headers = error, default_headers


class WholePost(NamedTuple):
    """A complete POST."""

    path: str
    keep_alive: bool


def whole_post(data: bytes) -> WholePost | None:
    """The single request that `data` certainly is, from its first to its last byte. None: the reader must decide."""
    head, end, body = data.partition(b"\r\n\r\n")
    post = _POST.match(head)
    if not end or post is None:
        return None
    length, keep_alive = None, True
    for name, value in _FIELDS.findall(head):
        if name[0] in b"cC" and name[-1] in b"nN":
            keep_alive = value.lower() == b"keep-alive"
        elif length is None and value.isdigit() and name[0] in b"cC":
            length = int(value)
        else:
            return None
    if length != len(body):
        return None
    return WholePost(post[1].decode(), keep_alive)
