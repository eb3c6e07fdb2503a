"""Orchestrates: tries other configuration files in a running server: nothing is written, called or spent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from proxy.config import Config, ConfigError, Source
from proxy.config.files import PRICING, ROUTING
from proxy.config.load import version_of
from proxy.config.problems import Problem
from proxy.config.source import ConfigFiles
from proxy.config.warnings import find_warnings
from proxy.routing.explain import explained
from proxy.schema.daemon_thread import DaemonThread
from proxy.schema.errors import Conflict, ProxyError
from proxy.schema.records import Caller
from proxy.server.offline import Offline, plan_change
from proxy.server.runtime import Runtime
from proxy.server.wiring import key_store
from proxy.storage.base import StoreError

T = TypeVar("T")
TRIAL_S = 60.0  # for one trial, and those queued before it


class Trials:
    """`files` None: this server has none. `live`: the current runtime. `off_loop` runs work that reads the files."""

    def __init__(
        self, files: ConfigFiles | None, live: Callable[[], Runtime], off_loop: Callable[..., Awaitable[Any]]
    ) -> None:
        self._files = files
        self._live = live
        self._off_loop = off_loop
        self._thread = DaemonThread("config-trial", TRIAL_S)

    async def load(self, routing: str, pricing: str | None) -> Config:
        """The configuration of these texts; `pricing` None: the file in use. Raises ConfigError, ProxyError."""
        if self._files is None:
            raise Conflict("This server has no configuration files.")
        prices = None if pricing is None else Source(PRICING, pricing.encode())
        config: Config = await self._off_loop(self._files.tried, Source(ROUTING, routing.encode()), prices)
        return config

    async def check(
        self, routing: str, pricing: str | None, base: tuple[str, str | None] | None = None
    ) -> tuple[list[Problem], list[Problem]]:
        """The errors in these texts, and the warnings. Without errors they would run. `base`: the texts on disk, if a
        page changes them to these: it may not send the environment to new places.
        """
        try:
            config = await self.load(routing, pricing)
        except ConfigError as error:
            return error.problems, []
        if base is not None and (problems := await self._refused(base, config)):
            return problems, []
        return [], await self._run(find_warnings, config, datetime.now(UTC).date(), lambda name: None)

    async def _refused(self, base: tuple[str, str | None], after: Config) -> list[Problem]:
        """Why a page may not make this change. If the texts on disk do not load, the running configuration counts."""
        if self._files is None:
            return []
        before = self._live().config
        if version_of(*(text.encode() for text in base if text is not None)) != before.version:
            with suppress(ConfigError):
                before = await self.load(*base)
        problems: list[Problem] = await self._off_loop(self._files.refused, before, after)
        return problems

    async def plan_change(self, routing: str, pricing: str | None, count: int) -> dict[str, Any]:
        """The effect of these texts on past calls. Raises ConfigError, ProxyError."""
        config, live = await self.load(routing, pricing), self._live()
        calls = await live.ledger.latest(count)
        found = live.lists.found

        def replayed() -> dict[str, Any]:
            keys = key_store(live.config).all()
            return asyncio.run(plan_change(live.config, config, calls, found, keys))

        return await self._run(replayed)

    async def explain(self, routing: str, pricing: str | None, body: bytes, caller: Caller) -> dict[str, Any]:
        """How a chat body would be routed by these texts. Raises ConfigError, and ProxyError as a call would."""
        config, live = await self.load(routing, pricing), self._live()
        found, spending = live.lists.found, await live.ledger.read_spending()

        def explaining() -> dict[str, Any]:
            offline = Offline(config, found, spending=spending)

            async def decide() -> dict[str, Any]:
                await offline.load_prices()
                return explained(*await offline.foresee(body, caller))

            return asyncio.run(decide())

        return await self._run(explaining)

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Raises ProxyError 503 if it takes too long, or the database cannot be read."""
        try:
            return await self._thread.run(work, *arguments)
        except StoreError as error:
            raise ProxyError(str(error), status=503, code="storage_unavailable") from None
        except TimeoutError:
            message = f"This took longer than {TRIAL_S:g} s. Ask for fewer calls."
            raise ProxyError(message, status=503, code="overloaded") from None
