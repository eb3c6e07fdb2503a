"""Translates: the facts of a request -> the Decision on which models answer it, and why.

    preferred model -> first rule that matches -> models of the task, or the best by a strategy -> default model
    each followed by `router.fallback`

Pure: equal names, facts, state and seed give the same Decision. Calls and explanations both come from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from proxy.routing.capabilities import no_capable
from proxy.routing.decision import NOT_ALLOWED, Candidate, Decision
from proxy.routing.deployment import Deployment, Route
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.names import Names
from proxy.routing.nowhere import nobody
from proxy.routing.order import Pool, arrange
from proxy.routing.panelists import PREFIX
from proxy.routing.rules import CompiledRule, RuleTried, compiled, match, outcomes
from proxy.routing.settings import DEFAULT_TASK, Among, Rule
from proxy.routing.sticky import draw
from proxy.routing.strategies import MEASURED

_deployment = attrgetter("deployment")
_AS_LISTED = "task_based"
_NOT_TRIED = "is not tried: the request says no_fallback"
_DISABLED = "uses an ensemble, and ensembles.enabled is false"
_REPLACED = "is not tried: the request names its own fallback"

Arranged = tuple[list[Candidate], list[Candidate]]  # candidates in order, and those that cannot take the request


class Step(Struct, frozen=True):
    """The deciding step, and the names it offers. `is_choice`: the best of these names, then its own fallbacks.
    `ensemble`: the ensemble that answers, asking the models behind these names.
    """

    name: str
    offers: tuple[str, ...]
    strategy: str = _AS_LISTED
    prefer: str | None = None
    is_choice: bool = False
    ensemble: str = ""


def decide(names: Names, facts: Facts, state: State, seed: float, version: str) -> Decision:
    """The decision on the configuration `version`. `seed` in [0, 1) picks among `weighted` names and explores.

    Raises ProxyError 503 `no_capable_model`, or 400 `context_length_exceeded` if a shorter request could be answered.
    """
    order = _Order(names, facts, state, seed)
    step, rule = Step("", ()), None
    tried: tuple[CompiledRule, ...] = ()
    ordered: list[Candidate] = []
    passed: list[Candidate] = []
    if facts.preferred_model is not None:
        step = Step("preferred_model", (facts.preferred_model,))
        ordered, passed = order.preferred(step)
    if not ordered:
        rule, tried = match(_rules(names), facts)
        step = _step_of(names, facts, rule)
        ordered, rejected = order.of(step)
        passed += rejected
    if not ordered:
        ordered, rejected = order.of_default(is_any=not passed)
        passed += rejected
    if not ordered:
        raise no_capable(facts.requested, passed, facts) if passed else nobody(facts.requested, names.disabled)
    if facts.no_fallback:
        passed = [*(replace(each, rejected=_NOT_TRIED) for each in ordered[1:]), *passed]
        ordered = ordered[:1]
    return Decision(
        order.route(step, ordered),
        facts,
        step.name,
        rule.name if rule else None,
        step.strategy,
        tried,
        (*ordered, *_others((*passed, *order.barred()), ordered)),
        f"{version}.{state.id}",
        step.strategy not in MEASURED and step.prefer is None and not names.router.exploration,
    )


def _step_of(names: Names, facts: Facts, rule: Rule | None) -> Step:
    """The step of a request whose first matching rule this is. A strategy of the client's replaces the file's."""
    if rule is not None:
        use = rule.use
        if isinstance(use, Among) and use.ensemble is not None:
            return Step("rule", (PREFIX + use.ensemble,), ensemble=use.ensemble)
        if isinstance(use, Among):
            strategy = facts.strategy or use.strategy or _AS_LISTED
            return Step("rule", tuple(use.among or ()), strategy, use.prefer, is_choice=True)
        return Step("rule", (use,) if isinstance(use, str) else tuple(use), facts.strategy or _AS_LISTED)
    router = names.router
    strategy = facts.strategy or router.strategy
    offers = names.tasks.get(facts.task) or names.tasks.get(DEFAULT_TASK) or ()
    default = () if router.default_model is None else (router.default_model,)
    if strategy != _AS_LISTED:
        return Step("strategy", (*offers, *default, *router.fallback), strategy)
    return Step("task", offers) if offers else Step("default", default)


class _Order:
    """The orders of candidates for one request."""

    def __init__(self, names: Names, facts: Facts, state: State, seed: float) -> None:
        self._names = names
        self._facts = facts
        self._state = state
        self._seed = seed
        self._draw: float | None = None
        self._barred: dict[str, Deployment] = {}

    def barred(self) -> list[Candidate]:
        """The deployments behind the names followed so far that the caller's key may not use."""
        return [Candidate(deployment, NOT_ALLOWED) for deployment in self._barred.values()] if self._barred else []

    def of(self, step: Step) -> Arranged:
        """The candidates that a step offers, and the fallbacks."""
        offered, later = self._offered(step)
        if step.ensemble:
            return self._arrange(Pool(offered))
        fallback = self._behind(self._names.router.fallback, is_fallback=True)
        pool = Pool(offered, step.strategy, step.prefer, (*later, *fallback))
        own = self._facts.fallback
        return self._arrange(pool) if own is None else self._with_own(pool, own)

    def preferred(self, step: Step) -> Arranged:
        """`of`, but nothing if the preferred model cannot answer now: then the rules decide."""
        able, unable = self._arrange(Pool(self._offered(step)[0]))
        if any(not each.rests for each in able):
            return self.of(step)
        return [], [*unable, *(replace(each, rejected=each.rests) for each in able)]

    def of_default(self, is_any: bool) -> Arranged:
        """The default model; with `is_any`, if it cannot be called, any provider's own default."""
        default = self._names.router.default_model
        offered = self._behind((default,)) if default is not None else ()
        return self._arrange(Pool(offered or (self._names.defaults() if is_any else ())))

    def route(self, step: Step, ordered: list[Candidate]) -> Route:
        candidates = tuple(map(_deployment, ordered))
        if step.ensemble:
            return Route(self._facts.requested, candidates, ensemble=step.ensemble)
        first = self._names.models.get(self._names.target_of(step.offers[0])) if step.offers else None
        if first is None or self._facts.no_fallback or not (first.context_fallback or first.content_fallback):
            return Route(self._facts.requested, candidates)
        context, content = first.context_fallback, first.content_fallback
        return Route(
            self._facts.requested,
            candidates,
            self._behind(context, is_fallback=True),
            self._behind(content, is_fallback=True),
        )

    def _offered(self, step: Step) -> tuple[tuple[Deployment, ...], tuple[Deployment, ...]]:
        """The deployments to rank, and those that follow in the order of the file."""
        if not step.is_choice:
            return self._behind(step.offers), ()
        chains = [self._behind((name,)) for name in step.offers]
        return tuple(d for chain in chains for d in chain[:1]), tuple(d for chain in chains for d in chain[1:])

    def _with_own(self, pool: Pool, fallback: Iterable[str]) -> Arranged:
        """The best of the pool, then the client's own fallback."""
        ordered, rejected = self._arrange(pool)
        rest, others = self._arrange(Pool(self._behind(fallback, is_fallback=True)))
        kept = ordered[:1] if ordered and ordered[0].deployment in pool.deployments else []
        dropped = [replace(each, rejected=_REPLACED) for each in ordered[len(kept) :]]
        names = {each.deployment.name for each in kept}
        return [*kept, *(each for each in rest if each.deployment.name not in names)], [*rejected, *others, *dropped]

    def _behind(self, names: Iterable[str], *, is_fallback: bool = False) -> tuple[Deployment, ...]:
        wanted = tuple(names)
        may, everything = self._names.may, self._names.everything
        if everything is None and (known := self._names.known(wanted, is_fallback=is_fallback)) is not None:
            return known
        if self._draw is None:
            self._draw = draw(self._facts.session, self._seed)
        if may is not None and everything is not None:
            behind = everything.order(wanted, self._draw, is_fallback=is_fallback)
            self._barred |= {each.name: each for each in behind if not may(each.name)}
        return self._names.order(wanted, self._draw, is_fallback=is_fallback)

    def _arrange(self, pool: Pool) -> Arranged:
        return arrange(pool, self._facts, self._state, self._seed, self._names.router)


