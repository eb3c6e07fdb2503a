"""The constraint in the type of a key is what the reader refuses by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from msgspec import Meta, Struct, inspect

from proxy.config.problems import Mark, Problem
from proxy.config.reader import Reader, described
from proxy.config.settings import PricingFile, RoutingFile
from proxy.config.tree import Entry, Mapping, Node, Scalar, Sequence
from proxy.providers import PROVIDERS
from proxy.schema.constraints import Day, NotBlank, TimeZone, Variable, one_of


class Keys(Struct):
    """Each kind of constraint, in each place where one may stand."""

    name: Variable | None = None
    names: list[Variable] = []
    day: Day | None = None
    zone: TimeZone = "UTC"
    either: Annotated[bool | str, one_of("auto", True, False)] = "auto"
    word: Annotated[str, one_of("process", "power")] | None = None
    shares: dict[str, Annotated[float, Meta(gt=0)]] = {}
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    part: Annotated[float, Meta(gt=0, le=1)] = 1
    few: Annotated[int, Meta(le=3)] = 0
    many: Annotated[int, Meta(ge=1)] | None = None
    some: NotBlank | list[NotBlank] = "x"


def node(value: Any) -> Node:
    mark = Mark("file")
    if isinstance(value, dict):
        return Mapping(mark, {key: Entry(mark, node(inner)) for key, inner in value.items()})
    return Sequence(mark, [node(item) for item in value]) if isinstance(value, list) else Scalar(mark, value)


def types(kind: Any, seen: frozenset[type] = frozenset()) -> Iterator[Any]:
    """A type and all types in it."""
    yield kind
    if isinstance(kind, inspect.StructType):
        if kind.cls in seen:
            return  # a Struct may contain itself
        seen |= {kind.cls}
    inner = [getattr(kind, name, None) for name in ("type", "item_type", "value_type")]
    inner += [*getattr(kind, "types", ()), *(field.type for field in getattr(kind, "fields", ()))]
    for each in inner:
        if isinstance(each, inspect.Type):
            yield from types(each, seen)


def test_no_struct_has_a_pattern_of_msgspecs_own() -> None:
    """Such a Struct can crash the interpreter when it exits."""
    roots = [RoutingFile, PricingFile, *PROVIDERS.values()]
    assert [kind for root in roots for kind in types(described(root)) if getattr(kind, "pattern", None)] == []


A_NAME = "must be the name of an environment variable, like GROQ_API_KEY, not its value"
A_DAY = "must be a day that exists, like 2026-11-22"
CASES: list[tuple[str, Any, str | None]] = [
    *(("name", "GROQ_API_KEY", None), ("name", None, None), ("name", "not-one", A_NAME), ("name", "ONE\n", A_NAME)),
    *(("names", ["A", "B"], None), ("names", ["A", "1"], f".1: {A_NAME}")),
    *(("day", "2026-11-22", None), ("day", "2026-02-30", A_DAY), ("day", "22.11.2026", A_DAY)),
    *(("zone", "Europe/Berlin", None), ("zone", "Europe/Berlim", "no such time zone; use a name like Europe/Berlin")),
    *(
        ("either", True, None),
        ("either", "auto", None),
        ("either", "atuo", "must be auto, true or false; did you mean"),
    ),
    *(("word", "power", None), ("word", None, None), ("word", "x", "must be process or power")),
    *(("shares", {"x": 0.5}, None), ("shares", {"x": 0}, ".x: must be greater than 0")),
    *(("port", 65535, None), ("port", -1, "must be from 0 to 65535"), ("port", 65536, "must be from 0 to 65535")),
    *(("many", 1, None), ("many", 0, "must be at least 1"), ("many", 0.5, "expected a whole number")),
    *(("part", 1, None), ("part", 0, "must be greater than 0 and at most 1"), ("part", 67, "and at most 1")),
    *(("few", 3, None), ("few", 4, "must be at most 3")),
    *(("some", " ", "must not be empty"), ("some", ["x", ""], ".1: must not be empty")),
]


@pytest.mark.parametrize(("key", "value", "expected"), CASES, ids=repr)
def test_a_value_is_held_to_the_type_of_its_key(key: str, value: Any, expected: str | None) -> None:
    """In lists and mappings each element; null where the type has it."""
    problems: list[Problem] = []
    kind = next(field.type for field in described(Keys).fields if field.name == key)
    read = Reader(problems, {}).read(node(value), kind, (key,))
    if expected is None:
        assert (problems, read) == ([], value)
    else:
        [problem] = problems
        assert expected in str(problem)
