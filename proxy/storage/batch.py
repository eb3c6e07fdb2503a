"""Translates: changes of calls in flight into the rows of one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, CallOpen, Charge, Outcome


class EndedAttempt(Struct, frozen=True):
    """The end of one attempt; with its call's id, `seq` is the key of its row."""

    seq: int
    closed_ns: int
    end: AttemptEnd


class ClosedCall(Struct, frozen=True):
    """The end of one call: tokens and cost are the sums over its attempts; `cost_nano` None: one price is unknown.

    `charged_nano` is the amount that its key pays.
    """

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
    charged_nano: int | None = 0
    estimated: bool = False


class Batch(Struct):
    """The rows of one transaction.

    `withdrawn` (attempts, by id) and `unopened` (call ids) are rows to remove, in case an earlier transaction without
    an answer wrote them. `opened` (by call id) and `intents` (by attempt id) are new rows; `holds`, `ended` and
    `closed` change rows, new ones included. `abandoned` maps calls whose end could not be written to the time at which
    they are closed as `unknown`. They are written in this order.

    `charges` (by call id) and `attempt_charges` (by attempt id) name the budget windows of the rows above. `growth`:
    attempt id -> the amount in nano-USD by which it raises its call's hold; attempts without an entry are already
    granted.
    """

    withdrawn: dict[str, AttemptOpen] = field(default_factory=dict)
    unopened: set[str] = field(default_factory=set)
    opened: dict[str, tuple[CallOpen, AttemptOpen | None]] = field(default_factory=dict)
    intents: dict[str, AttemptOpen] = field(default_factory=dict)
    holds: dict[str, int | None] = field(default_factory=dict)
    ended: list[EndedAttempt] = field(default_factory=list)
    closed: dict[str, ClosedCall] = field(default_factory=dict)
    abandoned: dict[str, int] = field(default_factory=dict)
    charges: dict[str, tuple[Charge, ...]] = field(default_factory=dict)
    attempt_charges: dict[str, tuple[Charge, ...]] = field(default_factory=dict)
    growth: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of changes in the batch."""
        return (
            len(self.withdrawn)
            + len(self.unopened)
            + len(self.opened)
            + len(self.intents)
            + len(self.holds)
            + len(self.ended)
            + len(self.closed)
            + len(self.abandoned)
        )

    def __bool__(self) -> bool:
        """True if there are any changes. The ledger's thread asks several times per commit."""
        news = self.opened or self.intents or self.holds or self.ended or self.closed
        return bool(news or self.withdrawn or self.unopened or self.abandoned)

    def split(self) -> dict[str, Batch]:
        """The same changes as one batch per call id, so that a bad row only fails its own call."""
        parts: dict[str, Batch] = {}

        def part(call_id: str) -> Batch:
            return parts.setdefault(call_id, Batch())

        for attempt in self.withdrawn.values():
            part(attempt.call_id).withdrawn[attempt.id] = attempt
        for call_id in self.unopened:
            part(call_id).unopened.add(call_id)
        for call_id, opened in self.opened.items():
            part(call_id).opened[call_id] = opened
        for attempt in self.intents.values():
            part(attempt.call_id).intents[attempt.id] = attempt
        for call_id, hold_nano in self.holds.items():
            part(call_id).holds[call_id] = hold_nano
        for ended in self.ended:
            part(ended.end.call_id).ended.append(ended)
        for call_id, closed in self.closed.items():
            part(call_id).closed[call_id] = closed
        for call_id, closed_ns in self.abandoned.items():
            part(call_id).abandoned[call_id] = closed_ns
        for call_id, each in parts.items():
            each.charges = {call_id: self.charges[call_id]} if call_id in self.charges else {}
            ids = {*each.intents, *each.withdrawn, *(ended.end.id for ended in each.ended)}
            each.attempt_charges = {name: self.attempt_charges[name] for name in ids if name in self.attempt_charges}
            each.growth = {name: self.growth[name] for name in each.intents if name in self.growth}
        return parts

    @property
    def has_charges(self) -> bool:
        return bool(self.charges or self.attempt_charges)

    def without(self, attempts: Collection[str], calls: Collection[str], holds: Mapping[str, int]) -> Batch:
        """This batch without these new attempts and calls, and with these holds."""
        kept = {call_id: hold for call_id, hold in {**self.holds, **holds}.items() if call_id not in calls}
        return replace(
            self,
            opened={call_id: opened for call_id, opened in self.opened.items() if call_id not in calls},
            intents={attempt_id: attempt for attempt_id, attempt in self.intents.items() if attempt_id not in attempts},
            holds=kept,
        )

    def hold_of(self, call_id: str) -> int | None:
        """The hold of a call after this batch, if it has one in here."""
        if call_id in self.holds or call_id not in self.opened:
            return self.holds.get(call_id)
        return first_hold(*self.opened[call_id])

    def admissions(self) -> list[Batch]:
        """One batch per new attempt of one call's batch; the first includes the call's row if that is new.

        Each sets the call's hold as if all attempts before it had been admitted.
        """
        parts = []
        for name, attempt in self.intents.items():
            parts.append(Batch(intents={name: attempt}, charges=self.charges, attempt_charges=self.attempt_charges))
            if name in self.growth:
                parts[-1].growth = {name: self.growth[name]}
        if not parts:
            return []
        parts[0].opened = self.opened
        (call_id,) = {attempt.call_id for attempt in self.intents.values()}
        hold = self.hold_of(call_id)
        if hold is not None:
            hold -= sum(self.growth.values())
            for part in parts:
                hold += sum(part.growth.values())
                part.holds = {call_id: hold}
        return parts

    def changes(self) -> Batch:
        """The rest of one call's batch: the changes of existing rows."""
        return replace(self, withdrawn={}, unopened=set(), opened={}, intents={}, holds={}, growth={})


