"""The configurations that servers have run are stored whole, each version once."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.storage.base import StoreError
from proxy.storage.configurations import MAX_VERSIONS, ConfigStore, StoredConfig
from proxy.storage.sqlite import SqliteStore
from tests.storage.samples import rows


def version(name: str, applied_ns: int | None = 1, pricing: bytes | None = b"prices") -> StoredConfig:
    return StoredConfig(name, applied_ns, f"routing of {name}\n".encode(), pricing)


@pytest.fixture
def store(tmp_path: Path) -> ConfigStore:
    database = SqliteStore(tmp_path / "usage.db")
    database.open()
    database.close()
    return ConfigStore(tmp_path / "usage.db")


def test_versions_come_back_the_latest_first(store: ConfigStore) -> None:
    """Byte for byte, with and without prices."""
    kept = [version("a", 3), version("b", 5, None), version("c", 4)]
    for each in kept:
        store.keep(each)
    assert store.all() == [kept[1], kept[2], kept[0]]


def test_a_version_that_runs_again_is_the_latest(store: ConfigStore) -> None:
    """It is stored once."""
    for each in (version("a", 1), version("b", 2), version("a", 3)):
        store.keep(each)
    assert [(each.version, each.applied_ns) for each in store.all()] == [("a", 3), ("b", 2)]


def test_files_that_never_ran_are_kept_too(store: ConfigStore) -> None:
    """And do not hide that they once did."""
    store.keep(version("edited", None))
    store.keep(version("a", 7))
    store.keep(version("a", None))
    assert [(each.version, each.applied_ns) for each in store.all()] == [("a", 7), ("edited", None)]


def test_the_first_digits_find_a_version(store: ConfigStore) -> None:
    """Text with the signs of LIKE finds nothing."""
    for name in ("abc1", "abd2", "b%_3"):
        store.keep(version(name))
    assert [each.version for each in store.find("ab")] == ["abc1", "abd2"]
    assert [each.version for each in store.find("b%")] == ["b%_3"]
    assert store.find("%") == []


def test_the_oldest_versions_go(store: ConfigStore, tmp_path: Path) -> None:
    """Never the one that is being kept."""
    for place in range(MAX_VERSIONS + 3):
        store.keep(version(f"v{place}", place + 1))
    store.keep(version("new", None))
    found = {row["version"] for row in rows(tmp_path / "usage.db", "SELECT version FROM configurations")}
    assert {"new", f"v{MAX_VERSIONS + 2}"} <= found
    assert "v0" not in found and len(found) <= MAX_VERSIONS + 1


def test_without_a_database_nothing_is_created(tmp_path: Path) -> None:
    """Neither by reading nor by writing."""
    store = ConfigStore(tmp_path / "none.db")
    for act in (store.all, lambda: store.find("a"), lambda: store.keep(version("a"))):
        with pytest.raises(StoreError, match=r"none\.db"):
            act()
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    """Reading it is no error."""
    (tmp_path / "old.db").touch()
    assert ConfigStore(tmp_path / "old.db").all() == []
