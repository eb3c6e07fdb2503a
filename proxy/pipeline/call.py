"""Orchestrates: one call from admission to settlement, and its row, usage and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from proxy.metering.usage import usage_of
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.bounds import UNBOUNDED
from proxy.pipeline.gate import CommitGate
from proxy.pipeline.timing import CallTime, Clock
from proxy.routing.decision import Decision
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import CostLimit, ProxyError
from proxy.schema.prompts import NOT_USED
from proxy.schema.records import NANO_PER_USD, NO_LABELS, NOT_DECIDED, CallEnd, Caller, CallOpen, Charge, Outcome
from proxy.schema.usage import Usage

if TYPE_CHECKING:
    from proxy.pipeline.call_text import CallText
    from proxy.pipeline.panel_record import PanelRecord
    from proxy.pipeline.seating import Seated

BUDGET_WAIT_S = 0.25
_STATUSES = {Outcome.CLIENT_CLOSED: 499, Outcome.CANCELLED: 503}


class Call:
    """One client request from its admission to its settlement. `trace`: its telemetry, if that is on."""

    trace: object | None = None
    bounds = UNBOUNDED  # of its time and its cost
    decision: Decision | None = None  # how the router chose; None: the request names its model
    decided = NOT_DECIDED  # the same, for the call's row
    labels = NO_LABELS
    used = NOT_USED  # its stored prompt, and its variant of an experiment
    traced: Decision | None = None  # the same, for the answer, if the client asked for it
    text: CallText | None = None  # its request and answer, if its key stores them or an experiment judges them
    leave: Callable[[int | None], None] | None = None  # returns the rate-limit place; takes the tokens used
    charges: tuple[Charge, ...] = ()  # the budgets of the whole call
    charges_failed = True  # its key pays even if the answer broke off
    budget_wait_s = BUDGET_WAIT_S  # time left to wait for budgets that other calls hold
    can_downgrade = True
    is_downgraded = False
    downgraded_from: str | None = None  # the model that a spent budget replaced
    bound_nano = 0  # upper bound of the plan's cost; 0: unknown
    answer_bytes = 0  # of whole answers received
    referable: tuple[str, bytes] | None = None  # name and content of what later requests may refer to
    is_open = False  # the ledger has its row, or is about to write it
    cancelled_by: Outcome | None = None  # why its task was cancelled
    settled: CallEnd | None = None
    seated: Seated | None = None  # the panel that answers, if an ensemble was asked
    panel_report: dict[str, Any] | None = None  # what it decided
    recorded: PanelRecord | None = None  # the same, for the call's row
    on_open: Callable[[], None] | None = None  # called for each attempt that the ledger granted

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
        self.answered: list[Attempt] = []  # attempts that make up the answer: several if the call asked more than once
        self.gate = CommitGate()  # of the call's own ask
        self.adapted: list[str] = []  # parameters that the proxy itself changed
        self.limit_headers: dict[str, str] = {}  # `x-ratelimit-*` of the caller's own limits
        self._seq = count(1)

    def next_seq(self) -> int:
        """The number of the next attempt. Numbers are never reused, not even those of withdrawn attempts."""
        return next(self._seq)

    @property
    def created(self) -> int:
        """Unix seconds, as OpenAI's `created`."""
        return self.opened_ns // NANO_PER_USD

    @property
    def answering(self) -> Attempt:
        """The attempt that answered, else the one whose content is being sent, else the latest."""
        if self.answered:
            return self.answered[-1]
        return self.gate.attempt or self.attempts[-1]

    @property
    def shown_model(self) -> str:
        """`model` of the answer: the deployment that answered; for an ensemble the requested name."""
        return self.answering.deployment.name if self.seated is None else self.request.model

    @property
    def time_left_s(self) -> float:
        """Seconds until the client has no patience for another attempt."""
        return min(self.bounds.deadline_s, self.bounds.patience_s) - self.time.elapsed_ms() / 1000

    @property
    def is_late(self) -> bool:
        return self.time_left_s <= 0

    @property
    def limits_cost(self) -> bool:
        """True if the client limited the cost of the call."""
        return self.bounds.max_nano is not None

    def refusal(self, name: str, bound_nano: int | None) -> CostLimit | None:
        """The error if another attempt that may cost `bound_nano` could exceed what the client allows."""
        return self.bounds.refusal(name, bound_nano, self.attempts)

    @property
    def may_downgrade(self) -> bool:
        """True if a cheaper model may answer in place of the requested one: no part of the answer exists yet."""
        if not self.can_downgrade or self.is_downgraded or not self.request.hints.allow_downgrade:
            return False
        return not any(attempt.ended and attempt.ended.outcome is Outcome.OK for attempt in self.attempts)

    def note_adapted(self, names: list[str]) -> None:
        """Records parameters that the proxy itself changed."""
        self.adapted = list(dict.fromkeys([*self.adapted, *names]))

    def note_answered(self, attempt_ids: Sequence[str]) -> None:
        """Records the attempts that make up the answer."""
        self.answered = [attempt for attempt in self.attempts if attempt.id in attempt_ids]

    def note_ended(self) -> None:
        """Frees the call's place in the caller's limits, however the call ended.

        A call that was refused before any attempt does not count.
        """
        if self.leave is not None:
            used = sum(attempt.used().report.billed.total for attempt in self.attempts if attempt.ended)
            self.leave(used if self.attempts else None)

    def opening(self, config_version: str) -> CallOpen:
        return CallOpen(
            id=self.id,
            opened_ns=self.opened_ns,
            key_id=self.caller.key_id,
            requested_model=self.request.model,
            stream=self.request.stream,
            task_type=self._task(),
            config_version=config_version,
            bound_nano=self.bound_nano,
            decided=self.decided,
            labels=self.labels,
            charges=self.charges,
            used=self.used,
        )

    def _task(self) -> str | None:
        if self.decision is not None:
            return self.decision.facts.task
        return self.request.task_type or self.request.hints.task

    def end(self, outcome: Outcome, error: ProxyError | None = None) -> CallEnd:
        """The record of the call's end. All its attempts must have ended."""
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
            fallback=self._fell_back(),
            dropped=answering.dropped if answering else [],
            is_forgiven=not self.charges_failed and (outcome is not Outcome.OK or self._is_empty()),
            downgraded_from=self.downgraded_from,
            ensemble=None if self.recorded is None else self.recorded.record(self.attempts),
            judged=self._judged(outcome),
        )

    def _judged(self, outcome: Outcome) -> tuple[bool, bool] | None:
        if self.text is None or self.used.experiment is None or outcome is not Outcome.OK:
            return None
        return self.text.judged()

    def _fell_back(self) -> bool:
        """Whether one ask went to several models. Members of an ensemble are asked side by side: no fallbacks."""
        if len(self.attempts) < 2:
            return False
        asked = {(attempt.origin.seat, attempt.deployment.name) for attempt in self.attempts}
        return len(asked) > len({seat for seat, _ in asked})

    def _is_empty(self) -> bool:
        return not any(attempt.ended.tokens.output for attempt in self.answered if attempt.ended)

    def _first_token_ms(self) -> float | None:
        attempts = self.answered or self.attempts[-1:]
        return min([each.first_token_ms for each in attempts if each.first_token_ms is not None], default=None)

    def usage(self) -> Usage:
        """The answer's usage in OpenAI's shape, with the cost of the whole call, failed attempts included. For an
        ensemble all asks count, and the cost is listed by model.
        """
        costs = [attempt.cost() for attempt in self.attempts]
        if self.seated is not None:
            models = [attempt.deployment.name for attempt in self.attempts]
            return usage_of([attempt.used() for attempt in self.attempts], costs, models)
        return usage_of([attempt.used() for attempt in self.answered or [self.answering]], costs)

    def cost_usd(self) -> float | None:
        """The cost of all attempts; None if any price is unknown."""
        costs = [cost.total for attempt in self.attempts if (cost := attempt.cost()) is not None]
        return sum(costs) / NANO_PER_USD if len(costs) == len(self.attempts) else None


def _status(outcome: Outcome, error: ProxyError | None) -> int:
    if error is not None:
        return error.status
    return 200 if outcome is Outcome.OK else _STATUSES.get(outcome, 500)
