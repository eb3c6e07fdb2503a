"""Orchestrates: the Python client for programs without asyncio. It also works inside a running event loop, as in
notebooks: calls run in a loop of their own, on a thread of their own.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, Unpack

from proxy.client.api import TIMEOUT_S, AnswerStream, MultiModelAPI
from proxy.client.asking import AskOptions, EnsembleOptions
from proxy.client.results import Answer, Chunk, EnsembleAnswer, Explanation, Feedback, UsageReport
from proxy.client.settings import APISettings
from proxy.client.sites import Sites
from proxy.client.sync_experiments import SyncExperiments
from proxy.client.sync_prompts import SyncPrompts
from proxy.sites.answers import SiteCard, SiteMatch, SiteTemplate

T = TypeVar("T")


class SyncMultiModelAPI:
    """`MultiModelAPI` without `await`: the same arguments, results and errors. Use it with `with`, or call `close()`;
    otherwise it is closed when the program ends.

    Its methods may be called from several threads at once. An interrupt (Ctrl-C) ends the call.
    """

    def __init__(
        self,
        settings: APISettings | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_retries: int | None = None,
        retry_delay_seconds: float | None = None,
    ) -> None:
        self._api = MultiModelAPI(
            settings,
            base_url=base_url,
            api_key=api_key,
            timeout_s=timeout_s,
            max_retries=max_retries,
            retry_delay_seconds=retry_delay_seconds,
        )
        self._loop = _LoopThread()
        self.experiments = SyncExperiments(self._api.experiments, self._loop)  # as `MultiModelAPI.experiments`
        self.prompts = SyncPrompts(self._api.prompts, self._loop)  # as `MultiModelAPI.prompts`
        self.sites = SyncSites(self._api.sites, self._loop)
        self._end = weakref.finalize(self, _shut, self._api, self._loop)

    @property
    def settings(self) -> APISettings | None:
        """The settings of the proxy in this process; None: a server answers."""
        return self._api.settings

    def generate(self, prompt: str | None = None, model: str | None = None, **options: Unpack[AskOptions]) -> Answer:
        """As `MultiModelAPI.generate`."""
        return self._loop.run(self._api.generate(prompt, model, **options))

    def generate_ensemble(
        self,
        prompt: str | None = None,
        strategy: str | None = None,
        models: Sequence[str | Mapping[str, Any]] | None = None,
        name: str | None = None,
        **options: Unpack[EnsembleOptions],
    ) -> EnsembleAnswer:
        """As `MultiModelAPI.generate_ensemble`."""
        return self._loop.run(self._api.generate_ensemble(prompt, strategy, models, name, **options))

    def generate_stream(
        self, prompt: str | None = None, model: str | None = None, **options: Unpack[AskOptions]
    ) -> SyncAnswerStream:
        """As `MultiModelAPI.generate_stream`, for a plain `for`."""
        return SyncAnswerStream(self._api.generate_stream(prompt, model, **options), self._loop)

    def explain(
        self, prompt: str | None = None, model: str | None = None, **options: Unpack[AskOptions]
    ) -> Explanation:
        """As `MultiModelAPI.explain`."""
        return self._loop.run(self._api.explain(prompt, model, **options))

    def usage(
        self,
        since: str | None = None,
        until: str | None = None,
        group_by: str | Sequence[str] | None = None,
        tz: str | None = None,
    ) -> UsageReport:
        """As `MultiModelAPI.usage`."""
        return self._loop.run(self._api.usage(since, until, group_by, tz))

    def feedback(
        self,
        answer: Answer | str,
        success: bool | None = None,
        score: float | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """As `MultiModelAPI.feedback`."""
        return self._loop.run(self._api.feedback(answer, success, score, comment))

    def close(self) -> None:
        """Closes everything. May be called again. A later call opens anew."""
        _shut(self._api, self._loop)

    def __enter__(self) -> SyncMultiModelAPI:
        self._loop.run(self._api.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SyncMultiModelAPI({self._api._shown()})"


class SyncSites:
    """`Sites` without `await`."""

    def __init__(self, sites: Sites, loop: _LoopThread) -> None:
        self._sites = sites
        self._loop = loop

    def list(
        self,
        category: str | None = None,
        domain: str | None = None,
        javascript: bool | None = None,
        sign_in: str | None = None,
    ) -> list[SiteCard]:
        """As `Sites.list`."""
        return self._loop.run(self._sites.list(category, domain, javascript, sign_in))

    def get(self, site_id: str) -> SiteTemplate:
        """As `Sites.get`."""
        return self._loop.run(self._sites.get(site_id))

    def match(self, instructions: str = "", assets: Sequence[str] = ()) -> SiteMatch:
        """As `Sites.match`."""
        return self._loop.run(self._sites.match(instructions, assets))


class SyncAnswerStream:
    """A streamed answer: an iterator of `Chunk`, and a context manager that closes it. `answer` as in AnswerStream."""

    def __init__(self, stream: AnswerStream, loop: _LoopThread) -> None:
        self._stream = stream
        self._loop = loop

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        chunk = self._loop.run(_next(self._stream))
        if chunk is None:
            raise StopIteration
        return chunk

    @property
    def answer(self) -> Answer:
        """The whole answer once the iteration has ended; before that, the part received so far."""
        return self._stream.answer

    def close(self) -> None:
        """Ends the call if it has not ended."""
        self._loop.run(self._stream.close())

    def __enter__(self) -> SyncAnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _next(stream: AnswerStream) -> Chunk | None:
    return await anext(stream, None)


def _shut(api: MultiModelAPI, loop: _LoopThread) -> None:
    if loop.is_running:
        loop.end(api.close)


class _LoopThread:
    """An event loop on a thread of its own, started by the first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._running is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. An interrupted wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._started().loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def end(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `last`, cancels what still runs, and returns once the thread has ended."""
        with self._lock:
            running, thread, self._running, self._thread = self._running, self._thread, None, None
        if running is None or thread is None:
            return
        if threading.current_thread() is thread:  # the garbage collector may run anywhere
            running.closing = running.loop.create_task(_ended(running, last))
            return
        asyncio.run_coroutine_threadsafe(_ended(running, last), running.loop).result()
        thread.join()

    def _started(self) -> _Running:
        with self._lock:
            if self._running is None:
                started: Future[_Running] = Future()
                self._thread = threading.Thread(target=_serve, args=(started,), name="multi-model-api", daemon=True)
                self._thread.start()
                self._running = started.result()
            return self._running


class _Running:
    """The tasks on the thread. Used only there."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.stopping = asyncio.Event()
        self.closing: asyncio.Task[None] | None = None


async def _ended(running: _Running, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await last()
    finally:
        running.stopping.set()


def _serve(started: Future[_Running]) -> None:
    asyncio.run(_until_stopped(started))


async def _until_stopped(started: Future[_Running]) -> None:
    running = _Running()
    started.set_result(running)
    await running.stopping.wait()
