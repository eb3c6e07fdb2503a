"""Orchestrates: one attempt as it runs, and its results: rows for the ledger, usage for the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from msgspec import Struct
from msgspec.structs import replace

from proxy.metering import tokens
from proxy.metering.price_book import Answered
from proxy.metering.prices import trusted
from proxy.metering.service_terms import sent, terms_of
from proxy.metering.usage import Used
from proxy.pipeline.error_text import kept
from proxy.pipeline.native import NativeAnswer
from proxy.pipeline.stop_sequences import StopSequences
from proxy.pipeline.tally import StreamTally
from proxy.pipeline.tool_quality import judged
from proxy.routing.ask import CALL, Origin
from proxy.routing.board import HealthBoard
from proxy.routing.deployment import Deployment
from proxy.routing.plan import output_bound
from proxy.schema.attempt_state import AttemptState, step
from proxy.schema.chat import ADAPTED_FINISH, ChatResponse
from proxy.schema.endpoints import AnyRequest, AnyResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.json import encode
from proxy.schema.records import NO_NOTES, AttemptEnd, AttemptNotes, AttemptOpen, Charge, Cost, Outcome, Tokens
from proxy.schema.usage import NOTHING, UNSAID, Service, UsageReport, believable, merged

if TYPE_CHECKING:
    from proxy.pipeline.call import Call


_MAX_NAME = 256  # characters of a model's id in a row
_MAX_RAW = 4096  # bytes of a usage in a row


class Bill(Struct, frozen=True):
    """What an attempt used and costs. `by`: the price of another model that answered."""

    report: UsageReport
    source: str
    tokens: Tokens
    cost: Cost | None
    by: Answered | None = None


class Attempt:
    """One try at one deployment. The attempt loop records its progress here; `end` turns that into a row."""

    committed = False  # a delta may have been sent: no second model may answer in its place
    status: int | None = None
    request_id: str | None = None
    first_token_ms: float | None = None  # since the call began
    own_first_token_ms: float | None = None  # since the attempt began
    failure = ""  # the provider's error message, without secrets; it may quote the prompt
    retry_after_s: float | None = None
    other_key = False  # the vendor refused one key of several, and another one is free
    tool_calls = (0, 0)  # how many it made, and how many of them were broken
    cut: StopSequences | None = None  # if the vendor does not stop at them itself
    native: NativeAnswer | None = None  # if the vendor's own bytes are the answer
    hold_nano: int | None = None
    charges: tuple[Charge, ...] = ()  # the budgets of its provider and model
    ended: AttemptEnd | None = None
    _is_waiting = False  # for this provider; see `CallTime.begin_wait`
    _is_counted = False  # its error came with a usage
    _is_refused = False  # by an error inside a 200
    _message: str | None = None  # of its error, for its row
    _report = NOTHING  # once it has ended
    _cost: Cost | None = None

    def __init__(self, call: Call, deployment: Deployment, request: AnyRequest, origin: Origin = CALL) -> None:
        self.call = call
        self.deployment = deployment
        self.request = request
        self.origin = origin
        self.seq = call.next_seq()
        self.id = f"{call.id}-{self.seq}"
        self.started = call.clock.monotonic_s()
        self.state = AttemptState.INTENDED
        self.dropped: list[str] = []
        self.adapted: list[str] = []
        self.tally = StreamTally(has_tools=bool(request.fields.get("tools")))

    def opening(self, hold_nano: int | None) -> AttemptOpen:
        """Its intent row. `hold_nano`: an upper bound of its cost; None: unknown."""
        self.hold_nano = hold_nano
        return AttemptOpen(
            id=self.id,
            call_id=self.call.id,
            seq=self.seq,
            provider=self.deployment.provider_name,
            model=self.deployment.model,
            opened_ns=self.call.clock.unix_ns(),
            hold_nano=hold_nano,
            price_version=self.deployment.price_version,
            parent=self.origin.parent,
            seat=self.origin.seat,
            charges=self.charges,
            is_downgraded=self.call.is_downgraded,
        )

    @property
    def is_charged(self) -> bool:
        """True if it counts against some budget."""
        return bool(self.charges or self.call.charges)

    # --- its life -----------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """True once the whole answer has arrived; its usage may be missing."""
        return self.state is AttemptState.FINISHED

    def note_granted(self) -> None:
        self.state = step(self.state, AttemptState.GRANTED)

    def note_withdrawn(self) -> None:
        """The ledger did not grant it: it has no row, and its request never leaves."""
        self.state = step(self.state, AttemptState.WITHDRAWN)

    def begin_wait(self) -> None:
        """From here on the call waits for the provider: a place, a connection, its answer."""
        self._is_waiting = True
        self.call.time.begin_wait()

    def note_sent(self) -> None:
        """The request leaves: from now on the provider may be working on it."""
        self.state = step(self.state, AttemptState.SENT)

    def note_accepted(self, status: int, request_id: str | None) -> None:
        """A 2xx answer began."""
        if self.state is AttemptState.GRANTED:
            self.note_sent()
        self.state = step(self.state, AttemptState.ACCEPTED)
        self.status, self.request_id = status, request_id

    def note_received(self) -> None:
        """The whole answer or a stream's first token has arrived, or will not come."""
        if self._is_waiting:
            self._is_waiting = False
            self.call.time.end_wait()

    def note_first_token(self) -> None:
        self.committed = True
        self.note_received()
        self.first_token_ms = self.call.time.note_first_token()
        self.own_first_token_ms = self.first_token_ms - (self.started - self.call.time.started) * 1000

    def note_finished(self) -> None:
        """Every choice has its finish."""
        if self.state is not AttemptState.FINISHED:
            self.state = step(self.state, AttemptState.FINISHED)

    def note_finishes(self, choices: Iterable[Mapping[str, Any]]) -> None:
        """Reports a finish_reason that the provider did not give."""
        if any(ADAPTED_FINISH in each for each in choices) and "finish_reason" not in self.adapted:
            self.adapted = [*self.adapted, "finish_reason"]

    def note_whole(self, response: AnyResponse) -> None:
        """The texts are counted only where the vendor did not count its output."""
        self.note_finished()
        self.tally.usage = response.get("usage")
        self.tally.note_served(response)
        if "choices" in response:
            self.note_finishes(cast(ChatResponse, response)["choices"])
        if "choices" in response and not self.tally.is_counted:
            for choice in cast(ChatResponse, response)["choices"]:
                message = choice["message"]
                delta: dict[str, Any] = {
                    name: message.get(name) for name in ("content", "reasoning_content", "refusal")
                }
                delta["tool_calls"] = [{**call, "index": i} for i, call in enumerate(message.get("tool_calls") or [])]
                self.tally.add({"choices": [{"index": choice.get("index", 0), "delta": cast(Any, delta)}]})

    def note_tool_calls(self, response: AnyResponse | None) -> None:
        """Counts the tool calls of an answer, and the broken ones; None: it was streamed."""
        messages = self.tally.tool_messages()
        if response is not None:
            messages = [choice["message"] for choice in cast(ChatResponse, response).get("choices", ())]
        self.tool_calls = judged(messages, self.request.fields["tools"])

    def fail(self, error: UpstreamError) -> None:
        """A request that the provider refused, or that never reached it, used nothing."""
        refused = self.state is AttemptState.SENT and ((error.upstream_status or 0) >= 300 or error.nothing_sent)
        if refused:
            self.state = step(self.state, AttemptState.GRANTED)
        self._is_refused = error.is_refusal and not self.committed
        if error.usage is not None:
            self.tally.usage = merged(self.tally.usage, error.usage)
            self._is_counted = True
        self.failure = error.message
        names = (self.deployment.model, self.deployment.provider_name)
        self._message = kept(error.message, self.request, names) or None
        self.retry_after_s, self.other_key = error.retry_after_s, error.other_key
        self.end(error.outcome, error.code, error.upstream_status)

    def end(self, outcome: Outcome, error_code: str | None = None, status: int | None = None) -> AttemptEnd:
        """The row's end. Only the first call counts."""
        if self.ended is None:
            self.note_received()
            bill = self._bill()
            self._report, self._cost, cost = bill.report, bill.cost, bill.cost
            self.state = step(self.state, AttemptState.ENDED)
            self.ended = AttemptEnd(
                id=self.id,
                call_id=self.call.id,
                outcome=outcome,
                status=status or self.status,
                error_code=error_code,
                tokens=bill.tokens,
                usage_source=bill.source,
                cost_nano=None if cost is None else cost.total,
                duration_ms=(self.call.clock.monotonic_s() - self.started) * 1000,
                first_token_ms=self.first_token_ms,
                upstream_request_id=self.request_id,
                notes=self._notes(bill),
            )
            # The call knows its attempts. Without this its request, which may be large, would stay in memory until the
            # garbage collector looks for cycles.
            del self.call, self.request
        return self.ended

    def tell(self, board: HealthBoard) -> None:
        """Reports the ended attempt. A failure of one API key of several says nothing about the deployment."""
        if self.ended is not None and not self.other_key:
            board.observe(
                self.deployment.name, self.ended, self.own_first_token_ms, self.retry_after_s, self.tool_calls
            )

    # --- what it used -------------------------------------------------------------------------------------------------

    def measured(self) -> tuple[Tokens, str]:
        """Tokens and where they come from.

        provider    the provider's own usage, of a complete answer
        estimated   usage is missing in part, cannot be true, or the answer was cut: the rest is estimated from its text
        unknown     the provider may have written an answer that never arrived: until reconciled, the row has as many
                    output tokens as the provider may have written, and costs its hold
        none        nothing reached the provider, or it refused
        """
        if self.ended is not None:
            return self.ended.tokens, self.ended.usage_source
        bill = self._bill()
        return bill.tokens, bill.source

    def _measure(self) -> tuple[UsageReport, str]:
        if not self.state.may_have_cost or self._is_refused:
            return NOTHING, "none"
        tally, finished = self.tally, self.finished
        written = tally.output_tokens
        report, is_estimated = believable(tally.usage, written, self._estimate_prompt, finished)
        if not finished:
            return report, "estimated" if written or self._is_counted else "unknown"
        return report, "estimated" if is_estimated else "provider"

    def _estimate_prompt(self) -> int:
        return tokens.estimate_prompt(self.request)

    def cost(self) -> Cost | None:
        """What it cost in nano-USD by part; None where the price is unknown."""
        return self._bill().cost if self.ended is None else self._cost

    @property
    def lacks_price(self) -> bool:
        """True if the answer names another model, whose price may be in a list that has not been read yet."""
        book, named, deployment = self.deployment.book, self.tally.model, self.deployment
        if book is None or named == deployment.model or not book.may_find(deployment.name) or not self._named():
            return False
        return book.lacks(deployment.provider_name, deployment.model, str(self._named()), deployment.price)

    def _named(self) -> str | None:
        """The model that the answer names."""
        named = self.tally.model
        return named[:_MAX_NAME] if isinstance(named, str) and named else None

    def _bill(self) -> Bill:
        report, source = self._measure()
        measured = report.billed
        if source == "none":
            return Bill(report, source, measured, Cost())
        deployment, tally = self.deployment, self.tally
        asked = sent(self.request.fields, deployment.provider.parameters, self.dropped)
        if report.service is not UNSAID or tally.tier or asked is not UNSAID or deployment.region:
            measured = replace(measured, terms=self._terms(report.service, asked))
        by = None if tally.model is None or tally.model == deployment.model else deployment.answered(self._named())
        cost = self._cost_of(measured, source, by)
        if report.cost_nano is not None and self.finished and deployment.provider.trust_cost:
            cost = trusted(cost, report.cost_nano, self.hold_nano)
        if source == "unknown":  # what arrived is in the report
            measured = replace(measured, output=max(measured.output, output_bound(self.request, deployment) or 0))
        return Bill(report, source, measured, cost, by)

    def _terms(self, said: Service, asked: Service) -> tuple[str, ...]:
        """The terms of service. The answer decides; if it names none, the request does."""
        tier = self.tally.tier
        if said.tier is None and isinstance(tier, str):
            said = replace(said, tier=tier)
        return terms_of(said, asked, self.deployment.region)

    def _notes(self, bill: Bill) -> AttemptNotes:
        notes = self._billing_notes(bill)
        return notes if self._message is None else replace(notes, message=self._message)

    def _billing_notes(self, bill: Bill) -> AttemptNotes:
        if bill.by is None and bill.report.cost_nano is None and bill.source != "estimated":
            return NO_NOTES
        named, reported, said = self._named() if bill.by else None, bill.report.cost_nano, self.tally.usage
        doubted = bill.source == "estimated" and said is not None
        if named is None and reported is None and not doubted:
            return NO_NOTES
        raw = _raw(said.absurd or said.shown) if said is not None and doubted else None
        return AttemptNotes(named, reported, raw, None if bill.by is None else bill.by.version or None)

    def _cost_of(self, measured: Tokens, source: str, by: Answered | None) -> Cost | None:
        cost = self.deployment.cost(measured, by)
        if source != "unknown" or cost is None:
            return cost
        if self.hold_nano is None:
            return None
        return replace(
            cost, output=cost.output + max(0, self.hold_nano - cost.total), total=max(cost.total, self.hold_nano)
        )

    def used(self) -> Used:
        """Its contribution to the answer that it is part of."""
        if self.ended is not None:
            return Used(self._report, self.ended.usage_source)
        return Used(*self._measure())


def _raw(usage: Any) -> str | None:
    """A vendor's usage as JSON, for its row; a long one is cut, as a text."""
    try:
        data = encode(usage)
    except (TypeError, ValueError, OverflowError, RecursionError):
        data = encode(repr(usage)[:_MAX_RAW])
    return (data if len(data) <= _MAX_RAW else encode(data[:_MAX_RAW].decode("utf-8", "replace"))).decode()