def _others(passed: Sequence[Candidate], ordered: Iterable[Candidate]) -> Iterable[Candidate]:
    """Candidates that are not in the order, each once."""
    if not passed:
        return ()
    chosen = {candidate.deployment.name for candidate in ordered}
    found: dict[str, Candidate] = {}
    for candidate in passed:
        name = candidate.deployment.name
        if name not in chosen:
            found.setdefault(name, candidate)
    return found.values()


def rules_tried(names: Names, facts: Facts) -> tuple[RuleTried, ...]:
    """The outcome of each rule up to the first that matches."""
    return outcomes(match(_rules(names), facts)[1], facts)


def _rules(names: Names) -> tuple[CompiledRule, ...]:
    """The rules of this snapshot, compiled once. Those that use an ensemble hold only if ensembles are enabled."""
    memo = names.memo
    if memo is None or memo.rules is None:
        rules = compiled(names.rules)
        if not names.routes_to_ensembles:
            rules = tuple(each.never(_DISABLED) if _asks_ensemble(each.rule) else each for each in rules)
        if memo is None:
            return rules
        memo.rules = rules
    return cast(tuple[CompiledRule, ...], memo.rules)


def _asks_ensemble(rule: Rule) -> bool:
    return isinstance(rule.use, Among) and rule.use.ensemble is not None
