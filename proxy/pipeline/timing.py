"""Translates: clock readings into durations: a call's latency, and the proxy's own share of it."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """The two clocks of metering: Unix nanoseconds for rows, monotonic seconds for durations."""

    def __init__(self, unix_ns: Callable[[], int], monotonic_s: Callable[[], float]) -> None:
        self.unix_ns = unix_ns
        self.monotonic_s = monotonic_s


class CallTime:
    """The timing of one call. `started`: its start, if that is before now."""

    _waits = 0  # attempts, and pauses between attempts, that the call is waiting for
    _waits_since = _waited_s = 0.0
    _overhead_ms: float | None = None  # until a stream's first token

    def __init__(self, clock: Clock, started: float | None = None) -> None:
        self._now_s = clock.monotonic_s
        self.started = self._now_s() if started is None else started

    def elapsed_ms(self) -> float:
        return (self._now_s() - self.started) * 1000

    def begin_wait(self) -> None:
        """Stops counting time as the proxy's own. Concurrent waits count once."""
        if self._waits == 0:
            self._waits_since = self._now_s()
        self._waits += 1

    def end_wait(self) -> None:
        self._waits -= 1
        if self._waits == 0:
            self._waited_s += self._now_s() - self._waits_since

    def note_first_token(self) -> float:
        """Milliseconds since the call began. The first token of any of its streams fixes the overhead."""
        elapsed_ms = self.elapsed_ms()
        if self._overhead_ms is None:
            self._overhead_ms = self._unwaited_ms(elapsed_ms)
        return elapsed_ms

    def overhead_ms(self) -> float:
        """Time in the proxy itself, without waits for providers: until a stream's first token, otherwise until now."""
        return self._unwaited_ms(self.elapsed_ms()) if self._overhead_ms is None else self._overhead_ms

    def _unwaited_ms(self, elapsed_ms: float) -> float:
        waited_s = self._waited_s + (self._now_s() - self._waits_since if self._waits else 0.0)
        return max(0.0, elapsed_ms - waited_s * 1000)
