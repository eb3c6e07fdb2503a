"""Values: the strategies of ensembles, by name. A new one is a file beside this and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from proxy.ensembles.base import Ensemble
from proxy.ensembles.fusion import Fusion
from proxy.ensembles.ranking import Ranking
from proxy.ensembles.verification import Verification
from proxy.ensembles.voting import Voting

STRATEGIES: Mapping[str, type[Ensemble]] = MappingProxyType(
    {
        "voting": Voting,
        "ranking": Ranking,
        "fusion": Fusion,
        "verification": Verification,
    }
)


class Ensembles(Struct, frozen=True):
    """The ensembles of one configuration, by name, and the strategies that requests may name."""

    by_name: Mapping[str, Ensemble] = {}
    strategies: Mapping[str, type[Ensemble]] = STRATEGIES
