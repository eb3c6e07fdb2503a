"""However a file is changed, it is told; and only then."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.config.watch import changes
from proxy.schema.daemon_thread import DaemonThread

SOON_S = 10.0  # a limit for broken code, not a wait
LOOKED_S = 0.1


class Told:
    """How often a change was told."""

    def __init__(self) -> None:
        self.times = 0
        self._told = asyncio.Event()

    def note(self) -> None:
        self.times += 1
        self._told.set()

    async def next(self) -> bool:
        """Whether it is told once more than at the last call. Waits for it, and a little longer.

        By then the next look has been taken, so what a test does from here on is seen only if it is told.
        """
        try:
            async with asyncio.timeout(SOON_S):
                await self._told.wait()
        except TimeoutError:
            return False
        self._told.clear()
        await asyncio.sleep(LOOKED_S)
        return True


@asynccontextmanager
async def watching(
    *paths: Path, busy: Path | None = None, poll_s: float = 60.0, quiet_s: float = 0.05
) -> AsyncIterator[Told]:
    """Past what comes at once, and looking. With `poll_s` of a minute only the system's word can be what wakes it."""
    told = Told()

    async def watch() -> None:
        async for _ in changes(paths, DaemonThread("files"), busy, poll_s=poll_s, quiet_s=quiet_s):
            told.note()

    task = asyncio.create_task(watch())
    try:
        assert await told.next()
        yield told
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "routing_rules.yaml"
    path.parent.mkdir()
    path.write_text("version: 1\n")
    return path


def write_in_place(path: Path) -> None:
    path.write_text("version: 1 # changed\n")


def save_atomically(path: Path) -> None:
    """As editors do: a new file, renamed over the old one."""
    other = path.with_suffix(".swp")
    other.write_text("version: 1 # renamed\n")
    other.replace(path)


def rename_away_and_back(path: Path) -> None:
    """As vim does with a backup: the old file moves away, a new one is written."""
    path.rename(path.with_suffix(".yaml~"))
    path.write_text("version: 1 # written anew\n")


