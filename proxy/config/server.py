"""Values: the section `server` of routing_rules.yaml, which only the server obeys."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from msgspec import Meta, Struct

from proxy.schema.constraints import Count, NotBlank, NotNegative, Positive, one_of, text


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `server`. Precedence: flag, environment (PROXY_*), file, default. `max_in_flight` applies per worker."""

    host: NotBlank = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000
    workers: Count = 1
    require_key: Annotated[bool | str, one_of("auto", True, False)] = "auto"
    allowed_hosts: list[str] = []
    cors_origins: list[str] = []
    root_path: Annotated[str, text(r"^/([A-Za-z0-9_-][A-Za-z0-9._-]*/?)*$", "be a path like /proxy")] = "/"
    max_body_mb: Positive = 32
    max_in_flight: Count = 1000
    grace_s: NotNegative = 30
    log_format: Annotated[str, one_of("auto", "console", "json")] = "auto"
    metrics: Annotated[str, one_of("public", "admin", "off")] = "public"

    @property
    def prefix(self) -> str:
        """The prefix of every path: `root_path` without its final slash."""
        return self.root_path.rstrip("/")


def is_loopback(host: str) -> bool:
    """True if a server that listens on `host` is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
