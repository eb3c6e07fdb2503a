"""Translates: the URL of an HTTP proxy into its address and the headers that it needs."""

from __future__ import annotations

from base64 import b64encode
from urllib.parse import unquote, urlsplit, urlunsplit


class ProxyAddress:
    """An HTTP proxy. `url` has no password; `headers` carry it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self.url = urlunsplit(("http", parts.netloc.rpartition("@")[2], "", "", ""))
        self.headers: dict[str, str] = {}
        if user or password:
            token = b64encode(f"{user}:{password}".encode()).decode()
            self.headers["proxy-authorization"] = f"Basic {token}"
