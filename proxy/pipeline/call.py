"""Orchestrates: one call and its attempts as they run, and what they turn into: rows for the ledger, usage for the
answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from msgspec.structs import replace

from proxy.metering import tokens
from proxy.metering.usage import Used, usage_of
from proxy.pipeline.native import NativeAnswer
from proxy.pipeline.timing import CallTime, Clock
from proxy.routing.names import Deployment
from proxy.schema.chat import AnyRequest, AnyResponse, ChatResponse, Usage
from proxy.schema.errors import ProxyError, UpstreamError
from proxy.schema.fold import Fold
from proxy.schema.records import (
    MAX_TOKENS,
    NANO_PER_USD,
    AttemptEnd,
    AttemptOpen,
    CallEnd,
    Caller,
    CallOpen,
    Cost,
    Outcome,
    Tokens,
)


class Attempt:
    """One try at one deployment. The dispatcher notes here what it sees; `end` says what that amounts to."""

    def __init__(self, call: Call, deployment: Deployment, request: AnyRequest) -> None:
        self.call = call
        self.deployment = deployment
        self.request = request
        self.seq: int = call.attempts[-1].seq + 1 if call.attempts else 1
        self.id = f"{call.id}-{self.seq}"
        self.started = call.clock.monotonic_s()
        self.sent = False  # the request left, or may have
        self._waiting = False  # for this provider; see `CallTime.begin_wait`
        self.accepted = False  # a 2xx answer began
        self.finished = False  # the whole answer is here, usage may be missing
        self.committed = False  # a delta left for the client: no second model may answer
        self.status: int | None = None
        self.request_id: str | None = None
        self.first_token_ms: float | None = None
        self.dropped: list[str] = []
        self.adapted: list[str] = []
        self.native: NativeAnswer | None = None  # where the vendor's own bytes are the answer
        self.fold = Fold()
        self.lost_bytes = 0  # of a whole answer that broke off
        self.failure: UpstreamError | None = None
        self.leftover: Callable[[], Awaitable[None]] | None = None  # reads the usage a client did not wait for
        self.ended: AttemptEnd | None = None
        self._cost: Cost | None = None

    def opening(self, hold_nano: int | None) -> AttemptOpen:
        return AttemptOpen(
            id=self.id,
            call_id=self.call.id,
            seq=self.seq,
            provider=self.deployment.provider_name,
            model=self.deployment.model,
            opened_ns=self.call.clock.unix_ns(),
            hold_nano=hold_nano,
            price_version=self.deployment.price_version,
        )

    def note_sent(self) -> None:
        """The request is about to leave; from here on the provider is waited for."""
        self.sent = self._waiting = True
        self.call.time.begin_wait()

    def note_received(self) -> None:
        """What the caller waited for is here, the whole answer or a stream's first token, or will not come."""
        if self._waiting:
            self._waiting = False
            self.call.time.end_wait()

    def note_accepted(self, status: int, request_id: str | None) -> None:
        self.accepted, self.status, self.request_id = True, status, request_id

    def note_first_token(self) -> None:
        self.committed = True
        self.note_received()
        self.first_token_ms = self.call.time.note_first_token()

    def note_failure(self, error: UpstreamError) -> None:
        """What was refused, or never reached the provider, used nothing."""
        if not self.accepted and ((error.upstream_status or 0) >= 300 or error.nothing_sent):
            self.sent = False
        self.failure = error
        self.end(error.outcome, error.code, error.upstream_status)

    def note_whole(self, response: AnyResponse) -> None:
        self.finished = True
        self.fold.usage = response.get("usage")
        if "choices" in response and self._said() is None:
            for choice in cast(ChatResponse, response)["choices"]:
                message = choice["message"]
                delta: dict[str, Any] = {
                    name: message.get(name) for name in ("content", "reasoning_content", "refusal")
                }
                delta["tool_calls"] = [{**call, "index": i} for i, call in enumerate(message.get("tool_calls") or [])]
                self.fold.add({"choices": [{"index": choice.get("index", 0), "delta": cast(Any, delta)}]})

    def note_answered(self) -> None:
        """Its answer is here to the end, and is the call's answer or a part of it."""
        self.call.answered.append(self)
        self.end(Outcome.OK)

    def measured(self) -> tuple[Tokens, str]:
        """Tokens and where they are from: the provider, or estimated where its usage is missing or the answer was
        cut.
        """
        if self.ended is not None:
            return self.ended.tokens, self.ended.usage_source
        seen = self._said()
        if seen is not None and self.finished:
            return seen, "provider"
        if not self.sent:
            return Tokens(), "none"
        output = tokens.estimate(self.fold.text()) or self.lost_bytes // 4
        if seen is None:
            return Tokens(input=tokens.estimate_prompt(self.request), output=output), "estimated"
        return replace(seen, output=max(seen.output, output)), "estimated"

    def _said(self) -> Tokens | None:
        """What the provider says; None where it says nothing, or what nobody used and no column holds the price of."""
        said = self.deployment.provider.tokens(self.fold.usage) if self.fold.usage is not None else None
        return said if said is None or max(said.total, said.searches) <= MAX_TOKENS else None

    def cost(self) -> Cost | None:
        """What it cost in nano-USD by part; None where the price is unknown."""
        return self.deployment.cost(self.measured()[0]) if self.ended is None else self._cost

    def used(self) -> Used:
        """What it is to the answer that it is a part of."""
        return Used(self.fold.usage, *self.measured(), self.cost())

    def end(self, outcome: Outcome, error_code: str | None = None, status: int | None = None) -> AttemptEnd:
        """The row's end; the first one stands."""
        if self.ended is None:
            self.note_received()
            measured, source = self.measured()
            self._cost = cost = self.deployment.cost(measured) if source != "none" else Cost()
            self.ended = AttemptEnd(
                id=self.id,
                call_id=self.call.id,
                outcome=outcome,
                status=status or self.status,
                error_code=error_code,
                tokens=measured,
                usage_source=source,
                cost_nano=None if cost is None else cost.total,
                duration_ms=(self.call.clock.monotonic_s() - self.started) * 1000,
                first_token_ms=self.first_token_ms,
                upstream_request_id=self.request_id,
            )
        return self.ended


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
        self.adapted: list[str] = []  # what the proxy itself changed in the request
        self.limit_headers: dict[str, str] = {}  # `x-ratelimit-*` of the caller's own limits
        self.leave: Callable[[int], None] | None = None  # gives its place back, told the tokens that were used
        self.client_gone = False
        self.settled: CallEnd | None = None

    @property
    def created(self) -> int:
        """Unix seconds, as OpenAI's `created`."""
        return self.opened_ns // NANO_PER_USD

    @property
    def answering(self) -> Attempt:
        """The attempt that answered or tried last; those that answer together are all of one deployment."""
        return self.answered[-1] if self.answered else self.attempts[-1]

    @property
    def ends(self) -> list[AttemptEnd]:
        """The ends of the attempts that ended."""
        return [attempt.ended for attempt in self.attempts if attempt.ended]

    def note_gone(self) -> None:
        self.client_gone = True

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
        )

    def end(self, outcome: Outcome, error: ProxyError | None = None) -> CallEnd:
        """How the call ended; with it end the attempts that were still running."""
        answering = self.answering if self.attempts else None
        code = error.code if error else None
        for attempt in self.attempts:
            attempt.end(outcome, code)
        return CallEnd(
            call_id=self.id,
            outcome=outcome,
            status=_status(outcome, error),
            error_code=code,
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
