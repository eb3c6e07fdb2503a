"""Translates: an ensemble and a request -> the panel's asks and their maximum cost, before anything is asked.

    members -> those that can be called -> filled up from the router's pool -> seats -> the panel shrinks to its limit

Pure over its arguments: equal routes give the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from proxy.ensembles.base import Ensemble, Member, Seat
from proxy.ensembles.questions import varied, whole_request, with_parameters
from proxy.routing.capabilities import lacking
from proxy.routing.decision import NOT_ALLOWED
from proxy.routing.deployment import Deployment, Route
from proxy.routing.panelists import PREFIX, diverse
from proxy.routing.plan import plan as route_plan
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest, CostLimit, ProxyError
from proxy.schema.records import NANO_PER_USD

MAX_DEPTH = 8  # of ensembles inside ensembles
MAX_ASKS = 64  # of one call, including nested ensembles
UNSAID_TOKENS = 4096  # of an answer without a limit, if the panel's cost has one
CAPS = (UNSAID_TOKENS, 1024, 256)
OWN_LIMIT = "max_cost_usd"
_BYTES_PER_TOKEN = 4  # of an answer that a follower reads; the hold for a longer one is taken once it has arrived
_FRAME_BYTES = 2048  # of the instructions around the answers


class Lookup(Protocol):
    """A plan's interface to the router, on behalf of one caller."""

    def route(self, name: str, request: ChatRequest) -> Route:
        """Raises ProxyError for a name that cannot be called, or not by this caller."""
        ...

    def pool(self) -> Sequence[Deployment]: ...


class LeftOut(Struct, frozen=True):
    """A member without a seat, the reason (NOT_ALLOWED: the caller's key may not use it), and its replacement."""

    model: str
    why: str
    instead: str = ""


def shown_left_out(left_out: Iterable[LeftOut], *, names_all: bool) -> dict[str, Any]:
    """`left_out`; members that the key may not use are only counted, unless it may see all names."""
    barred = [each for each in left_out if each.why == NOT_ALLOWED and not names_all]
    shown = [{"model": each.model, "why": each.why, "instead": each.instead} for each in left_out if each not in barred]
    return {"left_out": shown, **({"not_allowed": len(barred)} if barred else {})}


class Place(Struct, frozen=True):
    """A name to ask: over a route, or as a panel of its own. `bound_nano` None: its cost has no bound."""

    name: str
    request: ChatRequest
    route: Route
    bound_nano: int | None
    panel: PanelPlan | None = None

    @property
    def deployment(self) -> str:
        return "" if self.panel is not None else self.route.candidates[0].name

    def deployments(self) -> list[Deployment]:
        return [*self.route.candidates[:1]] if self.panel is None else self.panel.deployments()


class PanelPlan(Struct, frozen=True):
    """`name`: the requested name. `quorum`: how many seats must answer. `adapted`: the fields of the request that were
    changed to fit the cost limit.
    """

    name: str
    ensemble: Ensemble
    request: ChatRequest
    seats: tuple[Seat, ...]
    places: tuple[Place, ...]  # of the seats
    followers: tuple[Place, ...]
    quorum: int
    left_out: tuple[LeftOut, ...] = ()
    adapted: tuple[str, ...] = ()

    @property
    def bound_nano(self) -> int | None:
        """The sum over all seats and followers."""
        bounds = [place.bound_nano for place in (*self.places, *self.followers)]
        return None if None in bounds else sum(bound for bound in bounds if bound is not None)

    @property
    def asks(self) -> int:
        return sum(place.panel.asks if place.panel else 1 for place in (*self.places, *self.followers))

    def deployments(self) -> list[Deployment]:
        return [each for place in (*self.places, *self.followers) for each in place.deployments()]

    def follower(self, name: str) -> Place | None:
        """The place of a follower, by the name that the ensemble gives it."""
        names = self.ensemble.followers()
        return next((place for each, place in zip(names, self.followers, strict=True) if each == name), None)

    def without(self, place: int, why: str) -> PanelPlan:
        """The panel without one seat."""
        gone = LeftOut(self.seats[place].name, why)
        kept = [seat for at, seat in enumerate(self.seats) if at != place]
        return replace(
            self,
            seats=tuple(replace(seat, index=at) for at, seat in enumerate(kept)),
            places=tuple(each for at, each in enumerate(self.places) if at != place),
            left_out=(*self.left_out, gone),
        )


