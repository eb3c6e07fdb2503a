"""Who gets which variant: the same one everywhere, and each as often as it should."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest

from proxy.prompts.assignment import Assigner, Turns, pick, position, shares_of, thompson_shares, unit_hash
from proxy.prompts.statistics import Sample

SHARES = {"a": 0.5, "b": 0.3, "c": 0.2}


def place(experiment: str, unit: str) -> float:
    return position(unit_hash(experiment, unit))


def test_a_unit_is_in_the_same_place_in_every_process() -> None:
    """A fixed value, and one from an interpreter with another hash seed."""
    assert place("e1", "alice") == 0.9184694461117777
    program = "from proxy.prompts.assignment import unit_hash; print(unit_hash('e1', 'alice'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == unit_hash("e1", "alice")


def test_units_are_spread_by_the_shares_and_apart_from_other_experiments() -> None:
    """10,000 users: shares within two points, and the variant in one experiment says nothing about another."""
    first = {f"u{number}": pick(SHARES, place("e1", f"u{number}")) for number in range(10_000)}
    counts = Counter(first.values())
    assert {name: counts[name] / 10_000 for name in SHARES} == pytest.approx(SHARES, abs=0.02)
    same = sum(pick(SHARES, place("e2", unit)) == name for unit, name in first.items())
    assert same / 10_000 == pytest.approx(0.5**2 + 0.3**2 + 0.2**2, abs=0.02)
    assert place("e1", "2x") != place("e12", "x")  # one text, other borders
    assert 0 <= place("e", "\ud800\0") < 1


def test_a_variant_without_a_share_is_never_picked() -> None:
    """Also where rounding leaves a gap at the end."""
    shares = {"a": 0.0, "b": 0.3, "c": 0.7 - 1e-12, "d": 0.0}
    assert {pick(shares, at / 1000) for at in range(1000)} == {"b", "c"}
    assert pick(shares, 1 - 1e-16) == "c"


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1, "c": 1}, {"a": 5, "b": 1}, {"a": 0.2, "b": 0.5, "c": 0.3}])
def test_in_turn_nobody_is_more_than_one_call_off(weights: dict[str, float]) -> None:
    """At every moment, not only in the end."""
    shares, turns, counts = shares_of(weights), Turns(), Counter[str]()
    for number in range(1, 301):
        counts[turns.next("e", shares)] += 1
        assert all(abs(counts[name] - share * number) <= 1 for name, share in shares.items())


def test_equal_weights_in_turn_are_a_rotation() -> None:
    """As one expects of the name; another experiment has its own turns."""
    shares, turns = shares_of({"a": 1, "b": 1}), Turns()
    assert [turns.next(name, shares) for name in ("e", "e", "e", "f", "e")] == ["a", "b", "a", "a", "b"]


def test_sticky_keeps_units_and_draws_without_one() -> None:
    """`random` never looks at the unit."""
    assigner = Assigner(random.Random(1).random)
    assert len({assigner.variant("sticky", "e", unit_hash("e", "alice"), SHARES) for _ in range(50)}) == 1
    for way, unit in (("sticky", None), ("auto", None), ("random", unit_hash("e", "alice"))):
        counts = Counter(assigner.variant(way, "e", unit, SHARES) for _ in range(5_000))
        assert {name: counts[name] / 5_000 for name in SHARES} == pytest.approx(SHARES, abs=0.03)


def test_thompson_prefers_the_better_and_keeps_the_floor() -> None:
    """Without outcomes an even split; a clear loser keeps its floor."""
    assert thompson_shares({"a": Sample(), "b": Sample()}, 0.1) == pytest.approx({"a": 0.5, "b": 0.5})
    found = thompson_shares({"a": Sample(500, 300, 300), "b": Sample(500, 200, 200), "c": Sample(9, 5, 5)}, 0.1)
    assert found["b"] == pytest.approx(0.1, abs=1e-3)
    assert found["a"] > found["c"] > 0.1
    assert sum(found.values()) == pytest.approx(1)
