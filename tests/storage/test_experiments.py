"""Experiments in the database: one start, one verdict, sums as a person would count them, whatever happens at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from proxy.schema.experiments import Experiment, Steps, Tracked, VariantSpec
from proxy.schema.prompts import PromptHead, PromptVersion
from proxy.storage.base import StoreError
from proxy.storage.experiments import ExperimentRefused, ExperimentStore, in_use
from proxy.storage.prompts import PromptStore

VARIANTS = (VariantSpec("a", prompt_version=1), VariantSpec("b", parameters={"top_p": 0.5}))


def experiment(name: str = "e", prompt: str | None = None) -> Experiment:
    return Experiment(id=name, variants=VARIANTS, prompt=prompt)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture
def store(path: Path) -> Iterator[ExperimentStore]:
    messages = [{"role": "user", "content": "hi"}]
    PromptStore(path).create(PromptHead(id="p", name="p"), PromptVersion(version=1, template="hi", messages=messages))
    yield ExperimentStore(path)


def test_an_experiment_comes_back_as_it_was_created(store: ExperimentStore) -> None:
    """With its variants; without a database there are none."""
    made = store.create(experiment(), 5)
    assert store.get("e") == made
    assert made.experiment == experiment()
    assert (made.state.status, made.state.revision, made.state.created_ns) == ("draft", 1, 5)
    assert ExperimentStore(Path("/nowhere/usage.db")).all() == []
    with pytest.raises(ExperimentRefused, match="Experiments: e"):
        store.get("x")


def test_of_two_starts_at_once_for_one_prompt_one_wins(store: ExperimentStore) -> None:
    """Eight processes' worth of connections, one prompt."""
    for number in range(8):
        store.create(experiment(f"e{number}", "p"), 1)

    def start(number: int) -> bool:
        try:
            return store.start(f"e{number}", None, 2).is_running
        except ExperimentRefused as refusal:
            assert refusal.kind == "conflict"
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(start, range(8))) == 1


def test_the_first_verdict_stands(store: ExperimentStore) -> None:
    """However many workers see one."""
    store.create(experiment(), 1)
    store.start("e", None, 2)
    with ThreadPoolExecutor(8) as threads:
        winners = list(threads.map(lambda number: store.decide("e", "ab"[number % 2], number), range(8)))
    assert len({stored.state.winner for stored in winners}) == 1
    assert store.get("e").state.revision == 3  # created, started, decided


def test_a_running_experiment_uses_its_versions(store: ExperimentStore, path: Path) -> None:
    """What archiving asks for: before the start, while it runs, after."""

    def users() -> list[str | None]:
        with closing(sqlite3.connect(path)) as db:
            return [in_use(db, *place) for place in (("p", 1), ("p", 2), ("p", None), ("other", 1))]

    store.create(experiment(prompt="p"), 1)
    assert users() == [None, None, None, None]
    store.start("e", None, 2)
    assert users() == ["e", None, "e", None]
    store.stop("e", None, 3)
    assert users() == [None, None, None, None]


def test_what_does_not_fit_is_refused_and_changes_nothing(store: ExperimentStore) -> None:
    """A stale revision, a second creation, a change of what has started, a start of what has stopped."""
    store.create(experiment(), 1)
    for kind, change in (
        ("exists", lambda: store.create(experiment(), 1)),
        ("changed", lambda: store.start("e", 7, 2)),
        ("unknown", lambda: store.stop("x", None, 2)),
        ("conflict", lambda: store.stop("e", None, 2)),
        ("conflict", lambda: store.track(Tracked("e", "a", None, True), 2)),
    ):
        with pytest.raises(ExperimentRefused) as refused:
            change()
        assert refused.value.kind == kind
    assert store.get("e").state.revision == 1
    store.start("e", 1, 2)
    store.stop("e", 2, 3)
    for change in (lambda: store.replace(experiment(), None), lambda: store.start("e", None, 4)):
        with pytest.raises(ExperimentRefused, match="Create another experiment"):
            change()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outcomes=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([None, "u1", "u2", "u3"]), st.sampled_from([0.0, 0.5, 1.0])),
        max_size=12,
    )
)
def test_sums_are_those_of_units(store: ExperimentStore, outcomes: list[tuple[str, str | None, float]]) -> None:
    """Of each unit the mean counts once; an outcome without a unit is one of its own."""
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("DELETE FROM experiments")
        db.execute("DELETE FROM experiment_outcomes")
        db.commit()
    store.create(experiment(), 1)
    stored = store.start("e", None, 2)
    units: dict[tuple[str, str], list[float]] = {}
    for number, (variant, unit, score) in enumerate(outcomes):
        store.track(Tracked("e", variant, unit, None, score), 3)
        units.setdefault((variant, unit or f"own {number}"), []).append(score)
    found = store.sums(stored)
    for name in "ab":
        means = [sum(scores) / len(scores) for (variant, _), scores in units.items() if variant == name]
        if not means:
            assert name not in found
            continue
        count, total, squares = found[name].outcomes["score"]
        assert (count, found[name].units, found[name].calls) == (len(means), len(means), 0)
        assert total == pytest.approx(sum(means))
        assert squares == pytest.approx(sum(mean * mean for mean in means))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    outcomes=st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from([None, "u1", "u2"]),
            st.sampled_from([0.0, 0.25, 1.0]),
            st.integers(min_value=2, max_value=99),
        ),
        max_size=14,
    ),
    count=st.integers(min_value=1, max_value=7),
)
def test_steps_add_up_to_the_sums(
    store: ExperimentStore, outcomes: list[tuple[str, str | None, float, int]], count: int
) -> None:
    """Also where a later outcome changes the mean of a unit that has been counted."""
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("DELETE FROM experiments")
        db.execute("DELETE FROM experiment_outcomes")
        db.commit()
    store.create(structs.replace(experiment(), metric="score"), 1)
    stored = store.start("e", None, 2)
    for variant, unit, score, at in outcomes:
        store.track(Tracked("e", variant, unit, None, score), at)
    steps = store.steps(stored, 100, count)
    assert steps is not None
    assert (steps.start_ns, steps.count) == (2, count)
    assert all(0 <= step < count for _, step, _ in steps.sums)
    found = store.sums(stored)
    for name in "ab":
        added = [sums for variant, _, sums in steps.sums if variant == name]
        total = tuple(map(sum, zip(*added, strict=True))) if added else (0, 0, 0)
        assert total == pytest.approx(found[name].outcomes["score"] if name in found else (0, 0, 0))


def test_an_experiment_that_has_not_started_has_no_steps(store: ExperimentStore) -> None:
    """Nor has one of this very moment more stretches than there are."""
    assert store.steps(store.create(experiment(), 1), 5, 10) == Steps(0, 0, 0, [])
    stored = store.start("e", None, 5)
    assert store.steps(stored, 5, 10) == Steps(5, 1, 10, [])
    for _ in range(3):
        store.track(Tracked("e", "a", None, True), 6)
    assert store.steps(stored, 9, 10, most=3) is not None
    assert store.steps(stored, 9, 10, most=2) is None  # too many to look at one by one


def test_a_database_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """Its path, not a traceback."""
    path = tmp_path / "usage.db"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=r"usage\.db"):
        ExperimentStore(path).all()
