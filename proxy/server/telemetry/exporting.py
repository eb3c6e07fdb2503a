"""Orchestrates: telemetry from the start of a server to its end. Its failures never affect the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from proxy.schema.daemon_thread import DaemonThread
from proxy.server.telemetry.signals import Signals

if TYPE_CHECKING:
    from proxy.server.telemetry.recording import Telemetry
    from proxy.server.telemetry.sdk import Exports

LAST_S = 3.0  # to send remaining data when the server ends
MISSING = 'the extra is not installed: pip install "multi-model-proxy[otel]"'


@asynccontextmanager
async def exporting(
    signals: Signals, log: FilteringBoundLogger, last_s: float = LAST_S
) -> AsyncGenerator[Telemetry | None, None]:
    """Records calls until the end of the block; None: nothing is exported, or it cannot be, for a logged reason.

    At the end the remaining data is sent, within `last_s`.
    """
    for problem in signals.problems:
        log.warning("telemetry_off", reason=problem)
    exports = await asyncio.to_thread(_started, signals, log) if signals.are_wanted else None
    try:
        yield None if exports is None else exports.telemetry
    finally:
        if exports is not None:
            await _close(exports, log, last_s)


def _started(signals: Signals, log: FilteringBoundLogger) -> Exports | None:
    try:
        from proxy.server.telemetry.sdk import started  # lazy: the extra 'otel' may be missing
    except ImportError:
        log.warning("telemetry_off", reason=MISSING)
        return None
    try:
        exports = started(signals, log)
    except (ValueError, OSError) as error:
        log.warning("telemetry_off", reason=str(error))
        return None
    log.info("telemetry_on", traces=signals.traces, metrics=signals.metrics)
    return exports


async def _close(exports: Exports, log: FilteringBoundLogger, last_s: float) -> None:
    """Closes in threads that are not joined afterwards, because a collector may hang."""
    closing = [DaemonThread("telemetry-end", last_s).run(close) for close in exports.closers]
    for failed in await asyncio.gather(*closing, return_exceptions=True):
        if isinstance(failed, Exception):
            log.warning("telemetry_cut", reason=str(failed) or f"the collector was not done within {last_s:g} s")
