"""Performs I/O: stores each configuration that the server begins to run, so that a rollback is possible."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from proxy.config import Config, ConfigError, Source
from proxy.config.load import version_of
from proxy.config.source import ConfigFiles
from proxy.schema.daemon_thread import DaemonThread
from proxy.server.reload import FILES_S
from proxy.storage.base import StoreError
from proxy.storage.configurations import ConfigStore, StoredConfig
from proxy.storage.sqlite import sqlite_path

_MAX_TRIES = 10
_RETRY_S = 0.5


class History:
    """The versions of `files` (None: there are none). `running` returns the version that runs.

    A failure is logged and never ends the server: without it only the history is incomplete.
    """

    def __init__(
        self, files: ConfigFiles | None, start: Config, running: Callable[[], str], log: FilteringBoundLogger
    ) -> None:
        self._files = files
        self._running = running
        self._log = log
        self._url = start.storage.url
        self._asked = asyncio.Event()
        self._thread = DaemonThread("config-history", FILES_S)

    def soon(self) -> None:
        """Another version runs; `follow` stores it."""
        self._asked.set()

    async def follow(self) -> None:
        """Stores the running version after each call of `soon`, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            for _ in range(_MAX_TRIES):  # an editor may be writing the files again, or a backup may hold the database
                if await self.keep() or self._asked.is_set():
                    break
                await asyncio.sleep(_RETRY_S)

    async def keep(self) -> bool:
        """Stores the running version. False: it failed."""
        try:
            return await self._thread.run(self._keep, self._running())
        except (ConfigError, StoreError, TimeoutError) as error:
            self._log.warning("config_not_kept", error=str(error) or "the files or the database do not answer")
            return False

    def _keep(self, version: str) -> bool:
        """Stores the version. Files that changed again are left to the next reload: only running versions count."""
        if self._files is None:
            return True
        routing, *rest = self._files.texts()
        if version_of(routing, *rest) != version:
            return False
        kept = StoredConfig(version, time.time_ns(), routing, rest[0] if rest else None)
        ConfigStore(sqlite_path(self._url)).keep(kept)
        return True


def keep_files(files: ConfigFiles, store: ConfigStore) -> str | None:
    """Stores the current files, so that no edit is lost; returns their version.

    None: there are none, or they do not load. A key pasted into a file by mistake, which is one reason why it does not
    load, must not stay in the database.
    """
    try:
        texts = files.texts()
        files.tried(*(Source(str(path), text) for path, text in zip(files.paths, texts, strict=True)))
    except ConfigError:
        return None
    version = version_of(*texts)
    store.keep(StoredConfig(version, None, *texts, *([None] if len(texts) < 2 else [])))
    return version
