"""Orchestrates: the model lists of servers whose models no price list can know, read from them in the background.

Nobody waits for a list: who asks gets what is known, and an old list is read again for the next one who asks. A server
that is down keeps the list it had.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct

from proxy.providers.base.contract import Provider
from proxy.providers.openai.models import parse_models
from proxy.schema.errors import ProxyError
from proxy.upstream.upstream import Upstream

FRESH_S = 300.0
RETRY_S = 10.0  # after a failure; a server that was started in between is found as soon
ANSWER_S = 10.0
MAX_BYTES = 2_000_000


class _List(Struct):
    """What one server said, and when to ask it again (monotonic seconds)."""

    ids: tuple[str, ...] = ()
    due_at: float = 0.0
    failed: bool = False


class ModelDiscovery(Mapping[str, tuple[str, ...]]):
    """Provider name -> the ids its server lists, as far as is known. Belongs to one configuration, as its Upstreams do.

    `warn` is told of a server whose list cannot be read: the event, `provider` and `reason`. `before`: the lists of the
    configuration before, kept for servers that are still the same.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        warn: Callable[..., object],
        before: ModelDiscovery | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstreams = {name: each for name, each in upstreams.items() if models_path(each.provider) is not None}
        self._warn = warn
        self._clock = clock
        self._lists = {name: _List() for name in self._upstreams}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        self._published: Mapping[str, tuple[str, ...]] = MappingProxyType({})
        for name, earlier in before._upstreams.items() if before else ():
            if before is not None and name in self and self._upstreams[name].pool is earlier.pool:
                self._lists[name] = before._lists[name]
        self._publish()

    def __getitem__(self, name: str) -> tuple[str, ...]:
        found = self._lists[name]
        if not self._closed and name not in self._reading and self._clock() >= found.due_at:
            self._reading[name] = asyncio.get_running_loop().create_task(self._read(name, found))
        return found.ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._lists)

    def __len__(self) -> int:
        return len(self._lists)

    def current(self) -> Mapping[str, tuple[str, ...]]:
        """What is known at this moment: a mapping that never changes, and another one once a list was read.

        Starts reading the lists that are due.
        """
        if not self._closed:
            self.refresh()
        return self._published

    def _publish(self) -> None:
        self._published = MappingProxyType({name: found.ids for name, found in self._lists.items()})

    def refresh(self) -> None:
        """Reads every list that is due."""
        for name in self:
            self[name]

    async def settled(self) -> None:
        """Waits for the lists that are being read."""
        await asyncio.gather(*self._reading.values())

    async def close(self) -> None:
        """Stops reading, for good."""
        self._closed = True
        for task in self._reading.values():
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def _read(self, name: str, into: _List) -> None:
        upstream = self._upstreams[name]
        try:
            async with asyncio.timeout(ANSWER_S):
                into.ids = parse_models(await upstream.fetch(models_path(upstream.provider) or "", MAX_BYTES))
            self._publish()
            into.due_at, into.failed = self._clock() + FRESH_S, False
        except (TimeoutError, ProxyError) as error:
            into.due_at = self._clock() + RETRY_S
            if not into.failed:
                reason = str(error) or f"no answer in {ANSWER_S:g} s"
                self._warn("model_list_unread", provider=name, reason=reason)
            into.failed = True
        finally:
            del self._reading[name]


def models_path(provider: Provider) -> str | None:
    """Where the server's list is; None for vendors whose models `pricing.yaml` and its package know."""
    return provider.models_path
