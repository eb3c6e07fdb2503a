"""Performs I/O: the connections to each provider, shared by the configurations that mean the same by it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

from proxy.providers.base.contract import Provider
from proxy.upstream.transports.base import Transport

Connect = Callable[[Provider, ssl.SSLContext], Transport]


class Pool:
    """The connections to one provider at one address, and the places that `max_concurrent` gives its requests."""

    def __init__(self, transport: Transport, max_concurrent: int | None = None) -> None:
        self.transport = transport
        self.places = asyncio.Semaphore(max_concurrent) if max_concurrent else None
        self.users = 0


class Pools:
    """Every Pool in use; closed when the last configuration gives it back.

    Making a TLS context takes some 40 ms: all providers without a `ca_file` share one.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._pools: dict[tuple[object, ...], Pool] = {}
        self._context: ssl.SSLContext | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, name: str, provider: Provider) -> Pool:
        """The pool of the provider called `name`. Raises OSError for a `ca_file` that cannot be used.

        A `ca_file` counts by what it holds, so that an exchanged certificate gets new connections.
        """
        authority = hashlib.sha256(Path(provider.ca_file).read_bytes()).digest() if provider.ca_file else None
        address = provider.base_url or provider.default_base_url
        key = (name, address, provider.transport, authority, provider.max_concurrent)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self._connect(provider, self._trust(provider)), provider.max_concurrent)
        pool.users += 1
        return pool

    def _trust(self, provider: Provider) -> ssl.SSLContext:
        if provider.ca_file:
            return tls_context(provider.ca_file)
        self._context = self._context or tls_context()
        return self._context

    def give_back(self, pool: Pool) -> None:
        """Its taker uses it no more; none of its exchanges is under way."""
        pool.users -= 1
        if pool.users == 0:
            self._pools = {key: other for key, other in self._pools.items() if other is not pool}
            task = asyncio.ensure_future(pool.transport.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Waits for the connections that are being closed."""
        await asyncio.gather(*self._closing)


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Trusts the system's authorities and those in `ca_file`. Raises OSError."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
