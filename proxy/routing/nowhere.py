"""Translates: a name that leads to no model -> the error that says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from proxy.metering.pricing import ModelPrice
from proxy.routing.near import NearNames
from proxy.routing.panelists import PREFIX, Panelists
from proxy.routing.settings import ModelEntry
from proxy.schema.errors import ProxyError


class UnknownName(ProxyError):
    """404: no route, ensemble, entry or list has this name. A name that only lacks a provider is another error."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=404, code="model_not_found", param="model")


class Namespace(Protocol):
    """The part of `Names` that is searched for the reason."""

    @property
    def disabled(self) -> Mapping[str, str]: ...

    @property
    def models(self) -> Mapping[str, ModelEntry]: ...

    @property
    def listed(self) -> Mapping[str, tuple[str, ...]]: ...

    @property
    def price_of(self) -> Callable[[str], tuple[ModelPrice | None, str]]: ...

    @property
    def ensembles(self) -> Mapping[str, Panelists]: ...

    def owners(self, model: str) -> list[str]: ...

    def near(self, word: str) -> list[str]: ...


def unknown_route(target: str, routes: Iterable[str]) -> ProxyError:
    """404 for `auto:x`: the nearest route, and all of them."""
    near = NearNames(routes).find(target, most=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UnknownName(f"There is no route {target[:200]!r}.{hint} Routes: {', '.join(routes)}.")


def unknown_ensemble(target: str, ensembles: Iterable[str]) -> ProxyError:
    """404 for `ensemble:x`: the nearest ensemble, and all of them."""
    known = [PREFIX + name for name in ensembles]
    if not known:
        return UnknownName(f"There is no ensemble {target[:200]!r}; none is configured.")
    near = NearNames(known).find(target, most=1, cutoff=0.6)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UnknownName(f"There is no ensemble {target[:200]!r}.{hint} Ensembles: {', '.join(known)}.")


def nobody(target: str, disabled: Mapping[str, str]) -> ProxyError:
    """503 for an `auto` name that leads to no model that can be called."""
    why = _reasons(disabled) or "no provider lists its models"
    return ProxyError(
        f"No model can answer {target!r}: {why}. Set a key, or name a model in router.default_model.",
        status=503,
        code="no_capable_model",
        headers={"x-should-retry": "false"},
    )


def missing(names: Namespace, name: str, target: str) -> ProxyError:
    """404: a retired id, a disabled provider, a bare id with several owners, or no such name."""
    price, _ = names.price_of(target)
    if price is not None and price.retired:
        after = f" Its successor is {price.successor!r}." if price.successor else ""
        return _not_found(f"The model {name!r} was retired on {price.retired}.{after}")
    wanted = [target]
    entry = names.models.get(target)
    if entry is not None:
        wanted = [other for other in (entry.use, *(entry.weighted or ()), *entry.fallback) if other]
    named = {other.partition("/")[0] for other in wanted}
    off = {
        owner: why
        for owner, why in names.disabled.items()
        if owner in named or any(other in names.listed.get(owner, ()) for other in wanted)
    }
    if off:
        return _not_found(f"The model {name!r} cannot be reached: {_reasons(off)}.")
    owners = names.owners(target)
    if len(owners) > 1:
        choices = " or ".join(f"{owner}/{target}" for owner in owners)
        return _not_found(f"Several providers have the model {name!r}. Name one of: {choices}.")
    if target.startswith(PREFIX):
        return unknown_ensemble(target, names.ensembles)
    near = names.near(target)
    hint = f" Did you mean {' or '.join(near)}?" if near else " GET /v1/models lists the available models."
    return UnknownName(f"The model {name[:200]!r} does not exist.{hint}")


def _not_found(message: str) -> ProxyError:
    return ProxyError(message, status=404, code="model_not_found", param="model")


def _reasons(disabled: Mapping[str, str]) -> str:
    return "; ".join(f"{provider}: {why}" for provider, why in disabled.items())
