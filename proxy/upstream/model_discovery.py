"""Orchestrates: reads the model lists of servers whose models are in no price list, in the background.

Requests never wait for discovery, and a look-up reads nothing: the server decides when lists are read (`follow`,
`refresh`). The result is an immutable mapping, replaced at every change. A server that is down keeps its last list.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct

from proxy.providers.base.contract import Provider
from proxy.providers.compatible.models import parse_models
from proxy.schema.errors import ProxyError
from proxy.upstream.upstream import Upstream

FRESH_S = 300.0
RETRY_S = 10.0  # after the first failure, doubled by each further one: a server that starts later is found soon
MAX_RETRY_S = 60.0
ANSWER_S = 10.0
MAX_BYTES = 2_000_000


class _List(Struct):
    """One server's list: when it is due (monotonic seconds), and how many reads have failed since the last good one."""

    due_at: float = 0.0
    failures: int = 0


class ModelDiscovery(Mapping[str, tuple[str, ...]]):
    """Provider name -> the ids that its server lists, as far as known. Belongs to one configuration, as its Upstreams
    do.

    As a mapping it is the current `found`. `warn` receives the event, `provider` and `reason` when a list
    cannot be read. `before`: the lists of the previous configuration, kept for servers that are still the same.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        warn: Callable[..., object],
        before: ModelDiscovery | None = None,
        clock: Callable[[], float] = time.monotonic,
        fresh_s: float = FRESH_S,
    ) -> None:
        self._upstreams = {name: each for name, each in upstreams.items() if models_path(each.provider) is not None}
        self._warn = warn
        self._clock = clock
        self._fresh_s = fresh_s
        self._lists = {name: _List() for name in self._upstreams}
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._follows = False
        self._closed = False
        known: dict[str, tuple[str, ...]] = dict.fromkeys(self._upstreams, ())
        if before is not None:
            for name in self._upstreams.keys() & before._upstreams.keys():
                if self._upstreams[name].pool is before._upstreams[name].pool:
                    known[name], self._lists[name] = before[name], before._lists[name]
        self._found = MappingProxyType(known)

    @property
    def found(self) -> Mapping[str, tuple[str, ...]]:
        """The lists known now. The mapping never changes: a list that is read makes a new one."""
        return self._found

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def follow(self) -> None:
        """Reads every list that is due, and each one again whenever it is due, until `close`."""
        self._follows = True
        for name in self._lists:
            self._read_when_due(name)

    def refresh(self) -> None:
        """Reads every list that is due, once."""
        for name, each in self._lists.items():
            if self._clock() >= each.due_at:
                self._start(name)

    async def settled(self) -> None:
        """Waits for the lists that are being read."""
        await asyncio.gather(*self._reading.values())

    async def close(self) -> None:
        """Stops reading, for good."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for task in self._reading.values():
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    def _start(self, name: str) -> None:
        if not self._closed and name not in self._reading:
            self._reading[name] = asyncio.get_running_loop().create_task(self._read(name))

    def _read_when_due(self, name: str) -> None:
        wait_s = self._lists[name].due_at - self._clock()
        if wait_s <= 0:
            self._start(name)
        elif not self._closed:
            self._timers[name] = asyncio.get_running_loop().call_later(wait_s, self._start, name)

    async def _read(self, name: str) -> None:
        upstream, each = self._upstreams[name], self._lists[name]
        try:
            async with asyncio.timeout(ANSWER_S):
                ids = parse_models(await upstream.fetch(models_path(upstream.provider) or "", MAX_BYTES))
            each.due_at, each.failures = self._clock() + self._fresh_s, 0
            if ids != self._found[name]:
                self._found = MappingProxyType({**self._found, name: ids})
        except (TimeoutError, ProxyError) as error:
            each.due_at = self._clock() + min(RETRY_S * 2**each.failures, MAX_RETRY_S)
            if not each.failures:
                reason = str(error) or f"no answer in {ANSWER_S:g} s"
                self._warn("model_list_unread", provider=name, reason=reason)
            each.failures += 1
        finally:
            del self._reading[name]
        if self._follows:
            self._read_when_due(name)


def models_path(provider: Provider) -> str | None:
    """Where the server's list is; None for vendors whose models `pricing.yaml` and its package know."""
    return provider.models_path
