"""Performs I/O: alerts on budgets: a log event, and a POST to the operator's webhook. No call waits for either."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
from structlog.typing import FilteringBoundLogger

from proxy.metering.standing import moment
from proxy.schema.daemon_thread import DaemonThread
from proxy.schema.records import NANO_PER_USD, Crossing, Secret
from proxy.storage.alerts import AlertRows
from proxy.storage.base import StoreError

MAX_WAITING = 1_000
PAUSES_S = (2.0, 10.0)  # before the second and the third try
LIMIT_S = 10.0  # for one try
_STORE_LIMIT_S = 10.0
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, ValueError)


def shown(crossing: Crossing) -> dict[str, Any]:
    """The fields of the event, in USD."""
    return {
        "budget": crossing.budget,
        "share": crossing.share,
        "spent_usd": crossing.spent_nano / NANO_PER_USD,
        "limit_usd": crossing.limit_nano / NANO_PER_USD,
        "resets_at": moment(crossing.resets_ns),
    }


class Alerts:
    """Reports each crossing once, over all processes on the database. `url` may change at a reload; None: log only.

    A process that dies between its log event and the webhook's answer has reported only in the log.
    """

    def __init__(
        self,
        rows: AlertRows,
        log: FilteringBoundLogger,
        *,
        pauses_s: tuple[float, ...] = PAUSES_S,
        limit_s: float = LIMIT_S,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.url: Secret | None = None
        self._rows = rows
        self._log = log
        self._pauses_s = pauses_s
        self._limit_s = limit_s
        self._clock_ns = clock_ns
        self._context: ssl.SSLContext | None = None
        self._thread = DaemonThread("alerts", _STORE_LIMIT_S)
        self._waiting: asyncio.Queue[Crossing] = asyncio.Queue(MAX_WAITING)
        self._posts: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)

    def put(self, crossing: Crossing) -> None:
        """Queues one. If too many wait, it is dropped and the loss is logged."""
        self._queue(self._waiting, crossing, crossing.budget)

    async def follow(self) -> None:
        """Reports until cancelled. A hanging webhook does not delay the log."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_all())
            group.create_task(self._post_all())

    async def _report_all(self) -> None:
        while True:
            crossing = await self._waiting.get()
            if not await self._is_first(crossing):
                continue
            event = shown(crossing)
            self._log.warning("budget_alert", **event)
            if self.url is not None:
                self._queue(self._posts, {"event": "budget_alert", **event}, crossing.budget)

    async def _is_first(self, crossing: Crossing) -> bool:
        """Also True if the database cannot be read: better twice than never."""
        for pause_s in (*self._pauses_s, None):
            try:
                return await self._thread.run(self._rows.is_first, crossing, self._clock_ns())
            except (StoreError, TimeoutError) as error:
                if pause_s is None:
                    self._log.warning("budget_alert_not_stored", budget=crossing.budget, error=str(error))
                else:
                    await asyncio.sleep(pause_s)
        return True

    async def _post_all(self) -> None:
        while True:
            event = await self._posts.get()
            if self.url is not None:
                await self._post(event, self.url)

    async def _post(self, event: dict[str, Any], url: Secret) -> None:
        why = ""
        for pause_s in (*self._pauses_s, None):
            why = await self._try(event, url)
            if not why:
                return
            if pause_s is not None:
                await asyncio.sleep(pause_s)
        self._log.warning("budget_alert_not_sent", budget=event["budget"], share=event["share"], error=why)

    async def _try(self, event: dict[str, Any], url: Secret) -> str:
        """Sends the event. Returns "" if it was received, else the reason, without the URL, which may hold a token."""
        try:
            if self._context is None:  # reading the certificates takes some time
                self._context = await asyncio.to_thread(ssl.create_default_context)
            transport = httpx.AsyncHTTPTransport(verify=self._context, trust_env=False)
            async with asyncio.timeout(self._limit_s), transport:
                # A transport follows no redirect, and unlike a client it does not log the URL.
                headers = {"content-type": "application/json", "user-agent": "multi-model-proxy"}
                request = httpx.Request("POST", url.reveal(), headers=headers, content=msgspec.json.encode(event))
                response = await transport.handle_async_request(request)
                await response.aclose()
        except _FAILURES as error:
            return type(error).__name__
        return "" if response.is_success else f"status {response.status_code}"

    def _queue(self, queue: asyncio.Queue[Any], item: object, budget: str) -> None:
        try:
            queue.put_nowait(item)
        except asyncio.QueueFull:
            self._log.warning("budget_alert_dropped", budget=budget)
