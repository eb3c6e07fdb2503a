"""Performs I/O: logs and counts ended attempts and calls, and changes in the health of deployments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from structlog.typing import FilteringBoundLogger

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.call_text import StoredTexts
from proxy.routing.board import HealthBoard
from proxy.schema.records import CallEnd
from proxy.server.metrics import Metrics, labels_of

_MAX_WARNED = 1_000  # clients may make up names


def observer(metrics: Metrics | None, configured: frozenset[str]) -> Callable[[Attempt], None]:
    """The observer of ended attempts. It outlives a reload, which only changes its labels."""
    if metrics is None:
        return lambda attempt: None
    return partial(metrics.note_attempt, configured)


def report_health(
    board: HealthBoard, log: FilteringBoundLogger, metrics: Metrics | None, configured: frozenset[str]
) -> None:
    """One log line for each change of a breaker's state, and the metrics of breakers and retry budgets."""

    def on_breaker(name: str, state: str) -> None:
        rest_s, why, _ = board.rest_of(name)
        log.warning("breaker", model=name, state=state, why=why, open_s=round(rest_s, 1))
        if metrics is not None:
            metrics.note_breaker(labels_of(configured, name), state)

    def on_refused(name: str) -> None:
        if metrics is not None:
            metrics.count("mmproxy_retries_refused", labels_of(configured, name))

    board.on_breaker, board.on_refused = on_breaker, on_refused


def on_end(
    log: FilteringBoundLogger, metrics: Metrics | None, configured: frozenset[str], texts: StoredTexts
) -> Callable[[Call, CallEnd], None]:
    """The observer of ended calls: writes the log line, updates the metrics if enabled, and stores the call's text if
    its key asks for that. A model whose calls have no known cost is reported once.
    """

    log = log.bind()  # structlog's lazy logger binds anew for each line
    warned: set[str] = set()

    def ended(call: Call, end: CallEnd) -> None:
        _log_call(log, call, end)
        _warn_of_unpriced(log, call, warned)
        texts.keep(call)
        if metrics is not None:
            metrics.note_end(configured, call, end)

    return ended


def _warn_of_unpriced(log: FilteringBoundLogger, call: Call, warned: set[str]) -> None:
    for attempt in call.attempts:
        name = attempt.deployment.name
        if attempt.ended is None or attempt.ended.cost_nano is not None or name in warned:
            continue
        if len(warned) < _MAX_WARNED:
            warned.add(name)
            log.warning("cost_unknown", model=name)


def _log_call(log: FilteringBoundLogger, call: Call, end: CallEnd) -> None:
    answering = call.answering if call.attempts else None
    attempt = answering.ended if answering else None
    fields = {
        "request_id": call.id,
        "key": call.caller.key_id,
        "requested": call.request.model,
        "model": answering.deployment.name if answering else None,
        "stream": call.request.stream,
        "outcome": str(end.outcome),
        "status": end.status,
        "code": end.error_code,
        "attempts": len(call.attempts),
        "input_tokens": attempt.tokens.prompt if attempt else None,
        "output_tokens": attempt.tokens.output if attempt else None,
        "cost_nano_usd": attempt.cost_nano if attempt else None,
        "latency_ms": round(end.latency_ms, 1),
        "first_token_ms": None if end.first_token_ms is None else round(end.first_token_ms, 1),
    }
    log.info("call", fields=fields)
