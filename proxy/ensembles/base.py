"""Values: what all ensembles share: their members, the seats of one call, and the panel that they ask.

An ensemble decides; it writes no HTTP and no metering. Its panel asks on behalf of one call: cancelling the task that
runs the ensemble cancels all its asks, and each of them has its own fallback order, gate and attempts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, ClassVar, Protocol

from msgspec import Meta, Struct
from msgspec.structs import replace

from proxy.schema.chat import ChatRequest, ChatResponse, ResponseMessage, text_of
from proxy.schema.constraints import Count, NotBlank, NotNegative, Positive
from proxy.schema.errors import ProxyError, QuorumMissed, Silent

_CLIENT_FAULTS = (400, 413, 422)  # errors of the request itself


class Member(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One member: a model name, its weight in votes, and parameters that replace those of the request."""

    use: NotBlank
    weight: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    max_tokens: Count | None = None
    reasoning_effort: NotBlank | None = None


class Seat(Struct, frozen=True):
    """A member's place in one call. One model may take several.

    `deployment`: the `provider/model` that is asked first; "" for another ensemble. `request`: the seat's request.
    """

    index: int
    name: str
    weight: float
    deployment: str
    request: ChatRequest


class Reply(Struct, frozen=True):
    """The result of one ask: `response` (None if it was streamed to the client), or `error`.

    `streamed`: the text sent to the client, for a validator. `seat` None: a judge, validator or escalation.
    `is_cancelled`: it was stopped because it was no longer needed. `deployments` are those that answered.
    """

    seat: Seat | None = None
    response: ChatResponse | None = None
    streamed: ChatResponse | None = None
    error: ProxyError | None = None
    is_cancelled: bool = False
    attempts: tuple[str, ...] = ()
    deployments: tuple[str, ...] = ()
    latency_ms: float = 0.0

    @property
    def message(self) -> ResponseMessage:
        """The message of the first choice; empty without an answer."""
        choices = (self.response or self.streamed or {}).get("choices") or []
        return choices[0].get("message", {}) if choices else {}

    @property
    def text(self) -> str:
        return text_of(self.message.get("content"))


class Decided(Struct, frozen=True):
    """The answer of an ensemble, and `routing.ensemble` for it.

    `response` None: it has been streamed to the client. `attempts` make up the answer.
    """

    response: ChatResponse | None
    report: dict[str, Any]
    attempts: tuple[str, ...]


class Panel(Protocol):
    """An ensemble's interface to one call. `seats` are those that the call can afford."""

    name: str
    request: ChatRequest
    seats: Sequence[Seat]

    def replies(self, seats: Sequence[Seat]) -> AsyncGenerator[Reply, None]:
        """Asks all seats concurrently and yields each reply as it arrives, failures included.

        Closing the generator (`contextlib.aclosing`) cancels the asks that still run.
        """
        ...

    async def ask(self, name: str, request: ChatRequest, role: str) -> Reply:
        """One whole answer of a judge, validator or stronger model. `role` names it in the report and the trace.

        A failure is a Reply with `error`.
        """
        ...

    async def stream(self, name: str, request: ChatRequest, role: str) -> Reply:
        """The same, but the answer goes to the client: in a stream it is passed on delta by delta, and `response` is
        None; otherwise it is whole. After the first delta a failure is raised.
        """
        ...

    def progress(self, text: str) -> None:
        """Reports the panel's progress to the client, if it asked for that."""
        ...


class Ensemble(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="strategy"):
    """The keys that all strategies have. A strategy is a subclass in a file of its own.

    `members` empty: the router picks `size` of them. `min_answers`: how many must answer; None: see `quorum`.
    `max_cost_usd`: the panel shrinks until the upper bound of its cost fits.
    """

    members: list[NotBlank | Member] = []
    size: Annotated[int, Meta(ge=1, le=16)] = 3
    min_answers: Annotated[int, Meta(ge=1, le=16)] | None = None
    member_timeout_s: Positive = 60
    timeout_s: Positive = 120
    max_cost_usd: NotNegative | None = None

    member_keys: ClassVar[tuple[str, ...]] = ("members",)  # any one of them names the members

    def panelists(self) -> list[Member]:
        """The members that take seats."""
        return [each if isinstance(each, Member) else Member(each) for each in self.members]

    def followers(self) -> list[str]:
        """The names that may be asked after the members: judge, validator, escalation. One that may be
        asked several times is repeated: the cost bound adds all of them.
        """
        return []

    def output_limit(self, follower: str) -> int | None:
        """The token limit for a follower's answer; None: the request's own."""
        return None

    def planned(self, request: ChatRequest) -> list[tuple[str, ChatRequest]]:
        """The followers, each with the request that bounds its cost."""
        limits = [(name, self.output_limit(name)) for name in self.followers()]
        return [(name, request if most is None else replace(request, max_tokens=most)) for name, most in limits]

    def quorum(self, seats: int) -> int:
        """How many of the seats must answer: `min_answers`; without it two, or all but one of fewer than three."""
        return self.min_answers or max(1, min(2, seats - 1))

    @property
    def counts_a_deployment_once(self) -> bool:
        """True if answers of one deployment are one voice, however many seats it has."""
        return False

    async def decide(self, panel: Panel) -> Decided:
        """Asks the panel and decides. Raises QuorumMissed, or the error of the ask that the answer depends on."""
        raise TypeError(f"{type(self).__name__} does not decide")


def missed(panel: Panel, replies: Sequence[Reply], needed: int) -> ProxyError:
    """The error of a panel of which fewer than `needed` answered.

    If all refused the request itself, it is the first refusal: another panel would refuse it too.
    """
    errors = [reply.error for reply in replies if reply.error is not None]
    answered = sum(reply.response is not None for reply in replies)
    if not answered and errors and all(error.status in _CLIENT_FAULTS for error in errors):
        return errors[0]
    silent = [
        Silent(reply.seat.name, reply.error.code or "error", reply.error.message)
        for reply in replies
        if reply.seat is not None and reply.error is not None
    ]
    return QuorumMissed(panel.name, answered, needed, tuple(silent))
