"""Translates: the body of `/v1/feedback` into a rating, and the parameters of an ensemble's report into its query."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from proxy.config.problems import near
from proxy.ensembles.report import EnsembleReport, report_of
from proxy.routing.nowhere import unknown_ensemble
from proxy.routing.panelists import PREFIX
from proxy.routing.settings import ModelEntry
from proxy.schema.ensembles import EnsembleCall, EnsembleQuery, Rating
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import decode_object
from proxy.schema.records import Caller
from proxy.server.api.periods import iso, period, zone_of
from proxy.server.api.queries import bounded_since, own_key
from proxy.server.formats.body import view_of

MAX_COMMENT = 4_000  # characters
MAX_BODY = 64 * 1024  # bytes: a comment of that length, each character escaped
MAX_CALLS = 20_000  # of one report
_MAX_ID = 200
_MAX_STEPS = 8  # from a name to the ensemble behind it
REPORT = {
    "since": "Start of the period, inclusive: ISO 8601, in `tz` unless it names an offset. Default: seven days ago.",
    "until": "End of the period, exclusive. Default: now.",
    "tz": "Time zone of times without an offset, like Europe/Berlin. Default: UTC.",
}
_OF_ANSWER = re.compile(r"[a-z]+[-_]([0-9a-f]{26})")  # the id of an answer: a kind, and the id of its request


class FeedbackBody(Struct, frozen=True, kw_only=True):
    """`id`: that of the answer, or of the request (`x-request-id`). At least one of the others."""

    id: Annotated[str, Meta(min_length=1, max_length=_MAX_ID)]
    success: bool | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None
    comment: Annotated[str, Meta(max_length=MAX_COMMENT)] | None = None


def rating_of(body: bytes, caller: Caller) -> Rating:
    """The rating in a body. Raises BadRequest, which names the field."""
    return rating_from(decode_object(body), "api", caller.key_id)


def rating_from(fields: dict[str, Any], source: str, key_id: str | None) -> Rating:
    """The rating in these fields. Raises BadRequest, which names the field."""
    known = FeedbackBody.__struct_fields__
    for name in fields:
        if name not in known:
            raise BadRequest(
                f"Unknown parameter {name[:64]!r}. Known: {', '.join(known)}{near(name, known) or '.'}", param=name[:64]
            )
    given = view_of(fields, FeedbackBody)
    comment = given.comment if given.comment and given.comment.strip() else None
    if given.success is None and given.score is None and comment is None:
        message = "Rate the answer: give success (true or false), score (from 0 to 1) or comment (a text)."
        raise BadRequest(message, param="success")
    if comment is not None and not _is_unicode(comment):
        raise BadRequest("comment: expected a text that is valid Unicode.", param="comment")
    return Rating(call_id_of(given.id), given.success, given.score, comment, source, key_id)


def call_id_of(name: str) -> str:
    """The id of the call behind an id that the client knows: `chatcmpl-...`, or the request's own."""
    match = _OF_ANSWER.fullmatch(name)
    return match[1] if match else name


def unknown_call(name: str) -> ProxyError:
    """404: there is no call with this id that the caller may rate."""
    message = (
        f"There is no call {name[:64]!r}. Send the id of an answer (`chatcmpl-...`), or the header x-request-id of it."
    )
    return ProxyError(message, status=404, code="not_found", param="id")


def report_query(name: str, parameters: Mapping[str, str], caller: Caller, now_ns: int) -> EnsembleQuery:
    """The query of an ensemble's report: the caller's own calls; all calls for an admin. Raises BadRequest."""
    tz = zone_of(parameters)
    since, until = period(parameters, tz)
    until = now_ns if until is None else until
    since = bounded_since(since, min(until, now_ns), "the report reads single calls")
    return EnsembleQuery(name.removeprefix(PREFIX), since, until, own_key(caller), MAX_CALLS)


class EnsembleNames(Protocol):
    """The part of `Names` by which an ensemble is found."""

    @property
    def ensembles(self) -> Mapping[str, object]: ...

    @property
    def models(self) -> Mapping[str, ModelEntry]: ...

    def target_of(self, name: str) -> str: ...


def own_name(name: str, names: EnsembleNames) -> str:
    """The ensemble's own name, under which its calls are stored, for a name that resolves to it: an alias, or an entry
    of `models`. Any other name is returned unchanged.
    """
    found = PREFIX + name if name in names.ensembles else name
    for _ in range(_MAX_STEPS):
        if found.startswith(PREFIX):
            return found.removeprefix(PREFIX)
        target = names.target_of(found)
        entry = names.models.get(target)
        found = target if entry is None or entry.use is None else entry.use
    return name


def reported(query: EnsembleQuery, tz: str, calls: list[EnsembleCall]) -> EnsembleReport:
    """The report on the calls that a query found, which may include one beyond the limit."""
    times = (iso(query.since_ns, tz), iso(query.until_ns, tz))
    return report_of(query.name, calls[: query.limit], times, has_more=len(calls) > query.limit)


def check_known(query: EnsembleQuery, calls: int, ensembles: Mapping[str, object]) -> None:
    """Raises ProxyError 404 for an ensemble that is neither configured nor was in the period."""
    if not calls and query.name not in ensembles:
        raise unknown_ensemble(PREFIX + query.name, ensembles)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
