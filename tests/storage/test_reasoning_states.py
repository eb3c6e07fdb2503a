"""Reasoning states at rest: sealed, bound to caller and tool call, gone after an hour, never more than the limits."""

from __future__ import annotations

import random
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from proxy.schema.records import Secret
from proxy.storage.base import StoreError
from proxy.storage.migrations import MIGRATIONS, migrate
from proxy.storage.reasoning_states import ReasoningStates, StateLimits
from proxy.storage.side_store import KEY_SUFFIX, shared_key
from proxy.storage.sqlite import SqliteStore

NOW = 1_795_000_000 * 10**9
SECOND, HOUR = 10**9, 3600 * 10**9
Make = Callable[..., ReasoningStates]
STATE = b"what nobody else may read"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database as the ledger leaves it."""
    store = SqliteStore(tmp_path / "usage.db")
    store.open()
    store.close()
    return tmp_path / "usage.db"


@pytest.fixture
def made() -> Iterator[Make]:
    """Makes stores, and closes them."""
    with ExitStack() as stack:

        def make(path: Path | None, key: Secret | None = None, **options: Any) -> ReasoningStates:
            store = ReasoningStates(path, key, **options)
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture(params=["store", "memory"])
def store(request: pytest.FixtureRequest, path: Path, made: Make) -> ReasoningStates:
    return made(path if request.param == "store" else None)


def key_file(path: Path) -> Path:
    return path.with_name(path.name + KEY_SUFFIX)


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT COUNT(*) FROM reasoning_states").fetchone()[0])


# --- who finds what ---------------------------------------------------------------------------------------------------


def test_a_caller_finds_what_it_left(store: ReasoningStates) -> None:
    """By tool call id; what was never kept is not there."""
    store.put("mobile", {"call_1": STATE, "call_2": b""}, NOW)
    assert store.find("mobile", ["call_1", "call_2", "call_3"], NOW) == {"call_1": STATE, "call_2": b""}
    assert store.find("mobile", [], NOW) == {}


def test_what_is_used_stays_for_another_hour(store: ReasoningStates) -> None:
    """Only what was found, and nothing that had expired; sums and limits know it as the youngest."""
    store.put("mobile", {"used": STATE, "other": STATE}, NOW)
    assert store.find_again("mobile", ["used", "never"], NOW + HOUR // 2) == {"used": STATE}
    assert store.find_again("laptop", ["other"], NOW + HOUR // 2) == {}
    later = NOW + HOUR + 1
    assert store.find_again("mobile", ["used", "other"], later) == {"used": STATE}
    assert store.find("mobile", ["used"], later + HOUR - SECOND) == {"used": STATE}
    assert store.find_again("mobile", ["used"], later + HOUR) == {}


def test_nobody_finds_what_another_left(store: ReasoningStates) -> None:
    """The same tool call id under another key, and without any, is another state or none."""
    store.put("mobile", {"call_1": STATE}, NOW)
    assert store.find("batch", ["call_1"], NOW) == store.find("", ["call_1"], NOW) == {}
    store.put("batch", {"call_1": b"other"}, NOW)
    assert store.find("mobile", ["call_1"], NOW) == {"call_1": STATE}


def test_the_last_state_of_a_tool_call_stands(store: ReasoningStates) -> None:
    store.put("mobile", {"call_1": b"before"}, NOW)
    store.put("mobile", {"call_1": STATE}, NOW + 1)
    assert store.find("mobile", ["call_1"], NOW + 1) == {"call_1": STATE}


def test_a_state_is_kept_for_an_hour(store: ReasoningStates) -> None:
    """To the nanosecond, by the clock that is passed in."""
    store.put("mobile", {"call_1": STATE}, NOW)
    assert store.find("mobile", ["call_1"], NOW + HOUR - 1) == {"call_1": STATE}
    assert store.find("mobile", ["call_1"], NOW + HOUR) == {}


def test_what_is_too_old_is_deleted(made: Make, path: Path) -> None:
    """With the next state that is kept, whoever it belongs to."""
    store = made(path)
    store.put("mobile", {"call_1": STATE, "call_2": STATE}, NOW)
    store.put("batch", {"call_3": STATE}, NOW + HOUR)
    assert count(path) == 1


def test_any_text_is_a_tool_call_id(store: ReasoningStates) -> None:
    """Vendors make them up."""
    ids = ['a"b', "é漢😀", "x" * 1000, "'; DROP TABLE calls; --", "\\", "\n"]
    store.put("mobile", dict.fromkeys(ids, STATE), NOW)
    assert store.find("mobile", ids, NOW) == dict.fromkeys(ids, STATE)


# --- at rest ----------------------------------------------------------------------------------------------------------


def test_it_survives_a_restart_and_is_shared(made: Make, path: Path) -> None:
    """Two processes on one database read each other's; so does the next one."""
    one, two = made(path), made(path)
    one.put("mobile", {"call_1": STATE}, NOW)
    two.put("mobile", {"call_2": STATE}, NOW)
    assert set(one.find("mobile", ["call_1", "call_2"], NOW)) == {"call_1", "call_2"}
    one.close()
    two.close()
    assert set(made(path).find("mobile", ["call_1", "call_2"], NOW)) == {"call_1", "call_2"}


