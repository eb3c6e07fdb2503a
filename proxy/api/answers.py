"""Performs I/O: writes one whole answer, or one error, to an ASGI client in as few sends as ASGI allows."""

from __future__ import annotations

from collections.abc import Mapping

from litestar.types import Send

from proxy.codec import encode
from proxy.errors import ProxyError

NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them; a value that could end its line is left out (S20)."""
    return [
        (name.encode("ascii"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
        if value.isprintable()
    ]


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """One whole JSON answer."""
    full = {"content-type": "application/json", "content-length": str(len(body)), **NO_STORE, **headers}
    await send({"type": "http.response.start", "status": status, "headers": raw_headers(full)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(send: Send, error: ProxyError, headers: Mapping[str, str]) -> None:
    """One error answer in OpenAI's shape."""
    await send_json(send, error.status, encode(error.body()), {**error.headers, **headers})
