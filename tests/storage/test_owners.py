"""Owner locks: alive while held, dead when free, and never taken over."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

from proxy.storage.owners import Owners


def test_an_owner_is_dead_once_its_lock_is_free(tmp_path: Path) -> None:
    """Held: alive. Given up: dead, and the file is gone."""
    one, other = Owners(tmp_path / "x.db"), Owners(tmp_path / "x.db")
    owner = one.enter()
    other.enter()
    assert other.lock_files() == {owner}
    with other.dead(owner) as is_dead:
        assert not is_dead
    assert other.lock_files() == {owner}
    one.leave()
    with other.dead(owner) as is_dead:
        assert is_dead


def test_the_lock_file_of_a_dead_owner_is_removed_after_its_calls_are_swept(tmp_path: Path) -> None:
    """A sweep that fails leaves the file for the next one."""
    owners = Owners(tmp_path / "x.db")
    owners.enter()
    (owners.directory / "gone.lock").touch()
    try:
        with owners.dead("gone") as is_dead:
            assert is_dead
            raise OSError("disk full")
    except OSError:
        assert owners.lock_files() == {"gone"}
    with owners.dead("gone") as is_dead:
        assert is_dead
    assert owners.lock_files() == set()


def test_two_sweepers_do_not_both_take_a_dead_owner(tmp_path: Path) -> None:
    """The second finds the lock held and leaves the owner to the first."""
    first, second = Owners(tmp_path / "x.db"), Owners(tmp_path / "x.db")
    first.enter()
    (first.directory / "gone.lock").touch()
    with first.dead("gone") as taken, second.dead("gone") as also:
        assert (taken, also) == (True, False)


def test_a_new_owner_is_not_robbed_by_a_sweep_that_comes_early(tmp_path: Path) -> None:
    """Between the making of a lock file and its lock, a sweeper takes it for a dead owner's; then another is made."""
    sweeper, stop = Owners(tmp_path / "x.db"), threading.Event()
    sweeper.enter()

    def sweep() -> None:
        while not stop.is_set():
            for owner in sweeper.lock_files():
                with sweeper.dead(owner):
                    pass

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        for _ in range(300):
            owners = Owners(tmp_path / "x.db")
            path = owners.directory / (owners.enter() + ".lock")
            assert path.exists()
            owners.leave()
    finally:
        stop.set()
        thread.join()


def test_lock_files_are_private(tmp_path: Path) -> None:
    """Only the user of the server can read or hold them."""
    owners = Owners(tmp_path / "x.db")
    path = owners.directory / (owners.enter() + ".lock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(owners.directory.stat().st_mode) == 0o700
