"""Orchestrates: `strategy: fusion`: one answer made from the answers of all members.

JSON is merged field by field (`merge`), which needs no model. For anything else a judge writes the answer: it reads
the members' answers as drafts, streams live, and may use the client's tools, which the members see as well. If all
members say the same, that is the answer. If the judge fails before its first word, the best draft is the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, cast

from proxy.ensembles import canonical_json, judge
from proxy.ensembles.base import Decided, Ensemble, Panel
from proxy.ensembles.gathering import Gathered, attempts_of, distinct, error_of, gather
from proxy.ensembles.merge import Merged, Part, key_of, merged
from proxy.ensembles.polling import with_content
from proxy.ensembles.scores import Asked, asked_for, is_whole, offline_scores, words
from proxy.ensembles.tool_votes import calls_of
from proxy.ensembles.transcript import answer_text, clean, cut
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.constraints import NotBlank, one_of
from proxy.schema.json_check import bare

_ROLE = "judge"
_ANY_JUDGE = "auto:quality"
_EXCERPT = 500  # characters of a draft in the report


class Fusion(Ensemble, frozen=True, kw_only=True, tag="fusion"):
    """`judge` null: the model of the heaviest member; if the router picks the members, `auto:quality`. `prefer`: which
    of several values stays in merged JSON.
    """

    judge: NotBlank | None = None
    prefer: Annotated[str, one_of("majority", "heaviest")] = "majority"

    def followers(self) -> list[str]:
        heaviest = max(self.panelists(), key=lambda member: member.weight, default=None)
        return [self.judge or (heaviest.use if heaviest else _ANY_JUDGE)]

    async def decide(self, panel: Panel) -> Decided:
        replies = await gather(panel, self.quorum(len(panel.seats)))
        every = await asyncio.to_thread(distinct, replies)
        answers = [each for each in every if not each.is_empty]
        if len(answers) < 2:
            only = (answers or every)[0]
            return _as_it_is(only, {"method": "unanimous", "confidence": 1.0 if len(every) == 1 else None})
        if (found := await asyncio.to_thread(self._merged, panel.request, answers)) is not None:
            return found
        return await self._written(panel, answers)

    def _merged(self, request: ChatRequest, answers: Sequence[Gathered]) -> Decided | None:
        """The answers merged into one JSON object; None if they are not JSON objects, or none of them is valid."""
        asked = asked_for(request, [])
        read = [(each, _object(each)) for each in answers]
        parts = [(each, value) for each, value in read if value is not None]
        unread = [each for each, value in read if value is None]
        if not parts or any(calls_of(each.reply.message) for each in answers) or (unread and asked.json is None):
            return None
        try:
            whole = merged([Part(value, weight) for each, value in parts for weight in each.weights], self.prefer)
            text = clean(canonical_json.text_of(whole.value))
        except canonical_json.NotJSON:
            return None
        report: dict[str, Any] = {"method": "merged", "confidence": whole.confidence, **_fields(whole)}
        if unread:
            report["left_unread"] = [name for each in unread for name in each.models]
        wrong = asked.json.wrong(text) if asked.json else None
        if wrong is None:
            response = with_content(cast(ChatResponse, parts[0][0].reply.response), text)
            return Decided(response, report, attempts_of([reply for each, _ in parts for reply in each.replies]))
        best = _nearest(parts, whole.value, asked)
        if best is None:
            return None
        report |= {"method": "best", "note": f"The merged object does not match the schema: {wrong}."}
        response = with_content(cast(ChatResponse, best.reply.response), bare(best.reply.text))
        return Decided(response, report, best.reply.attempts)

    async def _written(self, panel: Panel, answers: Sequence[Gathered]) -> Decided:
        """The judge's answer from the drafts; the best draft if the judge fails."""
        name = self.followers()[0]
        report: dict[str, Any] = {"method": "written", "judge": {"model": name}, "confidence": None}
        report["drafts"] = await asyncio.to_thread(_drafts, answers)
        panel.progress(f"{name} is writing one answer from {len(answers)} drafts.")
        request = judge.fusion(panel.request, [each.reply.message for each in answers])
        reply = await panel.stream(name, request, _ROLE)
        if reply.error is None:
            return Decided(reply.response, report, reply.attempts)
        best = await asyncio.to_thread(_best, panel.request, answers)
        note = "The judge did not answer: this is the best draft, by the offline scorer."
        about = {"model": name, "error": error_of(reply)}
        return _as_it_is(best, {**report, "method": "best", "judge": about, "note": note})


def _as_it_is(answer: Gathered, report: dict[str, Any]) -> Decided:
    return Decided(answer.reply.response, report, answer.reply.attempts)


def _fields(whole: Merged) -> dict[str, Any]:
    """The members' agreement on each field, and their dissent."""
    fields: dict[str, dict[str, Any]] = {name: {"agreement": share} for name, share in whole.agreement.items()}
    for name, others in whole.dissent.items():
        fields.setdefault(name, {})["others"] = others
    found: dict[str, Any] = {"fields": fields}
    if whole.dissent:
        found["dissent"] = [*whole.dissent]
    return found | ({"filled": whole.filled} if whole.filled else {})


def _object(answer: Gathered) -> dict[str, Any] | None:
    """An answer as a JSON object; None if it is something else, or was cut off."""
    if calls_of(answer.reply.message) or not is_whole(answer.reply):
        return None
    try:
        value = canonical_json.read(bare(answer.reply.text).strip())
        canonical_json.canonical(value)
    except canonical_json.NotJSON:
        return None
    return value if isinstance(value, dict) else None


def _nearest(parts: Sequence[tuple[Gathered, Any]], whole: dict[str, Any], asked: Asked) -> Gathered | None:
    """The valid answer that shares the most fields with the merged one; None if no answer is valid."""
    keys = {name: key_of(value) for name, value in whole.items()}

    def nearness(value: dict[str, Any]) -> int:
        return sum(name in value and key_of(value[name]) == key for name, key in keys.items())

    valid = [
        (each, value) for each, value in parts if asked.json is None or asked.json.wrong(bare(each.reply.text)) is None
    ]
    valid.sort(key=lambda part: (-nearness(part[1]), -part[0].weight, part[0].digest))
    return valid[0][0] if valid else None


def _best(request: ChatRequest, answers: Sequence[Gathered]) -> Gathered:
    replies = [each.reply for each in answers]
    scores = [found["score"] for found in offline_scores(replies, asked_for(request, replies), "accuracy")]
    ranked = sorted(zip(scores, answers, strict=True), key=lambda each: (-each[0], -each[1].weight, each[1].digest))
    return ranked[0][1]


def _drafts(answers: Sequence[Gathered]) -> list[dict[str, Any]]:
    """The drafts that the judge read, the most distinct one first. `overlap`: the mean share of its words that another
    draft also has.
    """
    texts = [answer_text(each.reply.message) for each in answers]
    known = [frozenset(words(text)) for text in texts]
    drafts = []
    for at, each in enumerate(answers):
        others = [other for place, other in enumerate(known) if place != at]
        shares = [len(known[at] & other) / max(1, len(known[at])) for other in others]
        overlap = round(sum(shares) / len(shares), 4)
        excerpt = cut(texts[at], _EXCERPT)
        drafts.append({"models": each.models, "weight": each.weight, "overlap": overlap, "draft": excerpt})
    return sorted(drafts, key=lambda draft: cast(float, draft["overlap"]))
