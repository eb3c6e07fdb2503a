"""Orchestrates: admission of a call: the key's policy and rate limits, then the route."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime

from msgspec import Struct, structs

from proxy.metering import tokens
from proxy.pipeline.call import Call
from proxy.pipeline.limits import Limits, Place, RateLimit
from proxy.routing.allowed import Allowed
from proxy.routing.decision import Decision
from proxy.routing.deployment import Route
from proxy.routing.router import Router
from proxy.schema.constraints import Count, Day, NotBlank
from proxy.schema.endpoints import AnyRequest
from proxy.schema.records import NANO_PER_USD, Caller, StoredCaller

EXPECTED_OUTPUT = 256  # tokens reserved for an answer whose request sets no limit
_UNLIMITED = RateLimit()
_MAX_OTHERS = 10_000
_NO_HEADERS: Mapping[str, str] = {}


class RateLimitsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `rate_limits`: the default limits, and limits of single keys by name."""

    default: RateLimit = RateLimit()
    per_key: dict[str, RateLimit] = {}


class KeyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One name under `keys:`. `models` None: every model; entries may be globs. `expires`: first day of refusal."""

    models: list[NotBlank] | None = None
    max_output_tokens: Count | None = None
    expires: Day | None = None
    store_text: bool = False


class KeyPolicy(Struct, frozen=True):
    """The permissions of one caller. `expires_ns`: when they end, in Unix nanoseconds."""

    name: str | None = None
    allowed: Allowed | None = None
    max_output_tokens: int | None = None
    expires_ns: int | None = None
    rate: RateLimit = _UNLIMITED

    def cap(self, request: AnyRequest) -> tuple[AnyRequest, list[str]]:
        """The request limited to `max_output_tokens` per choice, and the names of the changed fields."""
        return (request, []) if self.max_output_tokens is None else request.capped(self.max_output_tokens)


class KeyPolicies:
    """The sections `keys` and `rate_limits` of one configuration. Usage is counted in `limits`, across reloads."""

    def __init__(self, keys: Mapping[str, KeyConfig], rates: RateLimitsConfig | None, limits: Limits) -> None:
        rates = rates or RateLimitsConfig()
        self._limits = limits
        self._others: dict[str | None, KeyPolicy] = {}  # of keys without a section of their own
        self._default = rates.default
        names = {*keys, *rates.per_key}
        self._named = {name: _policy(name, keys.get(name), rates.per_key.get(name), rates.default) for name in names}

    def of(self, caller: Caller) -> KeyPolicy:
        """The policy of this caller: the one of its name, narrowed by the model list stored with its key."""
        policy = self._named.get(caller.key_id or "") or self._others.get(caller.key_id)
        if policy is None:
            policy = KeyPolicy(caller.key_id, rate=self._default)
            if len(self._others) < _MAX_OTHERS:
                self._others[caller.key_id] = policy
        if isinstance(caller, StoredCaller) and caller.models is not None:
            lists = (*(policy.allowed.lists if policy.allowed else ()), caller.models)
            policy = structs.replace(policy, allowed=Allowed(caller.key_id or "", lists))
        return policy

    def enter(self, policy: KeyPolicy, request: AnyRequest) -> Place | None:
        """A place within the rate limits; None without limits. Raises ProxyError 429."""
        if policy.rate == _UNLIMITED:
            return None
        prompt = output = 0
        if policy.rate.tokens_per_minute is not None:
            prompt = tokens.estimate_prompt(request)
            output = request.output_limit(EXPECTED_OUTPUT) or 0
        return self._limits.enter(policy.name, policy.rate, prompt, output)


class Admission:
    """Admits calls on one configuration."""

    def __init__(self, policies: KeyPolicies, router: Router) -> None:
        self._policies = policies
        self._router = router

    async def admit(self, call: Call, headers: Mapping[str, str] = _NO_HEADERS) -> Route:
        """Caps the request, takes a place within the caller's rate limits and resolves the route.

        `call.decision` says how the router chose. Raises ProxyError 400, 403, 404, 429 or 503. `Call.note_ended`
        returns the place, however the call ends.
        """
        policy = self._policies.of(call.caller)
        call.request, call.adapted = policy.cap(call.request)
        place = self._policies.enter(policy, call.request)
        if place is not None:
            call.limit_headers, call.leave = place.headers, place.leave
        request = call.request
        call.decision = await self._router.decide(request, call.caller.key_id, headers, policy.allowed)
        if call.decision is not None:
            return call.decision.route
        return await self._router.route(request.model, policy.allowed, request.hints)

    async def decide(self, caller: Caller, request: AnyRequest, headers: Mapping[str, str]) -> Decision:
        """The decision that `admit` would make. Takes no place. Raises as `admit`."""
        policy = self._policies.of(caller)
        request, _ = policy.cap(request)
        decision = await self._router.decide(request, caller.key_id, headers, policy.allowed)
        if decision is not None:
            return decision
        route = await self._router.route(request.model, policy.allowed, request.hints)
        return self._router.named(route, request, caller.key_id, policy.allowed)


def day_ns(day: str) -> int:
    """The start of a day in UTC, in Unix nanoseconds."""
    start = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    return int(start.timestamp()) * NANO_PER_USD


def _policy(name: str, key: KeyConfig | None, rate: RateLimit | None, default: RateLimit) -> KeyPolicy:
    key = key or KeyConfig()
    given = {} if rate is None else {part: value for part, value in structs.asdict(rate).items() if value is not None}
    return KeyPolicy(
        name=name,
        allowed=None if key.models is None else Allowed(name, (tuple(key.models),)),
        max_output_tokens=key.max_output_tokens,
        expires_ns=None if key.expires is None else day_ns(key.expires),
        rate=structs.replace(default, **given),
    )
