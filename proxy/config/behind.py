"""Translates: names of a configuration into the names that they resolve to."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config.settings import Config
from proxy.routing.names import AUTO_NAMES
from proxy.routing.panelists import PREFIX


class Behind:
    """The targets of names, through aliases and `use`. Every step is taken once, however long the chains are."""

    def __init__(self, config: Config) -> None:
        self._ensembles = config.ensembles
        self._aliases = ends(config.aliases)
        self._ends = ends({**config.aliases, **{name: entry.use or name for name, entry in config.models.items()}})

    def ensemble(self, name: str) -> str | None:
        end = self._ends.get(name, name)
        found = end.removeprefix(PREFIX)
        return found if end.startswith(PREFIX) and found in self._ensembles else None

    def route(self, name: str) -> str | None:
        """The `auto` name that a name is an alias of."""
        end = self._aliases.get(name, name)
        return end if end in AUTO_NAMES else None


def ends(steps: Mapping[str, str]) -> dict[str, str]:
    """The end of each name's chain; in a cycle, one of its names."""
    found: dict[str, str] = {}
    for start in steps:
        trail: dict[str, None] = {}
        name = start
        while name in steps and name not in found and name not in trail:
            trail[name] = None
            name = steps[name]
        found.update(dict.fromkeys(trail, found.get(name, name)))
    return found
