"""Folders that end with their process: a living one's stays, a killed one's is removed at the next start."""

from __future__ import annotations

import stat
from pathlib import Path

from proxy.storage.scratch import scratch_folder


def killed(tmp_path: Path, name: str = "multi-model-proxy-x") -> Path:
    """The folder of a process that was killed."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "owner.lock").touch()
    (folder / "counter_1.db").write_bytes(b"1")
    return folder


def test_a_scratch_folder_is_private_and_ends_with_its_block(tmp_path: Path) -> None:
    """Only the user of the server can look into it; nothing of it stays."""
    with scratch_folder(tmp_path) as folder:
        (folder / "counter.db").touch()
        assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (tmp_path, 0o700)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """Its lock is free; the one of a process that runs is held."""
    dead = killed(tmp_path)
    with scratch_folder(tmp_path) as alive:
        assert not dead.exists()
        with scratch_folder(tmp_path):
            assert alive.exists()


def test_folders_that_are_not_ours_stay(tmp_path: Path) -> None:
    """Without our lock file, with another name, or behind a link."""
    (tmp_path / "multi-model-proxy-notes").mkdir()
    elsewhere = killed(tmp_path, "elsewhere")
    (tmp_path / "multi-model-proxy-link").symlink_to(elsewhere)
    with scratch_folder(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "elsewhere",
        "multi-model-proxy-link",
        "multi-model-proxy-notes",
    ]
    assert len(list(elsewhere.iterdir())) == 2
