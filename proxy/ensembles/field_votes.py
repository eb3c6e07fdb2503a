"""Translates: several JSON answers into one: each field gets the value that most members gave.

Objects are compared field by field; a list is one value. A field that most members omit is omitted. Equal values have
one canonical form, like whole answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from proxy.ensembles.ballot import Ballot, Count, count, weight_of
from proxy.ensembles.canonical import phrase
from proxy.ensembles.canonical_json import NotJSON, canonical, read, text_of
from proxy.ensembles.votes import Vote, shortened
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.schema.json_check import JSONCheck, bare

MAX_VALUES = 1_000  # of all answers together, approximately; beyond that whole answers are voted on
MAX_DEPTH = 16  # of objects whose fields are voted on one by one
_ABSENT = Vote("absent", "absent", "(absent)")
_OTHER = Vote("no object", "no object", "(no object)")
_OBJECT = "object"

Counter = Callable[[Sequence[Ballot]], Count]
Values = Sequence[tuple[Ballot, Any]]


class Field(Struct, frozen=True):
    """The decision on one field. `is_agreed`: its count satisfies the rule."""

    value: str
    share: float
    is_agreed: bool


class Composite(Struct, frozen=True):
    """The answer made of all fields. `whole`: a ballot that equals it, if there is one."""

    text: str
    fields: Mapping[str, Field]
    whole: Ballot | None

    @property
    def share(self) -> float:
        """The share of the field with the least agreement."""
        return min((field.share for field in self.fields.values()), default=1.0)

    @property
    def is_agreed(self) -> bool:
        return all(field.is_agreed for field in self.fields.values())


def composite(
    request: ChatRequest, ballots: Sequence[Ballot], agrees: Callable[[Count], bool], *, by_source: bool
) -> Composite | None:
    """The combined answer. None: the request has no JSON schema, most answers are not JSON objects, or the combined
    object violates the schema.
    """
    values = _objects(request, ballots)
    if not values:
        return None

    def counted(some: Sequence[Ballot]) -> Count:
        return count(some, by_source=by_source)

    others = [ballot for ballot in ballots if all(ballot is not each for each, _ in values)]
    poll = _Poll(counted, agrees)
    ordered = sorted(values, key=lambda each: (-each[0].weight, each[0].vote.exact))
    chosen = poll.object(_At("", 0, others), ordered)
    try:
        text = text_of(chosen)
        if JSONCheck(request.fields["response_format"]).wrong(text) is not None:
            return None
        form = canonical(read(text), phrase)
        whole = [ballot for ballot, value in values if canonical(value, phrase) == form]
    except (NotJSON, BadRequest):
        return None
    return Composite(text, poll.fields, counted(whole).clusters[0].best if whole else None)


class _At(Struct, frozen=True):
    """A position in the answers. `others`: the members without an object there."""

    path: str
    depth: int
    others: Sequence[Ballot]

    def under(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


class _Poll:
    """One vote for each field, with its results in `fields`."""

    def __init__(self, counted: Counter, agrees: Callable[[Count], bool]) -> None:
        self.fields: dict[str, Field] = {}
        self._counted = counted
        self._agrees = agrees

    def object(self, at: _At, values: Values) -> dict[str, Any]:
        names = dict.fromkeys(name for _, value in values for name in value)
        found: dict[str, Any] = {}
        for name in names:
            self._field(found, name, [(ballot, value.get(name, _ABSENT)) for ballot, value in values], at)
        return found

    def _field(self, into: dict[str, Any], name: str, values: Values, at: _At) -> None:
        votes = [Ballot(ballot.reply, _vote(value, at.depth), ballot.source) for ballot, value in values]
        result = self._counted([*votes, *(Ballot(each.reply, _OTHER, each.source) for each in at.others)])
        winner = next(cluster for cluster in result.clusters if cluster.key != _OTHER.key)
        if winner.key == _OBJECT:
            inside = [each for each in values if isinstance(each[1], dict)]
            outside = [ballot for ballot, value in values if not isinstance(value, dict)]
            into[name] = self.object(_At(at.under(name), at.depth + 1, [*at.others, *outside]), inside)
            if into[name]:
                return
        elif winner.key != _ABSENT.key:
            chosen = winner.best
            into[name] = next(value for (_, value), vote in zip(values, votes, strict=True) if vote is chosen)
        is_agreed = winner is result.clusters[0] and self._agrees(result)
        self.fields[at.under(name)] = Field(winner.best.vote.label, result.share(winner), is_agreed)


def _objects(request: ChatRequest, ballots: Sequence[Ballot]) -> list[tuple[Ballot, dict[str, Any]]]:
    """The members whose answers are JSON objects, if they are the majority and the request has a schema."""
    wanted = request.fields.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return []
    texts = [(ballot, bare(ballot.vote.exact)) for ballot in ballots if ballot.vote.key.startswith("text {")]
    if sum(text.count(",") + text.count(":") for _, text in texts) > MAX_VALUES:
        return []
    found = []
    for ballot, text in texts:
        try:
            found.append((ballot, read(text)))
        except NotJSON:
            continue
    return found if 2 * weight_of(ballot for ballot, _ in found) > weight_of(ballots) else []


def _vote(value: Any, depth: int) -> Vote:
    if isinstance(value, Vote):
        return value
    if isinstance(value, dict) and depth < MAX_DEPTH:
        return Vote(_OBJECT, _OBJECT, "{...}")
    try:
        form, exact = canonical(value, phrase), text_of(value)
    except NotJSON:
        form = exact = "unreadable"
    return Vote(f"value {form}", exact, shortened(exact))
