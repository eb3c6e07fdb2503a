"""Performs I/O: the connections to each provider, shared by configurations that define it in the same way."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from proxy.providers.base.contract import Provider
from proxy.schema.records import Secret
from proxy.upstream.transports.base import Transport

Connect = Callable[[Provider, ssl.SSLContext, Secret | None], Transport]
"""Makes a transport. The Secret is the URL of an HTTP proxy, which may hold a password."""


class Pool:
    """The connections to one provider at one address, and the places that `max_concurrent` gives its requests."""

    def __init__(self, transport: Transport, max_concurrent: int | None = None) -> None:
        self.transport = transport
        self.places = asyncio.Semaphore(max_concurrent) if max_concurrent else None
        self.users = 0
        self.headers: Mapping[str, str] = {}  # of the last answer
        self.answered_s = 0.0  # when it arrived, by `time.monotonic()`

    def note(self, headers: Mapping[str, str]) -> None:
        """Stores the headers of an answer. They are parsed for limits only on request."""
        self.headers, self.answered_s = headers, time.monotonic()


class Authority:
    """The contents of a `ca_file` when it was read."""

    def __init__(self, ca_file: str) -> None:
        """Raises OSError."""
        self.digest = hashlib.sha256(Path(ca_file).read_bytes()).digest()
        self.context = tls_context(ca_file)


class Pools:
    """Every Pool in use; closed when the last configuration gives it back.

    Making a TLS context takes some 40 ms: all providers without a `ca_file` share one, and those that are reached over
    plain HTTP need none.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._pools: dict[tuple[object, ...], Pool] = {}
        self._context: ssl.SSLContext | None = None
        self._authorities: dict[str, Authority | OSError] = {}  # by `ca_file`, as last read
        self._closing: set[asyncio.Task[None]] = set()

    def read(self, providers: Iterable[Provider]) -> None:
        """Reads the certificates that these providers trust, so `take` reads no file. Blocks. Safe in any thread."""
        providers = list(providers)
        files = {provider.ca_file for provider in providers}
        if any(provider.ca_file is None and not is_plain(provider) for provider in providers):
            self._shared_context()
        found: dict[str, Authority | OSError] = {}
        for ca_file in files - {None}:
            assert ca_file is not None
            try:
                found[ca_file] = Authority(ca_file)
            except OSError as error:
                found[ca_file] = error
        self._authorities = found

    def take(self, name: str, provider: Provider, proxy: Secret | None = None) -> Pool:
        """The pool of the provider called `name`, behind this HTTP proxy.

        Raises OSError for a `ca_file` that cannot be used.
        A `ca_file` is compared by its contents, so that a replaced certificate gets new connections.
        """
        authority = None
        if provider.ca_file:
            authority = self._authorities.get(provider.ca_file) or Authority(provider.ca_file)
        if isinstance(authority, OSError):
            raise authority
        address = address_of(provider)
        through = proxy and hashlib.sha256(proxy.reveal().encode()).digest()
        key = (name, address, provider.transport, authority and authority.digest, provider.max_concurrent, through)
        pool = self._pools.get(key)
        if pool is None:
            context = authority.context if authority else self._context_for(provider, proxy)
            pool = self._pools[key] = Pool(self._connect(provider, context, proxy), provider.max_concurrent)
        pool.users += 1
        return pool

    def _context_for(self, provider: Provider, proxy: Secret | None) -> ssl.SSLContext:
        if is_plain(provider) and (proxy is None or proxy.reveal().startswith("http://")):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and is built at once
        return self._shared_context()

    def _shared_context(self) -> ssl.SSLContext:
        self._context = self._context or tls_context()
        return self._context

    def give_back(self, pool: Pool) -> None:
        """Returns a pool that has no exchange in flight. Its taker must not use it again."""
        pool.users -= 1
        if pool.users == 0:
            self._pools = {key: other for key, other in self._pools.items() if other is not pool}
            task = asyncio.ensure_future(pool.transport.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Waits for the connections that are being closed."""
        await asyncio.gather(*self._closing)


def address_of(provider: Provider) -> str | None:
    return provider.base_url or provider.default_base_url


def is_plain(provider: Provider) -> bool:
    """True if it is reached without TLS, as the embedded model is."""
    return provider.local_model is not None or (address_of(provider) or "").lower().startswith("http://")


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Trusts the system's authorities and those in `ca_file`. Raises OSError."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