class OpenCall:
    """One call in flight: its attempts, and the sums over the ended ones.

    `opening` is the row of `call` until it is committed, then None. `started` (all attempts except forgotten ones) and
    `running` are keyed by attempt id.
    """

    __slots__ = (
        "cache_write_tokens",
        "cached_tokens",
        "call",
        "call_id",
        "cost_nano",
        "estimated",
        "hold_nano",
        "input_tokens",
        "opening",
        "output_tokens",
        "reasoning_tokens",
        "running",
        "started",
    )

    def __init__(self, opening: CallOpen) -> None:
        self.call_id = opening.id
        self.call = opening
        self.opening: CallOpen | None = opening
        self.started: dict[str, AttemptOpen] = {}
        self.running: dict[str, AttemptOpen] = {}
        self.input_tokens = self.output_tokens = 0
        self.cached_tokens = self.cache_write_tokens = self.reasoning_tokens = 0
        self.cost_nano: int | None = 0
        self.estimated = False
        self.hold_nano: int | None = 0

    def start(self, attempt: AttemptOpen) -> None:
        """Adds an attempt. The hold is the cost so far plus the bounds of running attempts, or the plan's if higher."""
        self.started[attempt.id] = self.running[attempt.id] = attempt
        self._rehold()

    def forget(self, attempt_id: str) -> None:
        """Removes an attempt that was never sent and has no row."""
        del self.started[attempt_id], self.running[attempt_id]
        self._rehold()

    def finish(self, end: AttemptEnd, closed_ns: int) -> EndedAttempt | None:
        """Adds an attempt's usage to the sums. None if it is not running: only the first end counts."""
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
            if tokens.total or end.outcome is Outcome.UNKNOWN:  # otherwise there is nothing to price
                self.cost_nano = None
        elif self.cost_nano is not None:
            self.cost_nano += end.cost_nano
        self.estimated |= end.usage_source in ("estimated", "unknown") or end.outcome is Outcome.UNKNOWN
        self._rehold()
        return EndedAttempt(seq=attempt.seq, closed_ns=closed_ns, end=end)

    def close(self, end: CallEnd, closed_ns: int) -> tuple[list[EndedAttempt], ClosedCall]:
        """Ends the call. Attempts without an end have unknown usage and are charged their holds."""
        ended: list[EndedAttempt] = []
        for attempt in list(self.running.values()):
            untold = AttemptEnd(attempt.id, self.call_id, Outcome.UNKNOWN, cost_nano=attempt.hold_nano)
            if (finished := self.finish(untold, closed_ns)) is not None:
                ended.append(finished)
        last = next(reversed(self.started.values()), None)
        return ended, ClosedCall(
            end=end,
            closed_ns=closed_ns,
            provider=end.provider or (last.provider if last else None),
            model=end.model or (last.model if last else None),
            attempts=len(self.started),
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            cache_write_tokens=self.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens,
            cost_nano=self.cost_nano,
            charged_nano=0 if end.is_forgiven else self.cost_nano,
            estimated=self.estimated,
        )

    def growth(self, pending: Sequence[AttemptOpen]) -> Iterator[tuple[str, int]]:
        """Attempt id -> the amount by which each of these attempts, the latest, raises the hold: its own bound, or for
        the first of a call the plan's, if that is higher.
        """
        ids = {attempt.id for attempt in pending}
        held = self.cost_nano or 0
        held += sum(attempt.hold_nano or 0 for attempt in self.running.values() if attempt.id not in ids)
        before = max(held, self.call.bound_nano) if len(self.started) > len(ids) else 0
        for attempt in pending:
            held += attempt.hold_nano or 0
            after = 0 if self.hold_nano is None else max(held, self.call.bound_nano)
            yield attempt.id, max(0, after - before)
            before = max(before, after)

    def _rehold(self) -> None:
        held = self.cost_nano
        for attempt in self.running.values():
            held = None if held is None or attempt.hold_nano is None else held + attempt.hold_nano
        self.hold_nano = None if held is None else max(held, self.call.bound_nano) if self.started else 0


def first_hold(call: CallOpen, attempt: AttemptOpen | None) -> int | None:
    """The hold of a call with its first attempt."""
    if attempt is None:
        return 0
    return None if attempt.hold_nano is None else max(attempt.hold_nano, call.bound_nano)


def rejected(end: CallEnd, closed_ns: int) -> ClosedCall:
    """The end of a call that was refused before any attempt."""
    return ClosedCall(end=end, closed_ns=closed_ns, provider=end.provider, model=end.model)
