"""Orchestrates: the composition root. Config -> live objects -> the ASGI application; its lifespan closes all it
opened.

Only here is anything constructed. Everything else receives what it needs as arguments.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from litestar import Litestar, asgi
from litestar.config.cors import CORSConfig
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Struct
from sse_starlette.sse import AppStatus
from structlog.typing import FilteringBoundLogger

from proxy.api.chat import Chat
from proxy.api.errors import exception_handlers
from proxy.api.guard import LOOPBACK_HOSTS, Guard
from proxy.api.reads import Reads
from proxy.auth import Auth
from proxy.config import Config
from proxy.dispatch import Dispatcher
from proxy.ledger import Ledger
from proxy.local_model import LocalModel, RemoteLocalModel
from proxy.local_model.weights import model_id
from proxy.metering import Call, Clock
from proxy.pipeline import Pipeline
from proxy.price_book import PriceBook
from proxy.providers import PROVIDERS
from proxy.providers.base import Provider
from proxy.records import CallEnd, Endpoint, Secret
from proxy.routing.names import Names
from proxy.routing.router import Router
from proxy.storage.sqlite import SqliteStore, sqlite_path
from proxy.transports.aiohttp import AiohttpTransport
from proxy.transports.base import Transport
from proxy.transports.httpx import HttpxTransport
from proxy.upstream import Origin, Upstream

LocalModels = Mapping[str, LocalModel | RemoteLocalModel]


class Parts(Struct, frozen=True):
    """The live objects of one running server."""

    names: Names
    pipeline: Pipeline
    ledger: Ledger
    upstreams: Mapping[str, Upstream]


def local_models(config: Config) -> dict[str, LocalModel]:
    """One supervised child per provider that runs on this machine; nothing is started yet."""
    specs = {name: provider.local_model for name, provider in enabled(config).items()}
    return {name: LocalModel(spec) for name, spec in specs.items() if spec is not None}


@asynccontextmanager
async def running(config: Config, models: LocalModels, log: FilteringBoundLogger) -> AsyncGenerator[Parts, None]:
    """Opens the ledger and the connections, yields the parts, closes everything in reverse order."""
    async with AsyncExitStack() as stack:
        ledger = build_ledger(config)
        await ledger.start()
        stack.push_async_callback(ledger.stop)
        upstreams = {}
        for name, provider in enabled(config).items():
            transport = _transport(provider)
            stack.push_async_callback(transport.close)
            upstreams[name] = Upstream(name, provider, _origin(config, name, provider, models), transport)
        clock = Clock(time.time_ns, time.perf_counter)
        book = PriceBook(config.pricing, _vendors(config))
        names = build_names(config, book)
        dispatcher = Dispatcher(upstreams, ledger, config.version, random.random)
        router = Router(names, book, random.random)
        pipeline = Pipeline(router, dispatcher, ledger, clock, functools.partial(_log_call, log))
        stack.push_async_callback(pipeline.close)
        for model in models.values():
            if isinstance(model, LocalModel):
                stack.push_async_callback(model.close)
        yield Parts(names, pipeline, ledger, upstreams)


def enabled(config: Config) -> dict[str, Provider]:
    """The providers that may be called."""
    return {name: provider for name, provider in config.providers.items() if name not in config.disabled}


def build_ledger(config: Config) -> Ledger:
    """The ledger on its store; nothing is opened yet."""
    store = SqliteStore(sqlite_path(config.storage.url), durability=config.storage.durability)
    return Ledger(store, when_down=config.storage.when_down)


def build_names(config: Config, book: PriceBook) -> Names:
    """The namespace of one configuration."""
    return Names(
        providers=enabled(config),
        disabled=config.disabled,
        models=config.models,
        aliases=config.aliases,
        router=config.router,
        listed={name: _listed(config, name) for name in enabled(config)},
        price_of=book.find,
    )


def names_now(config: Config) -> list[str]:
    """What `/v1/models` will list, for the banner."""
    return build_names(config, PriceBook(config.pricing, {})).names()


def _listed(config: Config, provider_name: str) -> tuple[str, ...]:
    """The upstream ids known to exist at one provider: its own model, its roles, its rows in pricing.yaml."""
    spec = config.providers[provider_name].local_model
    if spec is not None:
        return (model_id(spec),)
    prefix = f"{provider_name}/"
    priced = [
        name.removeprefix(prefix)
        for name, price in config.pricing.models.items()
        if name.startswith(prefix) and not name.endswith("*") and price.retired is None
    ]
    return tuple(dict.fromkeys([*config.providers[provider_name].models.values(), *priced]))


def _vendors(config: Config) -> dict[str, str]:
    """Providers at their vendor's own address, where its list prices hold."""
    kinds = {kind: name for name, kind in PROVIDERS.items()}
    return {name: kinds[type(provider)] for name, provider in enabled(config).items() if provider.base_url is None}


