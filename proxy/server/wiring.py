"""Orchestrates: builds the live objects of each configuration, on the server's one ledger.

Every configuration gets its own objects, so that a call runs on one configuration from start to end. `Running` holds
what outlives a reload: the ledger, connections, the embedded models, counters.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from proxy.config import Config, ConfigError
from proxy.config.namespace import build_names, catalogues, enabled, endpoint_of, ensembles_of, key_endpoints
from proxy.config.problems import Mark, problem
from proxy.config.sites import merged
from proxy.metering.charges import Budgets
from proxy.metering.ledger import Ledger
from proxy.metering.price_book import PriceBook
from proxy.pipeline.admission import Admission, KeyPolicies
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.limits import Limits
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.resources import Resources
from proxy.pipeline.sharing import Sharing
from proxy.pipeline.timing import Clock
from proxy.providers.base.contract import ProviderLimits
from proxy.routing.allowed import Views, meaning
from proxy.routing.board import HealthBoard
from proxy.routing.classify import load
from proxy.routing.facts import TextClassifier
from proxy.routing.names import Names
from proxy.routing.router import Router
from proxy.routing.stored_facts import mentioned
from proxy.server.connecting import LocalModels, connecting, origin_of
from proxy.server.metrics import Metrics
from proxy.server.observers import observer, on_end, report_health
from proxy.server.runtime import Runtime
from proxy.server.shipped_prompts import bring_shipped
from proxy.server.side_stores import SideStores, build_side_stores
from proxy.server.swap import Swap
from proxy.sites.catalog import Catalog
from proxy.sites.match import Matcher
from proxy.storage.keys import KeyStore
from proxy.storage.sqlite import SqliteStore, sqlite_path
from proxy.storage.sticky_moves import StickyMoves
from proxy.upstream.keys import Key, Keys, KeyStates, share
from proxy.upstream.local_model import LocalModel
from proxy.upstream.model_discovery import ModelDiscovery
from proxy.upstream.pools import Pool, Pools
from proxy.upstream.traced import TracedUpstream
from proxy.upstream.upstream import Upstream

if TYPE_CHECKING:
    from proxy.server.telemetry.recording import Telemetry


class Running:
    """One server: the runtime of its current configuration, and those of earlier ones until their last call ends."""

    def __init__(
        self,
        ledger: Ledger,
        stores: SideStores,
        models: LocalModels,
        log: FilteringBoundLogger,
        metrics: Metrics | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.runtimes: Swap[Runtime] = Swap()
        self._ledger = ledger
        self.vault = stores.vault
        self.replays = stores.replays
        self.texts = stores.texts
        self.prompts = stores.prompts
        self.experiments = stores.experiments
        self.upkeep = stores.upkeep
        self.alerts = stores.alerts
        ledger.on_crossing(self.alerts.put)
        self._models = models
        self._log = log
        self._metrics = metrics
        self._telemetry = telemetry
        self._pools = Pools(connecting())
        self.key_states = KeyStates()
        self._off_loop = stores.off_loop
        self.board = HealthBoard(time.perf_counter, time.time)
        self._limits: Limits | None = None
        self._lists: ModelDiscovery | None = None

    def prepare(self, config: Config) -> None:
        """Reads the certificates that `run` will need; runs in a thread, because files may hang."""
        self._pools.read(enabled(config).values())

    def run(self, config: Config) -> None:
        """Makes `config` current for new calls. Raises ConfigError, and changes nothing, if it cannot run."""
        with ExitStack() as pools:
            runtime = self._build(config, pools)
            taken = pools.pop_all()

        async def close() -> None:
            await runtime.lists.close()
            await runtime.pipeline.close()
            taken.close()

        self._ledger.watch_shares(config.budget.alert_at if config.budget else ())
        self.alerts.url = config.alert_webhook
        self.key_states.forgive()
        self.board.configure(config.router)
        report_health(self.board, self._log, self._metrics, runtime.names.configured())
        self.runtimes.put(runtime, close)
        self._lists = runtime.lists
        self._lists.follow()

    def _build(self, config: Config, pools: ExitStack) -> Runtime:
        upstreams = {name: self._upstream(config, name, pools) for name in enabled(config)}
        lists = ModelDiscovery(upstreams, self._log.warning, self._lists)
        book = PriceBook(config.pricing, catalogues(config), warn=self._log.warning)
        names = build_names(config, book, lists.found)
        views = Views(names, book, lambda: lists.found)
        configured = names.configured()
        budgets = Budgets(config.budget, lambda name: meaning(names, name))
        ended, begin_trace = on_end(self._log, self._metrics, configured, self.texts), None
        if self._telemetry is not None:
            providers = {name: (provider, endpoint_of(config, name)) for name, provider in enabled(config).items()}
            ended = self._telemetry.observing(ended, configured, providers)
            begin_trace = self._telemetry.begin if self._telemetry.is_tracing else None
        self._limits = self._limits or Limits(config.server.workers)  # usage outlives a reload
        policies = KeyPolicies(config.keys, config.rate_limits, self._limits)
        sites = Matcher(Catalog(merged(config.sites)))
        pipeline = Pipeline(
            Admission(
                policies,
                Router(views, book, random.random, classifier(), self.board.state, config.version),
                budgets,
                self._ledger.spending,
                ensembles_of(config),
                self.prompts,
            ),
            Dispatcher(
                Resources(
                    upstreams,
                    self._ledger,
                    self._off_loop,
                    config.version,
                    random.random,
                    observer(self._metrics, configured),
                    config.router.retry_delay_s,
                    config.router,
                    self.board,
                    mentioned(config.rules),
                    budgets,
                    sites,
                    begin_trace,
                )
            ),
            self.vault,
            Clock(time.time_ns, time.perf_counter),
            ended,
            config.router.deadline_s,
        )
        sharing = sharing_of(config, names)
        kept = (self.texts, self.prompts, self.experiments, sites)
        return Runtime(config, views, policies, pipeline, sharing, self._ledger, budgets, upstreams, lists, *kept)

    def _upstream(self, config: Config, name: str, pools: ExitStack) -> Upstream:
        provider, telemetry = config.providers[name], self._telemetry
        is_traced = provider.trace_context and telemetry is not None and telemetry.is_tracing
        upstream = (TracedUpstream if is_traced else Upstream)(
            name,
            provider,
            origin_of(config, name, self._models),
            self._pool(config, name, pools),
            self._keys(config, name),
            self._log.warning,
        )
        if telemetry is not None and isinstance(upstream, TracedUpstream):
            upstream.trace_headers = telemetry.headers
        return upstream

    def _pool(self, config: Config, name: str, pools: ExitStack) -> Pool:
        """A provider's pool, released when `pools` closes."""
        try:
            pool = self._pools.take(name, config.providers[name], config.proxies.get(name))
        except OSError as error:
            path = ("providers", name, "ca_file")
            why = f"cannot be used: {(error.strerror or type(error).__name__).lower()}"
            raise ConfigError([problem(config.marks.get(path, Mark("configuration")), path, why)]) from None
        pools.callback(self._pools.give_back, pool)
        return pool

    def _keys(self, config: Config, name: str) -> Keys | None:
        """The provider's keys. None if there is no choice: at most one key, and no limits."""
        limits, endpoints = config.providers[name].limits, key_endpoints(config, name)
        if len(endpoints) < 2 and limits == ProviderLimits():
            return None
        keys = [Key(variable, each, self.key_states.of(name, each)) for variable, each in endpoints.items()]
        keys = keys or [Key(None, None, self.key_states.of(name, endpoint_of(config, name)))]
        return Keys(name, keys, share(limits, config.server.workers), self._log.warning)

    def followers(self) -> list[Coroutine[Any, Any, None]]:
        """The background tasks, which run until cancelled."""
        return [
            self.vault.expire(),
            self.replays.expire(),
            self.upkeep.follow(),
            self.alerts.follow(),
            self.experiments.follow(),
        ]

    async def close(self) -> None:
        """Stops the embedded models, then closes everything else, all of it even if one step is cancelled."""
        async with AsyncExitStack() as last_first:
            last_first.callback(self._off_loop.close)
            for each in (
                self.vault,
                self._pools,
                self.texts,
                self.experiments,
                self.prompts,
                self.replays,
                self.runtimes,
            ):
                last_first.push_async_callback(each.close)
            for model in self._models.values():
                if isinstance(model, LocalModel):
                    last_first.push_async_callback(model.close)


