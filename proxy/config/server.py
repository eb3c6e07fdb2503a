"""Values: the section `server` of routing_rules.yaml, which only the server obeys."""

from __future__ import annotations

from msgspec import Struct


class ServerConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `server`. Precedence: flag, environment (PROXY_*), file, default. `max_in_flight` applies per worker."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    require_key: bool | str = "auto"
    allowed_hosts: list[str] = []
    cors_origins: list[str] = []
    max_body_mb: float = 32
    max_in_flight: int = 1000
    grace_s: float = 30
    log_format: str = "auto"
    metrics: str = "public"
