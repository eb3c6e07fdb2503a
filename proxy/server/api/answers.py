"""Performs I/O: writes one whole answer, or one error, to an ASGI client in as few sends as ASGI allows."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from litestar.types import Send

from proxy.schema.errors import ProxyError

_random = random.Random(os.urandom(32))  # ids are not secret, only unique: no system call for each
os.register_at_fork(after_in_child=_random.seed)
_MAX_VALUE = 4096  # characters of one header: some clients read only 16 kB of headers, and vendors send any length
NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_JSON = {"content-type": "application/json", **NO_STORE}
_JSON_LINES = "".join(f"{name}: {value}\r\n" for name, value in _JSON.items()).encode()


def new_id() -> str:
    """The id of one request: of its call and its rows, and what a caller quotes from `x-request-id`.

    It begins with the time, so that rows are appended to the database's index and not scattered over it.
    """
    return f"{time.time_ns() // 1000:014x}{_random.getrandbits(48):012x}"


def safe_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that can be sent: a value that could end its line (S20), or is longer than clients read, is left out;
    characters beyond latin-1 become `?`.
    """
    return {
        name: value.encode("latin-1", "replace").decode("latin-1")
        for name, value in headers.items()
        if value.isprintable() and len(value) <= _MAX_VALUE
    }


def header_lines(headers: Mapping[str, str]) -> bytes:
    """`safe_headers` of a whole JSON answer as HTTP/1 sends them, `content-length` left out."""
    values = "".join(headers.values())
    if len(values) > _MAX_VALUE or not values.isprintable():
        headers = safe_headers(headers)
    lines = "\r\n".join([*map(": ".join, headers.items()), ""])
    return _JSON_LINES + lines.encode("latin-1", "replace")


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """`safe_headers` in ASGI's form."""
    values = "".join(headers.values())
    if len(values) > _MAX_VALUE or not values.isprintable():
        headers = safe_headers(headers)
    if not headers:
        return []
    names, values = "\n".join(headers), "\n".join(headers.values())  # encoded at once: a stream has a dozen of them
    return list(zip(names.encode("ascii").split(b"\n"), values.encode("latin-1", "replace").split(b"\n"), strict=True))


async def send_json(
    send: Send,
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    linger: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """One whole JSON answer."""
    full = {**_JSON, "content-length": str(len(body)), **headers}
    await send({"type": "http.response.start", "status": status, "headers": raw_headers(full)})
    if linger is not None:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await linger()
        body = b""
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(
    send: Send,
    error: ProxyError,
    body: bytes,
    headers: Mapping[str, str],
    linger: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """One error answer; `body` is the error in the endpoint's shape. `linger` runs once it is sent, before the
    connection may close.
    """
    await send_json(send, error.status, body, {**error.headers, **headers}, linger)
