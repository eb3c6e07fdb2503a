"""What a batch finds in the database before it is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from proxy.schema.records import Outcome
from proxy.storage.batch import Batch, rejected
from proxy.storage.rows import CallState, states
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import HOLD_NANO, attempt, call, call_end


def test_states_tell_open_calls_from_ended_ones(tmp_path: Path) -> None:
    """One row for each call that has one, with its hold while it is open; a call named twice is one call."""
    store = SqliteStore(tmp_path / "x.db")
    store.open()
    store.write(
        Batch(
            opened={"o": (call("o", task_type="chat"), attempt("o")), "r": (call("r", key_id=None), None)},
            intents={"o-1": attempt("o")},
            closed={"r": rejected(call_end("r", Outcome.REJECTED), 5)},
        )
    )
    with closing(sqlite3.connect(tmp_path / "x.db")) as db:
        assert states(db, ["r", "none", "o", "o"]) == {
            "o": CallState(None, 1_000, HOLD_NANO, "key", "chat", None),
            "r": CallState(5, 1_000, 0, None, None, None),
        }
        assert states(db, []) == {}
    store.close()
