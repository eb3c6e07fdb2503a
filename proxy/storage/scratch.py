"""Performs I/O: a temporary folder per process. Folders of killed processes are removed at the next start.

A lock in the folder shows whether its process is alive, as in `owners`. Only folders with that lock file are removed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proxy.storage.owners import is_same_file, take_lock

_PREFIX = "multi-model-proxy-"
_LOCK = "owner.lock"


@contextmanager
def scratch_folder(place: Path | None = None) -> Iterator[Path]:
    """A folder that only this user can enter. `place` None: in the system's temporary directory. Raises OSError."""
    place = place or Path(tempfile.gettempdir())
    _sweep(place)
    folder, lock = _own_folder(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # leftovers are removed at the next start
        os.close(lock)


def _own_folder(place: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        path = folder / _LOCK
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        # A sweep may have run between creation and locking: then use another folder.
        if take_lock(lock) and is_same_file(lock, path):
            return folder, lock
        os.close(lock)


def _sweep(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # without a lock file, or just removed
            if folder.lstat().st_uid == os.geteuid():
                _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if take_lock(lock):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
