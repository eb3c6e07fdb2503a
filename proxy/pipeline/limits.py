"""Orchestrates: rate limits per key and of all callers together (requests and tokens per minute, concurrent calls),
and a limit on failed logins.

All state is in the memory of one worker, which enforces its share: limit / workers. Tokens are reserved by estimate and
corrected by actual usage; a caller that exceeds its reservation waits until the bucket has refilled.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from proxy.schema.constraints import Count
from proxy.schema.errors import ProxyError

FAILURES_PER_MINUTE = 120  # wrong keys from one address (one /64 of IPv6)
ALL_FAILURES_PER_MINUTE = 1_200  # wrong keys from everywhere
_MAX_ADDRESSES = 4_096


class RateLimit(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of one key, or of all callers together; None: no limit."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None


UNLIMITED = RateLimit()


class RateLimited(ProxyError):
    """429: the limit that was reached, its usage, and the seconds until it has room (None: when a call ends)."""

    def __init__(self, who: str, limiter: str, current: int, limit: int, reset_s: float | None) -> None:
        again = "when one of them has ended" if reset_s is None else f"in {_format_duration(reset_s)}"
        super().__init__(
            f"Rate limit reached for {who}: {limiter} is {limit}, {current} in use. Try again {again}.",
            status=429,
            code="rate_limit_exceeded",
            headers={"retry-after": str(math.ceil(reset_s or 1))},
        )
        reset_s = None if reset_s is None else round(reset_s, 3)
        self._limits = {"limiter": limiter, "current": current, "limit": limit, "reset_s": reset_s}

    def body(self) -> dict[str, object]:
        error: dict[str, Any] = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": {**error, "metadata": self._limits}}


class Bucket:
    """A token bucket that refills evenly. It holds a minute's worth, and at least one."""

    __slots__ = ("_at_s", "_level")

    def __init__(self) -> None:
        self._level: float | None = None
        self._at_s = 0.0

    def level(self, per_minute: float, now_s: float) -> float:
        """The amount available now; below zero after an overdraft."""
        most = max(1.0, per_minute)
        if self._level is None:
            self._level = most
        else:
            self._level = min(most, self._level + max(0.0, now_s - self._at_s) * per_minute / 60)
        self._at_s = now_s
        return self._level

    def take(self, amount: float) -> None:
        """Takes from what `level` returned; a negative amount gives back."""
        self._level = (self._level or 0.0) - amount


class _Used:
    """The usage of one key, or of all callers together."""

    __slots__ = ("requests", "running", "tokens")

    def __init__(self) -> None:
        self.requests = Bucket()
        self.tokens = Bucket()
        self.running = 0


class _Scope(Struct, frozen=True):
    """Limits and the usage that they bind. `who`: for messages."""

    who: str
    used: _Used
    rate: RateLimit


class Place:
    """One admitted call: `headers` report the remaining limits, `leave` returns what the call did not use."""

    __slots__ = ("_has_left", "_taken", "headers")

    def __init__(self, taken: list[tuple[_Scope, int]], headers: dict[str, str]) -> None:
        self._taken = taken  # with the tokens reserved of each
        self._has_left = False
        self.headers = headers

    def leave(self, tokens: int | None) -> None:
        """Frees the place of an ended call that used `tokens`; None: it was refused, so it counts as none.

        Only the first call has an effect.
        """
        if self._has_left:
            return
        self._has_left = True
        for scope, reserved in self._taken:
            scope.used.running -= 1
            if scope.rate.tokens_per_minute is not None:
                scope.used.tokens.take((tokens or 0) - reserved)
            if tokens is None and scope.rate.requests_per_minute is not None:
                scope.used.requests.take(-1)


