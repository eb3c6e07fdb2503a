"""Orchestrates: the application inside another program: no socket, no output, and one embedded model for the whole
process, however many applications there are.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from proxy.config import Config
from proxy.config.namespace import enabled
from proxy.schema.records import Caller, Endpoint, LocalModelSpec
from proxy.server.app import Application
from proxy.server.auth import Auth
from proxy.storage.scratch import scratch_folder
from proxy.upstream.local_model import LocalModel, LocalModelBroker, RemoteLocalModel
from proxy.upstream.local_model.model import LocalModelState

CALLER = "python"  # the name of the program's key in rows, and in `keys`, `rate_limits.per_key` and `budget.per_key`
LOGGER = "proxy"  # a standard library logger for warnings, silent until a handler is added
_MODEL = "model"


@asynccontextmanager
async def embedded(config: Config) -> AsyncGenerator[Any, None]:
    """The ASGI application, running until the end of the block. Raises StoreError if its database cannot be used."""
    log = program_log()
    specs = {name: provider.local_model for name, provider in enabled(config).items()}
    build = partial(LocalModel, log=log)
    models = {name: SharedModel(spec, build) for name, spec in specs.items() if spec is not None}
    application = _Guest(config, models, _Inside(None, None), log)
    try:
        for model in models.values():
            if model.spec.start == "at_start":
                await model.acquire()
        async with _lifespan(application.asgi):
            yield application.asgi
    finally:
        for model in models.values():
            await model.release()


class _Guest(Application):
    """An application that does not own the process's server, if there is one."""

    def _end(self) -> None:
        self.has_failed = True


class _Inside(Auth):
    """Only the program itself can reach the application."""

    async def identify(self, headers: Mapping[str, str], address: str = "") -> Caller:
        return Caller(CALLER, admin=True)


@asynccontextmanager
async def _lifespan(app: Any) -> AsyncGenerator[None, None]:
    """Starts and stops an ASGI application. One task runs the whole lifespan, as frameworks expect."""
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def receive() -> dict[str, str]:
        return await inbox.get()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.set_result(None)

    async def live() -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        await app(scope, receive, send)

    inbox.put_nowait({"type": "lifespan.startup"})
    task = asyncio.create_task(live())
    try:
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            raise _reason(task.exception()) or RuntimeError("the application did not start")
        yield
    finally:
        inbox.put_nowait({"type": "lifespan.shutdown"})
        if not started.done():
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and started.done():
            task.result()


def _reason(error: BaseException | None) -> BaseException | None:
    """The original error, without the groups that the framework's task group wraps around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


# --- the embedded model -----------------------------------------------------------------------------------------------


class _Running:
    """One model and the thread that owns its process; `users` counts its applications."""

    def __init__(self, model: LocalModel) -> None:
        self.users = 0
        with ExitStack() as stack:
            folder = stack.enter_context(scratch_folder())
            self.path = str(folder / "model.sock")
            broker = LocalModelBroker({_MODEL: model}, self.path)
            broker.start()
            stack.callback(broker.stop)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        self._stack.close()


_running: dict[LocalModelSpec, _Running] = {}  # of this process: a second child would use as much memory again
_changing = threading.Lock()


class SharedModel(RemoteLocalModel):
    """One application's hold on a model of this process. The first use starts it, the last `release` stops it."""

    def __init__(self, spec: LocalModelSpec, build: Callable[[LocalModelSpec], LocalModel]) -> None:
        super().__init__("", _MODEL)
        self.spec = spec
        self._build = build
        self._has = False

    async def endpoint(self) -> Endpoint:
        await self.acquire()
        return await super().endpoint()

    async def state(self) -> LocalModelState:
        if not self._has:
            return LocalModelState("not started")
        return await super().state()

    async def acquire(self) -> None:
        """Starts the model if needed. Raises OSError if no folder or thread is available."""
        if not self._has:
            await asyncio.to_thread(self._acquire)

    async def release(self) -> None:
        """Returns once the process is gone, if this was its last user."""
        if self._has:
            await asyncio.to_thread(self._release)

    def _acquire(self) -> None:
        with _changing:
            if self._has:
                return
            running = _running.get(self.spec) or _Running(self._build(self.spec))
            running.users += 1
            _running[self.spec] = running
            self._path, self._has = running.path, True

    def _release(self) -> None:
        with _changing:
            if not self._has:
                return
            self._has = False
            running = _running[self.spec]
            running.users -= 1
            if not running.users:
                del _running[self.spec]
                running.stop()


# --- the log ----------------------------------------------------------------------------------------------------------


def program_log() -> FilteringBoundLogger:
    """A log for a library: neither structlog's settings nor the root logger's are touched, and nothing is printed."""
    target = logging.getLogger(LOGGER)
    if not target.handlers:
        target.addHandler(logging.NullHandler())
        target.propagate = False
    log: FilteringBoundLogger = structlog.wrap_logger(
        target, processors=[_line], wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING)
    )
    return log


def _line(_: WrappedLogger, __: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """`event name=value ...`; a traceback as the standard library writes it."""
    exc_info = event.pop("exc_info", None)
    fields = {**event.pop("fields", {}), **event}
    text = " ".join([str(fields.pop("event", "")), *(f"{name}={value!r}" for name, value in fields.items())])
    return (text,), {"exc_info": exc_info}
