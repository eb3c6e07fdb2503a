"""Translates: the time and the money that the client allows for a call, for all attempts together.

The time comes from `routing.deadline_ms` and from the read time-out that OpenAI's SDKs send along. The latter is the
client's patience: for a whole answer it bounds everything, because the client then disconnects; for a stream it bounds
only when the last attempt may begin, because each token restarts the client's time-out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from proxy.pipeline.attempt import Attempt
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import CostLimit
from proxy.schema.records import NANO_PER_USD

PATIENCE_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")  # Python, and the other SDKs; in seconds
ANSWER_BEFORE_S = 0.1  # before the client gives up, so that it gets the reason instead of retrying


class Bounds(Struct, frozen=True):
    """`deadline_s` ends the call, `patience_s` ends retries, fallbacks and hedges; both count from its start.

    `whose` names what set the deadline. `max_nano` None: no cost limit; `whose_cost` names what set it.
    """

    deadline_s: float = math.inf
    patience_s: float = math.inf
    whose: str = "router.deadline_s"
    max_nano: int | None = None
    whose_cost: str = "routing.max_cost_usd"

    def within(self, max_nano: int | None, whose_cost: str) -> Bounds:
        """These bounds with another cost limit."""
        if max_nano is None or (self.max_nano is not None and self.max_nano <= max_nano):
            return self
        return replace(self, max_nano=max_nano, whose_cost=whose_cost)

    def narrowed(self, request: AnyRequest, headers: Mapping[str, str]) -> Bounds:
        """These bounds narrowed by those of a request; `self` if the request has none."""
        hints = request.hints
        given = [headers.get(name) for name in PATIENCE_HEADERS]
        if hints.deadline_ms is None and hints.max_cost_usd is None and given == [None, None]:
            return self
        deadline_s, patience_s, whose = self.deadline_s, self.patience_s, self.whose
        if hints.deadline_ms is not None and hints.deadline_ms / 1000 < deadline_s:
            deadline_s = patience_s = hints.deadline_ms / 1000
            whose = "routing.deadline_ms"
        for name, value in zip(PATIENCE_HEADERS, given, strict=True):
            read_s = _seconds(value)
            if read_s is not None and read_s < patience_s:
                patience_s = read_s
                if not request.stream:
                    deadline_s, whose = max(read_s / 2, read_s - ANSWER_BEFORE_S), f"the client's {name}"
        max_nano = None if hints.max_cost_usd is None else round(hints.max_cost_usd * NANO_PER_USD)
        return Bounds(deadline_s, patience_s, whose, max_nano)

    def refusal(self, name: str, bound_nano: int | None, attempts: Iterable[Attempt]) -> CostLimit | None:
        """The error if an attempt that may cost `bound_nano` could exceed what the client allows; None: it may run."""
        if self.max_nano is None:
            return None
        if bound_nano is None:
            return CostLimit(
                f"{name} has no known price, so {self.whose_cost} cannot be enforced.",
                "price_unknown",
                param=self.whose_cost,
            )
        left = self.max_nano - _spent(attempts)
        if bound_nano <= left:
            return None
        return CostLimit(
            f"{name} could cost up to ${bound_nano / NANO_PER_USD:.6f}, but only "
            f"${max(0, left) / NANO_PER_USD:.6f} of {self.whose_cost} is left. A smaller max_tokens lowers the bound.",
            "max_cost_exceeded",
            param=self.whose_cost,
        )


UNBOUNDED = Bounds()


def _spent(attempts: Iterable[Attempt]) -> int:
    """The cost of ended attempts plus the holds of running ones. Attempts without a price were refused."""
    spent = 0
    for attempt in attempts:
        end = attempt.ended
        spent += (attempt.hold_nano if end is None else end.cost_nano) or 0
    return spent


def _seconds(value: str | None) -> float | None:
    """The number of seconds that an SDK sent; anything else is ignored."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
