"""Orchestrates: a request -> Route. Named models follow their name; `auto` and its variants are decided by `decide`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from proxy.metering.price_book import PriceBook
from proxy.routing.allowed import Allowed, Views, refusal_of
from proxy.routing.decide import decide
from proxy.routing.decision import Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.downgrade import cheapest
from proxy.routing.facts import Facts, NoClassifier, Reading, RequestClassifier, facts_of, with_evidence
from proxy.routing.health import NO_STATE, State
from proxy.routing.named import NAMED, named
from proxy.routing.names import AUTO_NAMES
from proxy.routing.rules import headers_in, looks_at_difficulty, reads_budget, reads_text
from proxy.routing.settings import TASKS
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.hints import NO_HINTS, Hints

_AUTO = frozenset(AUTO_NAMES)
_NO_CLASSIFIER = NoClassifier()


class Router:
    """`random` in [0, 1) picks among `weighted` names. `state` returns the latest snapshot of the deployments' health
    and of one session.

    `version` names the configuration, in decisions.
    """

    def __init__(
        self,
        views: Views,
        prices: PriceBook,
        random: Callable[[], float],
        classifier: RequestClassifier = _NO_CLASSIFIER,
        state: Callable[[str], State] = lambda session: NO_STATE,
        version: str = "",
    ) -> None:
        self._views = views
        self._prices = prices
        self._random = random
        self._state = state
        self._version = version
        names = views.current()  # its rules and settings are the configuration's own
        router, rules = names.router, names.rules
        self._reading = Reading(
            classifier,
            router.min_confidence,
            headers_in(rules),
            reads_text(rules),
            frozenset(task for task in TASKS if looks_at_difficulty(rules, task)),
            tuple(router.sticky.by),
        )
        self._enabled = router.enabled
        self.reads_budget = reads_budget(rules)

    async def route(self, name: str, allowed: Allowed | None = None, hints: Hints = NO_HINTS) -> Route:
        """The route of a name among the `allowed` models. Raises ProxyError 400, 403, 404 or 503.

        The first call of a model missing from pricing.yaml waits for the price list, at most `WAIT_S`.
        """
        draw = self._random()
        route = self._named(name, draw, allowed, hints)
        if self._lacks_prices(route.candidates):
            await self._prices.load()
            route = self._named(name, draw, allowed, hints)
        return route

    def named(self, route: Route, request: AnyRequest, key: str | None, allowed: Allowed | None) -> Decision:
        """The route of a named model as an explanation shows it. Raises BadRequest if no model can take the request."""
        barred: tuple[Deployment, ...] = ()
        if (may := self._views.of(allowed).may) is not None:
            behind = self._named(route.requested, self._random(), None, request.hints).candidates
            barred = tuple(each for each in behind if not may(each.name))
        state = self._state("")
        return named(route, request, f"{self._version}.{state.id}", key, state, barred)

    async def decide(
        self,
        request: AnyRequest,
        key: str | None,
        headers: Mapping[str, str],
        allowed: Allowed | None = None,
        budget_spent: float | None = None,
    ) -> Decision | None:
        """The decision for a request to `auto` or one of its variants; None if the request names its model.

        `key` is the name of the caller's key, `budget_spent` the share of its budget. Raises ProxyError 400, 403 or
        503, and waits as `route` does.
        """
        names = self._views.current()
        name = request.model if request.model in _AUTO else names.target_of(request.model)
        if not self._enabled or name not in _AUTO or request.task_type is not None:
            return None
        self._check_models(request.hints, allowed)
        facts = facts_of(request, name, key, headers, self._reading)
        if budget_spent is not None:
            facts = replace(facts, budget_spent=budget_spent)
        state, seed = self._state(facts.session), self._random()
        decision = self._decide(facts, state, seed, allowed)
        if self._lacks_prices(decision.route.candidates):
            await self._prices.load()
            decision = self._decide(facts, state, seed, allowed)
        return decision

    def with_evidence(self, decision: Decision, request: AnyRequest) -> Decision:
        """For an explanation: the decision, with the evidence for its task."""
        if decision.step == NAMED:
            return decision
        return replace(decision, facts=with_evidence(decision.facts, request, self._reading))

    async def downgraded(self, request: ChatRequest, name: str | None, allowed: Allowed | None) -> Route | None:
        """The route of a request whose budget is spent: the capable models behind `name`, in their order, else the
        cheapest capable one that the configuration names. None: there is none with a known price.
        """
        for wanted in dict.fromkeys((name, None)):
            names = self._views.of(allowed)
            found = names.behind(wanted) if wanted else names.chosen()
            if self._lacks_prices(found):
                await self._prices.load()
                names = self._views.of(allowed)
                found = names.behind(wanted) if wanted else names.chosen()
            able = cheapest(request, found)
            if able:
                return Route(request.model, tuple(each for each in found if each in able) if wanted else able[:1])
        return None

    def member(self, name: str, request: ChatRequest, key: str | None, allowed: Allowed | None) -> Route:
        """The route of one member of an ensemble. Each has a draw of its own, and no sticky conversation: that would
        lead all members to one model. Raises as `route` does.
        """
        target = self._views.current().target_of(name)
        if not self._enabled or target not in _AUTO:
            return self._views.resolve(name, self._random(), allowed)
        facts = replace(facts_of(request, target, key, {}, self._reading), session="")
        route = self._decide(facts, self._state(""), self._random(), allowed).route
        return replace(route, ensemble="")  # or a rule could lead an ensemble to itself

    def pool(self, allowed: Allowed | None) -> tuple[Deployment, ...]:
        """The deployments that members are picked from."""
        return self._views.of(allowed).pool()

    async def prices_loaded(self, deployments: Iterable[Deployment]) -> bool:
        """True if the price list was read because one of them had no price."""
        lacking = self._lacks_prices(deployments)
        if lacking:
            await self._prices.load()
        return lacking

    def _decide(self, facts: Facts, state: State, seed: float, allowed: Allowed | None) -> Decision:
        try:
            return decide(self._views.of(allowed), facts, state, seed, self._version)
        except ProxyError as failure:
            if allowed is None:
                raise
            try:
                route = decide(self._views.current(), facts, state, seed, self._version).route
            except ProxyError:
                raise failure from None
            raise refusal_of(allowed, route) from None

    def _named(self, name: str, draw: float, allowed: Allowed | None, hints: Hints) -> Route:
        """The route of a named model; the client's own fallback replaces the configured one."""
        route = self._views.resolve(name, draw, allowed)
        if hints.fallback is None and not hints.no_fallback:
            return route
        self._check_models(hints, allowed)
        if route.ensemble and hints.fallback is not None:
            message = f"routing.fallback: {name!r} is an ensemble; its members have fallbacks of their own."
            raise BadRequest(message, param="routing.fallback")
        first = route.candidates[:1]
        if route.ensemble:
            return route
        if hints.no_fallback:
            return Route(name, first)
        own = self._views.of(allowed).order(hints.fallback or (), draw, is_fallback=True)
        return replace(route, candidates=(*first, *(each for each in own if each.name != first[0].name)))

    def _check_models(self, hints: Hints, allowed: Allowed | None) -> None:
        """Raises BadRequest for a hint with an unknown model, and ProxyError 403 for one that the key may not use."""
        if hints.preferred_model is None and not hints.fallback:
            return
        given = [("preferred_model", hints.preferred_model), *(("fallback", name) for name in hints.fallback or ())]
        for hint, name in given:
            if name is None:
                continue
            where = f"routing.{hint}"
            if name.startswith("auto") and self._views.current().target_of(name) in _AUTO:
                raise BadRequest(f"{where}: {name!r} chooses among models; name one of them.", param=where)
            try:
                if self._views.resolve(name, 0.0, allowed).ensemble:
                    raise BadRequest(f"{where}: {name!r} is an ensemble; name a model.", param=where)
            except ProxyError as error:
                if error.status != 404:
                    raise
                raise BadRequest(f"{where}: {error.message}", param=where) from None

    def _lacks_prices(self, deployments: Iterable[Deployment]) -> bool:
        unknown = [each.name for each in deployments if each.price is None]
        return bool(unknown) and any(map(self._prices.may_find, unknown))
