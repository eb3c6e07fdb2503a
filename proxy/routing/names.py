"""Translates: the one flat namespace of model names into deployments, and into `/v1/models`.

Pure: the same snapshot, name and draw give the same route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from proxy.metering.price_book import PriceBook
from proxy.metering.pricing import ModelPrice
from proxy.providers.base.contract import Provider
from proxy.routing.capabilities import serves
from proxy.routing.deployment import Deployment, Route
from proxy.routing.near import NearNames
from proxy.routing.nowhere import missing, nobody, unknown_route
from proxy.routing.panelists import PREFIX, Panelists, diverse
from proxy.routing.settings import AUTO_STRATEGIES, TASKS, Among, ModelEntry, RouterConfig, Rule

AUTO_NAMES = ("auto", *(f"auto:{word}" for word in (*TASKS, *AUTO_STRATEGIES)))
ROLES = ("default", "reasoning", "fast")
_MAX_DEPTH = 16
_MAX_ROUTES = 1024  # kept; names come from clients


class _Memo:
    """The cached results of one `Names`."""

    __slots__ = ("near", "orders", "routes", "rules", "weights")

    def __init__(self) -> None:
        self.rules: tuple[Any, ...] | None = None  # compiled; see `decide`
        self.orders: dict[tuple[str, ...], tuple[Deployment, ...]] = {}
        self.routes: dict[tuple[str, ...], Route] = {}
        self.weights: dict[str, tuple[Mapping[str, float], ...]] = {}
        self.near: NearNames | None = None


class Names(Struct, frozen=True, kw_only=True):
    """An immutable snapshot of everything that gives names a meaning.

    `disabled` maps a provider to the reason why it is off. `listed` maps providers, even disabled ones, to the model
    ids in the files, `found` to the ids that their servers list. For bare ids the files take precedence, so that a
    server cannot change their meaning. `ensembles` are keyed by their names without the prefix; rules may choose them
    if `routes_to_ensembles`. `may` tells which `provider/model` may answer (None: all), of `everything`, a snapshot.
    """

    providers: Mapping[str, Provider]
    disabled: Mapping[str, str]
    models: Mapping[str, ModelEntry]
    aliases: Mapping[str, str]
    router: RouterConfig
    rules: tuple[Rule, ...] = ()
    tasks: Mapping[str, tuple[str, ...]] = {}
    listed: Mapping[str, tuple[str, ...]]
    price_of: Callable[[str], tuple[ModelPrice | None, str]]
    book: PriceBook | None = None
    found: Mapping[str, tuple[str, ...]] = {}
    may: Callable[[str], bool] | None = None
    everything: Names | None = None
    ensembles: Mapping[str, Panelists] = {}
    routes_to_ensembles: bool = False
    memo: _Memo | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "memo", _Memo())  # not shared with the snapshot it was copied from

    def resolve(self, name: str, draw: float = 0.0) -> Route:
        """The route of `name`; `draw` in [0, 1) picks among `weighted` names. Raises ProxyError 404 or 503.

        Pure: the same name and draw give the same route. Routes are cached by name and drawn names.
        """
        memo = self.memo or _Memo()
        weights = memo.weights.get(name)
        if weights is None:
            weights = tuple(self._weights(name))
        elif self.may is None or not weights:
            known = memo.routes.get((name, *(_pick(each, draw) for each in weights)))
            if known is not None:
                return known
        route = self._resolve(name, draw)
        if len(memo.routes) >= _MAX_ROUTES or len(memo.weights) >= _MAX_ROUTES:
            memo.routes.clear()
            memo.weights.clear()
        memo.weights[name] = weights
        if self.may is None or not weights:  # otherwise the draw depends on the names that the caller may use
            memo.routes[name, *(_pick(each, draw) for each in weights)] = route
        return route

    def _resolve(self, name: str, draw: float) -> Route:
        target = self.target_of(name)
        if target.startswith("auto"):
            route = self._auto(target, draw)
            if route is not None:
                return Route(name, route)
        entry = self.models.get(target)
        ensemble = self.ensemble_behind(target, draw)
        if ensemble is not None:
            return self._panel(name, ensemble, draw)
        candidates = _unique(self._expand(target, draw, 0))
        if not candidates:
            raise missing(self, name, target)
        if entry is None:
            return Route(name, candidates)
        return Route(
            name,
            candidates,
            _unique(d for other in entry.context_fallback for d in self._expand(other, draw, 0)),
            _unique(d for other in entry.content_fallback for d in self._expand(other, draw, 0)),
        )

    def ensemble_behind(self, name: str, draw: float) -> str | None:
        """The ensemble that a name leads to; None: it leads to models."""
        if not self.ensembles:
            return None
        for depth in range(_MAX_DEPTH):
            name = self.target_of(name)
            if name not in self.models:
                break
            entry = self.models[name]
            following = self._draw_name(entry.weighted, draw, depth) if entry.weighted else entry.use
            if following is None:
                return None
            name = following
        found = name.removeprefix(PREFIX)
        return found if name.startswith(PREFIX) and found in self.ensembles else None

    def _panel(self, name: str, ensemble: str, draw: float) -> Route:
        """The route of an ensemble. Members that cannot be called are replaced later, if anything can be called."""
        found = _unique(self._expand(PREFIX + ensemble, draw, 0)) or diverse(self.pool(), 1)
        if not found:
            raise nobody(name, self.disabled)
        return Route(name, found, ensemble=ensemble)

    def pool(self) -> tuple[Deployment, ...]:
        """The models that the router picks members from: those of routing_rules.yaml in order; if it names none, the
        providers' own default models. The embedded model is among them only if there is no other.
        """
        return tuple(self.chosen()) or self.defaults()

    def order(self, names: tuple[str, ...], draw: float, *, is_fallback: bool = False) -> tuple[Deployment, ...]:
        """The deployments behind several names, in order. The embedded model is only used for the first name.

        Cached where no draw decides.
        """
        known = self.known(names, is_fallback=is_fallback)
        if known is not None:
            return known
        memo = self.memo or _Memo()
        first, rest = (None, names) if is_fallback else (next(iter(names), None), names[1:])
        found = _unique(self._chain(first, rest, draw, 0))
        if not any(True for name in names for _ in self._weights(name)):
            if len(memo.orders) >= _MAX_ROUTES:
                memo.orders.clear()
            memo.orders[("", *names) if is_fallback else names] = found
        return found

    def known(self, names: tuple[str, ...], *, is_fallback: bool = False) -> tuple[Deployment, ...] | None:
        """The cached `order`."""
        return None if self.memo is None else self.memo.orders.get(("", *names) if is_fallback else names)

    def _weights(self, name: str) -> Iterator[Mapping[str, float]]:
        """The weights that may apply on the way from `name` to its deployments."""
        automatic = [self.router.default_model, *self.router.fallback] if name.startswith("auto") else []
        rest: list[str | None] = [name, *automatic]
        seen: set[str] = set()
        while rest:
            following = self.target_of(rest.pop() or "")
            entry = self.models.get(following)
            if entry is None or following in seen:
                if following.startswith("auto") and following not in seen:
                    seen.add(following)
                    rest += [self.router.default_model, *self.router.fallback]
                continue
            seen.add(following)
            if entry.weighted:
                yield entry.weighted
            rest += [entry.use, *(entry.weighted or ()), *entry.fallback]
            rest += [*entry.context_fallback, *entry.content_fallback]

    def names(self) -> list[str]:
        """Every callable name, virtual ones first."""
        names = [*AUTO_NAMES, *(PREFIX + each for each in self.ensembles), *self.models, *self.aliases]
        found = [name for name in names if self._answers(name)]
        models = {owner: (*self.listed.get(owner, ()), *self.found.get(owner, ())) for owner in self.providers}
        ids = [f"{owner}/{model}" for owner, ids in models.items() for model in dict.fromkeys(ids)]
        return found + [name for name in ids if self.may is None or self.may(name)]

    def behind(self, name: str) -> list[Deployment]:
        """The deployments behind a name that is not `auto`, fallbacks included."""
        return list(_unique(self._expand(name, 0.0, 0)))

    def _written(self) -> list[str | None]:
        """The names in routing_rules.yaml that stand for models."""
        written = [self.router.default_model, *self.router.fallback, *self.aliases.values(), *self.offered()]
        for entry in self.models.values():
            written += [entry.use, *(entry.weighted or ())]
            written += [*entry.fallback, *entry.context_fallback, *entry.content_fallback]
        return written

    def chosen(self) -> list[Deployment]:
        """The models that routing_rules.yaml names, without the embedded one."""
        written = [name for name in self._written() if name and self.ensemble_behind(name, 0.0) is None]
        found = _unique(each for name in written for each in self._expand(name, 0.0, 0))
        return [each for each in found if each.provider.local_model is None]

    def configured(self) -> frozenset[str]:
        """Every `provider/model` in the files. Names invented by clients are not included."""
        written = [*self._written(), *(PREFIX + name for name in self.ensembles)]
        listed = [f"{provider}/{model}" for provider in self.providers for model in self.listed.get(provider, ())]
        return frozenset(d.name for name in (*written, *listed) if name for d in self._expand(name, 0.0, 0))

    def offered(self) -> list[str]:
        """The names that rules and tasks choose from."""
        uses = (rule.use.among or () if isinstance(rule.use, Among) else rule.use for rule in self.rules)
        lists: list[Iterable[str]] = [(use,) if isinstance(use, str) else use for use in uses]
        return list(dict.fromkeys(name for names in (*lists, *self.tasks.values()) for name in names))

    def _answers(self, name: str) -> bool:
        """True if `name` has a deployment that can serve it. Cheaper than `resolve`, whose error suggests names."""
        target = self.target_of(name)
        if target in AUTO_NAMES:
            task = target.partition(":")[2]
            found = self._automatic(0.0)
            return bool(found) and any(serves(task, each) for each in (*found, *self.chosen()))
        return any(True for _ in self._expand(target, 0.0, 0))

    def target_of(self, name: str) -> str:
        """The name that an alias stands for; other names stand for themselves."""
        for _ in range(_MAX_DEPTH):
            if name not in self.aliases or name in self.models:
                return name
            name = self.aliases[name]
        return name

    def _auto(self, target: str, draw: float) -> tuple[Deployment, ...] | None:
        """The default model and its fallbacks; if none is configured, any provider's own default."""
        if target not in AUTO_NAMES:
            if not target.startswith("auto:"):
                return None
            raise unknown_route(target, AUTO_NAMES)
        if found := self._automatic(draw):
            return found
        raise nobody(target, self.disabled)

    def _automatic(self, draw: float) -> tuple[Deployment, ...]:
        return _unique(self._chain(self.router.default_model, self.router.fallback, draw, 0)) or self.defaults()

    def defaults(self) -> tuple[Deployment, ...]:
        """Each provider's own default model; the embedded model only if there is no other."""
        remote = [name for name, provider in self.providers.items() if provider.local_model is None]
        return _unique(d for name in remote or self.providers for d in self._listed_default(name))

    def _listed_default(self, provider_name: str) -> Iterator[Deployment]:
        provider = self.providers[provider_name]
        known = self.listed.get(provider_name, ()) or self.found.get(provider_name, ())
        model = provider.models.get("default") or next(iter(known), None)
        if model and self._may_answer(deployment := self._deployment(provider_name, provider, model)):
            yield deployment

    def _expand(self, name: str, draw: float, depth: int) -> Iterator[Deployment]:
        """The callable deployments behind one name, in order."""
        name = self.target_of(name)
        entry = self.models.get(name)
        if entry is not None and depth < _MAX_DEPTH:
            first = self._draw_name(entry.weighted, draw, depth) if entry.weighted else entry.use
            for found in self._chain(first, entry.fallback, draw, depth + 1):
                yield found if entry.cache is None else found.caching(entry.cache)
            return
        if name.startswith(PREFIX) and (panel := self.ensembles.get(name.removeprefix(PREFIX))) is not None:
            if depth < _MAX_DEPTH:
                for member in (*panel.members, *panel.followers):
                    is_auto = self.target_of(member) in AUTO_NAMES
                    yield from self._automatic(draw) if is_auto else self._expand(member, draw, depth + 1)
                if not panel.members:
                    yield from diverse(self.pool(), panel.size)
            return
        provider_name, _, model = name.partition("/")
        provider = self.providers.get(provider_name)
        if provider is not None and model:
            deployment = self._deployment(
                provider_name, provider, provider.models.get(model, model) if model in ROLES else model
            )
            is_retired = deployment.price is not None and deployment.price.retired is not None
            # The embedded server accepts every name and serves its one model: a silent change of model.
            is_another = provider.local_model is not None and deployment.model not in self.listed.get(provider_name, ())
            if not is_retired and not is_another and self._may_answer(deployment):
                yield deployment
            return
        owners = self.owners(name)
        if len(owners) == 1:
            yield from self._expand(f"{owners[0]}/{name}", draw, depth + 1)

    def near(self, word: str) -> list[str]:
        """The most similar callable names."""
        memo = self.memo or _Memo()
        if memo.near is None:
            memo.near = NearNames(self.names())
        return memo.near.find(word, most=3, cutoff=0.5)

    def owners(self, model: str) -> list[str]:
        """The providers that list a bare upstream id."""
        for known in (self.listed, self.found):
            owners = [owner for owner in self.providers if model in known.get(owner, ())]
            if owners:
                return owners
        return []

    def _chain(self, first: str | None, fallback: Iterable[str], draw: float, depth: int) -> Iterator[Deployment]:
        """A name and its fallbacks, without the embedded model: a toy must not hide an outage."""
        if first:
            yield from self._expand(first, draw, depth)
        for name in fallback:
            yield from (d for d in self._expand(name, draw, depth) if d.provider.local_model is None)

    def _draw_name(self, weighted: Mapping[str, float], draw: float, depth: int) -> str | None:
        """One of the weighted names, drawn among those that the caller may use."""
        if self.may is not None:
            weighted = {name: share for name, share in weighted.items() if any(self._expand(name, draw, depth + 1))}
        return _pick(weighted, draw) if weighted else None

    def _may_answer(self, deployment: Deployment) -> bool:
        return self.may is None or self.may(deployment.name)

    def _deployment(self, provider_name: str, provider: Provider, model: str) -> Deployment:
        price, version = self.price_of(f"{provider_name}/{model}")
        if price is None and provider.free:
            price = ModelPrice(input=0, output=0)
        return Deployment(provider_name, provider, model, price, version, self.price_of, self.book)


def _unique(found: Iterable[Deployment]) -> tuple[Deployment, ...]:
    first: dict[str, Deployment] = {}
    for deployment in found:
        first.setdefault(deployment.name, deployment)
    return tuple(first.values())


def _pick(weighted: Mapping[str, float], draw: float) -> str:
    """The name whose share contains `draw`."""
    rest = draw * sum(weighted.values())
    for name, share in weighted.items():
        rest -= share
        if rest < 0:
            return name
    return next(iter(weighted))
