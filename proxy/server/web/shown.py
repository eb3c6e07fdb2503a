"""Values: what pages show of the running server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from proxy.routing.health import State
from proxy.server.api.health import ProviderState, Standing
from proxy.server.runtime import Runtime
from proxy.storage.keys import StoredKey


class Shown(Struct, frozen=True):
    """What pages show of the running server, lent by the application. `keys` may block."""

    live: Callable[[], Runtime]
    standing: Callable[[], Standing]
    providers: Callable[[], Awaitable[dict[str, ProviderState]]]
    state: Callable[[], State]
    keys: Callable[[], list[StoredKey]]
