"""Performs I/O: experiments in the usage database: their definition, their life cycle, and the sums of their outcomes.

Every worker reads the same rows, so all of them assign and decide in the same way. Steps that must happen once, such as
a verdict or a start, are decided inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from proxy.schema.experiments import Experiment, ExperimentState, Steps, StoredExperiment, Tracked, VariantSums
from proxy.storage.base import Refusal
from proxy.storage.connections import connected
from proxy.storage.experiment_sums import read_scores, read_steps, read_sums
from proxy.storage.sqlite import SqliteStore

MAX_EXPERIMENTS = 1_000
MAX_OUTCOMES = 1_000_000  # of one experiment, without a call
MAX_STEPS = 100_000  # calls and outcomes that are processed one by one
_WHAT = "usage database"
_ALL = "SELECT content, state FROM experiments"
_ADD = "INSERT INTO experiments (id, status, prompt, content, state) VALUES (?, ?, ?, ?, ?)"
_SET = "UPDATE experiments SET status = ?, prompt = ?, content = ?, state = ? WHERE id = ?"
_DELETE = "DELETE FROM experiments WHERE id = ?"
_DELETE_OUTCOMES = "DELETE FROM experiment_outcomes WHERE experiment = ?"
_SAME_PROMPT = "SELECT id FROM experiments WHERE prompt = ? AND status = 'running'"
_HAS_VERSION = "SELECT 1 FROM prompt_versions WHERE prompt = ? AND version = ? AND archived_ns IS NULL"
_HAS_PROMPT = "SELECT 1 FROM prompts WHERE id = ? AND archived_ns IS NULL"
_NEWEST = "SELECT IFNULL(MAX(seq), 0) FROM experiment_outcomes WHERE experiment = ?"
_ROWS = """
    SELECT (SELECT COUNT(*) FROM calls WHERE experiment = :id)
        + (SELECT COUNT(*) FROM experiment_outcomes WHERE experiment = :id)
