"""Translates: what the ledger was told about calls in flight into the rows of one transaction."""

from __future__ import annotations

from msgspec import Struct, field

from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen


class EndedAttempt(Struct, frozen=True):
    """The end of one attempt, with the key of its row."""

    call_id: str
    seq: int
    closed_ns: int
    end: AttemptEnd


class ClosedCall(Struct, frozen=True):
    """The end of one call: tokens and cost are the sums over its attempts; `cost_nano` None: one price is unknown."""

    end: CallEnd
    closed_ns: int
    provider: str | None = None
    model: str | None = None
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int | None = 0
    estimated: bool = False


class Batch(Struct):
    """The rows of one transaction.

    `opened` (by call id) and `intents` (by attempt id) are new rows, written first; `holds`, `ended` and `closed`
    change rows, new ones included. `abandoned` maps calls whose own end could not be written to the time they are
    closed as `unknown`.
    """

    opened: dict[str, tuple[CallOpen, AttemptOpen | None]] = field(default_factory=dict)
    intents: dict[str, AttemptOpen] = field(default_factory=dict)
    holds: dict[str, int | None] = field(default_factory=dict)
    ended: list[EndedAttempt] = field(default_factory=list)
    closed: dict[str, ClosedCall] = field(default_factory=dict)
    abandoned: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many changes wait in the batch."""
        return (
            len(self.opened)
            + len(self.intents)
            + len(self.holds)
            + len(self.ended)
            + len(self.closed)
            + len(self.abandoned)
        )

    def split(self) -> dict[str, Batch]:
        """The same changes as one batch per call id, so that one call's bad row does not fail the others'."""
        parts: dict[str, Batch] = {}

        def part(call_id: str) -> Batch:
            return parts.setdefault(call_id, Batch())

        for call_id, opened in self.opened.items():
            part(call_id).opened[call_id] = opened
        for attempt in self.intents.values():
            part(attempt.call_id).intents[attempt.id] = attempt
        for call_id, hold_nano in self.holds.items():
            part(call_id).holds[call_id] = hold_nano
        for ended in self.ended:
            part(ended.call_id).ended.append(ended)
        for call_id, closed in self.closed.items():
            part(call_id).closed[call_id] = closed
        for call_id, closed_ns in self.abandoned.items():
            part(call_id).abandoned[call_id] = closed_ns
        return parts


class OpenCall:
    """One call in flight: which attempts run, and the sums over those that ended."""

    __slots__ = (
        "cache_write_tokens",
        "cached_tokens",
        "call_id",
        "cost_nano",
        "estimated",
        "hold_nano",
        "input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "running",
        "started",
    )

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        self.started: list[AttemptOpen] = []
        self.running: dict[str, AttemptOpen] = {}
        self.input_tokens = self.output_tokens = 0
        self.cached_tokens = self.cache_write_tokens = self.reasoning_tokens = 0
        self.cost_nano: int | None = 0
        self.estimated = False
        self.hold_nano: int | None = 0

    def start(self, attempt: AttemptOpen) -> None:
        """One more attempt intends to run; the hold becomes what was spent plus the bounds of what runs."""
        self.started.append(attempt)
        self.running[attempt.id] = attempt
        self._rehold()

    def forget(self, attempt_id: str) -> None:
        """The attempt's request never left and its row was never written."""
        self.started.remove(self.running.pop(attempt_id))
        self._rehold()

    def finish(self, end: AttemptEnd, closed_ns: int) -> EndedAttempt | None:
        """Adds an attempt's usage to the sums; None if it is not running: the first end counted."""
        attempt = self.running.pop(end.id, None)
        if attempt is None:
            return None
        tokens = end.tokens
        self.input_tokens += tokens.prompt
        self.output_tokens += tokens.output
        self.cached_tokens += tokens.cache_read
        self.cache_write_tokens += tokens.cache_write
        self.reasoning_tokens += tokens.reasoning
        if end.cost_nano is None:
            if tokens.total:  # without usage there is nothing to price
                self.cost_nano = None
        elif self.cost_nano is not None:
            self.cost_nano += end.cost_nano
        self.estimated |= end.usage_source == "estimated"
        return EndedAttempt(call_id=self.call_id, seq=attempt.seq, closed_ns=closed_ns, end=end)

    def close(self, end: CallEnd, closed_ns: int) -> tuple[list[EndedAttempt], ClosedCall]:
        """Ends what still runs, and the call.

        A running attempt for which `end` brings no result never left this process, so it cost nothing.
        """
        ended: list[EndedAttempt] = []
        if end.attempt is not None and (attempt := self.finish(end.attempt, closed_ns)) is not None:
            ended.append(attempt)
        for attempt_id in list(self.running):
            unsent = AttemptEnd(id=attempt_id, outcome=end.outcome, error_code=end.error_code)
            if (attempt := self.finish(unsent, closed_ns)) is not None:
                ended.append(attempt)
        last = self.started[-1]
        return ended, ClosedCall(
            end=end,
            closed_ns=closed_ns,
            provider=end.provider or last.provider,
            model=end.model or last.model,
            attempts=len(self.started),
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            cache_write_tokens=self.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens,
            cost_nano=self.cost_nano,
            estimated=self.estimated,
        )

    def _rehold(self) -> None:
        held = self.cost_nano
        for attempt in self.running.values():
            held = None if held is None or attempt.hold_nano is None else held + attempt.hold_nano
        self.hold_nano = held


def rejected(end: CallEnd, closed_ns: int) -> ClosedCall:
    """The end of a call that was refused before any attempt."""
    return ClosedCall(end=end, closed_ns=closed_ns, provider=end.provider, model=end.model)
