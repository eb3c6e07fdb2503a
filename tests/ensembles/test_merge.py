"""Merging JSON objects: what becomes of each kind of value, and that the order of members decides nothing."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.ensembles import canonical_json
from proxy.ensembles.merge import Merged, Part, merged
from tests.slowness import usual_s


def merge(*values: Any, weights: tuple[float, ...] = (), prefer: str = "majority") -> Merged:
    each = (*weights, *(1.0 for _ in values))
    return merged([Part(canonical_json.read(json.dumps(value)), each[at]) for at, value in enumerate(values)], prefer)


def value_of(found: Merged) -> Any:
    return json.loads(canonical_json.text_of(found.value))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([{"a": 1}, {"a": 2}, {"a": 2}], {"a": 2}),
        ([{"a": "Red"}, {"a": "red"}, {"a": "blue"}], {"a": "red"}),
        ([{"a": 5}, {"a": 5.0}, {"a": 4}], {"a": 5}),
        ([{"a": "$49.99"}, {"a": "49.99 USD"}, {"a": "$50"}], {"a": "49.99 USD"}),
        ([{"a": 1}, {"b": 2}], {"a": 1, "b": 2}),
        ([{"a": None}, {"a": 3}, {"a": None}], {"a": 3}),
        ([{"a": None}, {"a": None}], {"a": None}),
        ([{"a": True}, {"a": False}, {"a": True}], {"a": True}),
        ([{"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}], {"a": {"x": 1, "y": 2}}),
        ([{"a": [1, 2]}, {"a": [1, 2]}], {"a": [1, 2]}),
        ([{"a": []}, {"a": [1]}], {"a": [1]}),
        ([{"a": [1, 1]}, {"a": [1]}], {"a": [1]}),
        ([{"a": [None]}, {"a": [None]}], {"a": [None]}),
        ([{"a": [{"n": 1}]}, {"a": [{"n": 1.0}]}], {"a": [{"n": 1}]}),
        ([{"a": [1]}, {"a": "one"}, {"a": "one"}], {"a": "one"}),
        ([{}, {}], {}),
        ([{"a": 1}], {"a": 1}),
    ],
)
def test_each_kind_of_value_has_its_rule(values, expected):
    """In every order of the members."""
    for order in itertools.permutations(values):
        found = value_of(merge(*order))
        assert found == expected or sorted(map(str, found["a"])) == sorted(map(str, expected["a"]))


def test_lists_are_united_without_repetitions():
    """Items that say the same are one; none is lost."""
    found = value_of(merge({"tags": ["Red", "blue"]}, {"tags": ["red", "green"]}, {"tags": ["blue"]}))
    assert sorted(found["tags"], key=str.lower) in (["blue", "green", "Red"], ["blue", "green", "red"])


def test_weight_counts_not_the_number_of_members():
    values = {"a": "x"}, {"a": "x"}, {"a": "y"}
    assert value_of(merge(*values, weights=(1, 1, 3))) == {"a": "y"}
    assert value_of(merge(*values, weights=(1, 1, 1.5))) == {"a": "x"}


def test_the_heaviest_member_can_have_the_last_word():
    """Also for a field that it lacks: then it is the heaviest of those that have it."""
    values = {"a": "x", "b": 1}, {"a": "x", "b": 2}, {"a": "y"}
    assert value_of(merge(*values, weights=(1, 2, 2.5), prefer="heaviest")) == {"a": "y", "b": 2}
    assert value_of(merge(*values, weights=(1, 2, 2.5))) == {"a": "x", "b": 2}


def test_the_report_tells_agreement_dissent_and_what_was_filled():
    found = merge(
        {"name": "Kettle", "price": 49.99, "rating": 4, "tags": ["a"]},
        {"name": "kettle", "price": 49.99, "rating": None, "tags": ["a", "b"]},
        {"name": "Kettle", "price": 59.99, "rating": 4, "tags": ["a"]},
    )
    assert value_of(found) == {"name": "Kettle", "price": 49.99, "rating": 4, "tags": ["a", "b"]}
    assert found.agreement == {"name": 1.0, "price": 0.6667, "rating": 1.0, "tags": 0.6667}
    assert found.dissent == {"price": ["59.99"], "tags": ['"b"']}
    assert found.filled == ["rating"]
    assert found.confidence == pytest.approx(0.8333, abs=0.001)


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "A ", "5", "\ud800"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
)
objects = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@given(st.lists(st.tuples(objects, st.sampled_from([1.0, 2.0])), min_size=1, max_size=4), st.randoms())
def test_the_order_of_members_decides_nothing(parts, random):
    """Neither the values nor the shares depend on it, and every field of every member is there."""
    read = [Part(canonical_json.read(json.dumps(value)), weight) for value, weight in parts]
    shuffled = [*read]
    random.shuffle(shuffled)
    one, other = merged(read), merged(shuffled)
    assert (one.value, one.agreement) == (other.value, other.agreement)
    assert set(one.value) == {name for value, _ in parts for name in value}
    assert all(0 < share <= 1 for share in one.agreement.values())


@given(objects, st.integers(1, 4))
def test_equal_objects_are_merged_to_what_they_are(value, times):
    """Except for repetitions inside lists."""
    found = merge(*[value] * times)
    assert found.confidence == 1.0
    assert not found.dissent
    assert set(found.value) == set(value)


def test_deep_and_wide_values_are_merged_in_bounded_time():
    """At the limits of what is read as JSON, with sixteen members; CPU time, since the machine may be busy."""
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    wide = {"list": [f"item {at}" for at in range(900)]}
    assert usual_s(lambda: [merge(*[each] * 16) for each in (deep, wide)], 1) < 5
    for each in (deep, wide):
        assert value_of(merge(*[each] * 16)) == each


def test_reports_are_short():
    found = merge({f"f{at}": "x" * 500 for at in range(200)}, {f"f{at}": "y" * 500 for at in range(200)})
    assert len(found.agreement) == len(found.dissent) == 100
    assert max(len(text) for texts in found.dissent.values() for text in texts) == 200
