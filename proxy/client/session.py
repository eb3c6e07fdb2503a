"""Performs I/O: owns the client's resources: the connections to a server, or a whole proxy in this process.

Both live in a task of the event loop that uses them. `close`, the end of the client object and the end of the loop
(`asyncio.run` cancels its tasks) close them; another loop opens them anew.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from proxy import __version__
from proxy.client.errors import MultiModelError, SettingsError
from proxy.client.in_process import InProcessTransport

if TYPE_CHECKING:
    from proxy.client.settings import APISettings

CONNECT_S = 10.0
IN_PROCESS = "http://localhost/v1"  # an address that is never looked up
Opened = Callable[[], AbstractAsyncContextManager[httpx.AsyncClient]]
_INSIDE = ("proxy.client.settings_file", "proxy.server.embedded", "proxy.storage.base")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_tasks: set[asyncio.Task[None]] = set()  # a loop holds its tasks only weakly


class Session:
    """Opens at the first use. Its methods may be called from several tasks of one loop at once."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._life: _Life | None = None
        self._end: weakref.finalize[[], Session] | None = None

    async def client(self) -> httpx.AsyncClient:
        """The client of this loop. Raises MultiModelError if it cannot be opened."""
        life = self._life
        if life is None or life.is_over:
            life = self._life = _Life(self._opened)
            if self._end is not None:
                self._end.detach()
            self._end = weakref.finalize(self, life.end)
            self._end.atexit = False
        return await asyncio.shield(life.client)

    async def close(self) -> None:
        """Returns once everything is closed. May be called again; a later use opens anew."""
        life, self._life = self._life, None
        if life is not None:
            life.end()
            if life.is_of_this_loop:
                await asyncio.wait([life.task])


class _Life:
    """The resources of one event loop."""

    def __init__(self, opened: Opened) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self.client: asyncio.Future[httpx.AsyncClient] = self._loop.create_future()
        self.client.add_done_callback(lambda opened: opened.exception())  # retrieved, even if no caller waits for it
        self.task = self._loop.create_task(self._live(opened), name="multi-model-api")
        _tasks.add(self.task)
        self.task.add_done_callback(_tasks.discard)

    @property
    def is_of_this_loop(self) -> bool:
        return self._loop is asyncio.get_running_loop()

    @property
    def is_over(self) -> bool:
        return self.task.done() or self._ending.is_set() or not self.is_of_this_loop

    def end(self) -> None:
        """Safe from any thread."""
        with suppress(RuntimeError):  # the loop is closed, and these resources with it
            self._loop.call_soon_threadsafe(self._ending.set)

    async def _live(self, opened: Opened) -> None:
        try:
            async with opened() as client:
                if not self.client.done():
                    self.client.set_result(client)
                await self._ending.wait()
        except Exception as error:
            if self.client.done():
                raise
            self.client.set_exception(error)
        finally:
            if not self.client.done():
                self.client.set_exception(MultiModelError("The client was closed while it was being opened."))


@asynccontextmanager
async def to_server(
    base_url: str, headers: dict[str, str], timeout_s: float
) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Connections to a server. Those to this machine use no HTTP proxy of the environment."""
    async with httpx.AsyncClient(
        base_url=base_url,
        headers=headers,
        timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s), pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        trust_env=(urlsplit(base_url).hostname or "") not in _LOOPBACK,
    ) as client:
        yield client


@asynccontextmanager
async def to_this_process(settings: APISettings, timeout_s: float) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A proxy of its own. Raises SettingsError, or MultiModelError if its database cannot be used."""
    # A client of a server needs none of these modules, which take a second to load.
    loaded = await asyncio.to_thread(lambda: [import_module(name) for name in _INSIDE])
    settings_file, embedded, storage = loaded
    config = await asyncio.to_thread(settings_file.configured, settings, os.environ)
    try:
        async with embedded.embedded(config) as app:
            transport = InProcessTransport(app)
            headers = {"user-agent": user_agent()}
            async with httpx.AsyncClient(
                base_url=IN_PROCESS, headers=headers, timeout=timeout_s, transport=transport, trust_env=False
            ) as client:
                if settings.prompt_templates:
                    answer = await client.post("prompts/import", content=settings_file.prompt_file(settings))
                    if answer.is_error:
                        raise SettingsError(f"prompt_templates: {answer.json()['error']['message']}")
                yield client
    except storage.StoreError as error:
        raise MultiModelError(f"{error} Set `sections={{'storage': {{'url': 'sqlite:///FILE'}}}}`.") from error


def user_agent() -> str:
    return f"multi-model-proxy-python/{__version__}"
