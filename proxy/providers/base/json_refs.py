"""Translates: the references of a JSON schema: finds recursive ones and unused definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.providers.base.answers import mapping

REF_HOMES = ("$defs", "definitions")


def definition_of(ref: str) -> tuple[str, str] | None:
    """The keyword and the name of the definition that a reference points to; None for any other place, and for escaped
    names.
    """
    home, _, name = ref.removeprefix("#/").partition("/")
    return (home, name) if home in REF_HOMES and not any(sign in name for sign in "/~%") else None


def without_unused(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without definitions that nothing refers to."""
    homes = {f"#/{home}/{name}": each for home in REF_HOMES for name, each in mapping(schema.get(home)).items()}
    if not homes:
        return {name: value for name, value in schema.items() if name not in REF_HOMES}
    used: set[str] = set()
    left = _refs_in({name: value for name, value in schema.items() if name not in REF_HOMES})
    while left:
        used |= left
        left = {ref for each in left if each in homes for ref in _refs_in(homes[each])} - used
    kept: dict[str, Any] = {}
    for name, value in schema.items():
        if name in REF_HOMES:
            value = {key: each for key, each in mapping(value).items() if f"#/{name}/{key}" in used}
        if value or name not in REF_HOMES:
            kept[name] = value
    return kept


def recursive_in(root: Mapping[str, Any]) -> frozenset[str]:
    """The references to definitions that lead back to themselves, or to one that does."""
    homes = {f"#/{home}/{name}": each for home in REF_HOMES for name, each in mapping(root.get(home)).items()}
    leads = {ref: _refs_in(each) for ref, each in homes.items()}
    ends: set[str] = set()  # references that terminate: their targets terminate
    waiting = {ref: len(to & leads.keys()) for ref, to in leads.items()}
    users: dict[str, list[str]] = {}
    for ref, to in leads.items():
        for each in to & leads.keys():
            users.setdefault(each, []).append(ref)
    left = [ref for ref, count in waiting.items() if not count and "#" not in leads[ref]]
    while left:
        ref = left.pop()
        ends.add(ref)
        for user in users.get(ref, ()):
            waiting[user] -= 1
            if not waiting[user] and "#" not in leads[user]:
                left.append(user)
    return frozenset(leads.keys() - ends)


def _refs_in(schema: Any) -> set[str]:
    """The references in a schema. `#` represents every one that points to anything but a definition."""
    found: set[str] = set()
    left = [schema]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            ref = node.get("$ref")
            if isinstance(ref, str):
                found.add("#" if definition_of(ref) is None else ref)
            left += node.values()
        elif isinstance(node, list):
            left += node
    return found
