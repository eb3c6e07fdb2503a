"""Performs I/O: the structured log. Events are fixed words, what callers send is data: one line each, capped, no
keys, no prompts.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from proxy.codec import encode

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
        factory: Any = structlog.PrintLoggerFactory(sys.stderr)
    else:
        renderer, factory = render_json, structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=factory,
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR if quiet else logging.INFO),
        cache_logger_on_first_use=True,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    return log


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
