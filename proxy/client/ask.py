"""Performs I/O: asks a running server one question."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from proxy.schema.json import decode_object
from proxy.schema.sse import EventFraming

CONNECT_S = 0.5
LOOK_S = 5.0


class NotServed(Exception):
    """No answer from this server: it cannot be reached, or does not accept the key. Another way may work."""


class Refused(Exception):
    """The server's error, as its message."""


def runs(base_url: str, config_version: str) -> bool:
    """True if a server of this product with this configuration answers. `base_url` ends in /v1."""
    address = urlsplit(base_url)
    try:
        # Without a server this costs no import and no time.
        socket.create_connection((address.hostname or "", address.port or 80), timeout=CONNECT_S).close()
        answer = httpx.get(f"{base_url.removesuffix('/v1')}/health", timeout=LOOK_S, trust_env=False)
        config = msgspec.json.decode(answer.content, type=dict[str, Any]).get("config")
    except (OSError, httpx.HTTPError, msgspec.DecodeError):
        return False
    return isinstance(config, dict) and config.get("version") == config_version


def answer(base_url: str, key: str | None, body: bytes) -> Iterator[dict[str, Any]]:
    """The answer in chunks, or whole if `body` does not ask for a stream. Raises NotServed or Refused."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    url = f"{base_url}/chat/completions"
    try:
        with httpx.stream("POST", url, content=body, headers=headers, timeout=None, trust_env=False) as response:
            if response.status_code == 401:
                raise NotServed
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                yield _told(response.read())
                return
            framing = EventFraming()
            for piece in response.iter_raw():
                for event in framing.feed(piece):
                    if event.data != b"[DONE]":
                        yield _told(event.data)
    except httpx.ConnectError as error:
        raise NotServed from error
    except httpx.HTTPError as error:
        raise Refused(f"{base_url} broke off: {error or type(error).__name__}.") from error


def _told(data: bytes) -> dict[str, Any]:
    told = decode_object(data)
    if isinstance(error := told.get("error"), dict):
        raise Refused(str(error.get("message")))
    return told
