"""Orchestrates: which calls an ensemble answers, and the plan of its panel, before anything is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Struct, structs

from proxy.ensembles.base import Ensemble
from proxy.ensembles.given import WHERE, overridden
from proxy.ensembles.plan import PanelPlan, Planner
from proxy.ensembles.registry import Ensembles
from proxy.routing.allowed import Allowed
from proxy.routing.deployment import Deployment, Route
from proxy.routing.nowhere import UnknownName
from proxy.routing.panelists import PREFIX, diverse
from proxy.routing.router import Router
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.records import NANO_PER_USD


class Seated(Struct, frozen=True):
    """The panel of one call. `again` plans it once more, for at most the given nano-USD."""

    plan: PanelPlan
    again: Callable[[int], PanelPlan]

    @property
    def name(self) -> str:
        """For rows: the configured name; for an ensemble that only the request describes, where it does so."""
        return self.plan.name.removeprefix(PREFIX) if self.plan.name.startswith(PREFIX) else "routing.ensemble"

    @property
    def strategy(self) -> str:
        return str(self.plan.ensemble.__struct_config__.tag)


class _Lookup:
    """The router on behalf of one caller. `first`: what the router already chose; members are picked from it first."""

    def __init__(self, router: Router, key: str | None, allowed: Allowed | None, first: tuple[Deployment, ...]) -> None:
        self._router = router
        self._key = key
        self._allowed = allowed
        self._first = first

    def route(self, name: str, request: ChatRequest) -> Route:
        return self._router.member(name, request, self._key, self._allowed)

    def pool(self) -> Sequence[Deployment]:
        pool = self._router.pool(self._allowed)
        return [*self._first, *(each for each in pool if each not in self._first)]


class Seating:
    """Plans the panels of one configuration."""

    def __init__(self, router: Router, ensembles: Ensembles) -> None:
        self._router = router
        self._ensembles = ensembles.by_name
        self._strategies = ensembles.strategies

    async def seated(
        self, request: AnyRequest, route: Route, key: str | None, allowed: Allowed | None, *, is_routed: bool
    ) -> Seated | None:
        """The panel that answers; None: a model does. `is_routed`: the router chose `route`.

        Raises BadRequest for a request that no ensemble answers, and as `Planner.plan` does.
        """
        given = request.hints.ensemble
        if not route.ensemble and given is None:
            return None
        if not isinstance(request, ChatRequest):
            where = "routing.ensemble" if given is not None else "model"
            raise BadRequest(f"{where}: ensembles answer only chat requests.", param=where)
        if request.n > 1:
            name = "n" if request.questions == 1 else "prompt"
            raise BadRequest(f"{name}: an ensemble gives one answer, not {request.n}.", param=name)
        ensemble = self._ensembles.get(route.ensemble)
        if given is not None:
            ensemble = overridden(ensemble, given, self._strategies, "" if is_routed else request.model)
        if ensemble is None:
            raise RuntimeError(f"the route leads to {route.ensemble}, which is not configured")
        first = route.candidates if is_routed and not route.ensemble else ()
        planner = Planner(
            self._ensembles,
            _Lookup(self._router, key, allowed, diverse(first, len(first))),
            is_routed=is_routed and given is None,
        )
        if given is not None:
            _check_names(ensemble, given, lambda name: self._router.member(name, request, key, allowed))
        name = PREFIX + route.ensemble if route.ensemble else request.model
        most = request.hints.max_cost_usd
        limit = None if most is None else round(most * NANO_PER_USD)
        plan = partial(planner.plan, name, ensemble, request)
        unlimited = planner.plan(name, structs.replace(ensemble, max_cost_usd=None), request)
        is_news = await self._router.prices_loaded(unlimited.deployments())
        found = unlimited if not is_news and limit is None and ensemble.max_cost_usd is None else plan(limit)

        def again(limit_nano: int) -> PanelPlan:
            return plan(limit_nano if limit is None else min(limit, limit_nano))

        return Seated(structs.replace(found, ensemble=ensemble), again)


def _check_names(ensemble: Ensemble, given: Mapping[str, Any], lookup: Callable[[str], object]) -> None:
    """Raises BadRequest for a name in the request that does not exist: the client did not mean the model that would
    replace it. A name that merely cannot be called now is replaced.
    """
    written = {*_texts(given)}
    for name in (*(member.use for member in ensemble.panelists()), *ensemble.followers()):
        if name in written:
            try:
                lookup(name)
            except UnknownName as error:
                raise BadRequest(f"{WHERE}: {error.message}", param=WHERE) from None
            except ProxyError:
                continue  # the plan handles this


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value of JSON that is a few levels deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