class Limits:
    """The limits of every key and of all callers together, enforced by one of `workers` processes."""

    def __init__(self, workers: int = 1, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._clock_s = clock_s
        self._used: dict[str | None, _Used] = {}
        self._by_everyone = _Used()

    def enter(
        self, name: str | None, rate: RateLimit, prompt_tokens: int, output_tokens: int, everyone: RateLimit = UNLIMITED
    ) -> Place:
        """Reserves all limits or none. Raises RateLimited, or a ProxyError for a prompt that can never fit.

        `name` None: callers without a key. `everyone`: the limits of all callers together.
        """
        used = self._used.get(name)
        if used is None:
            used = self._used[name] = _Used()
        now_s = self._clock_s()
        scopes = [_Scope("callers without a key" if name is None else f"the key {name!r}", used, rate)]
        if everyone != UNLIMITED:
            scopes.append(_Scope("all callers together", self._by_everyone, everyone))
        taken = [(scope, self._fit_all(scope, prompt_tokens, output_tokens, now_s)) for scope in scopes]
        headers: dict[str, str] = {}
        for scope, reserved in taken:  # nothing is taken until everything fits
            scope.used.running += 1
            if (limit := scope.rate.tokens_per_minute) is not None:
                scope.used.tokens.take(reserved)
                headers = _tighter(headers, self._headers("tokens", scope.used.tokens, limit, now_s))
            if (limit := scope.rate.requests_per_minute) is not None:
                scope.used.requests.take(1)
                headers = _tighter(headers, self._headers("requests", scope.used.requests, limit, now_s))
        return Place(taken, headers)

    def _fit_all(self, scope: _Scope, prompt_tokens: int, output_tokens: int, now_s: float) -> int:
        """The tokens to reserve. Raises as `enter` does."""
        who, used, rate = scope.who, scope.used, scope.rate
        if rate.concurrent is not None and used.running >= max(1, rate.concurrent // self._workers):
            raise RateLimited(who, "concurrent", used.running * self._workers, rate.concurrent, None)
        if rate.requests_per_minute is not None:
            self._fit(used.requests, 1, (who, "requests_per_minute", rate.requests_per_minute), now_s)
        if rate.tokens_per_minute is None:
            return 0
        limit = rate.tokens_per_minute
        if prompt_tokens > limit:
            raise _prompt_too_long(who, prompt_tokens, limit)
        reserved = int(min(prompt_tokens + output_tokens, max(1, limit / self._workers)))
        self._fit(used.tokens, reserved, (who, "tokens_per_minute", limit), now_s)
        return reserved

    def _fit(self, bucket: Bucket, amount: int, limiter: tuple[str, str, int], now_s: float) -> None:
        who, name, limit = limiter
        share = limit / self._workers
        level = bucket.level(share, now_s)
        if level < amount:
            current = round((max(1.0, share) - level) * self._workers)
            refused = RateLimited(who, name, current, limit, (amount - level) * 60 / share)
            refused.headers |= self._headers(name.partition("_")[0], bucket, limit, now_s)
            raise refused

    def _headers(self, what: str, bucket: Bucket, limit: int, now_s: float) -> dict[str, str]:
        """OpenAI's names: the limit, what remains, and the time until it has refilled."""
        share = limit / self._workers
        level = bucket.level(share, now_s)
        missing_s = (max(1.0, share) - level) * 60 / share
        return {
            f"x-ratelimit-limit-{what}": str(limit),
            f"x-ratelimit-remaining-{what}": str(min(limit, max(0, int(level * self._workers)))),
            f"x-ratelimit-reset-{what}": _format_duration(missing_s),
        }


class FailedLogins:
    """Counts wrong keys. Valid keys are not checked here, so failures by others never lock out a valid key."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._all = Bucket()
        self._by_network: dict[str, Bucket] = {}

    def note(self, address: str) -> None:
        """Counts one failure of the connection's peer address, never of a header's. Raises ProxyError 429."""
        now_s = self._clock_s()
        network = _network(address)
        bucket = self._by_network.pop(network, None) or Bucket()
        if len(self._by_network) >= _MAX_ADDRESSES:
            del self._by_network[next(iter(self._by_network))]  # the address that failed longest ago
        self._by_network[network] = bucket
        for counted, per_minute in ((bucket, FAILURES_PER_MINUTE), (self._all, ALL_FAILURES_PER_MINUTE)):
            level = counted.level(per_minute, now_s)
            if level < 1:
                refused = RateLimited("wrong API keys", "failed_logins", per_minute, per_minute, 60 / per_minute)
                refused.headers["x-should-retry"] = "false"  # the same key would fail again
                raise refused
        bucket.take(1)
        self._all.take(1)


def _tighter(known: dict[str, str], more: dict[str, str]) -> dict[str, str]:
    """Both sets of headers; where both report a limit, the one with less remaining."""
    rest = next(name for name in more if "-remaining-" in name)
    if rest in known and int(known[rest]) <= int(more[rest]):
        return known
    return known | more


def _prompt_too_long(who: str, tokens: int, limit: int) -> ProxyError:
    refused = RateLimited(who, "tokens_per_minute", tokens, limit, None)
    refused.message = f"Rate limit for {who}: the prompt has about {tokens} tokens, tokens_per_minute is {limit}."
    refused.headers = {"x-should-retry": "false"}
    return refused


def _network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one user may own all of it."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


def _format_duration(seconds: float) -> str:
    """In OpenAI's format: 17ms, 8.64s, 6m0s."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{math.ceil(rest)}s" if minutes else f"{rest:.2f}".rstrip("0").rstrip(".") + "s"
