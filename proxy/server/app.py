"""Orchestrates: the composition root: the ASGI application around the objects that `wiring` builds.

Objects are constructed only here and in `wiring`; everything else receives them as arguments. The lifespan closes
everything it opened.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from litestar import Litestar, asgi
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct
from sse_starlette.sse import AppStatus
from structlog.typing import FilteringBoundLogger

from proxy import __version__
from proxy.config import Config
from proxy.config.namespace import baseline_of, enabled
from proxy.config.server import is_loopback
from proxy.config.source import ConfigFiles
from proxy.metering import tokens
from proxy.pipeline.idempotency import Replays
from proxy.pipeline.limits import FailedLogins
from proxy.routing.health import NO_STATE, State
from proxy.server.api.admin import Admin
from proxy.server.api.calls import ModelCalls
from proxy.server.api.count_tokens import CountTokens
from proxy.server.api.explain import Explain
from proxy.server.api.guard import LOOPBACK_HOSTS, Access, Guard
from proxy.server.api.health import Health, ProviderState, Standing, Watched
from proxy.server.api.openapi import openapi_route
from proxy.server.api.reads import Reads
from proxy.server.api.request import Bodies, Places
from proxy.server.api.shared import SharedCalls
from proxy.server.api.stored_responses import stored_response_routes
from proxy.server.auth import Auth, StoredKeys, own_key
from proxy.server.connecting import LocalModels
from proxy.server.followers import following
from proxy.server.formats import FORMATS, EndpointFormat
from proxy.server.framework import Routes, litestar
from proxy.server.history import History
from proxy.server.http1 import Connections, Limits, give_back, most_connections
from proxy.server.log import log_writer
from proxy.server.metrics import Metrics
from proxy.server.reload import Reloads
from proxy.server.runtime import Runtime
from proxy.server.shared_sessions import SharedSessions
from proxy.server.stored_routes import stored_routes
from proxy.server.telemetry.exporting import exporting
from proxy.server.telemetry.signals import Signals
from proxy.server.trials import Trials
from proxy.server.web.shown import Operations, Shown
from proxy.server.web.site import Site, build_site
from proxy.server.wiring import Running, database_folder, key_store, running, sticky_moves
from proxy.upstream.local_model import LocalModel


class Options(Struct, frozen=True):
    """Options of an application besides its configuration.

    `metrics_folder`: where several workers share their counters. `files`: reloaded when they change, or when
    `reload_soon` is called; None: the configuration does not come from files and never changes. `formats`: the
    endpoints that call models. `signals`: the telemetry to export. `pages_secret`: for the cookies of pages and the
    sign-in link, the same in all workers; None: the process makes its own.
    """

    metrics_folder: Path | None = None
    files: ConfigFiles | None = None
    formats: Sequence[EndpointFormat] = FORMATS
    signals: Signals = Signals()
    pages_secret: bytes | None = None


_LOOK_S = 0.1  # interval of the check whether the server should stop
_LAST_WORDS_S = 0.5  # part of the grace period reserved for sending errors
_NO_OPTIONS = Options()


class Application:
    """The ASGI application; `config` is its first configuration."""

    def __init__(
        self,
        config: Config,
        models: LocalModels,
        auth: Auth,
        log: FilteringBoundLogger,
        options: Options = _NO_OPTIONS,
    ) -> None:
        self.has_failed = False  # the process ends because of a failure, not on request
        self._running: Running | None = None
        self._files = options.files
        self._signals = options.signals
        self._reloads = Reloads(options.files, config, self._run, log)
        self._reloads.prepare = self._prepare
        self._reloads.unchanged = self._try_keys_again
        self._trials = Trials(options.files, lambda: self.live, self._reloads.off_loop)
        self._history = History(options.files, config, lambda: self._reloads.state.config_version, log)
        self._config = config
        self._models = models
        self._log = log
        self._started = time.monotonic()
        server = config.server
        self._places = Places(server.max_in_flight, [path for format in options.formats for path in format.paths])
        limits = Limits(connections=most_connections(server.max_in_flight))
        self._connections = Connections(limits, self._places.refusal)
        self._metrics = Metrics(__version__, self._read, options.metrics_folder)
        self._auth = auth
        access = Access(auth, lambda: self.live.policies, time.time_ns)
        shared = SharedCalls(self._runtime, self._replays, self._places, log, self._count_replay)
        bodies = Bodies(int(server.max_body_mb * 1024 * 1024))
        calls = ModelCalls(self._runtime, access, bodies, shared, log)
        watched = Watched(__version__, self._standing, self._providers, self._metrics.exposition)
        health, admin = Health(watched, server.metrics), Admin(self._reloads.reload, self._trials.plan_change)
        explain, counting = Explain(self._runtime, bodies), CountTokens(self._runtime, bodies)

        described = openapi_route(lambda: self.litestar.routes)
        own = [*self._reads(), *explain.routes(), *counting.routes(), *stored_response_routes()]
        guarded = [*own, *health.routes(), *admin.routes(), described]
        model_routes = [_model_route(calls, format) for format in options.formats]
        site = self._site(access, options, calls)
        api = Routes("/", guards=[access.guard()], route_handlers=guarded)
        self.litestar = litestar([*model_routes, api, site.router], self._lifespan, server, log, site.templates)
        hosts = frozenset(host.lower() for host in (*LOOPBACK_HOSTS, server.host, *server.allowed_hosts))
        origins = frozenset(server.cors_origins)
        direct: dict[str, ASGIApp] = {
            path: partial(calls, format=format, alone=True) for format in options.formats for path in format.paths
        }
        guard = Guard(self.litestar, lambda: auth.keyless, hosts, origins, self._connections, direct)
        guard.root = server.prefix
        self.asgi: ASGIApp = guard

    def _site(self, access: Access, options: Options, calls: ModelCalls) -> Site:
        """The pages."""
        keys = key_store(self._config)
        operations = Operations(
            options.files, self._reloads, self._trials, calls, self._places, self._runtime, self._log
        )
        seen = Shown(lambda: self.live, self._standing, self._providers, self._board_state, keys.all, operations)
        return build_site(self._config.server, access, seen, options.pages_secret, options.metrics_folder)

    def _board_state(self) -> State:
        return NO_STATE if self._running is None else self._running.board.state()

    def _reads(self) -> list[HTTPRouteHandler]:
        reads = Reads(lambda: self.live, int(time.time()), lambda: baseline_of(self.live.config, self.live.names))
        return [*reads.routes(), *stored_routes(lambda: self.live)]

    @property
    def live(self) -> Runtime:
        """The live objects of the running server. Raises RuntimeError before startup."""
        if self._running is None:
            raise RuntimeError("the application is not running")
        return self._running.runtimes.current

    def reload_soon(self) -> None:
        """Requests a reload. Safe to call from a signal handler or any thread."""
        self._reloads.soon()

    def _runtime(self) -> AbstractContextManager[Runtime]:
        """The current runtime for a `with` block: its resources stay open until then, across reloads."""
        if self._running is None:
            raise RuntimeError("the application is not running")
        return self._running.runtimes.using()

    def _replays(self) -> Replays:
        if self._running is None:
            raise RuntimeError("the application is not running")
        return self._running.replays

    def _count_replay(self, kind: str) -> None:
        self._metrics.count("mmproxy_replays", (kind,))

    def _prepare(self, config: Config) -> None:
        if self._running is not None:
            self._running.prepare(config)

    def _run(self, config: Config) -> None:
        if self._running is not None:
            self._running.run(config)
            self._history.soon()

    def _try_keys_again(self) -> None:
        if self._running is not None:
            self._running.key_states.forgive()

    @property
    def draining(self) -> bool:
        """True after SIGTERM. uvicorn has no hook for it, but its signal handler is a method of the server."""
        return bool(getattr(_uvicorn(), "should_exit", False))

    async def _stop_calls_in_time(self, server: Running) -> None:
        """Ends running calls with a proper error before uvicorn cuts their connections."""
        ends_at = math.inf  # another server of this process may be stopping, which ends soon
        while not (draining := self.draining) or time.monotonic() < ends_at:
            soonest = time.monotonic() + self._config.server.grace_s - _LAST_WORDS_S
            ends_at = min(ends_at, soonest) if draining else math.inf
            await asyncio.sleep(min(_LOOK_S, max(0.0, ends_at - time.monotonic())))
        for runtime in server.runtimes.open:
            runtime.pipeline.stop_calls()

    def _end(self) -> None:
        """Drains as on SIGTERM. Only a new process can meter again; the supervisor starts one."""
        self.has_failed = True
        if (server := _uvicorn()) is not None:
            server.should_exit = True

    def _standing(self) -> Standing:
        return Standing(
            uptime_s=time.monotonic() - self._started,
            draining=self.draining,
            ledger=None if self._running is None else self.live.ledger.state,
            refuses=self._config.storage.when_down == "refuse",
            in_flight=self._places.taken,
            max_in_flight=self._places.limit,
            config_version=self._reloads.state.config_version,
            config_loaded_at=self._reloads.state.config_loaded_at,
            config_error=self._reloads.state.config_error,
            storage=None if self._running is None else self._running.upkeep.state,
        )

    async def _providers(self) -> dict[str, ProviderState]:
        config = self._config if self._running is None else self.live.config
        states = {name: ProviderState("on") for name in enabled(config)}
        for name in states.keys() & self._models.keys():
            local = await self._models[name].state()
            states[name] = ProviderState(local.state, local.why)
        return states | {name: ProviderState("off", why) for name, why in config.disabled.items()}

    def _read(self) -> dict[str, float]:
        """Gauges that are read on demand."""
        values: dict[str, float] = {
            "mmproxy_in_flight_requests": self._places.taken,
            "mmproxy_overloaded": self._places.refused,
            **self._connections.read(),
            "mmproxy_tasks": len(asyncio.all_tasks()),
            "mmproxy_log_dropped": writer.dropped if (writer := log_writer()) else 0,
            "mmproxy_config_ok": float(self._reloads.state.config_error is None),
            "mmproxy_config_reloads": self._reloads.state.reloads,
            "mmproxy_config_reload_errors": self._reloads.state.refused,
            "mmproxy_workers": 1,
        }
        if self._running is not None:
            ledger = self.live.ledger.state
            values["mmproxy_ledger_pending_changes"] = ledger.pending
            values["mmproxy_ledger_degraded"] = float(ledger.degraded)
            values["mmproxy_ledger_lost"] = ledger.lost
            values["mmproxy_vault_failures"] = self._running.vault.failures
            values["mmproxy_kept_answers_failures"] = self._running.replays.failures
        return values

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncGenerator[None, None]:
        # sse-starlette would end live streams at SIGTERM; uvicorn drains them for grace_s.
        AppStatus.enable_automatic_graceful_drain = False
        async with (
            exporting(self._signals, self._log) as telemetry,
            running(self._config, self._models, self._log, self._metrics, self._end, telemetry) as server,
        ):
            self._running = server
            for model in self._models.values():
                if isinstance(model, LocalModel) and model.spec.start == "at_start":
                    model.start()
            await self._auth.refresh()
            await self._history.keep()
            if tokens.EXACT is not None:
                await asyncio.to_thread(tokens.EXACT, [""])  # reads the vocabulary before the first call needs it
            followers = [
                self._metrics.watch(),
                self._reloads.follow_files(database_folder(self._config)),
                self._reloads.follow_requests(),
                *server.followers(),
                self._history.follow(),
                self._auth.follow(),
                SharedSessions(server.board.sessions, sticky_moves(self._config), self._log).follow(),
                self._stop_calls_in_time(server),
            ]
            give_back()  # returns memory that only the start needed
            try:
                async with following(followers, self._log):
                    try:
                        yield
                    finally:
                        await server.replays.drain(self._config.server.grace_s)
            finally:
                self._running = None


def _uvicorn() -> Any:
    """The uvicorn server of this process, which handles SIGTERM; None if another server embeds the application."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return server if hasattr(server, "should_exit") else None


def _model_route(calls: ModelCalls, format: EndpointFormat) -> ASGIRouteHandler:
    """One endpoint that calls models."""

    @asgi(list(format.paths), copy_scope=False, role="key")
    async def call_model(scope: Scope, receive: Receive, send: Send) -> None:
        await calls(scope, receive, send, format)

    return call_model


def server_auth(environ: Mapping[str, str], config: Config) -> Auth:
    """The server's keys: PROXY_API_KEY, PROXY_ADMIN_KEY, and those in the database."""
    return Auth(
        own_key(environ, "PROXY_API_KEY"),
        own_key(environ, "PROXY_ADMIN_KEY"),
        StoredKeys(key_store(config).look),
        needs_key=config.server.require_key is True or not is_loopback(config.server.host),
        optional=config.server.require_key is False,
        note_failure=FailedLogins().note,
    )