class Planner:
    """Plans one call. `is_routed`: a rule chose the ensemble, so members that cannot take the request are left out
    instead of causing an error.
    """

    def __init__(self, ensembles: Mapping[str, Ensemble], lookup: Lookup, *, is_routed: bool = False) -> None:
        self._ensembles = ensembles
        self._lookup = lookup
        self._is_routed = is_routed

    def plan(
        self, name: str, ensemble: Ensemble, request: ChatRequest, limit_nano: int | None = None, depth: int = 0
    ) -> PanelPlan:
        """The panel that fits `limit_nano` and the ensemble's own `max_cost_usd`.

        Raises BadRequest for a quorum that cannot be reached or a member that cannot take the request, CostLimit if the
        smallest panel costs too much, and ProxyError if nobody can be called.
        """
        if depth >= MAX_DEPTH:
            raise BadRequest(f"{name[:200]}: ensembles are nested deeper than {MAX_DEPTH} levels.", param="model")
        own = None if ensemble.max_cost_usd is None else round(ensemble.max_cost_usd * NANO_PER_USD)
        limits = [limit for limit in (own, limit_nano) if limit is not None]
        found = self._seated(name, ensemble, request, depth)
        if not limits:
            return found
        limit, whose = min(limits), OWN_LIMIT if own == min(limits) else "routing.max_cost_usd"
        return self._fitted(found, limit, lambda each: self._seated(name, ensemble, each, depth), whose)

    # --- the members --------------------------------------------------------------------------------------------------

    def _seated(self, name: str, ensemble: Ensemble, request: ChatRequest, depth: int) -> PanelPlan:
        asked = whole_request(request)
        members, left_out = self._members(name, ensemble, asked)
        needed = ensemble.quorum(len(members))
        if needed > len(members):
            raise BadRequest(
                f"{name[:200]}: min_answers is {needed}, and there are {len(members)} seats. Name more members, or set "
                "size or min_answers.",
                param="routing.ensemble.min_answers",
            )
        seats: list[Seat] = []
        places: list[Place] = []
        for index, (member, route) in enumerate(members):
            taken = [place.deployment for place in places]
            own = with_parameters(asked, member)
            if not route.ensemble and not asked.hints.strict:
                own = varied(own, member, taken.count(route.candidates[0].name))
            place = self._place(member.use, own, route, depth)
            places.append(place)
            seats.append(Seat(index, member.use, member.weight, place.deployment, place.request))
        followers = [self._follower(*each, seats, depth, left_out) for each in ensemble.planned(asked)]
        found = PanelPlan(name, ensemble, request, tuple(seats), tuple(places), tuple(followers), needed)
        if found.asks > MAX_ASKS:
            raise BadRequest(
                f"{name[:200]} would make {found.asks} requests; at most {MAX_ASKS} are allowed.", param="model"
            )
        return replace(found, left_out=tuple(left_out))

    def _members(
        self, name: str, ensemble: Ensemble, request: ChatRequest
    ) -> tuple[list[tuple[Member, Route]], list[LeftOut]]:
        """The members that can be called, filled up from the pool, and those that cannot."""
        wanted, found, left_out = ensemble.panelists(), list[tuple[Member, Route]](), list[LeftOut]()
        refusals: list[ProxyError] = []
        for member in wanted:
            try:
                route = self._able(name, self._lookup.route(member.use, request), request)
            except BadRequest as error:
                if not self._is_routed:
                    raise
                left_out.append(LeftOut(member.use, error.message))
            except ProxyError as error:
                refusals.append(error)
                left_out.append(LeftOut(member.use, NOT_ALLOWED if error.status == 403 else error.message))
            else:
                found.append((member, route))
        lacking_seats = (len(wanted) or ensemble.size) - len(found)
        picked = self._picked(lacking_seats, [route.candidates[0].name for _, route in found], request)
        found += [(Member(each.name), Route(each.name, (each,))) for each in picked]
        if not found:
            raise refusals[0] if refusals else BadRequest(f"{name[:200]} has no member that can answer.", param="model")
        gone = iter(picked)
        return found, [replace(each, instead=other.name if (other := next(gone, None)) else "") for each in left_out]

    def _picked(self, count: int, taken: list[str], request: ChatRequest) -> list[Deployment]:
        """`count` models for free seats: first models not yet `taken`, from diverse providers; then the same again."""
        if count <= 0:
            return []
        able = [each for each in self._lookup.pool() if lacking(request, each) is None]
        new = diverse((each for each in able if each.name not in taken), count)
        again = new or diverse(able, count)
        return [*new, *(again[place % len(again)] for place in range(count - len(new)))] if again else []

    def _able(self, name: str, route: Route, request: ChatRequest) -> Route:
        """The route without models that cannot take the request. Raises BadRequest if none is left."""
        if route.ensemble:
            return route
        able = tuple(each for each in route.candidates if lacking(request, each) is None)
        if not able:
            first = route.candidates[0]
            message = f"{name[:200]}: its member {first.name} {lacking(request, first)}."
            raise BadRequest(message, param="model", code="unsupported_content")
        if request.hints.no_fallback:
            return Route(route.requested, able[:1])
        return replace(route, candidates=able)

    def _place(self, name: str, request: ChatRequest, route: Route, depth: int) -> Place:
        if not route.ensemble:
            return Place(name, request, route, route_plan(route, request).bound_nano)
        inner = self.plan(PREFIX + route.ensemble, self._ensembles[route.ensemble], request, depth=depth + 1)
        return Place(name, inner.request, route, inner.bound_nano, inner)

    def _follower(
        self, name: str, request: ChatRequest, seats: Sequence[Seat], depth: int, left_out: list[LeftOut]
    ) -> Place:
        """A judge or a stronger model. It reads the question, and may read all answers. If no provider for it is
        available, another model takes its place.
        """
        read = sum(_FRAME_BYTES + _BYTES_PER_TOKEN * (seat.request.output_limit(UNSAID_TOKENS) or 0) for seat in seats)
        request = replace(request, size=request.size + read)
        try:
            return self._place(name, request, self._lookup.route(name, replace(request, max_tokens=None)), depth)
        except ProxyError as error:
            picked = self._picked(1, [], request) if error.status in (404, 503) else []
            if not picked:
                raise
            left_out.append(LeftOut(name, error.message, picked[0].name))
            return self._place(name, request, Route(name, (picked[0],)), depth)

    # --- the cost limit -----------------------------------------------------------------------------------------------

    def _fitted(
        self, found: PanelPlan, limit_nano: int, again: Callable[[ChatRequest], PanelPlan], whose: str
    ) -> PanelPlan:
        """The largest panel that fits. First an answer without a limit gets one, then seats are dropped, and finally
        the answers are shortened.
        """
        request = found.request
        for cap in (None, *CAPS):
            if cap is not None:
                if request.max_tokens is not None or request.hints.strict:
                    break
                shorter, names = request.capped(cap)
                found = replace(again(shorter), adapted=tuple(names))
            smaller = shrunk(found, limit_nano)
            if smaller is not None and (cap is not None or smaller is found or request.max_tokens is not None):
                return smaller
        if (smaller := shrunk(found, limit_nano)) is not None:
            return smaller
        raise too_expensive(found, limit_nano, whose)