def _transport(provider: Provider) -> Transport:
    return HttpxTransport(provider.ca_file) if provider.transport == "httpx" else AiohttpTransport(provider.ca_file)


def _origin(config: Config, name: str, provider: Provider, models: LocalModels) -> Origin:
    if name in models:
        return models[name].endpoint
    base_url = (provider.base_url or provider.default_base_url or "").rstrip("/")
    endpoint = Endpoint(base_url, config.secrets.get(name), config.headers.get(name, {}))

    async def fixed() -> Endpoint:
        return endpoint

    return fixed


def _log_call(log: FilteringBoundLogger, call: Call, end: CallEnd) -> None:
    attempt = end.attempt
    log.info(
        "call",
        request_id=call.id,
        key=call.caller.key_id,
        requested=call.request.model,
        model=call.attempts[-1].deployment.name if call.attempts else None,
        stream=call.request.stream,
        outcome=str(end.outcome),
        status=end.status,
        code=end.error_code,
        attempts=len(call.attempts),
        input_tokens=attempt.tokens.prompt if attempt else None,
        output_tokens=attempt.tokens.output if attempt else None,
        cost_nano_usd=attempt.cost_nano if attempt else None,
        latency_ms=round(end.latency_ms, 1),
        first_token_ms=None if end.first_token_ms is None else round(end.first_token_ms, 1),
    )


class Application:
    """The ASGI application of one configuration. `parts` is there between start and stop."""

    def __init__(self, config: Config, models: LocalModels, auth: Auth, log: FilteringBoundLogger) -> None:
        self.parts: Parts | None = None
        self._config = config
        self._models = models
        self._log = log
        server = config.server
        chat = Chat(lambda: self.live.pipeline, auth, int(server.max_body_mb * 1024 * 1024), log)
        reads = Reads(
            lambda: self.live.names, auth, lambda query: self.live.ledger.usage(query), self._problems, int(time.time())
        )

        @asgi(["/v1/chat/completions", "/chat/completions"], copy_scope=False)
        async def chat_completions(scope: Scope, receive: Receive, send: Send) -> None:
            await chat(scope, receive, send)

        self.litestar = Litestar(
            [chat_completions, *reads.routes()],
            lifespan=[self._lifespan],
            exception_handlers=exception_handlers(log),
            cors_config=CORSConfig(allow_origins=server.cors_origins) if server.cors_origins else None,
            openapi_config=None,
            logging_config=None,
            request_max_body_size=int(server.max_body_mb * 1024 * 1024),
        )
        own = (*LOOPBACK_HOSTS, server.host, *server.allowed_hosts)
        hosts = frozenset(host.lower() for host in own) if auth.keyless else None
        self.asgi: ASGIApp = Guard(self.litestar, hosts, frozenset(server.cors_origins))

    @property
    def live(self) -> Parts:
        """The parts of the running server. Raises RuntimeError before its start."""
        if self.parts is None:
            raise RuntimeError("the application is not running")
        return self.parts

    def _problems(self) -> list[str]:
        return ["the usage database cannot be written"] if self.live.ledger.state.degraded else []

    @asynccontextmanager
    async def _lifespan(self, _: Litestar) -> AsyncGenerator[None, None]:
        # sse-starlette would end live streams at SIGTERM; uvicorn drains them for grace_s.
        AppStatus.enable_automatic_graceful_drain = False
        async with running(self._config, self._models, self._log) as parts:
            self.parts = parts
            try:
                yield
            finally:
                self.parts = None


def server_auth(environ: Mapping[str, str]) -> Auth:
    """The server's own keys, from PROXY_API_KEY and PROXY_ADMIN_KEY."""
    key, admin = environ.get("PROXY_API_KEY"), environ.get("PROXY_ADMIN_KEY")
    return Auth(Secret(key) if key else None, Secret(admin) if admin else None)