def same_size_same_time(path: Path) -> None:
    """As `cp --preserve` does: neither size nor time of change tells."""
    before = path.stat()
    path.write_text("version: 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def delete(path: Path) -> None:
    path.unlink()


WAYS = [write_in_place, save_atomically, rename_away_and_back, same_size_same_time, delete]


@pytest.mark.parametrize("change", WAYS, ids=lambda way: way.__name__)
@pytest.mark.sampled(3)
async def test_every_way_to_save_a_file_is_told(file: Path, change: Callable[[Path], None]) -> None:
    """By the system, at once: the look every minute has no part in it."""
    async with watching(file) as told:
        change(file)
        assert await told.next()


@pytest.mark.parametrize("change", WAYS, ids=lambda way: way.__name__)
@pytest.mark.sampled(3)
async def test_beside_the_database_too(file: Path, change: Callable[[Path], None]) -> None:
    """There the file itself is watched; and the one that took its place."""
    async with watching(file, busy=file.parent) as told:
        change(file)
        assert await told.next()
        if change is not delete:
            write_in_place(file)
            assert await told.next()


async def test_a_link_beside_the_database_is_seen_by_looking(file: Path, tmp_path: Path) -> None:
    """The file that it led to is untouched."""
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    other = tmp_path / "other.yaml"
    other.write_text("version: 1\n")
    async with watching(link, busy=tmp_path, poll_s=0.1) as told:
        (tmp_path / "tmp").symlink_to(other)
        (tmp_path / "tmp").rename(link)
        assert await told.next()


async def test_the_first_comes_at_once(file: Path) -> None:
    """What happened between reading the file and watching it must not be missed."""
    async with watching(file) as told:
        assert told.times == 1


async def test_a_file_that_appears_is_told(tmp_path: Path) -> None:
    """It may be away for as long as it likes."""
    async with watching(tmp_path / "routing_rules.yaml") as told:
        (tmp_path / "routing_rules.yaml").write_text("version: 1\n")
        assert await told.next()


async def test_either_file_counts(file: Path, tmp_path: Path) -> None:
    """They may lie in different directories."""
    other = tmp_path / "pricing.yaml"
    other.write_text("version: 1\n")
    async with watching(file, other) as told:
        write_in_place(other)
        assert await told.next()
        write_in_place(file)
        assert await told.next()


async def test_a_mounted_volume_swaps_a_link(tmp_path: Path) -> None:
    """Kubernetes: the file is a link into `..data`, itself a link to a dated directory that is replaced by a rename."""
    for day in ("..monday", "..tuesday"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "routing_rules.yaml").write_text(f"version: 1 # {day}\n")
    (tmp_path / "..data").symlink_to("..monday")
    file = tmp_path / "routing_rules.yaml"
    file.symlink_to("..data/routing_rules.yaml")
    async with watching(file) as told:
        (tmp_path / "..data_tmp").symlink_to("..tuesday")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert await told.next()
        # And the new target is the one that is watched from here on.
        write_in_place(tmp_path / "..tuesday" / "routing_rules.yaml")
        assert await told.next()


async def test_a_link_to_a_file_elsewhere_is_followed(file: Path, tmp_path: Path) -> None:
    """The directory of the target is watched too."""
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    async with watching(link) as told:
        write_in_place(file)
        assert await told.next()


async def test_a_directory_that_is_replaced_is_seen_by_looking(file: Path, tmp_path: Path) -> None:
    """No system tells that: the watched directory is untouched, only its name leads elsewhere. Then it is watched."""
    async with watching(file, poll_s=0.1) as told:
        shutil.copytree(file.parent, tmp_path / "new")
        (tmp_path / "new" / file.name).write_text("version: 1 # released\n")
        file.parent.rename(tmp_path / "old")
        (tmp_path / "new").rename(file.parent)
        assert await told.next()
        write_in_place(file)
        assert await told.next()


async def test_a_directory_that_is_missing_is_looked_for(tmp_path: Path) -> None:
    """A volume that is mounted late."""
    file = tmp_path / "late" / "routing_rules.yaml"
    async with watching(file, poll_s=0.05) as told:
        file.parent.mkdir()
        file.write_text("version: 1\n")
        assert await told.next()


async def test_a_link_into_nowhere_is_watched_where_it_stands(tmp_path: Path) -> None:
    """A volume that is half replaced: its own directory still tells at once."""
    (tmp_path / "there.yaml").write_text("version: 1\n")
    file = tmp_path / "routing_rules.yaml"
    file.symlink_to("..nowhere/routing_rules.yaml")
    async with watching(file) as told:
        (tmp_path / "tmp").symlink_to("there.yaml")
        (tmp_path / "tmp").rename(file)
        assert await told.next()


async def test_links_in_a_circle_end_nothing(tmp_path: Path) -> None:
    """Until somebody mends them."""
    file = tmp_path / "routing_rules.yaml"
    file.symlink_to(file)
    async with watching(file, poll_s=0.05) as told:
        file.unlink()
        file.write_text("version: 1\n")
        assert await told.next()


async def test_one_save_in_many_writes_is_told_once(file: Path) -> None:
    """What is told has come to rest."""
    async with watching(file, quiet_s=0.3) as told:
        with file.open("w") as writing:
            for line in range(10):
                writing.write(f"# {line}\n")
                writing.flush()
                await asyncio.sleep(0.02)
        assert await told.next()
        assert told.times == 2


async def test_other_files_beside_it_are_not_told(file: Path) -> None:
    """The database lies there too, and is written all the time."""
    async with watching(file) as told:
        for turn in range(20):
            (file.parent / "proxy.db-wal").write_text(str(turn))
            await asyncio.sleep(0.02)
        write_in_place(file)
        assert await told.next()
        assert told.times == 2
