"""Translates: what the client allows for a call: its time and its money, for all attempts together.

The time comes from `routing.deadline_ms` and from the read time-out that OpenAI's SDKs send along. The latter is the
client's patience: of a whole answer it bounds everything, since the client leaves then; of a stream it bounds only when
a last attempt may begin, since each token starts the client's time-out anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.timing import CallTime
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import CostLimit
from proxy.schema.records import NANO_PER_USD

PATIENCE_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")  # Python, and the other SDKs; in seconds
ANSWER_BEFORE_S = 0.1  # before the client gives up, so that it learns why instead of trying again


class CallBounds:
    """`deadline_s` ends the call, `patience_s` ends retries, fallbacks and hedges; both count from its start."""

    __slots__ = ("_attempts", "_max_nano", "_time", "deadline_s", "limits_cost", "patience_s", "whose")

    def __init__(self, time: CallTime, attempts: list[Attempt]) -> None:
        self.deadline_s = math.inf
        self.patience_s = math.inf
        self.whose = "router.deadline_s"
        self.limits_cost = False
        self._max_nano = 0
        self._time = time
        self._attempts = attempts

    def read(self, request: AnyRequest, headers: Mapping[str, str], deadline_s: float) -> None:
        """Takes the limits of a request; `deadline_s` is the server's own."""
        hints = request.hints
        self.deadline_s = self.patience_s = deadline_s
        if hints.deadline_ms is not None and hints.deadline_ms / 1000 < deadline_s:
            self.deadline_s = self.patience_s = hints.deadline_ms / 1000
            self.whose = "routing.deadline_ms"
        for name in PATIENCE_HEADERS:
            patience_s = _seconds(headers.get(name))
            if patience_s is not None and patience_s < self.patience_s:
                self.patience_s = patience_s
                if not request.stream:
                    self.deadline_s = max(patience_s / 2, patience_s - ANSWER_BEFORE_S)
                    self.whose = f"the client's {name}"
        if hints.max_cost_usd is not None:
            self.limits_cost = True
            self._max_nano = round(hints.max_cost_usd * NANO_PER_USD)

    @property
    def time_left_s(self) -> float:
        """Until the client has no patience for another attempt."""
        return min(self.deadline_s, self.patience_s) - self._time.elapsed_ms() / 1000

    @property
    def is_late(self) -> bool:
        return self.time_left_s <= 0

    def refusal(self, name: str, bound_nano: int | None) -> CostLimit | None:
        """The error if an attempt that may cost `bound_nano` could exceed what the client allows; None: it may run."""
        if not self.limits_cost:
            return None
        if bound_nano is None:
            return CostLimit(f"{name} has no known price, so routing.max_cost_usd cannot hold.", "price_unknown")
        left = self._max_nano - self._spent()
        if bound_nano <= left:
            return None
        return CostLimit(
            f"{name} could cost up to ${bound_nano / NANO_PER_USD:.6f}; of routing.max_cost_usd "
            f"${max(0, left) / NANO_PER_USD:.6f} is left. A smaller max_tokens lowers the bound.",
            "max_cost_exceeded",
        )

    def _spent(self) -> int:
        """What ended attempts cost, and running ones may cost. Attempts without a price were refused above."""
        spent = 0
        for attempt in self._attempts:
            end = attempt.ended
            spent += (attempt.hold_nano if end is None else end.cost_nano) or 0
        return spent


def _seconds(value: str | None) -> float | None:
    """The SDKs send a number; anything else is ignored."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
