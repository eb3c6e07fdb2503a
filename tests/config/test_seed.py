"""An empty volume gets the two shipped files, once; nothing that is there is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import ConfigError, load, seed

ROOT = Path(__file__).parents[2]
NAMES = ("routing_rules.yaml", "pricing.yaml")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_an_empty_volume_gets_both_files(volume: Path) -> None:
    """They are the shipped ones, can be loaded, and are not written again."""
    assert seed(volume, volume) == [volume / name for name in NAMES]
    assert [(volume / name).read_bytes() for name in NAMES] == [(ROOT / name).read_bytes() for name in NAMES]
    assert sorted(path.name for path in volume.iterdir()) == sorted(NAMES)
    load(volume / "routing_rules.yaml", volume / "pricing.yaml", {})
    assert seed(volume, volume) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_volume_with_a_file_is_left_alone(volume: Path, name: str) -> None:
    """Who brings one file means the other to come with the product, and to be renewed with it."""
    (volume / name).write_text("mine")
    assert seed(volume, volume) == []
    assert [path.name for path in volume.iterdir()] == [name]
    assert (volume / name).read_text() == "mine"


def test_a_database_does_not_count(volume: Path) -> None:
    """The files come also where a server ran before without them."""
    (volume / "proxy.db").touch()
    assert seed(volume, volume) == [volume / name for name in NAMES]


def test_files_in_the_working_directory_are_meant(volume: Path, tmp_path: Path) -> None:
    """A folder called /data on somebody's machine must not take over from the files that lie there."""
    (tmp_path / "routing_rules.yaml").touch()
    assert seed(tmp_path, volume) == []
    assert list(volume.iterdir()) == []


def test_without_a_volume_nothing_happens(tmp_path: Path) -> None:
    """Most machines have none."""
    assert seed(tmp_path, tmp_path / "none") == []


def test_a_volume_that_fails_is_said(volume: Path) -> None:
    """One problem with the path; no half file is left."""
    for name in NAMES:
        (volume / name).symlink_to("/proc/no/such/place")
    with pytest.raises(ConfigError, match="cannot be written"):
        seed(volume, volume)
