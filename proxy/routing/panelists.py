"""Values: ensembles as the namespace sees them: a name that asks other names. How one decides is in `ensembles/`."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from proxy.routing.deployment import Deployment

PREFIX = "ensemble:"


class Panelists(Struct, frozen=True):
    """The names that an ensemble asks. `members` empty: the router picks `size` of them. `followers` are asked later:
    judges, validators, stronger models.
    """

    members: tuple[str, ...] = ()
    followers: tuple[str, ...] = ()
    size: int = 3


def diverse(deployments: Iterable[Deployment], count: int) -> tuple[Deployment, ...]:
    """At most `count` deployments: the first of each provider, then the second of each, and so on."""
    rounds: dict[str, int] = {}
    placed: list[tuple[int, Deployment]] = []
    for each in {deployment.name: deployment for deployment in deployments}.values():
        rounds[each.provider_name] = place = rounds.get(each.provider_name, -1) + 1
        placed.append((place, each))
    return tuple(each for _, each in sorted(placed, key=lambda pair: pair[0])[:count])
