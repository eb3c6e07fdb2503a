"""Translates: the section `ensembles` into ensembles by name, each a Struct of its strategy.

The strategy is the tag: `strategy: voting` determines the keys of an entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from typing import Any

from msgspec import inspect

from proxy.config.problems import near, shown
from proxy.config.providers import NAME
from proxy.config.reader import INVALID, Reader
from proxy.config.tree import Entry, Mapping, Scalar
from proxy.ensembles.base import Ensemble, Member
from proxy.ensembles.given import MAX_MEMBERS

SECTION = "ensembles"
_TAG = "strategy"


def read_ensembles(
    section: Entry | None, reader: Reader, strategies: MappingOf[str, type[Ensemble]]
) -> tuple[dict[str, Ensemble], bool]:
    """The ensembles, and whether rules may choose them. One with a problem is kept as a name without members."""
    found: dict[str, Ensemble] = {}
    is_enabled = False
    for name, entry in reader.mapping(section, (SECTION,)).entries.items():
        path = (SECTION, name)
        if name == "enabled":
            is_enabled = reader.read(entry.node, inspect.BoolType(), path) is True
        elif not NAME.fullmatch(name):
            reader.note(entry.mark, path, "an ensemble's name is made of a-z, 0-9, `.`, `_` and `-`")
        else:
            found[name] = _read(entry, reader, path, strategies)
    return found, is_enabled


def _read(entry: Entry, reader: Reader, path: tuple[str, ...], strategies: MappingOf[str, type[Ensemble]]) -> Ensemble:
    node, unread = entry.node, Ensemble()
    if isinstance(node, Scalar) and node.value is None:
        reader.note(entry.mark, path, f"has no strategy; strategies: {', '.join(strategies)}")
        return unread
    if not isinstance(node, Mapping):
        reader.read(node, inspect.DictType(inspect.StrType(), inspect.AnyType()), path)
        return unread
    given = node.entries.get(_TAG)
    strategy = given.node.value if given is not None and isinstance(given.node, Scalar) else None
    if given is None:
        reader.note(entry.mark, path, f"has no strategy; strategies: {', '.join(strategies)}")
        return unread
    if not isinstance(strategy, str) or strategy not in strategies:
        hint = near(str(strategy), strategies) or f"; strategies: {', '.join(strategies)}"
        reader.note(given.node.mark, (*path, _TAG), f'unknown strategy "{shown(str(strategy))}"{hint}')
        return unread
    reader.marks[(*path, _TAG)] = given.node.mark
    rest = Mapping(node.mark, {key: each for key, each in node.entries.items() if key != _TAG})
    read = reader.struct(rest, strategies[strategy], path)
    if read is INVALID:
        return unread
    if len(read.members) > MAX_MEMBERS:
        where = (*path, "members")
        reader.note(reader.marks.get(where, entry.mark), where, f"has {len(read.members)} names; at most {MAX_MEMBERS}")
    return read  # type: ignore[no-any-return]


def names_of(ensemble: Ensemble) -> Iterator[tuple[tuple[str, ...], str]]:
    """The names that an ensemble asks, each with its path in the entry."""
    members: list[str] = []
    for key in ensemble.member_keys:
        for path, member in _members(getattr(ensemble, key), (key,)):
            members.append(member)
            yield path, member
    shared, listed = Ensemble.__struct_fields__, [member.use for member in ensemble.panelists()]
    texts = [key for key in ensemble.__struct_fields__ if key not in shared and _is_text(ensemble, key)]
    own = {getattr(ensemble, key): key for key in texts}
    for name in dict.fromkeys((*listed, *ensemble.followers())):
        if name in own:
            yield (own[name],), name
        elif name not in members:
            yield (), name


def _members(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The names under a key that names members; a single text is left to the other keys."""
    if isinstance(value, Member):
        yield (*path, "use"), value.use
    for place, each in enumerate(value if isinstance(value, list) else []):
        if isinstance(each, Member):
            yield (*path, str(place), "use"), each.use
        else:
            yield (*path, str(place)), each


def _is_text(ensemble: Ensemble, key: str) -> bool:
    return isinstance(getattr(ensemble, key), str)
