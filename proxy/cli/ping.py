"""Orchestrates: one small call to each provider, without a server."""

from __future__ import annotations

import asyncio

from proxy.config import Config
from proxy.config.namespace import enabled
from proxy.schema.records import Caller
from proxy.server.log import build_log
from proxy.server.ping import Ping, ping
from proxy.server.wiring import local_models, running

_CALLER = Caller("cli")


def ping_all(config: Config) -> dict[str, Ping]:
    """Calls all enabled providers in parallel, with each of their keys: provider -> result. Raises StoreError."""
    return asyncio.run(_ping_all(config))


async def _ping_all(config: Config) -> dict[str, Ping]:
    async with running(config, local_models(config), build_log("json", quiet=True)) as server:
        runtime = server.runtimes.current
        await runtime.lists.settled()
        names = list(enabled(config))
        pings = await asyncio.gather(*(ping(runtime, name, _CALLER) for name in names))
        return dict(zip(names, pings, strict=True))
