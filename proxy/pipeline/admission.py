"""Orchestrates: admission of a call: the key's policy and rate limits, then the route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from proxy.ensembles.explain import shown_plan
from proxy.ensembles.registry import Ensembles
from proxy.metering import tokens
from proxy.metering.charges import NO_BUDGETS, Budgets
from proxy.metering.standing import Spending, share_spent
from proxy.pipeline.call import Call
from proxy.pipeline.call_text import CallText
from proxy.pipeline.conditions import marked, within
from proxy.pipeline.foreseen import Foresight
from proxy.pipeline.key_settings import KeyConfig, RateLimitsConfig, day_ns
from proxy.pipeline.labels import labels
from proxy.pipeline.limits import UNLIMITED, Limits, Place, RateLimit
from proxy.pipeline.seating import Seated, Seating
from proxy.pipeline.stored_prompts import StoredPrompts
from proxy.routing.allowed import Allowed
from proxy.routing.decision import Decision
from proxy.routing.deployment import Route
from proxy.routing.router import Router
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, BudgetSpent
from proxy.schema.prompts import UsedPrompt
from proxy.schema.records import Caller, Labels, StoredCaller

EXPECTED_OUTPUT = 256  # tokens reserved for an answer whose request sets no limit
_MAX_OTHERS = 10_000
_NO_HEADERS: Mapping[str, str] = {}
NOTHING: Spending = {}
NO_ENSEMBLES = Ensembles()


class KeyPolicy(Struct, frozen=True):
    """The permissions of one caller. `expires_ns`: when they end, in Unix nanoseconds."""

    name: str | None = None
    allowed: Allowed | None = None
    max_output_tokens: int | None = None
    expires_ns: int | None = None
    rate: RateLimit = UNLIMITED
    stores_text: bool = False

    def cap(self, request: AnyRequest) -> tuple[AnyRequest, list[str]]:
        """The request limited to `max_output_tokens` per choice, and the names of the changed fields."""
        return (request, []) if self.max_output_tokens is None else request.capped(self.max_output_tokens)


class KeyPolicies:
    """The sections `keys` and `rate_limits` of one configuration. Usage is counted in `limits`, across reloads."""

    def __init__(self, keys: Mapping[str, KeyConfig], rates: RateLimitsConfig | None, limits: Limits) -> None:
        rates = rates or RateLimitsConfig()
        self._limits = limits
        self._others: dict[str | None, KeyPolicy] = {}  # of keys without a section of their own
        self._default, self._keyless, self._everyone = rates.default, rates.keyless, rates.everyone
        self._limits_all = rates.everyone != UNLIMITED
        names = {*keys, *rates.per_key}
        self._named = {name: _policy(name, keys.get(name), rates.per_key.get(name), rates.default) for name in names}

    def of(self, caller: Caller) -> KeyPolicy:
        """The policy of this caller: the one of its name, narrowed by the model list stored with its key."""
        name = caller.key_id
        policy = (None if name is None else self._named.get(name)) or self._others.get(name)
        if policy is None:
            policy = KeyPolicy(name, rate=self._keyless if name is None else self._default)
            if len(self._others) < _MAX_OTHERS:
                self._others[name] = policy
        if isinstance(caller, StoredCaller) and caller.models is not None:
            lists = (*(policy.allowed.lists if policy.allowed else ()), caller.models)
            policy = structs.replace(policy, allowed=Allowed(caller.key_id or "", lists))
        return policy

    def enter(self, policy: KeyPolicy, request: AnyRequest) -> Place | None:
        """A place within the rate limits; None without limits. Raises ProxyError 429."""
        if policy.rate == UNLIMITED and not self._limits_all:
            return None
        prompt = output = 0
        if policy.rate.tokens_per_minute is not None or self._everyone.tokens_per_minute is not None:
            prompt = tokens.estimate_prompt(request)
            output = request.output_limit(EXPECTED_OUTPUT) or 0
        return self._limits.enter(policy.name, policy.rate, prompt, output, self._everyone)


class Admission:
    """Admits calls on one configuration."""

    def __init__(
        self,
        policies: KeyPolicies,
        router: Router,
        budgets: Budgets = NO_BUDGETS,
        spending: Spending = NOTHING,
        ensembles: Ensembles = NO_ENSEMBLES,
        prompts: StoredPrompts | None = None,
    ) -> None:
        self._prompts = prompts
        self._policies = policies
        self._router = router
        self._seating = Seating(router, ensembles)
        self._budgets = budgets
        self._spending = spending

    async def admit(self, call: Call, headers: Mapping[str, str] = _NO_HEADERS) -> Route:
        """Renders the request's stored prompt, caps the request, takes a place within the caller's rate limits and
        resolves the route.

        `call.decision` says how the router chose. Raises ProxyError 400, 403, 404, 413, 429 or 503. `Call.note_ended`
        returns the place, however the call ends.
        """
        if _is_incomplete(call.request):
            call.request, call.used = await self._completed(call.request, call.labels, call.caller, headers)
        policy = self._policies.of(call.caller)
        if policy.stores_text or call.used.experiment is not None:
            call.text = CallText(call.request, is_stored=policy.stores_text)
        call.request, call.adapted = policy.cap(call.request)
        place = self._policies.enter(policy, call.request)
        if place is not None:
            call.limit_headers, call.leave = place.headers, place.leave
        request = call.request
        share = self._share(call.caller, call.labels, call.opened_ns)
        decision = await self._router.decide(request, call.caller.key_id, headers, policy.allowed, share)
        is_routed = decision is not None
        if decision is not None:
            route, call.decision = decision.route, marked(decision, request)
        else:
            route = await self._router.route(request.model, policy.allowed, request.hints)
        call.seated = await self._seat(request, route, call.caller.key_id, policy, is_routed=is_routed)
        return route

    async def downgraded(self, call: Call, route: Route, spent: BudgetSpent) -> Route:
        """The route of a call whose budget is spent up to its soft limit: the model that the budget names, or else the
        cheapest capable one. Without any it is `route` again. Raises `spent` if the call may not be downgraded.
        """
        request = call.request
        if not spent.is_soft or not call.may_downgrade or not isinstance(request, ChatRequest):
            raise spent
        allowed = self._policies.of(call.caller).allowed
        cheaper = await self._router.downgraded(request, spent.downgrade_to, allowed)
        if cheaper is None:
            call.can_downgrade = False  # an answer that is shorter than useful is better than none
            return route
        call.is_downgraded, call.bound_nano = True, 0
        if call.seated is not None:
            call.seated, call.downgraded_from = None, route.requested
        elif (first := route.candidates[0].name) != cheaper.candidates[0].name:
            call.downgraded_from = first
        return cheaper

    async def foresee(
        self, caller: Caller, request: AnyRequest, headers: Mapping[str, str], now_ns: int
    ) -> tuple[Decision, dict[str, Any] | None]:
        """The decision that a call would get in the end, and what the budgets would do to it. Raises as `admit`."""
        if _is_incomplete(request):
            request, _ = await self._completed(request, labels(request, headers), caller, headers)
        decision, seated = await self._decide(caller, request, headers, now_ns)
        policy = self._policies.of(caller)
        request, _ = policy.cap(request)
        seen = Foresight(self._budgets, self._spending, request, now_ns)
        said = labels(request, headers)
        charges = self._budgets.of_call(caller.key_id, said, now_ns)
        decision, budget = await seen.look(decision, charges, self._router, policy.allowed, seated)
        return self._router.with_evidence(decision, request), budget

    async def decide(
        self, caller: Caller, request: AnyRequest, headers: Mapping[str, str], now_ns: int = 0
    ) -> Decision:
        """The decision that a call would follow, within the conditions of its client. Counts against no limit.

        Raises as `admit`, and CostLimit.
        """
        if _is_incomplete(request):
            request, _ = await self._completed(request, labels(request, headers), caller, headers)
        decision, _ = await self._decide(caller, request, headers, now_ns)
        return decision

    async def _completed(
        self, request: AnyRequest, said: Labels, caller: Caller, headers: Mapping[str, str]
    ) -> tuple[AnyRequest, UsedPrompt]:
        """The request with its stored prompt rendered, and with what an experiment varies."""
        if self._prompts is None:
            message = "Stored prompts and experiments live in a server's database. Ask a running server instead."
            raise BadRequest(message, param="model")
        return await self._prompts.applied(request, said, caller.key_id, headers)

    async def _decide(
        self, caller: Caller, request: AnyRequest, headers: Mapping[str, str], now_ns: int
    ) -> tuple[Decision, Seated | None]:
        """`decide`, and the panel if an ensemble answers."""
        policy = self._policies.of(caller)
        request, _ = policy.cap(request)
        share = self._share(caller, labels(request, headers), now_ns)
        decision = await self._router.decide(request, caller.key_id, headers, policy.allowed, share)
        is_routed = decision is not None
        if decision is None:
            route = await self._router.route(request.model, policy.allowed, request.hints)
            decision = self._router.named(route, request, caller.key_id, policy.allowed)
        seated = await self._seat(request, decision.route, caller.key_id, policy, is_routed=is_routed)
        if seated is None:
            return within(decision, request), None
        panel = shown_plan(seated.plan, decision.facts, names_all=caller.admin)
        return structs.replace(decision, panel=panel), seated

    async def _seat(
        self, request: AnyRequest, route: Route, key: str | None, policy: KeyPolicy, *, is_routed: bool
    ) -> Seated | None:
        if not route.ensemble and request.hints.ensemble is None:  # nearly all calls
            return None
        return await self._seating.seated(request, route, key, policy.allowed, is_routed=is_routed)

    def _share(self, caller: Caller, said: Labels, now_ns: int) -> float | None:
        """The share of the caller's tightest budget that is spent, where a rule looks at it."""
        if not self._router.reads_budget or not now_ns:
            return None
        return share_spent(self._budgets.of_call(caller.key_id, said, now_ns), self._spending)


def _is_incomplete(request: AnyRequest) -> bool:
    """True if it uses a stored prompt or takes part in an experiment, as few calls do."""
    return request.stored is not None or request.hints.experiment is not None


def _policy(name: str, key: KeyConfig | None, rate: RateLimit | None, default: RateLimit) -> KeyPolicy:
    key = key or KeyConfig()
    given = {} if rate is None else {part: value for part, value in structs.asdict(rate).items() if value is not None}
    return KeyPolicy(
        name=name,
        allowed=None if key.models is None else Allowed(name, (tuple(key.models),)),
        max_output_tokens=key.max_output_tokens,
        expires_ns=None if key.expires is None else day_ns(key.expires),
        rate=structs.replace(default, **given),
        stores_text=key.store_text,
    )
