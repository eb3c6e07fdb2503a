"""Orchestrates: the Python client: questions to a server, or to a whole proxy inside this process."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Unpack, cast
from urllib.parse import urlsplit
from weakref import WeakSet

from proxy.client import asking, reading
from proxy.client.asking import AskOptions, EnsembleOptions
from proxy.client.experiments import Experiments
from proxy.client.prompts import Prompts
from proxy.client.results import Answer, Chunk, EnsembleAnswer, Explanation, Feedback, UsageReport
from proxy.client.sending import Received, Retries, Sender
from proxy.client.session import IN_PROCESS, Session, to_server, to_this_process, user_agent
from proxy.client.settings import APISettings
from proxy.client.sites import Sites
from proxy.client.streaming import EventStream
from proxy.schema.chat import ChatChunk
from proxy.schema.fold import Fold

TIMEOUT_S = 900.0
_CHAT, _EXPLAIN, _USAGE, _FEEDBACK = "chat/completions", "route/explain", "usage", "feedback"


class MultiModelAPI:
    """Asks models, by a server or without one.

        api = MultiModelAPI(base_url="http://localhost:8000", api_key="mmp-...")
        api = MultiModelAPI(settings=APISettings())

    The second has no server: routing, budgets, retries and metering happen in this process, in the same database as
    `proxy serve` in this folder would use. Nothing is printed. Opened by the first call, or by `async with`; closed by
    its end, by `close()`, or with the event loop. In a program without asyncio use `SyncMultiModelAPI`.

    - `api_key`: the proxy's own key. Without it PROXY_API_KEY of the environment, if that is set.
    - `timeout_s`: seconds without a byte after which a call fails with RequestTimeout.
    - `max_retries`, `retry_delay_seconds`: retries of requests that the proxy marks as retryable; see `APISettings`,
      whose values they replace.

    `sites` has the catalog of site templates: `list`, `get`, `match`.

    All methods raise MultiModelError, whose subclasses are in `proxy.client.errors`, and ValueError that names a wrong
    argument, before anything is sent.
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
        if base_url is not None and settings is not None:
            raise ValueError("base_url: a server has its own settings; give either base_url or settings")
        if settings is not None and not isinstance(settings, APISettings):
            raise ValueError("settings: expected APISettings; the address of a server is base_url=...")
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
            raise ValueError(f"timeout_s: expected a number above 0, got {timeout_s!r}")
        self.settings = APISettings() if settings is None and base_url is None else settings
        own = APISettings() if self.settings is None else self.settings
        most = own.max_retries if max_retries is None else max_retries
        delay_s = own.retry_delay_seconds if retry_delay_seconds is None else retry_delay_seconds
        APISettings(max_retries=most, retry_delay_seconds=delay_s)  # checks them
        self.base_url = IN_PROCESS if base_url is None else _checked_url(base_url)
        if self.settings is not None:
            if api_key is not None:
                raise ValueError("api_key: without a server there is no key of one; provider keys belong in settings")
            opened: Callable[[], Any] = partial(to_this_process, self.settings, timeout_s)
        else:
            opened = partial(to_server, self.base_url, _headers(api_key), timeout_s)
        self._session = Session(opened)
        self._streams: WeakSet[AnswerStream] = WeakSet()
        self._sender = Sender(self._session, self.base_url, timeout_s, Retries(most, delay_s))
        self.experiments = Experiments(self._sender)  # variant, track, winner, ...
        self.prompts = Prompts(self._sender)  # stored prompts: register, get, render, create_version, ...
        self.sites = Sites(self._sender)

    # --- questions ----------------------------------------------------------------------------------------------------

    async def generate(
        self, prompt: str | None = None, model: str | None = None, **options: Unpack[AskOptions]
    ) -> Answer:
        """One answer. `model`: any name that the proxy knows; without it the router picks. Options: `AskOptions`."""
        received = await self._sender.post(_CHAT, asking.chat_body(prompt, model, options))
        return await self._sender.understood(partial(reading.answer_of, received.data, received.headers))

    async def generate_ensemble(
        self,
        prompt: str | None = None,
        strategy: str | None = None,
        models: Sequence[str | Mapping[str, Any]] | None = None,
        name: str | None = None,
        **options: Unpack[EnsembleOptions],
    ) -> EnsembleAnswer:
        """One answer of several models. Options: `EnsembleOptions`.

        `strategy`: voting (the default), ranking, fusion or verification. `models`: 1 to 16 names, or dictionaries with
        `use`, `weight` and parameters; without them the router picks. `name`: an ensemble of routing_rules.yaml
        instead; the arguments override its keys.
        """
        body = asking.ensemble_body(prompt, strategy, models, name, options)
        received = await self._sender.post(_CHAT, body)
        return await self._sender.understood(partial(reading.ensemble_answer_of, received.data, received.headers))

    def generate_stream(
        self, prompt: str | None = None, model: str | None = None, **options: Unpack[AskOptions]
    ) -> AnswerStream:
        """The pieces of one answer as they arrive: `async for chunk in api.generate_stream(...)`. Options:
        `AskOptions`.

        Leaving the iteration early ends the call, also at the provider.
        """
        body = asking.chat_body(prompt, model, options)
        stream = AnswerStream(self._sender, {**body, "stream": True, "stream_options": {"include_usage": True}})
        self._streams.add(stream)
        return stream

    async def explain(
        self, prompt: str | None = None, model: str | None = None, **options: Unpack[AskOptions]
    ) -> Explanation:
        """How `generate` with the same arguments would be routed. Nothing is called or spent."""
        received = await self._sender.post(_EXPLAIN, asking.chat_body(prompt, model, options))
        return await self._sender.understood(partial(reading.explanation_of, received.data))

    # --- books --------------------------------------------------------------------------------------------------------

    async def usage(
        self,
        since: str | None = None,
        until: str | None = None,
        group_by: str | Sequence[str] | None = None,
        tz: str | None = None,
    ) -> UsageReport:
        """What calls used and cost. `since` (inclusive) and `until` (exclusive): ISO 8601; `tz`: the time zone of days.

        `group_by`: one or several of model, provider, key, rule, task, strategy, ensemble, tag, session, agent, hour,
        day.
        """
        received = await self._sender.get(_USAGE, asking.usage_parameters(since, until, group_by, tz))
        return await self._sender.understood(partial(reading.usage_report_of, received.data))

    async def feedback(
        self,
        answer: Answer | str,
        success: bool | None = None,
        score: float | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """Rates an answer, given as an object or by its id: whether it succeeded, how good it was (0 to 1), why."""
        received = await self._sender.post(_FEEDBACK, asking.feedback_body(answer, success, score, comment))
        return await self._sender.understood(partial(reading.feedback_of, received.data))

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> MultiModelAPI:
        await self._session.client()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes every connection; without a server, the whole proxy. May be called again. A later call opens anew."""
        for stream in list(self._streams):
            await stream.close()
        await self._session.close()

    def __repr__(self) -> str:
        return f"MultiModelAPI({self._shown()})"

    def _shown(self) -> str:
        return f"base_url={self.base_url!r}" if self.settings is None else f"settings={self.settings!r}"


class AnswerStream:
    """A streamed answer: an asynchronous iterator of `Chunk`, and a context manager that closes it.

    `answer` is the whole answer once the iteration has ended, with usage and cost; before that, the part received so
    far.
    """

    def __init__(self, sender: Sender, body: Mapping[str, Any]) -> None:
        self._so_far = _SoFar()
        self._events = EventStream(lambda: sender.events(_CHAT, body))

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        received = await self._events.next()
        if received is None:
            raise StopAsyncIteration
        self._so_far.add(received)
        return reading.chunk_of(received.data)

    @property
    def answer(self) -> Answer:
        """Raises UnexpectedAnswer before the first piece."""
        return self._so_far.answer()

    async def close(self) -> None:
        """Ends the call if it has not ended."""
        await self._events.close()

    async def __aenter__(self) -> AnswerStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _SoFar:
    """The accumulated answer of a stream."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._routing: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._headers: Mapping[str, str] = {}

    def add(self, received: Received) -> None:
        data, self._headers = received.data, received.headers
        self._routing = data.get("routing") or self._routing
        self._usage = data.get("usage") or self._usage
        self._fold.add(cast(ChatChunk, {name: value for name, value in data.items() if name != "usage"}))

    def answer(self) -> Answer:
        whole = cast("dict[str, Any]", self._fold.response())
        return reading.answer_of({**whole, "routing": self._routing, "usage": self._usage}, self._headers)


def _headers(api_key: str | None) -> dict[str, str]:
    key = os.environ.get("PROXY_API_KEY", "").strip() if api_key is None else api_key
    if not isinstance(key, str) or not all("!" <= char <= "~" for char in key):
        raise ValueError("api_key: expected printable ASCII without spaces")
    return {"user-agent": user_agent(), **({"authorization": f"Bearer {key}"} if key else {})}


def _checked_url(base_url: str) -> str:
    """The address with /v1. Raises ValueError."""
    try:
        parts = urlsplit(base_url.strip())
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError):
        is_address = False
    if not is_address:
        shown = "" if "@" in str(base_url) else f", got {base_url!r}"
        raise ValueError(f"base_url: expected an address like http://localhost:8000{shown}")
    if parts.username or parts.password:
        raise ValueError("base_url: must not contain a user name or a password; give api_key")
    if parts.query or parts.fragment:
        raise ValueError("base_url: must end with the path, without ? or #")
    return base_url.strip().rstrip("/").removesuffix("/v1") + "/v1"
