"""Keys in the database: by their hashes only, and gone from use when they are revoked."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
from contextlib import closing

import pytest

from proxy.storage.base import StoreError
from proxy.storage.keys import KeysFound, KeyStore, StoredKey
from proxy.storage.migrations import MIGRATIONS, migrate
from proxy.storage.sqlite import SqliteStore


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def key(number=1, name="mobile", **changes):
    return StoredKey(
        **{
            "id": f"key_{number:08x}",
            "name": name,
            "role": "key",
            "last4": "wxyz",
            "models": None,
            "created_ns": number,
            **changes,
        }
    )


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "usage.db")


def test_a_key_is_found_by_its_hash_as_it_was_made(store):
    """Every field comes back; other hashes find nothing."""
    made = key(models=("cheap", "groq/*"), expires_ns=2**62, role="admin")
    store.add(made, digest("a"))
    store.add(key(2, "other"), digest("b"))
    found = store.look([digest("a"), digest("c"), b""])
    assert found == KeysFound({digest("a"): made}, exist=True)
    assert store.all() == [made, key(2, "other")]


def test_the_first_key_makes_the_database(store, tmp_path):
    """As a server would, with its mode; reading makes none."""
    assert not store.is_there
    for read in (store.all, lambda: store.look([b""]), lambda: store.revoke("mobile", 1)):
        with pytest.raises(StoreError, match=r"usage\.db"):
            read()
    assert list(tmp_path.iterdir()) == []
    store.add(key(), digest("a"))
    assert stat.S_IMODE((tmp_path / "usage.db").stat().st_mode) == 0o600
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_without_keys_says_so(store, tmp_path):
    """Also one that an older version made."""
    server = SqliteStore(tmp_path / "usage.db")
    server.open()
    assert (store.all(), store.look([digest("a")])) == ([], KeysFound({}, exist=False, made=False))
    server.close()
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:2])
    old = KeyStore(tmp_path / "old.db")
    assert (old.all(), old.revoke("mobile", 1)) == ([], [])
    old.add(key(), digest("a"))
    assert old.all() == [key()]


def test_a_revoked_key_is_not_found_but_stays_in_the_list(store):
    """By name all of them, by id one; what was revoked keeps its time."""
    for number, name in ((1, "mobile"), (2, "mobile"), (3, "other")):
        store.add(key(number, name), digest(str(number)))
    assert store.revoke("key_00000001", 50) == [key(1, revoked_ns=50)]
    assert store.revoke("mobile", 60) == [key(2, revoked_ns=60)]
    assert store.revoke("mobile", 70) == store.revoke("nobody", 70) == []
    assert store.look([digest("1"), digest("2"), digest("3")]) == KeysFound({digest("3"): key(3, "other")}, exist=True)
    assert [one.revoked_ns for one in store.all()] == [50, 60, None]
    store.revoke("other", 80)
    assert store.look([b""]) == KeysFound({}, exist=False, made=True)


def test_a_running_server_and_a_command_share_the_file(store, tmp_path):
    """Neither waits for the other to end."""
    server = SqliteStore(tmp_path / "usage.db")
    server.open()
    store.add(key(), digest("a"))
    assert store.look([digest("a")]).exist
    server.close()


def test_the_same_key_cannot_be_made_twice(store):
    """A hash names one key."""
    store.add(key(), digest("a"))
    with pytest.raises(StoreError, match="UNIQUE"):
        store.add(key(2), digest("a"))


@pytest.mark.parametrize("data", [b"not a database, but a file of somebody's notes\n" * 99, b""])
def test_what_is_no_database_is_an_error(store, tmp_path, data):
    """Never an empty answer: a key that cannot be looked up is not an unknown one."""
    (tmp_path / "usage.db").write_bytes(data)
    with pytest.raises(StoreError):
        store.look([digest("a")])


@pytest.mark.parametrize(
    ("expires_ns", "revoked_ns", "opens"), [(None, None, True), (11, None, True), (10, None, False), (None, 1, False)]
)
def test_a_key_opens_until_its_end(expires_ns, revoked_ns, opens):
    """`expires_ns` is the first moment it does not."""
    assert key(expires_ns=expires_ns, revoked_ns=revoked_ns).opens(10) is opens
