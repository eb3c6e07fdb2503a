"""Performs I/O: the structured log. Event names are fixed words; client data is a field. One line each, capped, no
keys, no prompts.

    caller's thread    event, level, time -> queue
    log thread         exceptions, escapes, JSON or console -> standard error
"""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import structlog
from structlog.processors import format_exc_info
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from proxy.schema.json import encode
from proxy.server.log_writer import LogWriter

MAX_FIELD = 2048
LIBRARY_LINES = 10  # a second, from each library; more are counted
_NO_FIELDS: dict[str, Any] = {}
_MULTILINE = ("exception",)
_LEVELS = {"exception": "error", "warn": "warning"}  # of methods whose name is not their level


def build_log(log_format: str, *, quiet: bool = False) -> FilteringBoundLogger:
    """Configures structlog, and what libraries log, for this process: to standard error. `auto` is console on a
    terminal, JSON elsewhere. `quiet` lets only errors through.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shown: Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else render_json

    def render(event: EventDict) -> bytes:
        event = format_exc_info(None, "", _readable_time(event))
        if not console and (line := plain_line(event)) is not None:
            return line
        text: Any = shown(None, "", one_line(event))
        return (text.encode("utf-8", "backslashreplace") if isinstance(text, str) else bytes(text)) + b"\n"

    level = logging.ERROR if quiet else logging.INFO
    structlog.configure(
        processors=[_stamp],
        logger_factory=_Queue(LogWriter(sys.stderr, render)),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    log: FilteringBoundLogger = structlog.get_logger()
    _follow_libraries(log)
    return log


def log_writer() -> LogWriter | None:
    """The writer of this process's log; None before `build_log`."""
    factory = structlog.get_config()["logger_factory"]
    return factory.writer if isinstance(factory, _Queue) else None


class _Queue:
    """structlog's logger and its factory: every event goes into the queue."""

    def __init__(self, writer: LogWriter) -> None:
        self.writer = writer
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = self.exception = writer.put

    def __call__(self, *_: object) -> _Queue:
        return self


def _stamp(_: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[EventDict], dict[str, Any]]:
    """Adds level and time; the event becomes the argument of the queue. `fields` holds further fields in a dictionary,
    because structlog copies keywords four times.
    """
    event |= event.pop("fields", _NO_FIELDS)
    event["level"] = _LEVELS.get(method, method)
    event["timestamp"] = time.time()
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()  # the rendering thread has no access to it
    return (event,), {}


def _readable_time(event: EventDict) -> EventDict:
    second, micros = divmod(round(event.get("timestamp", 0.0) * 1_000_000), 1_000_000)
    event["timestamp"] = f"{_minute(second // 60)}{second % 60:02}.{micros:06}Z"
    return event


@lru_cache(maxsize=2)
def _minute(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%dT%H:%M:")


def one_line(event: EventDict) -> EventDict:
    """Caps long fields and escapes what could break a line or colour a terminal (S35)."""
    for name, value in event.items():
        if isinstance(value, str) and name not in _MULTILINE and (len(value) > MAX_FIELD or not value.isprintable()):
            event[name] = value[:MAX_FIELD].encode("unicode_escape").decode("ascii")
    return event


def plain_line(event: EventDict) -> bytes | None:
    """The JSON line of an event in which `one_line` changes nothing, as in nearly all; None: it may change
    something.
    """
    try:
        line = render_json(None, "", event)
    except UnicodeEncodeError:
        return None
    is_plain = len(line) <= MAX_FIELD and line.isascii() and b"\\" not in line and b"\x7f" not in line
    return line + b"\n" if is_plain else None


def render_json(_: WrappedLogger | None, __: str, event: EventDict) -> bytes:
    """One JSON object a line, which begins with these three."""
    return encode({"timestamp": None, "level": None, "event": None, **event})


# --- what libraries log ---


def _follow_libraries(log: FilteringBoundLogger) -> None:
    """uvicorn's and asyncio's warnings become lines of this log; Python would print them as plain text."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, LibraryHandler):
            root.removeHandler(handler)
    root.addHandler(LibraryHandler(log))


class LibraryHandler(logging.Handler):
    """Passes warnings and errors on, at most LIBRARY_LINES a second from each logger, and reports how many it
    dropped.
    """

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._seconds: dict[str, tuple[int, int]] = {}  # by logger: which second, and how many lines in it

    def emit(self, record: logging.LogRecord) -> None:
        second, count = self._seconds.get(record.name, (0, 0))
        now = int(record.created)
        if now != second:
            if count > LIBRARY_LINES:
                self._log.warning("library_lines_left_out", logger=record.name, count=count - LIBRARY_LINES)
            second, count = now, 0
        self._seconds[record.name] = (second, count + 1)
        if count < LIBRARY_LINES:
            write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
            write("library", logger=record.name, message=_message(record), exc_info=record.exc_info or None)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # arguments that do not fit their format
        return str(record.msg)
