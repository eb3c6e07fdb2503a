"""Orchestrates: chooses the API key of a provider's next request, and lets keys rest. The clock is passed in.

Keys        the keys of one provider in one configuration: the least used one that may be used now
KeyState    the use of one key within the last minute, and until when it rests; it outlives a reload
Lease       one request's use of a key: reserved before it is sent, corrected once its usage is known

A key is known by the name of its variable. Its value never leaves the Endpoint that sends it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from proxy.providers.base.contract import ProviderLimits
from proxy.schema.errors import KeysUnavailable, Received, UpstreamError
from proxy.schema.records import Endpoint, Secret

MAX_REST_S = 300.0  # cap of a vendor's Retry-After: a daily limit may be raised at any time
LIMITED_REST_S = 5.0  # after a 429 that names no time
REFUSED_REST_S = 600.0  # invalid, not permitted, or out of credit: a person must act, and a reload ends the rest
_WINDOW_S = 61  # whole seconds that cover a minute, wherever within a second a request was sent
_MIN_SECRET = 8  # anything shorter (`none`, `ollama`) is no secret, and may be a word in the message
_REFUSED = (401, 402, 403)
# Not the key's fault, or not everywhere: some vendors refuse a prompt or one model with 403.
_OTHER_CAUSES = ("content_filter", "content_policy_violation", "model_not_found")


class _Second:
    """The use within one second. `counts`: it is part of the last minute."""

    __slots__ = ("at", "counts", "requests", "tokens")

    def __init__(self, at: int) -> None:
        self.at = at
        self.requests = 0
        self.tokens = 0
        self.counts = True


class KeyState:
    """The last minute of one key, in seconds, and its rest."""

    __slots__ = ("_seconds", "is_refused", "last_s", "requests", "rests_until", "tokens", "why")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self.last_s = -math.inf
        self.rests_until = -math.inf
        self.why = ""  # the error code that made it rest
        self.is_refused = False  # it rests because its credentials were refused
        self._seconds: deque[_Second] = deque()

    def advance(self, now_s: float) -> None:
        """Forgets use that is more than a minute old."""
        while self._seconds and self._seconds[0].at + _WINDOW_S <= now_s:
            gone = self._seconds.popleft()
            gone.counts = False
            self.requests -= gone.requests
            self.tokens -= gone.tokens

    def add(self, now_s: float, requests: int, tokens: int) -> _Second:
        at = math.floor(now_s)
        if not self._seconds or self._seconds[-1].at != at:
            self._seconds.append(_Second(at))
        second = self._seconds[-1]
        self.correct(second, requests, tokens)
        return second

    def correct(self, second: _Second, requests: int, tokens: int) -> None:
        """Adds to a second, or subtracts; no effect once it is more than a minute old."""
        if second.counts:
            second.requests += requests
            second.tokens += tokens
            self.requests += requests
            self.tokens += tokens

    def has_room_at(self, requests: float, tokens: float) -> float:
        """When the last minute will hold no more than `requests` and `tokens`."""
        has_requests, has_tokens, at = self.requests, self.tokens, -math.inf
        for second in self._seconds:
            if has_requests <= requests and has_tokens <= tokens:
                break
            has_requests, has_tokens = has_requests - second.requests, has_tokens - second.tokens
            at = second.at + _WINDOW_S
        return at

    def forgive(self) -> None:
        """Ends the rest of a refused key: it may have been fixed."""
        if self.is_refused:
            self.rests_until, self.is_refused = -math.inf, False


class KeyStates:
    """The states of all keys. Bounded by the number of variables in the environment."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str, bytes], KeyState] = {}

    def of(self, provider: str, endpoint: Endpoint) -> KeyState:
        """The state of the provider's key at this address."""
        secret = b"" if endpoint.key is None else endpoint.key.reveal().encode()
        return self._states.setdefault((provider, endpoint.base_url, hashlib.sha256(secret).digest()), KeyState())

    def forgive(self) -> None:
        """Lets every refused key be tried again."""
        for state in self._states.values():
            state.forgive()


