"""Translates: the allow-list of a key -> the namespace as that key sees it.

The list names models. `provider/model` means itself; every other name means what is configured: its `use`, its
`weighted` names, an alias's target, for `auto` the router's default and whatever rules and tasks name, for an ensemble
the models that it asks. Fallbacks are not included: each must be on the list itself. The requested name does not
matter, only the models that would answer. So a key may ask any ensemble, but only with members that it may use alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase

from msgspec import Struct, structs

from proxy.metering.price_book import PriceBook
from proxy.routing.deployment import Route
from proxy.routing.names import AUTO_NAMES, Names
from proxy.routing.panelists import PREFIX, diverse
from proxy.schema.errors import ProxyError

_SHOWN = 12
_MAX_VIEWS = 256
_MAX_DEPTH = 16


class Allowed(Struct, frozen=True):
    """The allow-lists of one key; a model must be on all of them. Entries may be globs, whose `*` matches slashes."""

    key: str
    lists: tuple[tuple[str, ...], ...]


class Views:
    """The current snapshot of the namespace, and its restriction to each allow-list.

    `book` and `found` publish changes under one configuration: prices, and the model ids that servers list.
    """

    def __init__(
        self,
        names: Names,
        book: PriceBook | None = None,
        found: Callable[[], Mapping[str, tuple[str, ...]]] | None = None,
    ) -> None:
        self._names = names
        self._book = book
        self._prices = None if book is None else book.current
        self._found = found
        self._views: dict[Allowed, Names] = {}

    def current(self) -> Names:
        """The current snapshot. It is replaced only when `book` or `found` has published a change."""
        found = self._names.found if self._found is None else self._found()
        prices = None if self._book is None else self._book.current
        if found is not self._names.found or prices is not self._prices:
            price_of = self._names.price_of if prices is None else prices.find
            self._names = structs.replace(self._names, found=found, price_of=price_of)
            self._prices = prices
            self._views.clear()
        return self._names

    def of(self, allowed: Allowed | None) -> Names:
        """The namespace as this key sees it."""
        names = self.current()
        if allowed is None:
            return names
        view = self._views.get(allowed)
        if view is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            view = self._views[allowed] = structs.replace(names, may=_permission(names, allowed), everything=names)
        return view

    def resolve(self, name: str, draw: float, allowed: Allowed | None) -> Route:
        """The route of `name` over allowed models. Raises ProxyError: 403 if the list leaves no candidate."""
        try:
            return self.of(allowed).resolve(name, draw)
        except ProxyError as missing:
            if allowed is None:
                raise
            try:
                route = self.current().resolve(name, draw)
            except ProxyError:
                raise missing from None
            raise refusal_of(allowed, route) from None


def _permission(names: Names, allowed: Allowed) -> Callable[[str], bool]:
    """A predicate: may this `provider/model` answer?"""
    meant = [(entries, frozenset(_models_on(names, entries))) for entries in allowed.lists]

    def may(deployment: str) -> bool:
        return all(
            deployment in models or _matches(deployment, entries) or _is_bare(names, deployment, entries)
            for entries, models in meant
        )

    return may


def _models_on(names: Names, entries: tuple[str, ...]) -> Iterator[str]:
    """The models that the names on a list stand for."""
    own = (*AUTO_NAMES, *(PREFIX + each for each in names.ensembles), *names.models, *names.aliases)
    virtual = [name for name in own if _matches(name, entries)]
    for name in (*virtual, *(entry for entry in entries if "/" in entry)):  # the latter: `provider/fast` and the like
        yield from meaning(names, name)


def meaning(names: Names, name: str, depth: int = 0) -> Iterator[str]:
    """The `provider/model` names that a name stands for, without its fallbacks."""
    entry = names.models.get(name)
    if depth >= _MAX_DEPTH:
        return
    if entry is not None:
        parts = [*entry.weighted] if entry.weighted else [entry.use]
    elif name in names.aliases:
        parts = [names.aliases[name]]
    elif name.startswith(PREFIX) and (panel := names.ensembles.get(name.removeprefix(PREFIX))) is not None:
        parts = [*panel.members, *panel.followers]
        if not panel.members:
            yield from (deployment.name for deployment in diverse(names.pool(), panel.size))
    elif name in AUTO_NAMES and (automatic := _automatic(names)):
        parts = [*automatic]
    elif name in AUTO_NAMES:
        yield from (deployment.name for deployment in names.defaults())
        return
    else:
        yield from (deployment.name for deployment in names.behind(name))
        return
    for part in parts:
        if part is not None:
            yield from meaning(names, part, depth + 1)


def _automatic(names: Names) -> list[str]:
    router = names.router
    default = [name for name in (router.default_model, *router.fallback) if name][:1]
    return [*default, *names.offered()] if router.enabled else default


def _is_bare(names: Names, deployment: str, entries: tuple[str, ...]) -> bool:
    """True if the list contains the model's bare id, and that id is unambiguous."""
    _, _, model = deployment.partition("/")
    return model in entries and [found.name for found in names.behind(model)] == [deployment]


def _matches(name: str, entries: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, entry) for entry in entries)


def refusal_of(allowed: Allowed, route: Route) -> ProxyError:
    """403: the requested name, the models that would have answered, and the list."""
    would = ", ".join(deployment.name for deployment in route.candidates[:3])
    lists = " and ".join(_format_list(entries) for entries in allowed.lists)
    return ProxyError(
        f"The key {allowed.key!r} may not use the model {route.requested!r}: {would} would answer. Allowed: {lists}.",
        status=403,
        code="model_not_allowed",
        param="model",
    )


def _format_list(entries: tuple[str, ...]) -> str:
    shown = ", ".join(entries[:_SHOWN]) or "nothing"
    return f"{shown} and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else shown
