"""Translates: the configuration -> the line of `proxy serve` with the address of the pages."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from proxy.config import Config
from proxy.config.server import is_loopback
from proxy.server.web.site import sign_in_link
from proxy.storage.keys import StoredKey


def address(config: Config, port: int) -> str:
    """The address of the server, without a path."""
    host = config.server.host if ":" not in config.server.host else f"[{config.server.host.strip('[]')}]"
    return f"http://{host}:{port}"


def dashboard_line(config: Config, secret: bytes, port: int, keys: Iterable[StoredKey]) -> str:
    """The line. If there is no admin key, its link signs in the first user who opens it; only on loopback."""
    base_url = f"{address(config, port)}{config.server.prefix}"
    now_ns = time.time_ns()
    has_admin = bool(os.environ.get("PROXY_ADMIN_KEY"))
    has_admin = has_admin or any(key.role == "admin" and key.opens(now_ns) for key in keys)
    if has_admin or not is_loopback(config.server.host):
        return f"{base_url}/dashboard (sign in with an admin key)"
    return f"{sign_in_link(secret, base_url)} (works once)"
