"""Orchestrates: one call from its admission to its settlement, and what it turns into: a row, usage, headers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from proxy.metering.usage import usage_of
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.gate import CommitGate
from proxy.pipeline.timing import CallTime, Clock
from proxy.schema.chat import AnyRequest
from proxy.schema.errors import ProxyError
from proxy.schema.records import NANO_PER_USD, CallEnd, Caller, CallOpen, Outcome
from proxy.schema.usage import Usage


class Call:
    """One client request from its admission to its settlement."""

    def __init__(
        self, call_id: str, caller: Caller, request: AnyRequest, clock: Clock, started: float | None = None
    ) -> None:
        self.id = call_id
        self.caller = caller
        self.request = request
        self.clock = clock
        self.opened_ns = clock.unix_ns()
        self.time = CallTime(clock, started)
        self.attempts: list[Attempt] = []
        self.answered: list[Attempt] = []  # whose answers make up the call's: several where it asked more than once
        self.gate = CommitGate()  # of the call's own ask
        self.adapted: list[str] = []  # what the proxy itself changed in the request
        self.limit_headers: dict[str, str] = {}  # `x-ratelimit-*` of the caller's own limits
        self.leave: Callable[[int], None] | None = None  # gives its place back, told the tokens that were used
        self.bound_nano = 0  # the most that its plan may cost; 0: not known
        self.is_open = False  # the ledger has a row of it, or is about to write one
        self.cancelled_by: Outcome | None = None  # why its task was cancelled
        self.settled: CallEnd | None = None
        self._seq = count(1)

    def next_seq(self) -> int:
        """The number of the next attempt: none is used twice, whatever becomes of its attempt."""
        return next(self._seq)

    @property
    def created(self) -> int:
        """Unix seconds, as OpenAI's `created`."""
        return self.opened_ns // NANO_PER_USD

    @property
    def answering(self) -> Attempt:
        """The attempt that answered, else the one whose content leaves, else the one that tried last."""
        if self.answered:
            return self.answered[-1]
        return self.gate.attempt or self.attempts[-1]

    def note_answered(self, attempt_ids: Sequence[str]) -> None:
        """These attempts make up the answer."""
        self.answered = [attempt for attempt in self.attempts if attempt.id in attempt_ids]

    def note_ended(self) -> None:
        """The call ended, however it did: its place in the caller's limits is free."""
        if self.leave is not None:
            self.leave(sum(attempt.ended.tokens.total for attempt in self.attempts if attempt.ended))

    def opening(self, config_version: str) -> CallOpen:
        return CallOpen(
            id=self.id,
            opened_ns=self.opened_ns,
            key_id=self.caller.key_id,
            requested_model=self.request.model,
            stream=self.request.stream,
            task_type=self.request.task_type,
            config_version=config_version,
            bound_nano=self.bound_nano,
        )

    def end(self, outcome: Outcome, error: ProxyError | None = None) -> CallEnd:
        """How the call ended. Its attempts have ended before."""
        answering = self.answering if self.attempts else None
        return CallEnd(
            call_id=self.id,
            outcome=outcome,
            status=_status(outcome, error),
            error_code=error.code if error else None,
            provider=answering.deployment.provider_name if answering else None,
            model=answering.deployment.model if answering else None,
            latency_ms=self.time.elapsed_ms(),
            first_token_ms=self._first_token_ms(),
            fallback=len({attempt.deployment.name for attempt in self.attempts}) > 1,
            dropped=answering.dropped if answering else [],
        )

    def _first_token_ms(self) -> float | None:
        times = [attempt.first_token_ms for attempt in self.answered or self.attempts[-1:]]
        return min((time for time in times if time is not None), default=None)

    def usage(self) -> Usage:
        """OpenAI's usage of the answer, and what the whole call cost: failed attempts included."""
        return usage_of([attempt.used() for attempt in self.answered or [self.answering]], self.cost_usd())

    def cost_usd(self) -> float | None:
        """What all attempts cost; None as soon as the price of one is not known."""
        costs = [cost.total for attempt in self.attempts if (cost := attempt.cost()) is not None]
        return sum(costs) / NANO_PER_USD if len(costs) == len(self.attempts) else None


def _status(outcome: Outcome, error: ProxyError | None) -> int:
    if error is not None:
        return error.status
    return {Outcome.OK: 200, Outcome.CLIENT_CLOSED: 499, Outcome.CANCELLED: 503}.get(outcome, 500)
