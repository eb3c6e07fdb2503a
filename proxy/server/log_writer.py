"""Performs I/O: writes log lines on a thread of its own, so that a stalled reader cannot stall the server.

The queue is bounded. Lines that do not fit, or that a full disk or a closed pipe rejects, are dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Any

MAX_EVENTS = 10_000
FLUSH_S = 1.0  # how long the end of the process waits for a reader
_BATCH = 100
_GATHER_S = 0.005  # between two writes under load, when the thread would be woken for each line
_IDLE_S = 5.0  # after this the thread ends, until there is something to write

Event = dict[str, Any]


class LogWriter:
    """Writes events to one stream. `render` runs on the thread too."""

    def __init__(self, stream: IO[Any], render: Callable[[Event], bytes], max_events: int = MAX_EVENTS) -> None:
        self.dropped = 0
        self._stream = stream
        self._render = render
        self._max_events = max_events
        self._events: deque[Event] = deque()
        self._work = threading.Event()
        self._is_written = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        atexit.register(self.flush)

    def put(self, event: Event) -> None:
        """Queues one event, from any thread; never waits for the stream."""
        if len(self._events) >= self._max_events:
            self.dropped += 1
            return
        self._events.append(event)
        if not self._work.is_set():
            self._work.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Waits until everything that was put is written, `timeout_s` at most. False: it is not yet."""
        with self._lock:
            if self._thread is None and not self._events:
                return True
            self._is_written.clear()
            self._work.set()
        return self._is_written.wait(timeout_s)

    def _run(self) -> None:
        while True:
            is_work = self._work.wait(_IDLE_S)
            self._work.clear()
            while self._events:
                self._write([self._events.popleft() for _ in range(min(_BATCH, len(self._events)))])
            with self._lock:
                if not self._events:
                    self._is_written.set()
                    if not is_work:
                        self._thread = None
                        if not self._events:  # a later `put` sees that the thread is gone
                            return
                        self._thread = threading.current_thread()
            time.sleep(_GATHER_S)  # the next lines come together

    def _write(self, events: list[Event]) -> None:
        data = memoryview(b"".join(map(self._line, events)))
        try:
            # Straight to the descriptor: a lock of the stream's that this thread holds would stop the process's exit.
            descriptor = self._descriptor()
            if descriptor is None:
                self._stream.write(bytes(data))
                self._stream.flush()
                return
            while data:
                data = data[os.write(descriptor, data) :]
        except (OSError, ValueError):  # full, or closed
            self.dropped += len(events)

    def _descriptor(self) -> int | None:
        try:
            return self._stream.fileno()
        except (OSError, AttributeError):  # a stream in memory
            return None

    def _line(self, event: Event) -> bytes:
        try:
            return self._render(event)
        except Exception as error:  # a value that cannot be rendered must not end the log
            return self._render({"level": "error", "event": "log_line_failed", "error": type(error).__name__})
