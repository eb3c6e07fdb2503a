"""Orchestrates: limits on the extra requests that an upstream gets and that a caller causes. The clock is passed in.

Extra requests are retries at the same deployment, and hedges. A fallback to a healthy deployment is not one: it is the
only request that this deployment gets from the call.
"""

from __future__ import annotations

from collections.abc import Callable

FLOOR = 3.0  # extra requests in reserve, even after few requests
REFILL_S = 10.0  # after this long without an extra request the reserve is full again
_MAX_CALLERS = 4_096
_MAX_COUNTED_NANO = 1 << 60


class _Reserve:
    """The extra requests that one upstream or caller may still have."""

    __slots__ = ("left", "used_at")

    def __init__(self) -> None:
        self.left = FLOOR
        self.used_at = 0.0

    def has_one(self, now_s: float) -> bool:
        if self.left < 1 and now_s - self.used_at >= REFILL_S:
            self.left = FLOOR
        return self.left >= 1

    def take(self, now_s: float) -> None:
        self.left -= 1
        self.used_at = now_s


class RetryBudgets:
    """At most `share` extra requests per normal request to an upstream or by a caller, plus `FLOOR`."""

    def __init__(self, now_s: Callable[[], float], share: float = 0.2) -> None:
        self.share = share
        self._now_s = now_s
        self._upstreams: dict[str, _Reserve] = {}
        self._callers: dict[str | None, _Reserve] = {}

    def note_request(self, upstream: str, caller: str | None) -> None:
        """Counts a normal request."""
        if not self._callers:  # no caller has used an extra request
            return
        for reserve in (self._upstreams.get(upstream), self._callers.get(caller)):
            if reserve is not None and reserve.left < FLOOR:  # full reserves need no update
                reserve.left = min(FLOOR, reserve.left + self.share)

    def take(self, upstream: str, caller: str | None) -> bool:
        """True if one more extra request may be made; if so, it is counted."""
        now_s = self._now_s()
        own = self._upstreams.setdefault(upstream, _Reserve())
        callers = self._callers.get(caller)
        if callers is None:
            if len(self._callers) >= _MAX_CALLERS:
                del self._callers[next(iter(self._callers))]
            callers = self._callers[caller] = _Reserve()
        if not (own.has_one(now_s) and callers.has_one(now_s)):
            return False
        own.take(now_s)
        callers.take(now_s)
        return True


class HedgeSpending:
    """Spend on hedges against all other spend, in nano-USD. Both sums decay: months of traffic must not pay for one
    expensive day of hedging."""

    def __init__(self) -> None:
        self._spent = 0
        self._extra = 0
        self._reserved = 0
        self._counted = 0

    def note_cost(self, cost_nano: int) -> None:
        self._spent = min(_MAX_COUNTED_NANO, self._spent + cost_nano)
        self._counted += 1
        if self._counted >= 10_000:
            self._counted //= 2
            self._spent //= 2
            self._extra //= 2

    def reserve(self, bound_nano: int, ratio: float) -> bool:
        """True if a hedge that costs at most `bound_nano` more may start. `settle` ends the reservation."""
        if self._extra + self._reserved + bound_nano > ratio * self._spent:
            return False
        self._reserved += bound_nano
        return True

    def settle(self, bound_nano: int, extra_nano: int) -> None:
        """Records a hedge that ended; its loser cost `extra_nano`."""
        self._reserved -= bound_nano
        self._extra += extra_nano
