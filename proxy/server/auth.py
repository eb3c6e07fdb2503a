"""Orchestrates: the credentials of a request -> Caller. Keys are known by their SHA-256 only, here and in the database.

    environment   PROXY_API_KEY and PROXY_ADMIN_KEY, compared in constant time
    database      what `proxy keys` made: remembered for a moment by hash, looked up off the event loop, many at a time

A key that is missing, malformed, unknown, revoked or expired gets one and the same answer. While the database cannot be
read, keys that were seen lately go on working, and others get a 503: they may well be right.
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

from proxy.schema.errors import ProxyError
from proxy.schema.records import Caller, Secret, StoredCaller
from proxy.storage.base import StoreError
from proxy.storage.keys import KeysFound, StoredKey

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key")
KEY_NAME, ADMIN_KEY_NAME = "default", "admin"  # of the two keys of the environment, in rows and in `keys:`
FRESH_S = 0.75  # what the database said counts as it is for so long,
STALE_S = 1.5  # and until here while it is asked again: so a key is revoked within two seconds, and costs no waiting
LOOK_S = 1.0  # how long a request waits for the database
MAX_KNOWN = 10_000
MAX_UNKNOWN = 4_096  # clients make them up
_MAX_BATCH = 500
T = TypeVar("T")
_ANY = b""  # no hash: asks only whether there are keys


class StoredKeys:
    """The keys of the database, as of a moment ago. `look` may take its time: it runs on another thread."""

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keys")  # its own: nobody else's work delays a look

    async def exist(self) -> bool:
        """True once a key was made, whatever became of it: from then on every caller needs one."""
        if not self._exist:
            age_s = self._clock_s() - self._looked_at
            if age_s >= STALE_S:
                await self._answered(_ANY)
            elif age_s >= FRESH_S:
                self._ask(_ANY)
        return self._exist

    async def find(self, digest: bytes) -> StoredCaller | None:
        """Whose key has this hash, None for nobody's. Raises ProxyError 503 where that cannot be told."""
        known = self._known.get(digest)
        at = known[1] if known else self._unknown.get(digest)
        if at is not None:
            age_s = self._clock_s() - at
            if age_s < STALE_S:
                if age_s >= FRESH_S:
                    self._ask(digest)
                return known[0] if known else None
        if not await self._answered(digest):
            if known:
                return known[0]
            raise ProxyError(
                "The database of keys cannot be read, so a key that was not used lately cannot be checked.",
                status=503,
                code="storage_unavailable",
                headers={"retry-after": "5"},
            )
        found = self._known.get(digest)
        return found[0] if found else None

    async def _answered(self, digest: bytes) -> bool:
        """Waits until the database answered; False if it failed, just now or a moment ago, or takes too long."""
        if self._clock_s() < self._down_until:
            return False
        answer = self._ask(digest)
        await asyncio.wait({answer}, timeout=LOOK_S)
        if not answer.done():
            self._note_down()
        return answer.done() and answer.result()

    def _ask(self, digest: bytes) -> asyncio.Future[bool]:
        """The answer to come: one look for all who ask the same, and never two looks at once."""
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
            except StoreError:  # said in the answers; the ledger tells the operator
                self._note_down()
            finally:
                for digest in digests:
                    self._asked.pop(digest).set_result(is_read)

    def _keep(self, digests: list[bytes], found: KeysFound) -> None:
        now_s = self._looked_at = self._clock_s()
        self._exist = self._exist or found.exist
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
    """Knows all keys. Without any it accepts whatever a client sends, unless `needs_key` (any server that is not on
    loopback). `note_failure` counts a refused key by its address and raises ProxyError 429 when there were too many.
    """

    def __init__(
        self,
        key: Secret | None,
        admin_key: Secret | None,
        stored: StoredKeys | None = None,
        *,
        needs_key: bool = False,
        note_failure: Callable[[str], None] | None = None,
    ) -> None:
        self._own = [
            (digest_of(secret.reveal()), caller)
            for secret, caller in ((admin_key, Caller(ADMIN_KEY_NAME, admin=True)), (key, Caller(KEY_NAME)))
            if secret is not None
        ]
        self._stored = stored
        self._closed = bool(self._own) or needs_key
        self._note_failure = note_failure

    @property
    def keyless(self) -> bool:
        """True while whoever asks is served. Once closed, a server stays closed."""
        return not self._closed

    async def refresh(self) -> None:
        """Looks whether keys were made; for the start, before the first request."""
        if not self._closed and self._stored is not None:
            self._closed = await self._stored.exist()

    async def identify(self, headers: Mapping[str, str], address: str = "") -> Caller:
        """Who asks from this address. Raises ProxyError 401, the same for every key that does not open; 429, 503."""
        if not self._closed:
            await self.refresh()
            if not self._closed:
                return Caller(admin=True)
        sent = credential(headers)
        digest = digest_of(sent)
        found: Caller | None = None
        for known, caller in self._own:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None and self._stored is not None and sent:
            stored = await self._stored.find(digest)
            if stored is not None and (stored.expires_ns is None or stored.expires_ns > time.time_ns()):
                found = stored
        if found is None:
            raise self.refusal(address)
        return found

    def refusal(self, address: str) -> ProxyError:
        """The one answer to a key that does not open; a right key is never refused for the wrong ones of others."""
        if self._note_failure is not None:
            self._note_failure(address)
        return ProxyError(
            "Invalid API key. Send the proxy's key as `Authorization: Bearer KEY`, `x-api-key` or `api-key`.",
            status=401,
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def credential(headers: Mapping[str, str]) -> str:
    """The key a client sent, from the first of the three headers that holds one."""
    for name in CREDENTIAL_HEADERS:
        value = headers.get(name, "").strip()
        scheme, _, token = value.partition(" ")
        if name == "authorization" and scheme.lower() == "bearer":
            value = token.strip()
        if value:
            return value
    return ""


def own_key(environ: Mapping[str, str], name: str) -> Secret | None:
    """A key of the environment; None where the variable is unset or empty. Files of secrets end with a newline, so
    blanks around it are left out. Raises ValueError if there is nothing else.
    """
    value = environ.get(name)
    if not value:
        return None
    if not value.strip():
        raise ValueError(f"{name} is blank. Put a key in it, or unset it.")
    return Secret(value.strip())


def digest_of(key: str) -> bytes:
    """The SHA-256 by which a key is known. A fast hash is right for keys that nobody can guess."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _caller(key: StoredKey) -> StoredCaller:
    return StoredCaller(key.name, key.role == "admin", key.models, key.expires_ns)


def _put(kept: dict[bytes, T], digest: bytes, value: T, most: int) -> None:
    """Adds to a bounded memory, the oldest goes."""
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[digest] = value
