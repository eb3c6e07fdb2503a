"""The SQLite store by itself."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from proxy.schema.queries import UsageQuery
from proxy.storage.base import Answers, StoreError
from proxy.storage.batch import Batch, OpenCall
from proxy.storage.sqlite import SqliteStore, sqlite_path
from tests.storage.samples import attempt, attempt_end, call, call_end, outcomes, rows


def settled(name: str) -> Batch:
    """A whole call in one batch."""
    batch = Batch(opened={name: (call(name), attempt(name))}, intents={name: attempt(name)})
    entry = OpenCall(call(name))
    entry.start(attempt(name))
    ended = entry.finish(attempt_end(name), 2_000)
    assert ended is not None
    _, batch.closed[name] = entry.close(call_end(name), 2_000)
    batch.ended = [ended]
    return batch


def test_the_files_are_private_and_readers_do_not_block(tmp_path: Path) -> None:
    """Mode 0600 for database, log and index; the journal is a write-ahead log."""
    store = SqliteStore(tmp_path / "x.db")
    store.open()
    store.write(settled("a"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("x.db*") if path.is_file()}
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}
    assert rows(tmp_path / "x.db", "PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    store.close()


def test_the_view_has_the_names_people_look_for(tmp_path: Path) -> None:
    """`SELECT * FROM usage_log` in a database shell: time in UTC, cost in USD."""
    store = SqliteStore(tmp_path / "x.db")
    store.open()
    batch = settled("a")
    batch.opened["a"] = (call("a", opened_ns=1_767_225_600_250_000_000, task_type="code"), attempt("a"))
    store.write(batch)
    [row] = rows(tmp_path / "x.db", "SELECT * FROM usage_log")
    store.close()
    expected = {
        "timestamp": "2026-01-01T00:00:00.250Z",
        "model": "gpt",
        "provider": "openai",
        "input_tokens": 10,
        "output_tokens": 20,
        "total_tokens": 30,
        "cost_usd": 3e-7,
        "latency_ms": 7.0,
        "task_type": "code",
        "success": 1,
        "outcome": "ok",
    }
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("content", ["directory", "text"])
def test_a_path_that_is_no_database_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    """The operator reads which file, what is wrong and what to do; no folder of owners is left behind."""
    path = tmp_path / "x.db"
    if content == "directory":
        path.mkdir()
    else:
        path.write_text("This is a text. " * 100)
    with pytest.raises(StoreError, match=r"x\.db: .* --db"):
        SqliteStore(path).open()
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """A store without a connection connects when it is next asked to write; no restart is needed."""
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    store.open()
    store.write(settled("a"))
    store.close()
    keep = path.read_bytes()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError):
        store.write(settled("b"))
    path.write_bytes(keep)
    store.write(settled("b"))
    store.close()
    assert outcomes(path) == {"a": "ok", "b": "ok"}


def test_a_connection_whose_file_went_bad_is_replaced(tmp_path: Path) -> None:
    """As when a volume was detached and came back: the old descriptor fails for ever, a new one works."""
    store = SqliteStore(tmp_path / "x.db")
    store.open()
    store.write(settled("a"))
    log = str(tmp_path / "x.db-wal")
    [descriptor] = [int(fd.name) for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd) == log]
    unwritable = os.open(os.devnull, os.O_RDONLY)
    os.dup2(unwritable, descriptor)
    os.close(unwritable)
    with pytest.raises(StoreError):
        store.write(settled("b"))
    assert store.write(settled("b")) == Answers()
    store.close()
    assert outcomes(tmp_path / "x.db") == {"a": "ok", "b": "ok"}


def test_an_empty_batch_fails_where_a_full_one_would(tmp_path: Path) -> None:
    """It really writes, so it tells whether the store has recovered."""
    path = tmp_path / "x.db"
    store = SqliteStore(path, busy_s=0.01)
    store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.write(Batch())
        other.execute("ROLLBACK")
    before = (tmp_path / "x.db-wal").stat().st_size
    assert store.write(Batch()) == Answers()
    assert (tmp_path / "x.db-wal").stat().st_size > before
    store.close()


def test_reading_usage_cannot_write(tmp_path: Path) -> None:
    """Usage is read from a connection of its own, while the writer's transaction is open."""
    path = tmp_path / "x.db"
    store = SqliteStore(path)
    store.open()
    store.write(settled("a"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.usage(UsageQuery())["total"]["calls"] == 1
    store.close()


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:///proxy.db", "proxy.db"), ("sqlite:////data/proxy.db", "/data/proxy.db")]
)
def test_a_storage_url_names_a_file(url: str, path: str) -> None:
    """Three slashes: relative to the working directory; four: absolute."""
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize("url", ["postgres://db/x", "sqlite://x.db", "sqlite:///", "proxy.db"])
def test_any_other_storage_url_is_refused(url: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(StoreError, match="Write it as sqlite:///"):
        sqlite_path(url)