def shrunk(found: PanelPlan, limit_nano: int, why: str = "") -> PanelPlan | None:
    """The panel without the seats that `limit_nano` has no room for. The lightest seats are dropped first, the most
    expensive among equals, but never below the quorum. None: the smallest panel does not fit.
    """
    why = why or f"the panel may cost at most ${limit_nano / NANO_PER_USD:g}"
    while (bound := found.bound_nano) is None or bound > limit_nano:
        if len(found.seats) <= found.quorum:
            return None
        bounds = [place.bound_nano for place in found.places]
        unknown = float("inf")
        worst = min(
            range(len(bounds)),
            key=lambda at: (
                bounds[at] is not None,
                found.seats[at].weight,
                -(unknown if bounds[at] is None else bounds[at] or 0),
                -at,
            ),
        )
        found = found.without(worst, why)
    return found


def too_expensive(found: PanelPlan, limit_nano: int, whose: str) -> CostLimit:
    """402: even the smallest panel may cost more than the limit, or its cost is unknown."""
    unpriced = [place.name for place in (*found.places, *found.followers) if place.bound_nano is None]
    if unpriced:
        message = f"{unpriced[0]} has no known price, so {whose} cannot be enforced."
        return CostLimit(message, "price_unknown", param=whose)
    bounds = sorted(place.bound_nano or 0 for place in found.places)[: found.quorum]
    least = sum(bounds) + sum(place.bound_nano or 0 for place in found.followers)
    return CostLimit(
        f"{found.name[:200]} could cost up to ${least / NANO_PER_USD:.6f} with {found.quorum} members; {whose} allows "
        f"${max(0, limit_nano) / NANO_PER_USD:.6f}. A smaller max_tokens lowers the bound.",
        "max_cost_exceeded",
        param=whose,
    )
