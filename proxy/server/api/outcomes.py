"""Performs I/O: the routes for the outcomes of calls: `POST /v1/feedback`, `GET /v1/ensembles/{name}/report`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.schema.ensembles import EnsembleCall, EnsembleQuery, Rating, StoredRating
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.api.outcome_queries import (
    MAX_BODY,
    MAX_COMMENT,
    REPORT,
    EnsembleNames,
    check_known,
    own_name,
    rating_of,
    report_query,
    reported,
    unknown_call,
)
from proxy.server.api.periods import zone_of
from proxy.server.api.queries import own_key, parameters_of
from proxy.server.api.request import BodyTooLarge, ClientGone, discard_rest, read_body

_LINGER_BYTES = 16 * 1024 * 1024  # of a body that is too large
T = TypeVar("T")


class Outcomes(Protocol):
    """The ledger's interface for outcomes."""

    async def rate(self, rating: Rating, key_id: str | None) -> StoredRating | None: ...

    async def ensemble_calls(self, query: EnsembleQuery, then: Callable[[list[EnsembleCall]], T]) -> T: ...


def outcome_routes(outcomes: Callable[[], Outcomes], names: Callable[[], EnsembleNames]) -> list[HTTPRouteHandler]:
    """The Litestar handlers, each with and without `/v1`. `names`: those of the running configuration."""

    @post(["/v1/feedback", "/feedback"], role="key")
    async def give_feedback(request: Request[Caller, Any, Any]) -> Response[bytes]:
        try:
            body = await read_body(request.receive, dict(request.headers), MAX_BODY)
        except BodyTooLarge as error:
            await discard_rest(request.receive, _LINGER_BYTES)
            message = f"The body is larger than {MAX_BODY // 1024} kB. A comment has at most {MAX_COMMENT} characters."
            raise ProxyError(message, status=413, code=error.code, headers=error.headers) from None
        except ClientGone:
            return Response(b"", status_code=499)
        rating = rating_of(body, request.user)
        stored = await outcomes().rate(rating, own_key(request.user))
        if stored is None:
            raise unknown_call(rating.call_id)
        return _json(stored)

    @get(["/v1/ensembles/{name:str}/report", "/ensembles/{name:str}/report"], role="key")
    async def get_report(request: Request[Caller, Any, Any], name: FromPath[str]) -> Response[bytes]:
        given = parameters_of(request.query_params.multi_items(), REPORT)
        query = report_query(own_name(name, names()), given, request.user, time.time_ns())
        report = await outcomes().ensemble_calls(query, partial(reported, query, zone_of(given)))
        check_known(query, report.calls, names().ensembles)
        return _json(report)

    return [give_feedback, get_report]


def _json(value: object) -> Response[bytes]:
    headers = {**NO_STORE, "x-request-id": new_id()}
    return Response(encode(value), status_code=200, media_type="application/json", headers=headers)