@asynccontextmanager
async def running(
    config: Config,
    models: LocalModels,
    log: FilteringBoundLogger,
    metrics: Metrics | None = None,
    on_death: Callable[[], None] | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncGenerator[Running, None]:
    """Opens the ledger, runs `config`, then closes everything. `on_death`: called if the ledger's writer dies."""
    store = build_store(config)
    ledger = build_ledger(config, store, on_death)
    ledger.log_to(log)
    await ledger.start()
    server = Running(ledger, build_side_stores(config, store, log), models, log, metrics, telemetry)
    try:
        server.run(config)
        await bring_shipped(server.prompts, log)
        yield server
    finally:
        try:
            await server.close()
        finally:
            await ledger.stop()


@cache
def classifier() -> TextClassifier:
    """The classifier of this process: its weights never change, and reading them takes 40 ms."""
    return TextClassifier(load())


def local_models(config: Config) -> dict[str, LocalModel]:
    """One supervised child process per provider on this machine. Starts nothing."""
    specs = {name: provider.local_model for name, provider in enabled(config).items()}
    return {name: LocalModel(spec) for name, spec in specs.items() if spec is not None}


def build_store(config: Config) -> SqliteStore:
    """The usage database. Opens nothing."""
    return SqliteStore(sqlite_path(config.storage.url), durability=config.storage.durability)


def build_ledger(config: Config, store: SqliteStore, on_death: Callable[[], None] | None = None) -> Ledger:
    """The ledger on its store. Opens nothing."""
    return Ledger(store, when_down=config.storage.when_down, on_death=on_death)


def sharing_of(config: Config, names: Names) -> Sharing:
    """What calls share with their repeats. An alias is cached under the name it resolves to."""
    cached = {name: entry.cache_s for name, entry in config.models.items() if entry.cache_s is not None}
    leading = {alias: cached[target] for alias in config.aliases if (target := names.target_of(alias)) in cached}
    return Sharing(
        config.version,
        config.storage.idempotency_ttl_s,
        config.router.deadline_s,
        config.router.join_retries,
        cached | leading,
        frozenset(mentioned(config.rules).headers),
    )


def key_store(config: Config) -> KeyStore:
    """The store of `proxy keys`, in the usage database. Opens nothing."""
    return KeyStore(sqlite_path(config.storage.url))


def sticky_moves(config: Config) -> StickyMoves:
    """The store of conversations that moved, in the usage database. Opens nothing."""
    return StickyMoves(sqlite_path(config.storage.url))


def database_folder(config: Config) -> Path:
    """The directory of the database."""
    return sqlite_path(config.storage.url).parent
