"""Values: what pages show of the running server, and what they may do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from proxy.config.source import ConfigFiles
from proxy.routing.health import State
from proxy.server.api.calls import ModelCalls
from proxy.server.api.health import ProviderState, Standing
from proxy.server.api.request import Places
from proxy.server.reload import Reloads
from proxy.server.runtime import Runtime
from proxy.server.trials import Trials
from proxy.storage.keys import StoredKey

_MAX_NAMES = 300


class Operations(Struct, frozen=True):
    """What the pages that change or call something need. `files` None: the configuration does not come from files.

    `using` lends the current runtime for a `with` block, which keeps it open across a reload. `places` are those of
    `server.max_in_flight`.
    """

    files: ConfigFiles | None
    reloads: Reloads
    trials: Trials
    calls: ModelCalls
    places: Places
    using: Callable[[], AbstractContextManager[Runtime]]
    log: FilteringBoundLogger


class Shown(Struct, frozen=True):
    """What pages show of the running server, lent by the application. `keys` may block."""

    live: Callable[[], Runtime]
    standing: Callable[[], Standing]
    providers: Callable[[], Awaitable[dict[str, ProviderState]]]
    state: Callable[[], State]
    keys: Callable[[], list[StoredKey]]
    operations: Operations


async def suggestions(live: Runtime) -> list[str]:
    """The first names that can be called, for lists of suggestions. Off the loop: each name is resolved."""
    return (await asyncio.to_thread(live.names.names))[:_MAX_NAMES]
