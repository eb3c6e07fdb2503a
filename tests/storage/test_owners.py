"""Owner locks: alive while held, dead when free, and never taken over."""

from __future__ import annotations

import shutil
import stat
import threading
from pathlib import Path

import pytest

from proxy.storage.owners import LEASE_S, Owners

NOW_NS = 1_800_000_000_000_000_000


def test_an_owner_is_dead_once_its_lock_is_free(tmp_path: Path) -> None:
    """Held: alive. Given up: dead, and the file is gone."""
    one, other = Owners(tmp_path / "x.db"), Owners(tmp_path / "x.db")
    owner = one.enter()
    other.enter()
    assert other.lock_files() == {owner}
    with other.dead(owner, None, NOW_NS) as is_dead:
        assert not is_dead
    assert other.lock_files() == {owner}
    one.leave()
    with other.dead(owner, None, NOW_NS) as is_dead:
        assert is_dead


def test_the_lock_file_of_a_dead_owner_is_removed_after_its_calls_are_swept(tmp_path: Path) -> None:
    """A sweep that fails leaves the file for the next one."""
    owners = Owners(tmp_path / "x.db")
    owners.enter()
    (owners.directory / "gone.lock").touch()
    try:
        with owners.dead("gone", None, NOW_NS) as is_dead:
            assert is_dead
            raise OSError("disk full")
    except OSError:
        assert owners.lock_files() == {"gone"}
    with owners.dead("gone", None, NOW_NS) as is_dead:
        assert is_dead
    assert owners.lock_files() == set()


def test_two_sweepers_do_not_both_take_a_dead_owner(tmp_path: Path) -> None:
    """The second finds the lock held and leaves the owner to the first."""
    first, second = Owners(tmp_path / "x.db"), Owners(tmp_path / "x.db")
    first.enter()
    (first.directory / "gone.lock").touch()
    with first.dead("gone", None, NOW_NS) as taken, second.dead("gone", None, NOW_NS) as also:
        assert (taken, also) == (True, False)


def test_a_lock_file_is_locked_before_it_has_a_name(tmp_path: Path) -> None:
    """A sweeper that looks all the time never finds a living owner's file unlocked, made or made anew."""
    sweeper, stop = Owners(tmp_path / "x.db"), threading.Event()
    living: set[str] = set()
    robbed: list[str] = []
    sweeper.enter()

    def sweep() -> None:
        while not stop.is_set():
            for owner in sweeper.lock_files():
                with sweeper.dead(owner, NOW_NS, NOW_NS) as is_dead:
                    if is_dead and owner in living:
                        robbed.append(owner)

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for _ in range(300):
            owners = Owners(tmp_path / "x.db")
            living.add(owners.enter())
            path = owners.directory / (owners.id + ".lock")
            assert path.exists()
            path.unlink()
            owners.hold()
            assert path.exists()
            living.remove(owners.id)
            owners.leave()
    finally:
        stop.set()
        thread.join()
    assert robbed == []


def test_without_a_lock_file_an_owner_lives_as_long_as_its_lease(tmp_path: Path) -> None:
    """It may be one that reaches the database by another name, or whose file somebody deleted."""
    owners = Owners(tmp_path / "x.db")
    owners.enter()
    for age_s, expected in ((0, False), (LEASE_S - 1, False), (LEASE_S + 1, True)):
        with owners.dead("elsewhere", NOW_NS - round(age_s * 1e9), NOW_NS) as is_dead:
            assert is_dead is expected
    with owners.dead("nobody", None, NOW_NS) as is_dead:
        assert is_dead


def test_a_free_lock_is_a_dead_owner_whatever_its_lease(tmp_path: Path) -> None:
    """After kill -9 nobody waits for a lease to run out."""
    owners = Owners(tmp_path / "x.db")
    owners.enter()
    (owners.directory / "killed.lock").touch()
    with owners.dead("killed", NOW_NS, NOW_NS) as is_dead:
        assert is_dead


@pytest.mark.parametrize("how", ["file", "folder", "replaced"])
def test_a_lock_file_that_is_gone_is_made_anew(tmp_path: Path, how: str) -> None:
    """A cleaner, or a backup tool: from the next write on others see again that the owner lives."""
    one, other = Owners(tmp_path / "x.db"), Owners(tmp_path / "x.db")
    path = one.directory / (one.enter() + ".lock")
    if how == "folder":
        shutil.rmtree(one.directory)
    else:
        path.unlink()
    if how == "replaced":
        path.touch()
    one.hold()
    other.enter()
    with other.dead(one.id, None, NOW_NS) as is_dead:
        assert not is_dead
    one.leave()
    with other.dead(one.id, None, NOW_NS) as is_dead:
        assert is_dead


def test_lock_files_are_private(tmp_path: Path) -> None:
    """Only the user of the server can read or hold them."""
    owners = Owners(tmp_path / "x.db")
    path = owners.directory / (owners.enter() + ".lock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(owners.directory.stat().st_mode) == 0o700
