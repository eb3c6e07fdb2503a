"""Performs I/O: the monitoring routes: `/livez`, `/readyz`, `/health` and `/metrics`. They call no model."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from proxy.metering.ledger import LedgerState
from proxy.metering.standing import moment
from proxy.schema.json import encode
from proxy.server.api.answers import NO_STORE
from proxy.storage.retention import StorageState


class Standing(Struct, frozen=True):
    """The state that is known without a wait. `ledger` None: not open; `storage` None: not counted yet.

    `refuses`: calls that cannot be metered are refused.
    """

    uptime_s: float
    draining: bool
    ledger: LedgerState | None
    refuses: bool
    in_flight: int
    max_in_flight: int
    config_version: str
    config_loaded_at: float
    config_error: str | None
    storage: StorageState | None = None

    def problems(self) -> list[str]:
        """Why no call should be sent here; empty: the server is ready."""
        found = ["the server is stopping"] if self.draining else []
        if self.ledger is None:
            return [*found, "the server is not running"]
        if self.ledger.is_dead:
            return [*found, "the ledger's writer has ended: the server must be restarted"]
        return [*found, "the usage database cannot be written"] if self.ledger.degraded and self.refuses else found


class ProviderState(Struct, frozen=True, omit_defaults=True):
    """`on` or `off`; of an embedded model not started, starting, running or failing. `why`: the reason, if it helps."""

    state: str
    why: str | None = None


class Watched:
    """The sources of `/health` and `/metrics`, provided by the application."""

    def __init__(
        self,
        version: str,
        standing: Callable[[], Standing],
        providers: Callable[[], Awaitable[dict[str, ProviderState]]],
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
    ) -> None:
        self.version = version
        self.standing = standing
        self.providers = providers
        self.metrics = metrics


class Health:
    """The routes. `access` to `/metrics`: public, admin or off."""

    def __init__(self, watched: Watched, access: str) -> None:
        self._watched = watched
        self._access = access

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @get("/livez", sync_to_thread=False, role="none")
        def livez() -> Response[bytes]:
            """200 as long as the process can serve, 503 if only a new one can: its ledger's writer has ended."""
            ledger = self._watched.standing().ledger
            is_dead = ledger is not None and ledger.is_dead
            return _json({"status": "ledger_dead" if is_dead else "ok"}, 503 if is_dead else 200)

        @get("/readyz", sync_to_thread=False, role="none")
        def readyz() -> Response[bytes]:
            """200 while calls can be sent here, 503 with the problems otherwise."""
            problems = self._watched.standing().problems()
            return _json({"status": "degraded" if problems else "ok", "problems": problems}, 503 if problems else 200)

        @get("/health", role="none")
        async def health() -> Response[bytes]:
            """The state of the server and its parts; its status is that of `/readyz`."""
            standing = self._watched.standing()
            return _json(
                report(self._watched.version, standing, await self._watched.providers()),
                503 if standing.problems() else 200,
            )

        @get("/metrics", role="none" if self._access == "public" else "admin")
        async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
            """Counters for Prometheus, in its text format or as OpenMetrics."""
            body, content_type = await self._watched.metrics(request.headers.get("accept", ""))
            return Response(body, headers={**NO_STORE, "content-type": content_type})

        return [livez, readyz, health, *([metrics] if self._access != "off" else [])]


def report(version: str, standing: Standing, providers: dict[str, ProviderState]) -> dict[str, Any]:
    """The body of `/health`, without keys, addresses and file paths."""
    ledger = standing.ledger
    return {
        "status": _status(standing),
        "problems": standing.problems(),
        "version": version,
        "uptime_s": round(standing.uptime_s, 1),
        "draining": standing.draining,
        "in_flight": standing.in_flight,
        "max_in_flight": standing.max_in_flight,
        "config": {
            "version": standing.config_version,
            "loaded_at": round(standing.config_loaded_at),
            "error": None if standing.config_error is None else without_folders(standing.config_error),
        },
        "database": None
        if ledger is None
        else {
            "state": "dead" if ledger.is_dead else "degraded" if ledger.degraded else "ok",
            "pending_changes": ledger.pending,
            "open_calls": ledger.open_calls,
            "lost_calls": ledger.lost,
            **_size(standing.storage),
        },
        "providers": providers,
    }


def _size(storage: StorageState | None) -> dict[str, Any]:
    """The size of the database, at most some minutes old; nulls until it was counted."""
    return {
        "calls": storage and storage.calls,
        "oldest_call": None if storage is None else moment(storage.oldest_ns),
        "file_bytes": storage and storage.file_bytes,
        "wal_bytes": storage and storage.wal_bytes,
        "next_clean_up": None if storage is None else moment(storage.next_clean_up_ns),
    }


def without_folders(error: str) -> list[str]:
    """The lines of a configuration's error, each file by its name alone."""
    return [re.sub(r"^[^:]*/", "", line) for line in error.splitlines()]


def _status(standing: Standing) -> str:
    if standing.draining:
        return "draining"
    ledger = standing.ledger
    return "degraded" if ledger is None or ledger.degraded or standing.config_error is not None else "ok"


def _json(value: object, status: int) -> Response[bytes]:
    return Response(encode(value), status_code=status, media_type="application/json", headers=NO_STORE)