"""
_TRACK = "INSERT INTO experiment_outcomes VALUES (?, ?, ?, ?, ?, ?, ?)"
_read_content = msgspec.json.Decoder(Experiment).decode
_read_state = msgspec.json.Decoder(ExperimentState).decode


class ExperimentRefused(Refusal):
    """The change does not fit what is stored. `kind`: unknown, exists, changed, conflict or full. `param`: a field."""

    def __init__(self, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.param = param


def in_use(db: sqlite3.Connection, prompt: str, version: int | None) -> str | None:
    """The running experiment that a version (None: any version) of a prompt takes part in."""
    row = db.execute(_ALL + " WHERE prompt = ? AND status = 'running'", (prompt,)).fetchone()
    if row is None:
        return None
    experiment = _read_content(row[0])
    if version is None or any(variant.prompt_version == version for variant in experiment.variants):
        return experiment.id
    return None


class ExperimentStore:
    """The experiments of one SQLite file. `busy_s`: how long a call waits for other processes, in seconds.

    All methods raise StoreError; those that change something ExperimentRefused too. `revision`: the one that the caller
    has seen; None: it does not matter.
    """

    def __init__(self, path: Path, *, busy_s: float = 2.0) -> None:
        self.path = path
        self._busy_s = busy_s

    # --- reading ------------------------------------------------------------------------------------------------------

    def all(self) -> list[StoredExperiment]:
        """All experiments, by id."""
        if not self.path.exists():
            return []
        with connected(self.path, "ro", self._busy_s, _WHAT) as db:
            return [_stored(row) for row in db.execute(_ALL + " ORDER BY id").fetchall()]

    def get(self, experiment: str, revision: int | None = None) -> StoredExperiment:
        """One experiment. Raises ExperimentRefused: unknown or changed."""
        if not self.path.exists():
            raise ExperimentRefused("unknown", f"There is no experiment {experiment[:64]!r}. Experiments: none.", "id")
        with connected(self.path, "ro", self._busy_s, _WHAT) as db:
            return _found(db, experiment, revision)

    def sums(self, stored: StoredExperiment) -> dict[str, VariantSums]:
        """The sums of each variant since the start, including late ratings of its calls."""
        state, experiment = stored.state, stored.experiment
        if state.started_ns is None:
            return {}
        with connected(self.path, "ro", self._busy_s, _WHAT) as db:
            return read_sums(db, experiment.id, experiment.outcome_rule, state.started_ns, state.stopped_ns)

    def steps(self, stored: StoredExperiment, now_ns: int, count: int, most: int = MAX_STEPS) -> Steps | None:
        """The deciding outcomes over time: `count` equal intervals from the start until the stop, or now. None: there
        are more than `most` calls and outcomes, for which that takes too long.
        """
        start_ns = stored.state.started_ns
        if start_ns is None:
            return Steps(0, 0, 0, [])
        end_ns = max(stored.state.stopped_ns or now_ns, start_ns + count)
        width_ns = -(-(end_ns - start_ns) // count)
        with connected(self.path, "ro", self._busy_s, _WHAT) as db:
            if db.execute(_ROWS, {"id": stored.id}).fetchone()[0] > most:
                return None
            return Steps(start_ns, width_ns, count, read_steps(db, stored, start_ns, end_ns, width_ns))

    def scores(self, prompt: str) -> dict[int, float]:
        """The mean rating of each version of a prompt."""
        with connected(self.path, "ro", self._busy_s, _WHAT) as db:
            return read_scores(db, prompt)

    # --- changes ------------------------------------------------------------------------------------------------------

    def create(self, experiment: Experiment, now_ns: int) -> StoredExperiment:
        stored = StoredExperiment(experiment, ExperimentState(created_ns=now_ns))
        with self._changing() as db:
            if db.execute(_ALL + " WHERE id = ?", (experiment.id,)).fetchone() is not None:
                raise ExperimentRefused("exists", f"The experiment {experiment.id} already exists.", "id")
            (count,) = db.execute("SELECT COUNT(*) FROM experiments").fetchone()
            if count >= MAX_EXPERIMENTS:
                message = f"There are already {count} experiments, the maximum. Delete old ones."
                raise ExperimentRefused("full", message)
            db.execute(_ADD, (experiment.id, *_values(stored)))
        return stored

    def replace(self, experiment: Experiment, revision: int | None) -> StoredExperiment:
        """Replaces the definition of an experiment that has not started."""

        def changed(db: sqlite3.Connection, found: StoredExperiment) -> StoredExperiment:
            if found.state.started_ns is not None:
                message = f"{experiment.id} has started, so its definition cannot change. Create another experiment."
                raise ExperimentRefused("conflict", message)
            return StoredExperiment(experiment, found.state)

        return self._change(experiment.id, revision, changed)

    def delete(self, experiment: str, revision: int | None) -> None:
        """Deletes an experiment with its outcomes that belong to no call; calls keep theirs."""
        with self._changing() as db:
            if _found(db, experiment, revision).is_running:
                raise ExperimentRefused("conflict", f"{experiment} is running. Stop it first.")
            db.execute(_DELETE, (experiment,))
            db.execute(_DELETE_OUTCOMES, (experiment,))

    def start(self, experiment: str, revision: int | None, now_ns: int) -> StoredExperiment:
        """Starts an experiment: calls take part from now on. A running one goes on; a stopped one stays stopped."""

        def changed(db: sqlite3.Connection, found: StoredExperiment) -> StoredExperiment:
            if found.state.stopped_ns is not None:
                message = f"{experiment} was stopped, and its calls have been counted. Create another experiment."
                raise ExperimentRefused("conflict", message)
            if found.is_running:
                return found
            _check_prompt(db, found.experiment)
            return _with(found, status="running", started_ns=now_ns)

        return self._change(experiment, revision, changed)

    def stop(self, experiment: str, revision: int | None, now_ns: int) -> StoredExperiment:
        """Stops an experiment: calls no longer take part, but their ratings still count."""

        def changed(db: sqlite3.Connection, found: StoredExperiment) -> StoredExperiment:
            if found.state.status == "draft":
                raise ExperimentRefused("conflict", f"{experiment} has not started.")
            return _with(found, status="stopped", stopped_ns=now_ns) if found.is_running else found

        return self._change(experiment, revision, changed)

    def decide(self, experiment: str, winner: str, now_ns: int) -> StoredExperiment:
        """Records the verdict; only the first one counts."""

        def changed(db: sqlite3.Connection, found: StoredExperiment) -> StoredExperiment:
            return found if found.state.winner is not None else _with(found, winner=winner, decided_ns=now_ns)

        return self._change(experiment, None, changed)

    def note_promoted(self, experiment: str, version: int, before: int | None, now_ns: int) -> StoredExperiment:
        """Records that the label was moved for the winner; only the first time counts."""

        def changed(db: sqlite3.Connection, found: StoredExperiment) -> StoredExperiment:
            if found.state.promoted_ns is not None and found.state.reverted_ns is None:
                return found
            return _with(found, promoted_version=version, promoted_from=before, promoted_ns=now_ns, reverted_ns=None)

        return self._change(experiment, None, changed)

    def note_reverted(self, experiment: str, now_ns: int) -> StoredExperiment:
        """Records that the label was moved back."""
        return self._change(experiment, None, lambda db, found: _with(found, reverted_ns=now_ns))

    def track(self, tracked: Tracked, now_ns: int) -> None:
        """Adds an outcome that belongs to no call. A power loss may lose the latest ones."""
        with self._changing("PRAGMA synchronous=NORMAL") as db:
            found = _found(db, tracked.experiment, None)
            if not found.is_running:
                message = f"{tracked.experiment} is not running: {found.state.status}."
                raise ExperimentRefused("conflict", message)
            (newest,) = db.execute(_NEWEST, (tracked.experiment,)).fetchone()
            if newest >= MAX_OUTCOMES:
                raise ExperimentRefused("full", f"{tracked.experiment} has {newest} outcomes, the maximum.")
            success = None if tracked.success is None else int(tracked.success)
            values = (tracked.variant, tracked.unit, success, tracked.score, now_ns)
            db.execute(_TRACK, (tracked.experiment, newest + 1, *values))

    # --- connections --------------------------------------------------------------------------------------------------

    def _change(
        self,
        experiment: str,
        revision: int | None,
        changed: Callable[[sqlite3.Connection, StoredExperiment], StoredExperiment],
    ) -> StoredExperiment:
        with self._changing() as db:
            before = _found(db, experiment, revision)
            after = changed(db, before)
            if after is before:
                return before
            after = _with(after, revision=before.state.revision + 1)
            db.execute(_SET, (*_values(after), experiment))
            return after

    @contextmanager
    def _changing(self, durability: str = "PRAGMA synchronous=FULL") -> Iterator[sqlite3.Connection]:
        """One transaction, committed when the block ends. After an error, closing the connection rolls it back."""
        if not self.path.exists():
            store = SqliteStore(self.path, busy_s=self._busy_s)
            store.open()  # sets the file mode, the journal and the schema
            store.close()
        with connected(self.path, "rw", self._busy_s, _WHAT) as db:
            db.execute(durability)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


def _check_prompt(db: sqlite3.Connection, experiment: Experiment) -> None:
    """Raises ExperimentRefused for a prompt or a version that does not exist, or that another experiment varies."""
    if experiment.prompt is None:
        return
    if db.execute(_HAS_PROMPT, (experiment.prompt,)).fetchone() is None:
        raise ExperimentRefused("conflict", f"There is no prompt {experiment.prompt}.", "prompt")
    for place, variant in enumerate(experiment.variants):
        version = variant.prompt_version
        if version is not None and db.execute(_HAS_VERSION, (experiment.prompt, version)).fetchone() is None:
            message = f"{experiment.prompt} has no version {version}."
            raise ExperimentRefused("conflict", message, f"variants.{place}.prompt_version")
    other = db.execute(_SAME_PROMPT, (experiment.prompt,)).fetchone()
    if other is not None:
        message = f"The experiment {other[0]} already varies {experiment.prompt}. Stop it first."
        raise ExperimentRefused("conflict", message, "prompt")


def _found(db: sqlite3.Connection, experiment: str, revision: int | None) -> StoredExperiment:
    row = db.execute(_ALL + " WHERE id = ?", (experiment,)).fetchone()
    if row is None:
        known = ", ".join(each for (each,) in db.execute("SELECT id FROM experiments ORDER BY id LIMIT 10")) or "none"
        raise ExperimentRefused("unknown", f"There is no experiment {experiment[:64]!r}. Experiments: {known}.", "id")
    found = _stored(row)
    if revision is not None and revision != found.state.revision:
        message = (
            f'{experiment} has changed since you read it: its ETag is now "{found.state.revision}". '
            "Read it again, then repeat the change."
        )
        raise ExperimentRefused("changed", message)
    return found


def _stored(row: tuple[str, str]) -> StoredExperiment:
    return StoredExperiment(_read_content(row[0]), _read_state(row[1]))


def _with(stored: StoredExperiment, **changes: Any) -> StoredExperiment:
    return StoredExperiment(stored.experiment, structs.replace(stored.state, **changes))


def _values(stored: StoredExperiment) -> tuple[str | None, ...]:
    content, state = (msgspec.json.encode(each).decode() for each in (stored.experiment, stored.state))
    return (stored.state.status, stored.experiment.prompt, content, state)
