"""Orchestrates: reloads both configuration files while the server runs.

A valid configuration replaces the running one as a whole. An invalid one changes nothing; the error goes to the log, to
`/health` and to the caller that requested the reload.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs
from structlog.typing import FilteringBoundLogger

from proxy.config import Config, ConfigError
from proxy.config.source import ConfigFiles
from proxy.config.watch import changes, file_states
from proxy.schema.daemon_thread import DaemonThread
from proxy.schema.errors import ProxyError
from proxy.server.swap import ConfigState, Reloaded

FILES_S = 10.0  # how long the files are waited for
RETRY_S = 0.3  # a file may be missing, empty or truncated while it is being saved
MAX_PROBLEMS = 20
_MAX_TRIES = 5
T = TypeVar("T")
_NEXT_START = "takes effect at the next start"


class Reloads:
    """Reloads `files` (None: nothing to reload). `start` is the configuration the server was started with.

    `swap` makes another configuration current. It raises ConfigError, and changes nothing, if it cannot.
    `prepare` is called before, on the thread for files, and reads those that a configuration names. `unchanged` is
    called instead if the files are the same, but were saved or a reload was requested.
    """

    def __init__(
        self,
        files: ConfigFiles | None,
        start: Config,
        swap: Callable[[Config], None],
        log: FilteringBoundLogger,
        files_s: float = FILES_S,
    ) -> None:
        self.state = ConfigState(config_version=start.version, config_loaded_at=time.time())
        self._files = files
        self._start = start
        self._swap = swap
        self.prepare: Callable[[Config], None] = lambda config: None
        self.unchanged: Callable[[], None] = lambda: None
        self._log = log
        self.at_restart: list[str] = []
        self._thread = DaemonThread("config-files", files_s)
        self._files_s = files_s
        self._is_unread = False
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def reload(self, is_new: bool = True) -> Reloaded:
        """Loads and runs the files. Errors in them are returned, never raised. `is_new` False: only a check."""
        async with self._one_at_a_time:
            try:
                config = await self._read()
                if config is not None:
                    await self._run(config)
                else:
                    if is_new:
                        self.unchanged()
                    if self.state.config_error is not None:
                        self._log.info("config_right_again", config=self.state.config_version)
            except ConfigError as error:
                return self._refuse(_summary(error))
            except TimeoutError:
                return self._refuse(f"the files could not be read within {self._files_s:g} s")
            except Exception:  # a bug must not stop later reloads: the current configuration keeps running
                self._log.exception("config_reload_failed")
                return self._refuse("internal error while reading the files; see the server's log for details")
            self.state.config_error = None
            return Reloaded(self.state.config_version, config is not None, None, self.at_restart)

    async def off_loop(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs work that reads the files, on the thread for files. Raises ProxyError 503 if it takes too long."""
        try:
            return await self._thread.run(work, *arguments)
        except TimeoutError:
            raise ProxyError(
                f"The files could not be read within {self._files_s:g} s.", status=503, code="overloaded"
            ) from None

    def soon(self) -> None:
        """Requests a reload; safe from a signal handler or any thread. Requests during a reload cause one more."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked.set)

    async def follow_files(self, busy: Path | None = None) -> None:
        """Reloads whenever the files change, until cancelled. `busy`: the directory of the database."""
        is_new = False  # the first check is that of the start
        while self._files is not None:
            try:
                async for _ in changes(self._files.watched, self._thread, busy):
                    self._note_unread(False)
                    await self.reload(is_new)
                    is_new = True
            except TimeoutError:  # the file system or a reader hangs: check again
                self._note_unread(True)

    def _note_unread(self, is_unread: bool) -> None:
        if is_unread and not self._is_unread:
            self._log.warning("config_files_unread", after_s=self._files_s)
        elif self._is_unread and not is_unread:
            self._log.info("config_files_read_again")
        self._is_unread = is_unread

    async def follow_requests(self) -> None:
        """Reloads after each call of `soon`, until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                await self.reload()
        finally:
            self._loop = None

    async def _read(self) -> Config | None:
        """The configuration in the files; None if it is already running. Raises ConfigError if the error persists."""
        if self._files is None:
            return None
        for last in range(_MAX_TRIES, 0, -1):
            before = await self._thread.run(file_states, self._files.watched)
            try:
                return await self._thread.run(self._files.load_changed, self.state.config_version)
            except ConfigError:
                await asyncio.sleep(RETRY_S)
                if last == 1 or await self._thread.run(file_states, self._files.watched) == before:
                    raise
        return None

    async def _run(self, config: Config) -> None:
        kept, at_restart = carry_over(self._start, config)
        await self._thread.run(self.prepare, kept)
        self._swap(kept)
        before, self.state.config_version = self.state.config_version, config.version
        self.state.config_loaded_at = time.time()
        self.state.reloads += 1
        self.at_restart = at_restart
        self._log.info("config_reloaded", config=config.version, before=before, at_restart=at_restart)

    def _refuse(self, error: str) -> Reloaded:
        self.state.config_error = error
        self.state.refused += 1
        self._log.error("config_refused", config=self.state.config_version, error=error)
        return Reloaded(self.state.config_version, False, error, self.at_restart)


def _summary(error: ConfigError) -> str:
    """One line per problem, up to MAX_PROBLEMS."""
    lines = [str(problem) for problem in error.problems]
    more = len(lines) - MAX_PROBLEMS
    return "\n".join(
        [*lines[:MAX_PROBLEMS], f"... and {more} more: `proxy check` lists them all"] if more > 0 else lines
    )


def carry_over(start: Config, loaded: Config) -> tuple[Config, list[str]]:
    """`loaded` with the startup values of settings that need a restart, and one line for each such change."""
    lines = [
        f"{section}.{name}: {_NEXT_START}"
        for section in ("server", "storage")
        for name, value in structs.asdict(getattr(start, section)).items()
        if getattr(getattr(loaded, section), name) != value
    ]
    providers, disabled = dict(loaded.providers), dict(loaded.disabled)
    runs = {name: provider for name, provider in start.providers.items() if name not in start.disabled}
    for name, provider in loaded.providers.items():
        started = runs.get(name)
        has, had = provider.local_model, started.local_model if started else None
        if has is None or has == had or name in disabled:
            continue
        lines.append(f"providers.{name}: the embedded model {_NEXT_START}")
        if started is not None and had is not None:
            providers[name] = started
        else:
            disabled[name] = f"the embedded model {_NEXT_START}"
    for name, started in runs.items():
        gone = name in disabled or name not in providers or providers[name].local_model is None
        if started.local_model is not None and gone:
            lines.append(f"providers.{name}: off; the embedded model's process runs until the server stops")
    config = structs.replace(loaded, server=start.server, storage=start.storage, providers=providers, disabled=disabled)
    return config, lines
