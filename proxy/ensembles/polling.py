"""Values: a poll of a panel and its outcome: the answer, and what the report says about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from proxy.ensembles.ballot import Ballot, Cluster, Count, Rule, with_sources
from proxy.ensembles.base import Decided, Reply, Seat
from proxy.ensembles.field_votes import Composite
from proxy.ensembles.gathering import attempts_of
from proxy.ensembles.scores import asked_for, validity
from proxy.ensembles.tool_votes import offered
from proxy.ensembles.votes import Vote, digest
from proxy.schema.chat import ChatRequest, ChatResponse, Choice

MAX_FIELDS = 100  # that a report lists


class Poll(Struct, frozen=True):
    """The members that a panel asked, the replies before it was settled, and their votes."""

    seats: Sequence[Seat]
    replies: Sequence[Reply]
    ballots: Sequence[Ballot]

    @property
    def cancelled(self) -> list[str]:
        """The members that were stopped because their votes were no longer needed."""
        heard = {reply.seat.index for reply in self.replies if reply.seat is not None}
        return [seat.name for seat in self.seats if seat.index not in heard]

    @property
    def same_deployment(self) -> list[str]:
        """The deployments that answered for several members."""
        names = [name for reply in self.replies for name in dict.fromkeys(reply.deployments)]
        return sorted({name for name in names if names.count(name) > 1})


def ballots_of(votes: Sequence[tuple[Reply, Vote | None]]) -> list[Ballot]:
    """The votes of members with an answer. A tool call that no client could run counts only if nothing else does."""
    ballots = [Ballot(reply, vote) for reply, vote in votes if vote is not None]
    return with_sources([each for each in ballots if each.vote.is_usable] or ballots)


def expects_fields(request: ChatRequest) -> bool:
    """True if answers may be combined field by field."""
    wanted = request.fields.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") == "json_schema"


def tools_of(request: ChatRequest) -> set[str]:
    """The names of the tools that the client offers."""
    return {str(each.get("name")) for each in offered(request)}


def sound_first(request: ChatRequest, found: Count) -> Count:
    """The count with ties resolved in favour of answers in the requested form; among several the hash decides."""
    tied = found.leaders
    if len(tied) < 2:
        return found
    asked = asked_for(request, [each.best.reply for each in tied])
    ordered = sorted(tied, key=lambda each: -validity(each.best.reply, asked))
    return Count((*ordered, *found.clusters[len(tied) :]))


class Outcome(Struct, frozen=True):
    """The outcome of the votes. `fields`: the answer is combined from the fields of all. `is_quorate`: enough members
    answered. `extra`: further entries of the report.
    """

    found: Count
    rule: Rule
    fields: Composite | None = None
    is_quorate: bool = True
    extra: dict[str, Any] = {}

    @property
    def confidence(self) -> float:
        """The winner's share of the votes; for a combined answer, that of its weakest field."""
        if self.fields is not None:
            return self.fields.share
        return self.found.share(self.found.clusters[0]) if self.found.clusters else 0.0

    @property
    def is_agreed(self) -> bool:
        agrees = self.fields.is_agreed if self.fields is not None else self.rule.agrees(self.found)
        return agrees and self.is_quorate

    @property
    def winner(self) -> Cluster | None:
        """The members whose answer won. None: there is no answer, or it is combined from several."""
        if self.fields is None:
            return self.found.clusters[0] if self.found.clusters else None
        whole = self.fields.whole
        return next((each for each in self.found.clusters if any(whole is one for one in each.ballots)), None)

    @property
    def decided_by(self) -> str:
        """`votes`; `fields` if they make a different answer; `hash` if it broke a tie."""
        is_tied = len(self.found.leaders) > 1
        if self.fields is not None and (is_tied or self.winner is not self.found.clusters[0]):
            return "fields"
        return "hash" if is_tied else "votes"

    def votes(self) -> dict[str, int]:
        """How many members gave each answer."""
        labels = self.found.labels()
        return {labels[cluster.key]: len(cluster.ballots) for cluster in self.found.clusters}

    def chosen(self, winner: Cluster) -> Outcome:
        """The outcome with the winner that a judge chose."""
        others = [each for each in self.found.clusters if each is not winner]
        return replace(self, found=Count((winner, *others)), fields=None)

    def decided(self, poll: Poll, *, by: str = "", **more: Any) -> Decided:
        """The answer, if any member gave one."""
        response, attempts = self._answer(poll)
        return Decided(response, self.report(poll, by=by or self.decided_by, **more), attempts)

    def _answer(self, poll: Poll) -> tuple[ChatResponse | None, tuple[str, ...]]:
        if not self.found.clusters:  # all replies were empty
            replies = [each for each in poll.replies if each.response is not None]
            reply = min(replies, key=lambda each: digest("".join(each.deployments)))
            return reply.response, reply.attempts
        if self.fields is not None and self.fields.whole is None:
            response = with_content(cast(ChatResponse, self.found.clusters[0].best.reply.response), self.fields.text)
            return response, attempts_of([ballot.reply for ballot in poll.ballots])
        best = self.found.clusters[0].best if self.fields is None else self.fields.whole
        return (best.reply.response, best.reply.attempts) if best is not None else (None, ())

    def report(self, poll: Poll, *, by: str, **more: Any) -> dict[str, Any]:
        """`routing.ensemble`. `seats`: place of a seat -> details of its member."""
        labels = self.found.labels()
        found: dict[str, Any] = {
            "votes": self.votes(),
            "confidence": round(self.confidence, 4),
            "agreed": self.is_agreed,
            "decided_by": by,
            "dissent": [labels[each.key] for each in self.found.clusters if each is not self.winner],
            "seats": self._seats(labels),
            **self.extra,
            **{name: value for name, value in more.items() if value},
        }
        if self.fields is not None:
            shown = list(self.fields.fields.items())[:MAX_FIELDS]
            found["fields"] = {
                name: {"value": field.value, "agreement": round(field.share, 4)} for name, field in shown
            }
        if poll.cancelled:
            found["cancelled"] = poll.cancelled
        if poll.same_deployment:
            found["same_deployment"] = poll.same_deployment
        return found

    def _seats(self, labels: dict[str, str]) -> dict[int, dict[str, Any]]:
        return {
            ballot.reply.seat.index: {"vote": labels[cluster.key], "dissents": cluster is not self.winner}
            for cluster in self.found.clusters
            for ballot in cluster.ballots
            if ballot.reply.seat is not None
        }


def with_content(response: ChatResponse, text: str) -> ChatResponse:
    """The response with another text, without the old text's log probabilities."""
    first = response["choices"][0]
    choice = {name: value for name, value in first.items() if name != "logprobs"}
    choice |= {"message": {**first["message"], "content": text}, "finish_reason": "stop"}
    return cast(ChatResponse, {**response, "choices": [cast(Choice, choice)]})
