"""Orchestrates: `strategy: voting`: the answer that most members give, and the procedure if they do not agree.

    members -> votes -> counted -> agreed: that answer
                                -> not:    `below`: answer | judge | escalate | error

With `below: escalate` this is a cascade: cheap members first, and a stronger model only if they disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from math import fsum
from typing import Annotated, Any

from msgspec import Meta

from proxy.ensembles import arbiter
from proxy.ensembles.ballot import Ballot, Cluster, Count, Rule, count
from proxy.ensembles.base import Decided, Ensemble, Panel, Reply, missed
from proxy.ensembles.field_votes import composite
from proxy.ensembles.gathering import error_of
from proxy.ensembles.judge import MAX_TOKENS
from proxy.ensembles.polling import Outcome, Poll, ballots_of, expects_fields, sound_first, tools_of
from proxy.ensembles.votes import Vote, shortened, vote_soon
from proxy.schema.constraints import NotBlank, one_of
from proxy.schema.errors import NoAgreement

_JUDGED = ("answer", "judge")  # values of `below` with which a judge may choose
Agreement = Annotated[float, Meta(gt=0, le=1)]


class Voting(Ensemble, frozen=True, kw_only=True, tag="voting"):
    """`min_agreement`: the share of the votes that an answer needs; 0.005 less still counts. `below`: what happens with
    less: the most frequent answer anyway, the judge's choice, the answer of `escalate_to`, or an error.

    `show_votes`: `escalate_to` reads the members' answers too. `count_same_deployment`: in a cascade, members that the
    same deployment answered for count as several. `early_stop`: stop asking once the rest cannot change the result.
    `cluster_by: judge`: if the members do not agree, the judge decides which answers mean the same.
    """

    min_agreement: Agreement = 0.67
    below: Annotated[str, one_of("answer", "judge", "escalate", "error")] = "answer"
    judge: NotBlank | None = None
    escalate_to: NotBlank | None = None
    show_votes: bool = False
    count_same_deployment: bool = False
    early_stop: bool = False
    cluster_by: Annotated[str, one_of("form", "judge")] = "form"

    def __post_init__(self) -> None:
        needs_judge = [key for key in ("below", "cluster_by") if getattr(self, key) == "judge"]
        if self.judge is None and needs_judge:
            raise ValueError(f"`{needs_judge[0]}: judge` needs `judge`, the name of a model")
        if self.judge is not None and self.below not in _JUDGED and self.cluster_by != "judge":
            raise ValueError(
                f"`judge` is never asked with `below: {self.below}`; remove it, or set `cluster_by: judge`"
            )
        if self.below != "escalate":
            for key, default in (("escalate_to", None), ("show_votes", False), ("count_same_deployment", False)):
                if getattr(self, key) != default:
                    raise ValueError(f"`{key}` has no effect without `below: escalate`; set that, or remove it")
        elif self.escalate_to is None:
            raise ValueError("`below: escalate` needs `escalate_to`, the name of a model or an ensemble")
        elif len(self.members) == 1 or (not self.members and self.size == 1):
            raise ValueError("`below: escalate` needs two members: one alone cannot agree")

    def followers(self) -> list[str]:
        judge = [] if self.judge is None else [self.judge]
        grouping = judge if self.cluster_by == "judge" else []
        choosing = judge if self.below in _JUDGED else []
        return [*grouping, *choosing, *([] if self.escalate_to is None else [self.escalate_to])]

    def output_limit(self, follower: str) -> int | None:
        return MAX_TOKENS if follower == self.judge != self.escalate_to else None

    async def decide(self, panel: Panel) -> Decided:
        poll = await self._poll(panel)
        needed = self.quorum(len(panel.seats))
        is_quorate = sum(reply.response is not None for reply in poll.replies) >= needed
        if not is_quorate and self.escalate_to is None:
            raise missed(panel, poll.replies, needed)
        outcome = await self._outcome(panel, poll, is_quorate)
        if outcome.is_agreed:
            return outcome.decided(poll)
        if self.below == "error":
            raise NoAgreement(panel.name, round(outcome.confidence, 4), self.min_agreement, outcome.votes())
        if self.escalate_to is not None:
            return await self._escalated(panel, poll, outcome, self.escalate_to)
        return await self._settled(panel, poll, outcome)

    # --- the vote -----------------------------------------------------------------------------------------------------

    @property
    def counts_a_deployment_once(self) -> bool:
        return self.below == "escalate" and not self.count_same_deployment

    def _rule(self, panel: Panel) -> Rule:
        return Rule(
            self.min_agreement,
            sources=2 if self.counts_a_deployment_once else 1,
            may_merge=self.cluster_by == "judge" or expects_fields(panel.request),
            needs_winner=self.below in _JUDGED,
            needs_all=self.below == "judge",
        )

    async def _poll(self, panel: Panel) -> Poll:
        """All replies; with `early_stop` those that arrived before the vote was settled."""
        votes: list[tuple[Reply, Vote | None]] = []
        ballots: list[Ballot] = []
        forms: dict[str, str] = {}
        tools = tools_of(panel.request)
        rule, needed, seats = self._rule(panel), self.quorum(len(panel.seats)), panel.seats
        async with aclosing(panel.replies(seats)) as coming:
            async for reply in coming:
                votes.append((reply, await vote_soon(reply, tools, forms)))
                ballots = ballots_of(votes)
                found = count(ballots, by_source=self.counts_a_deployment_once)
                answered = sum(each.response is not None for each, _ in votes)
                if reply.response is not None:
                    panel.progress(_progress(found, answered, len(seats)))
                heard = {each.seat.index for each, _ in votes if each.seat is not None}
                pending = fsum(seat.weight for seat in seats if seat.index not in heard)
                if self.early_stop and answered >= needed and rule.is_settled(found, pending):
                    break
        return Poll(seats, [reply for reply, _ in votes], ballots)

    async def _outcome(self, panel: Panel, poll: Poll, is_quorate: bool) -> Outcome:
        rule = self._rule(panel)
        found = sound_first(panel.request, count(poll.ballots, by_source=self.counts_a_deployment_once))
        if not found.clusters or not is_quorate:
            return Outcome(found, rule, is_quorate=is_quorate)
        fields = composite(panel.request, poll.ballots, rule.agrees, by_source=self.counts_a_deployment_once)
        if fields is not None:
            return Outcome(found, rule, fields)
        if self.cluster_by == "form" or self.judge is None or rule.agrees(found) or len(found.clusters) == 1:
            return Outcome(found, rule)
        return await self._grouped(panel, poll.ballots, found, self.judge)

    async def _grouped(self, panel: Panel, ballots: Sequence[Ballot], found: Count, judge: str) -> Outcome:
        """The count after the judge has grouped answers that mean the same."""
        rule = self._rule(panel)
        texts = [each for each in found.clusters if each.key.startswith("text ")]
        if len(texts) < 2:
            return Outcome(found, rule)
        panel.progress(f"{judge} compares {len(texts)} answers.")
        answers = arbiter.labelled(texts)
        reply = await panel.ask(judge, arbiter.grouping(judge, panel.request, answers), "judge")
        groups = arbiter.read_groups(reply.text, answers) if reply.error is None else None
        about = {"model": judge, "groups": None if groups is None else len({*groups.values()})}
        if groups is None:
            about |= {"note": "The judge's reply is unreadable."} if reply.error is None else {}
            return Outcome(found, rule, extra={"grouping": {**about, **_failure(reply)}})
        merged = count(ballots, by_source=self.counts_a_deployment_once, merged=groups)
        return Outcome(sound_first(panel.request, merged), rule, extra={"grouping": about})

    # --- without agreement --------------------------------------------------------------------------------------------

    async def _settled(self, panel: Panel, poll: Poll, outcome: Outcome) -> Decided:
        """The answer of most members, or the judge's choice."""
        found = outcome.found
        if not found.clusters:
            return outcome.decided(poll)
        options = found.clusters if self.below == "judge" else found.leaders
        if self.judge is None or len(options) < 2 or (outcome.fields is not None and self.below == "answer"):
            return outcome.decided(poll)
        chosen, about = await self._judged(panel, options, self.judge)
        if chosen is None:
            return outcome.decided(poll, judge=about)
        return outcome.chosen(chosen).decided(poll, by="judge", judge=about)

    async def _judged(
        self, panel: Panel, options: Sequence[Cluster], judge: str
    ) -> tuple[Cluster | None, dict[str, Any]]:
        panel.progress(f"The members do not agree. {judge} is choosing among {len(options)} answers.")
        answers = arbiter.labelled(options)
        reply = await panel.ask(judge, arbiter.choice(judge, panel.request, answers), "judge")
        if reply.error is not None:
            return None, {"model": judge, **_failure(reply)}
        chosen = arbiter.read_choice(reply.text, answers)
        if chosen is None:
            return None, {"model": judge, "note": "The judge's reply is unreadable."}
        return chosen, {"model": judge}

    async def _escalated(self, panel: Panel, poll: Poll, outcome: Outcome, name: str) -> Decided:
        """The answer of the stronger model. If it fails, that of most members, if there is any."""
        panel.progress(f"The members do not agree. {name} is answering.")
        request = panel.request
        if self.show_votes and outcome.found.clusters:
            request = arbiter.escalation(request, arbiter.labelled(outcome.found.clusters))
        reply = await panel.stream(name, request, "escalation")
        about: dict[str, Any] = {"model": name, **_failure(reply)}
        if reply.error is None:
            return Decided(reply.response, outcome.report(poll, by="escalation", escalated_to=about), reply.attempts)
        if not any(each.response is not None for each in poll.replies):
            raise reply.error
        return outcome.decided(poll, escalated_to=about)


def _progress(found: Count, answered: int, seats: int) -> str:
    """`2 of 3 agree: ...`"""
    if found.clusters and len(leading := found.clusters[0].ballots) > 1:
        return f"{len(leading)} of {seats} agree: {shortened(found.clusters[0].best.vote.label, 80)}"
    return f"{answered} of {seats} answered, and they do not agree." if answered > 1 else f"1 of {seats} answered."


def _failure(reply: Reply) -> dict[str, Any]:
    return {"error": error_of(reply)} if reply.error is not None else {}