class Key(Struct, frozen=True):
    """`variable` holds it; None: the provider needs none. `endpoint` None: at the provider's current origin."""

    variable: str | None
    endpoint: Endpoint | None
    state: KeyState


class Lease:
    """One request's use of a key, with the tokens reserved for it."""

    __slots__ = ("_keys", "_reserved", "_second", "key", "prompt")

    def __init__(self, key: Key, second: _Second | None, prompt: int, reserved: int) -> None:
        """`second` None: the request does not count."""
        self.key = key
        self.prompt = prompt
        self._second = second
        self._reserved = reserved

    def give_back(self) -> None:
        """Returns the reservation: nothing was sent."""
        if self._second is not None:
            self.key.state.correct(self._second, -1, -self._reserved)
            self._second = None

    def settle(self, tokens: int) -> None:
        """Corrects the reservation: the request used `tokens`."""
        if self._second is not None:
            self.key.state.correct(self._second, 0, tokens - self._reserved)
            self._reserved = tokens


class KeyUse(Struct, frozen=True):
    """The use of a key within the last minute. `why`: the reason for its rest, empty while it does not rest."""

    variable: str | None
    requests: int
    tokens: int
    rests_s: float
    why: str


class Keys:
    """The keys of one provider. Each has the same `limits`: this worker's `share` of them.

    `warn` receives the event, the provider, the variable and the reason when a key begins to rest.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[Key],
        limits: ProviderLimits,
        warn: Callable[..., object],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = tuple(keys)
        self.limits = limits
        self._name = name
        self._warn = warn
        self._clock_s = clock_s
        self._requests: float = limits.requests_per_minute or math.inf
        self._tokens: float = limits.tokens_per_minute or math.inf

    @property
    def counts_tokens(self) -> bool:
        return self.limits.tokens_per_minute is not None

    def take(self, prompt: int = 0, output: int = 0) -> Lease:
        """The least used key that may be used now, with the expected tokens reserved. Raises KeysUnavailable.

        A request that is larger than a minute's quota waits for an unused minute.
        """
        now_s, tokens = self._clock_s(), prompt + output
        free = [key for key in self.keys if self._usable_at(key.state, now_s, tokens) <= now_s]
        if not free:
            raise self._unavailable(now_s, tokens)
        key = min(free, key=lambda key: self._rank(key.state))
        key.state.last_s = now_s
        return Lease(key, key.state.add(now_s, 1, tokens), prompt, tokens)

    def borrow(self) -> Lease:
        """A key for a request outside of calls, which counts for no limit. Raises KeysUnavailable if all keys rest."""
        now_s = self._clock_s()
        free = [key for key in self.keys if key.state.rests_until <= now_s]
        if not free:
            raise self._unavailable(now_s, 0)
        key = min(free, key=lambda key: key.state.last_s)
        key.state.last_s = now_s
        return Lease(key, None, 0, 0)

    def note_failure(self, lease: Lease, error: UpstreamError, status: int, is_call: bool = True) -> None:
        """Records the failure of a request that was sent. A key that the vendor refused rests; `error.other_key` says
        whether the request may be sent again with another one. A refused request used no tokens.

        A provider's only key does not rest: the vendor's own answer says more than we could. `status` is that of the
        answer (0: none). `is_call` False: a model list, which a key may be barred from although it may call the models.
        """
        is_refusal = status >= 400  # an error inside a 200 may have been billed
        if is_refusal:
            lease.settle(0)
        now_s, rest_s = self._clock_s(), _rest_s(error)
        if rest_s is None or len(self.keys) == 1 or not (is_call or error.status == 401):
            return
        state, code = lease.key.state, error.code or str(error.status)
        is_refused = not _is_limited(error)
        if state.rests_until <= now_s:
            event = {"provider": self._name, "key": lease.key.variable, "code": code, "rest_s": round(rest_s, 3)}
            self._warn("key_rests", **event)
        if now_s + rest_s >= state.rests_until:
            state.rests_until, state.why, state.is_refused = now_s + rest_s, code, is_refused
        error.other_key = is_refusal and any(self._usable_at(key.state, now_s, 0) <= now_s for key in self.keys)
        if error.other_key:  # the wait is the key's, not the provider's
            error.retry_after_s = None
            for name in ("retry-after", "retry-after-ms"):
                error.headers.pop(name, None)

    def resting(self) -> dict[str, str]:
        """Variable -> the reason why its key rests now."""
        now_s = self._clock_s()
        return {key.variable or "": key.state.why for key in self.keys if key.state.rests_until > now_s}

    def used(self) -> list[KeyUse]:
        """The use of each key in this process."""
        now_s, found = self._clock_s(), []
        for key in self.keys:
            key.state.advance(now_s)
            rests_s = max(0.0, key.state.rests_until - now_s)
            why = key.state.why if rests_s else ""
            found.append(KeyUse(key.variable, key.state.requests, key.state.tokens, rests_s, why))
        return found

    def _rank(self, state: KeyState) -> tuple[float, int, float]:
        share = max(state.requests / self._requests, state.tokens / self._tokens)
        return share, state.requests, state.last_s

    def _usable_at(self, state: KeyState, now_s: float, tokens: int) -> float:
        state.advance(now_s)
        room_at = state.has_room_at(self._requests - 1, max(0.0, self._tokens - tokens))
        return max(room_at, state.rests_until)

    def _unavailable(self, now_s: float, tokens: int) -> KeysUnavailable:
        waits = [self._usable_at(key.state, now_s, tokens) - now_s for key in self.keys]
        soonest_s = min(waits)
        first = self.keys[waits.index(soonest_s)].state
        is_limited = not (first.is_refused and first.rests_until > now_s)
        why = "; ".join(self._why(key, now_s, wait_s) for key, wait_s in zip(self.keys, waits, strict=True))
        what = "may not be called" if self.keys[0].variable is None else "has no key that may be used"
        return KeysUnavailable(f"{self._name} {what} now: {why}.", soonest_s, is_limited)

    def _why(self, key: Key, now_s: float, wait_s: float) -> str:
        who, state = key.variable or "it", key.state
        again = f"(again in {math.ceil(wait_s)} s)"
        if state.rests_until >= now_s + wait_s:
            return f"{who} rests after {state.why} {again}"
        if state.requests >= self._requests:
            return f"{who} has used its {self._requests:g} requests per minute {again}"
        return f"{who} has too few left of its {self._tokens:g} tokens per minute {again}"


def share(limits: ProviderLimits, workers: int) -> ProviderLimits:
    """The part of the limits that one of `workers` processes enforces."""
    requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
    return ProviderLimits(
        None if requests is None else max(1, requests // workers), None if tokens is None else max(1, tokens // workers)
    )


def _is_limited(error: UpstreamError) -> bool:
    """True for a rate limit, which ends by itself. Vendors also send 429 when the credit is used up."""
    return error.status == 429 and error.code != "insufficient_quota"


def _rest_s(error: UpstreamError) -> float | None:
    """How long a key rests after this error; None: the error is not about the key."""
    if _is_limited(error):
        return LIMITED_REST_S if error.retry_after_s is None else min(error.retry_after_s, MAX_REST_S)
    refused = error.status in _REFUSED or error.code == "insufficient_quota"
    return REFUSED_REST_S if refused and error.code not in _OTHER_CAUSES else None


def redact(key: Secret, error: UpstreamError) -> None:
    """Some providers quote the key in their errors; callers must not learn it (S31)."""
    secret = key.reveal()
    if len(secret) < _MIN_SECRET:
        return
    for name in ("message", "type", "param", "code"):
        value = getattr(error, name)
        if value is not None:
            setattr(error, name, value.replace(secret, "[redacted]"))
    error.args = (error.message,)
    error.headers = {name: value.replace(secret, "[redacted]") for name, value in error.headers.items()}
    if (received := error.received) is not None:
        headers = {name: value.replace(secret, "[redacted]") for name, value in received.headers.items()}
        error.received = Received(received.status, headers, received.body.replace(secret.encode(), b"[redacted]"))