def test_memory_is_the_process_own(made: Make, path: Path) -> None:
    made(None).put("mobile", {"call_1": STATE}, NOW)
    assert made(None).find("mobile", ["call_1"], NOW) == {}
    assert not key_file(path).exists()


def test_nothing_is_in_clear_on_the_disk(made: Make, path: Path) -> None:
    """Neither in the database nor in its log; nor is the key."""
    store = made(path)
    store.put("mobile", {"call_1": STATE}, NOW)
    files = [file.read_bytes() for file in path.parent.iterdir() if file.is_file() and file != key_file(path)]
    assert files
    assert not any(STATE in data or key_file(path).read_bytes() in data for data in files)


def test_equal_states_look_different(made: Make, path: Path) -> None:
    """A nonce of its own for each."""
    made(path).put("mobile", {"call_1": STATE, "call_2": STATE}, NOW)
    with closing(sqlite3.connect(path)) as db:
        one, two = db.execute("SELECT sealed FROM reasoning_states").fetchall()
    assert one != two


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE reasoning_states SET sealed = x''",
        "UPDATE reasoning_states SET sealed = x'00112233'",
        "UPDATE reasoning_states SET sealed = randomblob(100)",
        "UPDATE reasoning_states SET sealed = substr(sealed, 1, size - 1)",
        "UPDATE reasoning_states SET caller = 'mobile' WHERE caller = 'batch'",
        "UPDATE reasoning_states SET tool_call_id = 'call_1' WHERE caller = 'mobile'",
    ],
)
def test_what_cannot_be_unsealed_is_not_there(made: Make, path: Path, spoil: str) -> None:
    """A broken row, or one that was moved to another caller or another tool call."""
    store = made(path)
    store.put("batch", {"call_1": STATE}, NOW)
    store.put("mobile", {"call_2": STATE}, NOW)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(spoil)
    assert "call_1" not in store.find("mobile", ["call_1", "call_2"], NOW)
    store.put("mobile", {"call_1": STATE}, NOW)
    assert store.find("mobile", ["call_1"], NOW) == {"call_1": STATE}


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_for_its_user_only(made: Make, path: Path) -> None:
    """Made at the first use, beside the database."""
    store = made(path)
    assert not key_file(path).exists()
    store.put("mobile", {"call_1": STATE}, NOW)
    assert stat.S_IMODE(key_file(path).stat().st_mode) == 0o600
    assert len(key_file(path).read_bytes()) == 32


def test_of_many_that_start_together_one_makes_the_key(tmp_path: Path) -> None:
    """The others get the same."""
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: shared_key(tmp_path / "key"), range(64)))
    assert len(keys) == 1


def test_a_key_that_was_never_written_is_made(tmp_path: Path) -> None:
    """A process that died before it wrote had sealed nothing yet."""
    (tmp_path / "key").touch(0o600)
    key = shared_key(tmp_path / "key")
    assert len(key) == 32
    assert shared_key(tmp_path / "key") == key == (tmp_path / "key").read_bytes()


