"""Performs I/O: the structured log. Events are fixed words, what callers send is data: one line each, capped, no
keys, no prompts.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import IO, Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from proxy.schema.json import encode

MAX_FIELD = 2048
_MULTILINE = ("exception",)


def build_log(log_format: str, *, quiet: bool = False) -> FilteringBoundLogger:
    """Configures structlog for this process, to standard error. `auto` is console on a terminal, JSON elsewhere.

    `quiet` lets only errors through.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        one_line,
    ]
    if console:
        renderer: structlog.typing.Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        factory: Any = structlog.PrintLoggerFactory(_Lossy(sys.stderr))  # type: ignore[arg-type]
    else:
        renderer, factory = render_json, structlog.BytesLoggerFactory(_Lossy(sys.stderr.buffer))  # type: ignore[arg-type]
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=factory,
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR if quiet else logging.INFO),
        cache_logger_on_first_use=True,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    return log


class _Lossy:
    """A stream that loses what it cannot write: a full disk or a reader that left must not fail a call."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def write(self, line: Any) -> None:
        with suppress(OSError):
            self._stream.write(line)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Caps long fields and escapes what could break a line or colour a terminal (S35)."""
    for name, value in event.items():
        if isinstance(value, str) and name not in _MULTILINE and (len(value) > MAX_FIELD or not value.isprintable()):
            event[name] = value[:MAX_FIELD].encode("unicode_escape").decode("ascii")
    return event


def render_json(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    """One JSON object a line."""
    head = {name: event.pop(name, None) for name in ("timestamp", "level", "event")}
    return encode({**head, **event})
