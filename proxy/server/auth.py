"""Orchestrates: the credentials of a request -> Caller. Memory and database hold only the SHA-256 of each key.

    environment   PROXY_API_KEY and PROXY_ADMIN_KEY, compared in constant time
    database      keys made by `proxy keys`: cached briefly by hash, looked up in batches off the event loop

A missing, malformed, unknown, revoked or expired key always gets the same response. While the database cannot be read,
recently used keys keep working; others get a 503, because they may be valid.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from proxy.config.environment import trimmed, wrong_own_key
from proxy.schema.errors import ProxyError
from proxy.schema.records import Caller, Secret, StoredCaller
from proxy.storage.base import StoreError
from proxy.storage.keys import KeysFound, StoredKey

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key")
KEY_NAME, ADMIN_KEY_NAME = "default", "admin"  # names of the two keys from the environment, in rows and in `keys:`
FRESH_S = 0.75  # age up to which a cached answer is used without a refresh
STALE_S = 1.5  # age up to which it is used while it is refreshed: revocation takes under 2 s, and no request waits
LOOK_S = 1.0  # longest wait of a request for the database
REVOKED_LOOK_S = 1.0  # how often a server with stored keys checks whether all have been revoked
MAX_KNOWN = 10_000
MAX_UNKNOWN = 4_096  # bounded, because clients can invent keys
_MAX_BATCH = 500
T = TypeVar("T")
_ANYBODY = Caller(admin=True)  # the caller of a server without keys
_ANY = b""  # not a hash: asks whether any key exists


class StoredKeys:
    """A short-lived cache of the keys in the database. `look` may block: it runs on another thread."""

    def __init__(
        self, look: Callable[[Sequence[bytes]], KeysFound], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock_s = clock_s
        self._known: dict[bytes, tuple[StoredCaller, float]] = {}
        self._unknown: dict[bytes, float] = {}
        self._exist = False
        self._looked_at = self._down_until = float("-inf")
        self._asked: dict[bytes, asyncio.Future[bool]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")  # dedicated: no other work delays a look-up

    async def exist(self) -> bool:
        """True once there is a key; it may have expired. `exist_still` is False once all are revoked."""
        if not self._exist:
            age_s = self._clock_s() - self._looked_at
            if age_s >= STALE_S:
                await self._wait_for_answer(_ANY)
            elif age_s >= FRESH_S:
                self._request_look_up(_ANY)
        return self._exist

    async def exist_still(self) -> bool:
        """False once every key has been revoked. A database that is gone, broken or new revokes nothing."""
        await self._wait_for_answer(_ANY)
        return self._exist

    async def find(self, digest: bytes) -> StoredCaller | None:
        """The caller whose key has this hash, if any. Raises ProxyError 503 if the database cannot be read."""
        known = self._known.get(digest)
        at = known[1] if known else self._unknown.get(digest)
        if at is not None:
            age_s = self._clock_s() - at
            if age_s < STALE_S:
                if age_s >= FRESH_S:
                    self._request_look_up(digest)
                return known[0] if known else None
        if not await self._wait_for_answer(digest):
            if known:
                return known[0]
            raise ProxyError(
                "The key database cannot be read, so this key cannot be checked. Recently used keys still work.",
                status=503,
                code="storage_unavailable",
                headers={"retry-after": "5"},
            )
        found = self._known.get(digest)
        return found[0] if found else None

    async def _wait_for_answer(self, digest: bytes) -> bool:
        """Waits for the database. False if it takes too long, fails, or failed a moment ago."""
        if self._clock_s() < self._down_until:
            return False
        answer = self._request_look_up(digest)
        await asyncio.wait({answer}, timeout=LOOK_S)
        if not answer.done():
            self._note_down()
        return answer.done() and answer.result()

    def _request_look_up(self, digest: bytes) -> asyncio.Future[bool]:
        """The pending answer. Requests with the same key share one look-up, and look-ups never run concurrently."""
        answer = self._asked.get(digest)
        if answer is None:
            answer = self._asked[digest] = asyncio.get_running_loop().create_future()
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_up())
        return answer

    async def _look_up(self) -> None:
        while self._asked:
            digests = list(islice(self._asked, _MAX_BATCH))
            is_read = False
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._thread, self._look, digests)
                self._keep(digests, found)
                is_read = True
            except StoreError:  # callers get a 503; the ledger reports it to the operator
                self._note_down()
            finally:
                for digest in digests:
                    self._asked.pop(digest).set_result(is_read)

    def _keep(self, digests: list[bytes], found: KeysFound) -> None:
        now_s = self._looked_at = self._clock_s()
        self._exist = found.exist or (self._exist and not found.made)
        for digest in digests:
            self._known.pop(digest, None)
            self._unknown.pop(digest, None)
            if digest in found.keys:
                _put(self._known, digest, (_caller(found.keys[digest]), now_s), MAX_KNOWN)
            elif digest != _ANY:
                _put(self._unknown, digest, now_s, MAX_UNKNOWN)

    def _note_down(self) -> None:
        self._down_until = self._clock_s() + LOOK_S


class Auth:
    """Checks keys. While no key exists, any credential is accepted, unless `needs_key` (servers beyond loopback).

    `optional`: callers without a key are served even if keys exist; a known key still names its caller.
    `note_failure` counts a rejected key by address, and raises ProxyError 429 after too many.
    """

    def __init__(
        self,
        key: Secret | None,
        admin_key: Secret | None,
        stored: StoredKeys | None = None,
        *,
        needs_key: bool = False,
        optional: bool = False,
        note_failure: Callable[[str], None] | None = None,
    ) -> None:
        self._own = [
            (digest_of(secret.reveal()), caller)
            for secret, caller in ((admin_key, Caller(ADMIN_KEY_NAME, admin=True)), (key, Caller(KEY_NAME)))
            if secret is not None
        ]
        self._stored = stored
        self._optional = optional and not needs_key
        self._always_closed = needs_key or (bool(self._own) and not optional)
        self._closed = self._always_closed
        self._note_failure = note_failure

    @property
    def keyless(self) -> bool:
        """True while requests need no key."""
        return not self._closed

    async def refresh(self) -> None:
        """Checks whether keys exist. Called at startup, before the first request."""
        if not self._closed and not self._optional and self._stored is not None:
            self._closed = await self._stored.exist()

    async def follow(self) -> None:
        """Makes the server keyless again after its last stored key has been revoked. Never returns.

        No request does this, because the guard has checked its Host and Origin by the rules of a server with keys.
        """
        while not self._always_closed and not self._optional and self._stored is not None:
            await asyncio.sleep(REVOKED_LOOK_S)
            if self._closed:
                self._closed = await self._stored.exist_still()

    async def identify(self, headers: Mapping[str, str], address: str = "") -> Caller:
        """The caller of a request. Raises ProxyError 401 (identical for every rejected key), 429 or 503."""
        if not self._closed:
            await self.refresh()
        if not self._closed and not self._optional:
            return _ANYBODY
        sent = credential(headers)
        if not self._closed and not sent:
            return _ANYBODY
        found = await self._holder(sent)
        if found is None and (other := headers.get(CREDENTIAL_HEADERS[1])) is not None and other.strip() != sent:
            found = await self._holder(other.strip())  # Claude Code may send its own token beside the key
        if found is None and not self._closed:
            return _ANYBODY
        if found is None:
            raise self.refusal(address)
        return found

    async def _holder(self, key: str) -> Caller | None:
        return await self.holder(digest_of(key)) if key else None

    async def holder(self, digest: bytes) -> Caller | None:
        """The caller whose key has this hash. Raises ProxyError 503."""
        found: Caller | None = None
        for known, caller in self._own:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None and self._stored is not None:
            stored = await self._stored.find(digest)
            if stored is not None and (stored.expires_ns is None or stored.expires_ns > time.time_ns()):
                found = stored
        return found

    def refusal(self, address: str) -> ProxyError:
        """The single response for any rejected key. Failed attempts by others never lock out a valid key."""
        if self._note_failure is not None:
            self._note_failure(address)
        return ProxyError(
            "Invalid API key. Send the proxy's key as `Authorization: Bearer KEY`, `x-api-key` or `api-key`.",
            status=401,
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def credential(headers: Mapping[str, str]) -> str:
    """The key in the request, from the first of the three headers that has one."""
    for name in CREDENTIAL_HEADERS:
        value = headers.get(name, "").strip()
        scheme, _, token = value.partition(" ")
        if name == "authorization" and scheme.lower() == "bearer":
            value = token.strip()
        if value:
            return value
    return ""


def own_key(environ: Mapping[str, str], name: str) -> Secret | None:
    """A key from the environment; None if the variable is unset or empty. Raises ValueError if it cannot be a key."""
    value = environ.get(name, "")
    wrong = wrong_own_key(value)
    if wrong is not None:
        raise ValueError(f"{name} {wrong}")
    return Secret(trimmed(value)) if value else None


def digest_of(key: str) -> bytes:
    """The SHA-256 of a key. A fast hash suffices for random keys, which cannot be guessed."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _caller(key: StoredKey) -> StoredCaller:
    return StoredCaller(key.name, key.role == "admin", key.models, key.expires_ns)


def _put(kept: dict[bytes, T], digest: bytes, value: T, most: int) -> None:
    """Adds to a bounded cache; evicts the oldest entry."""
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[digest] = value