@pytest.mark.parametrize("length", [1, 31, 33, 100])
def test_a_file_that_is_no_key_is_left_alone(tmp_path: Path, length: int) -> None:
    """Whatever it is, also behind a link, it is not ours to overwrite."""
    (tmp_path / "other").write_bytes(b"x" * length)
    (tmp_path / "other").chmod(0o600)
    (tmp_path / "key").symlink_to(tmp_path / "other")
    with pytest.raises(StoreError, match="PROXY_VAULT_KEY"):
        shared_key(tmp_path / "key")
    assert (tmp_path / "other").read_bytes() == b"x" * length


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Taking it silently would seal nothing; the message says what to run."""
    path = tmp_path / "key"
    shared_key(path)
    path.chmod(mode)
    with pytest.raises(StoreError, match=r"Other users may read the key file .*chmod 600"):
        shared_key(path)
    path.chmod(0o600)
    assert len(shared_key(path)) == 32


def test_a_key_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Cannot use the key file"):
        shared_key(tmp_path / "missing" / "key")


def test_a_key_of_the_environment_needs_no_file(made: Make, path: Path) -> None:
    """Several machines may share it; with another one, what is there is not there."""
    one = made(path, Secret("a" * 32))
    one.put("mobile", {"call_1": STATE}, NOW)
    assert made(path, Secret("a" * 32)).find("mobile", ["call_1"], NOW) == {"call_1": STATE}
    assert made(path, Secret("b" * 32)).find("mobile", ["call_1"], NOW) == {}
    assert not key_file(path).exists()


# --- limits -----------------------------------------------------------------------------------------------------------

SEALED = 28  # bytes that sealing adds


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (StateLimits(caller_states=3), ["call_2", "call_3", "call_4"]),
        (StateLimits(caller_bytes=2 * (10 + SEALED)), ["call_3", "call_4"]),
        (StateLimits(all_states=4), ["call_2", "call_3", "call_4"]),
        (StateLimits(all_bytes=4 * (10 + SEALED) + 9), ["call_2", "call_3", "call_4"]),
        (StateLimits(caller_bytes=10), []),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_the_oldest_go_first(made: Make, path: Path, limits: StateLimits, kept: list[str], in_memory: bool) -> None:
    """By number and by bytes, of one caller and of all; here another caller has one state, the newest but one."""
    store = made(None if in_memory else path, limits=limits)
    for place in range(5):
        if place == 4:
            store.put("batch", {"call_x": b"0" * 10}, NOW + place * SECOND)
        store.put("mobile", {f"call_{place}": b"0" * 10}, NOW + place * SECOND)
    found = store.find("mobile", [f"call_{place}" for place in range(5)], NOW + 5 * SECOND)
    assert sorted(found) == kept
    assert ("call_x" in store.find("batch", ["call_x"], NOW + 5 * SECOND)) == (limits.caller_bytes != 10)


# --- failures ---------------------------------------------------------------------------------------------------------


def lock(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    return db


def test_a_locked_database_is_told_in_time_and_works_again(made: Make, path: Path) -> None:
    """Reading goes on meanwhile."""
    store = made(path, busy_s=0.05)
    store.put("mobile", {"call_1": STATE}, NOW)
    with closing(lock(path)):
        with pytest.raises(StoreError, match="locked"):
            store.put("mobile", {"call_2": STATE}, NOW)
        assert store.find("mobile", ["call_1"], NOW) == {"call_1": STATE}
    store.put("mobile", {"call_2": STATE}, NOW)
    assert store.find("mobile", ["call_2"], NOW) == {"call_2": STATE}


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.put("mobile", {"call_1": STATE}, NOW),
        lambda store: store.find("mobile", ["call_1"], NOW),
    ],
)
def test_without_a_database_there_is_an_error(
    made: Make, tmp_path: Path, use: Callable[[ReasoningStates], object]
) -> None:
    """And no empty database in its place."""
    with pytest.raises(StoreError):
        use(made(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()


def test_closing_twice_is_safe(made: Make, path: Path) -> None:
    """What was kept is still there."""
    store = made(path)
    store.put("mobile", {"call_1": STATE}, NOW)
    store.close()
    store.close()
    assert made(path).find("mobile", ["call_1"], NOW) == {"call_1": STATE}


def test_old_states_go_also_where_none_are_kept_any_more(path: Path, made: Make) -> None:
    """A thousand at once at most, of any caller, and no other; without a key."""
    store = made(path)
    store.put("a", {f"call_{number}": STATE for number in range(1_200)}, NOW - HOUR)
    store.put("b", {"call": STATE}, NOW - HOUR + SECOND)
    other = made(path, Secret("another"))
    assert [other.expire(NOW) for _ in range(3)] == [1_000, 200, 0]
    assert store.find("b", ["call"], NOW) == {"call": STATE}


# --- what a write costs -----------------------------------------------------------------------------------------------


def test_sums_stay_exact(path: Path, made: Make) -> None:
    """They are kept as rows come, change and go, and are what counting would say."""
    dice = random.Random(3)
    store = made(path, limits=StateLimits(caller_states=6, caller_bytes=900, all_states=15, all_bytes=2_000, ttl_s=40))
    for second in range(300):
        caller = dice.choice(["", "all", "mobile", "batch"])
        states = {f"call_{dice.randrange(12)}": b"x" * dice.randrange(200) for _ in range(dice.randrange(1, 5))}
        store.put(caller, states, NOW + second * SECOND)
        if dice.random() < 0.1:
            store.expire(NOW + (second + 30) * SECOND)
        with closing(sqlite3.connect(path)) as db:
            counted = "SELECT 'of ' || caller, COUNT(*), SUM(size) FROM reasoning_states GROUP BY caller"
            expected = {scope: (states, size) for scope, states, size in db.execute(counted)}
            expected["all"] = (sum(n for n, _ in expected.values()), sum(size for _, size in expected.values()))
            sums = db.execute("SELECT scope, states, bytes FROM reasoning_state_sums").fetchall()
        assert {scope: (states, size) for scope, states, size in sums} == expected


def test_states_of_an_older_database_are_counted_once(tmp_path: Path, made: Make) -> None:
    """The step that brings the sums starts from the rows that are there."""
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:7])
        db.execute(
            "INSERT INTO reasoning_states VALUES ('mobile', 'call_1', 1, 30, x'00'), ('', 'call_1', 1, 12, x'00')"
        )
        migrate(db)
        found = db.execute("SELECT * FROM reasoning_state_sums ORDER BY scope").fetchall()
    assert found == [("all", 2, 42), ("of ", 1, 12), ("of mobile", 1, 30)]


def test_a_write_does_not_count_what_is_kept(path: Path, made: Make) -> None:
    """With 20,000 states it takes as many steps of SQLite as with 20, or nearly: no row of others is read."""

    def steps(store: ReasoningStates, second: int) -> int:
        counted = [0]

        def count_one() -> None:
            counted[0] += 1

        connection = store._store.connected()
        connection.set_progress_handler(count_one, 10)
        store.put("mobile", {f"new_{second}": STATE}, NOW + second * SECOND)
        connection.set_progress_handler(None, 0)
        return counted[0]

    store = made(path)
    store.put("mobile", {f"call_{number}": STATE for number in range(20)}, NOW)
    few = steps(store, 1)
    for caller in range(11):
        store.put(f"caller_{caller}", {f"call_{number}": STATE for number in range(1_810)}, NOW)
    many = steps(store, 2)
    print(f"\n  steps of a write, in tens: {few} with 20 states, {many} with 20,000")
    assert many < 3 * few


def test_a_database_that_was_replaced_is_opened_anew(path: Path, made: Make) -> None:
    """As the ledger does: what is kept then is where other workers look for it."""
    store = made(path)
    store.put("mobile", {"call_1": STATE}, NOW)
    copy = path.with_name("copy.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(copy),))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    copy.replace(path)
    store.put("mobile", {"call_2": STATE}, NOW)
    assert set(store.find("mobile", ["call_1", "call_2"], NOW)) == {"call_1", "call_2"}
    other = made(path)
    assert set(other.find("mobile", ["call_1", "call_2"], NOW)) == {"call_1", "call_2"}
    path.unlink()
    with pytest.raises(StoreError):
        store.put("mobile", {"call_3": STATE}, NOW)
    assert not path.exists()
