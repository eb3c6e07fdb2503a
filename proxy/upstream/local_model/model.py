"""Performs I/O: owns the child process of the embedded model: starts it, waits for it, restarts it, ends it."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from proxy.providers.embedded import model_id
from proxy.schema.errors import UpstreamUnavailable
from proxy.schema.records import Endpoint, LocalModelSpec, Secret
from proxy.upstream.local_model.process import Child
from proxy.upstream.local_model.weights import FindSpec, find_weights, what_is_missing

# By path and with -P instead of -m: so the child imports neither this package nor files in the working directory.
CHILD_COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("child.py")))

# Requests answered at the same time; more of them wait in the child, first come, first served. Measured on two cores:
# four callers at once get 139 tokens/s together and first words within 0.6 s, one after the other 105 tokens/s and
# first words after 3 s. Each slot holds a whole context: 45 MB for the default weights (November 2026).
SLOTS = 4

_LOADING_RETRY_AFTER_S = 2.0


class Backoff(Struct, frozen=True):
    """The back-off before a restart, in seconds: none the first time, then doubling from `first_s` to `cap_s`.

    A child that served for `healthy_s` resets it.
    """

    first_s: float = 0.5
    cap_s: float = 30.0
    healthy_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """The delay after this many deaths in a row."""
        if failures <= 1:
            return 0.0
        return float(min(self.cap_s, self.first_s * 2 ** min(failures - 2, 30)))


class LocalModelState(Struct, frozen=True):
    """For `/health`. `state`: not started, starting, running or failing; `why` may be shown to callers."""

    state: str
    why: str | None = None


class _Report(Struct, frozen=True):
    """The child's only report: the port it serves, or why it cannot."""

    port: int | None = None
    error: str | None = None


def unavailable(message: str, *, retry_after_s: float | None = None) -> UpstreamUnavailable:
    """A 503 with its retry-after, in seconds. Its caller has already waited for the model and need not wait again."""
    error = UpstreamUnavailable(message, retryable=False)
    if retry_after_s is not None:
        error.retry_after_s = retry_after_s
        error.headers["retry-after"] = str(max(1, math.ceil(retry_after_s)))
    return error


class LocalModel:
    """One model served by one child process. All methods belong to one event loop; making one starts nothing.

    `command` runs the child, `find_spec` finds installed modules: both have their real values as defaults.
    """

    def __init__(
        self,
        spec: LocalModelSpec,
        *,
        ready_timeout_s: float = 10.0,
        backoff: Backoff | None = None,
        command: Sequence[str] = CHILD_COMMAND,
        find_spec: FindSpec = importlib.util.find_spec,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self.spec = spec
        self.model_id = model_id(spec)
        self.pid: int | None = None
        self._ready_timeout_s = ready_timeout_s
        self._backoff = backoff or Backoff()
        self._command = command
        self._find_spec = find_spec
        self._log: FilteringBoundLogger = log or structlog.get_logger()
        self._supervisor: asyncio.Task[None] | None = None
        self._closed = False
        # If one is set, it serves, or there is a reason not to wait for it. If neither, it starts, and callers wait.
        self._endpoint: Endpoint | None = None
        self._failure: str | None = None
        self._decided = asyncio.Event()
        self._failures = 0
        self._ready_at = math.inf
        self._next_start = 0.0

    def missing(self) -> str | None:
        """None, or one sentence that names what is not installed or not found, with the command that fixes it."""
        return what_is_missing(self.spec, self._find_spec)

    async def state(self) -> LocalModelState:
        """The current state. Starts nothing."""
        if self._endpoint is not None:
            return LocalModelState("running")
        if self._failure is not None or (why := self.missing()) is not None:
            return LocalModelState("failing", self._failure or why)
        return LocalModelState("not started" if self._supervisor is None or self._closed else "starting")

    def start(self) -> None:
        """Starts the child in the background, unless it runs, is closed or lacks what it needs (`missing()`)."""
        running = self._supervisor is not None and not self._supervisor.done()
        if not running and not self._closed and self.missing() is None:
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise())

    async def endpoint(self) -> Endpoint:
        """Where the model is served, once it is ready; starts the child if needed. A cancelled caller stops no start.

        Raises UpstreamUnavailable if something is missing, the model cannot be loaded, or it is not ready in time.
        """
        if self._endpoint is not None:
            return self._endpoint
        if not self._closed and (sentence := self.missing()) is not None:
            raise unavailable(sentence)
        self.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._ready_timeout_s):
                while self._endpoint is None and self._failure is None and not self._closed:
                    await self._decided.wait()
        if self._endpoint is None:
            raise self._not_ready()
        return self._endpoint

    async def close(self) -> None:
        """Ends the child; afterwards `endpoint()` raises. May be called again, and at any time."""
        self._closed = True
        self._endpoint = None
        self._decided.set()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])

    def _not_ready(self) -> UpstreamUnavailable:
        if self._closed:
            return unavailable("The embedded model has been shut down.")
        wait_s = max(self._next_start - time.monotonic(), _LOADING_RETRY_AFTER_S)
        if self._failure is not None:
            return unavailable(f"The embedded model cannot be served: {self._failure}.", retry_after_s=wait_s)
        if self._failures > 0:
            again = f"The embedded model {_crashed(self._failures)} and is being started again."
            return unavailable(again, retry_after_s=wait_s)
        return unavailable("The embedded model is still loading. Try again in a moment.", retry_after_s=wait_s)

    async def _supervise(self) -> None:
        """Runs one child after another until cancelled."""
        while True:
            self._ready_at = math.inf
            reason = await self._live_once()
            healthy = time.monotonic() - self._ready_at >= self._backoff.healthy_s
            self._failures = 1 if healthy else self._failures + 1
            delay_s = self._backoff.delay_s(self._failures)
            self._next_start = time.monotonic() + delay_s
            if reason is None and delay_s >= self._ready_timeout_s:
                reason = f"it {_crashed(self._failures)}"
            # A reason stays until the model serves: it is no use waiting for one that has failed.
            self._failure = reason or self._failure
            if self._failure is not None:
                self._decided.set()
            self._log.warning(
                "local_model_stopped",
                model=self.model_id,
                reason=reason or _crashed(1),
                failures=self._failures,
                restart_in_s=delay_s,
            )
            await asyncio.sleep(delay_s)

    async def _live_once(self) -> str | None:
        """Starts a child and returns when it is dead: None, or the reason in words if one is known."""
        path = find_weights(self.spec, self._find_spec)
        if path is None:
            return "its weights are gone"
        key = secrets.token_urlsafe(32)
        settings = {"path": str(path), "alias": self.model_id, "context": self.spec.context, "slots": SLOTS, "key": key}
        try:
            child = Child(self._command, msgspec.json.encode(settings) + b"\n")
        except OSError as error:
            return f"its process cannot be started ({error.strerror})"
        self.pid = child.pid
        try:
            line = await child.report
            report = msgspec.json.decode(line, type=_Report) if line else _Report()
            if report.port is not None:
                self._serves(Endpoint(f"http://127.0.0.1:{report.port}/v1", Secret(key)))
            await child.dead.wait()
            return report.error
        finally:
            self.pid = self._endpoint = None
            self._decided.clear()
            await child.end()

    def _serves(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._failure = None
        self._ready_at = time.monotonic()
        self._decided.set()
        self._log.info("local_model_ready", model=self.model_id, pid=self.pid)


def _crashed(failures: int) -> str:
    return "stopped unexpectedly" + (f" {failures} times in a row" if failures > 1 else "")
