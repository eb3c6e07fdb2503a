"""Translates: a request into what it shares with its repeats: one answer, paid for once.

key     `Idempotency-Key`: the client marks requests as the same one
retry   `router.join_retries`: OpenAI's SDKs say that a request repeats an earlier one
cache   `x-proxy-cache`, or `cache_s` of the model's name: an equal request gets the same answer
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import isfinite
from typing import Literal

from msgspec import Struct

from proxy.pipeline.bounds import PATIENCE_HEADERS
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import decode_object, named_model
from proxy.schema.records import Caller, StoredCaller
from proxy.storage.kept_answers import Place

KEY_HEADER = "idempotency-key"
RETRY_HEADER = "x-stainless-retry-count"
CACHE_HEADER = "x-proxy-cache"
FRESH_S = 300.0  # an SDK retries within a minute; anything later is a new question
MAX_KEY = 255  # characters
MAX_CACHE_S = 30 * 86_400.0
_OFF = ("0", "off", "no", "false")
_HINT = "x-proxy-"
_OF_VENDORS = ("anthropic-", "openai-")  # prefixes of headers that go with a body in the vendor's own wire shape


class Share(Struct, frozen=True):
    """The call that a request starts or repeats. `ttl_s`: for how long its answer is stored.

    `begins`: the request starts a new call, whatever is stored. `bypasses_cache`: it asked for the cache too, in vain.
    """

    kind: Literal["key", "retry", "cache"]
    place: Place
    ttl_s: float
    begins: bool = False
    bypasses_cache: bool = False

    @property
    def survives(self) -> bool:
        """True if the call goes on without a client, because a repeat will come for the answer."""
        return self.kind != "cache"

    @property
    def is_strict(self) -> bool:
        """True if the client relies on it, so that the request is refused if sharing is not possible."""
        return self.kind == "key"


class Sharing(Struct, frozen=True):
    """What one configuration shares. `cache_s`: by model name. `headers`: those that rules read, in lower case."""

    version: str
    ttl_s: float = 86_400.0
    deadline_s: float = 900.0
    join_retries: bool = False
    cache_s: Mapping[str, float] = {}
    headers: frozenset[str] = frozenset()

    def concerns(self, headers: Mapping[str, str]) -> bool:
        """False: `share` returns None."""
        return KEY_HEADER in headers or CACHE_HEADER in headers or self.join_retries or bool(self.cache_s)

    def share(self, caller: Caller, path: str, headers: Mapping[str, str], body: bytes) -> Share | None:
        """None: the request shares nothing. Raises BadRequest for a header that cannot be read."""
        scope, request = caller.key_id or "", hashlib.sha256(path.encode() + b"\0" + body).digest()
        key, asked_s = _key(headers), _cache_s(headers)
        if key is not None:
            place = Place(scope, _name("key", key), request)
            return Share("key", place, self.ttl_s, bypasses_cache=bool(asked_s))
        if asked_s is None and self.cache_s:
            asked_s = self.cache_s.get(named_model(body) or "")
        if asked_s:
            told = sorted(f"{name}={value}" for name, value in headers.items() if self._tells(name))
            models = caller.models if isinstance(caller, StoredCaller) else None
            name = _name("cache", self.version, request.hex(), repr(models), *told)
            return Share("cache", Place(scope, name, request), asked_s)
        count = headers.get(RETRY_HEADER, "") if self.join_retries else ""
        if count.isdecimal() and not _is_stream(body):
            return Share("retry", Place(scope, _name("retry", request.hex()), request), FRESH_S, begins=int(count) == 0)
        return None

    def _tells(self, name: str) -> bool:
        """True if the header may change the answer."""
        return name in self.headers or name.startswith(_OF_VENDORS) or (name.startswith(_HINT) and name != CACHE_HEADER)


def without_patience(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without the client's own time-out: it disconnects then, and retries for the answer."""
    return {name: value for name, value in headers.items() if name not in PATIENCE_HEADERS}


def _key(headers: Mapping[str, str]) -> str | None:
    key = headers.get(KEY_HEADER)
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isprintable()):
        message = f"Idempotency-Key: expected 1 to {MAX_KEY} printable characters."
        raise BadRequest(message, param=KEY_HEADER)
    return key


def _cache_s(headers: Mapping[str, str]) -> float | None:
    """The seconds that the header asks for; 0: no cache, whatever the configuration says; None: no header."""
    text = headers.get(CACHE_HEADER)
    if text is None:
        return None
    if text.strip().lower() in _OFF:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not isfinite(seconds) or not 0 < seconds <= MAX_CACHE_S:
        message = f"{CACHE_HEADER}: expected seconds, at most {MAX_CACHE_S:.0f}, or off."
        raise BadRequest(message, param=CACHE_HEADER)
    return seconds


def _is_stream(body: bytes) -> bool:
    """A body that cannot be read is no stream: it gets its error."""
    try:
        return decode_object(body).get("stream") is True
    except ProxyError:
        return False


def _name(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
