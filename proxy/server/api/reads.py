"""Performs I/O: the routes on models and past calls: usage, the log of requests, single requests, outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.metering.charges import NO_BUDGETS, Budgets
from proxy.metering.standing import Spending, shown, standing
from proxy.pipeline.admission import KeyPolicies
from proxy.routing.allowed import Views
from proxy.routing.attempt_tree import attempt_tree
from proxy.routing.explain import shown_candidates
from proxy.routing.stored_facts import restored_candidates
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.schema.queries import LogQuery, TokenRates, UsageQuery
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE
from proxy.server.api.cards import model_card
from proxy.server.api.csv_table import csv_table
from proxy.server.api.outcomes import Outcomes, outcome_routes
from proxy.server.api.queries import (
    REQUESTS,
    USAGE,
    log_answer,
    log_query,
    own_key,
    parameters_of,
    usage_answer,
    usage_columns,
    usage_query,
)
from proxy.server.api.shapes import LoggedRequest


class Past(Outcomes, Protocol):
    """What the ledger tells of calls. Each raises as `metering.usage_queries` does."""

    async def usage(self, query: UsageQuery) -> dict[str, Any]: ...

    async def log(self, query: LogQuery) -> list[dict[str, Any]]: ...

    async def read_spending(self) -> Spending: ...

    async def past_call(self, call_id: str, key_id: str | None) -> dict[str, Any] | None: ...


class Reads:
    """What the reading routes need. `budgets`: the current ones, for `/v1/usage`; `baseline`: the
    prices that savings are measured against.
    """

    def __init__(
        self,
        views: Callable[[], Views],
        policies: Callable[[], KeyPolicies],
        past: Callable[[], Past],
        started: int,
        budgets: Callable[[], Budgets] = lambda: NO_BUDGETS,
        baseline: Callable[[], TokenRates | None] = lambda: None,
    ) -> None:
        self.views = views
        self.policies = policies
        self.past = past
        self.started = started
        self.budgets = budgets
        self.baseline = baseline

    async def _budget(self, caller: Caller) -> dict[str, Any] | None:
        """The budget windows that a caller may look at: an admin sees all of them, and so does who needs no key."""
        now_ns = time.time_ns()
        is_free = caller.admin or caller.key_id is None
        charges = self.budgets().of_caller(caller.key_id, every=is_free, now_ns=now_ns)
        if not charges:
            return None
        return {"windows": [shown(each, now_ns) for each in standing(charges, await self.past().read_spending())]}

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""

        @get(["/v1/models", "/models"], sync_to_thread=False, role="key")
        def list_models(request: Request[Caller, Any, Any]) -> Response[bytes]:
            names = self.views().of(self.policies().of(request.user).allowed)
            cards = [model_card(names.resolve(name), self.started) for name in names.names()]
            return _json({"object": "list", "data": cards})

        @get(["/v1/models/{model_id:path}", "/models/{model_id:path}"], sync_to_thread=False, role="key")
        def get_model(request: Request[Caller, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
            allowed = self.policies().of(request.user).allowed
            return _json(model_card(self.views().resolve(model_id.removeprefix("/"), 0.0, allowed), self.started))

        @get(["/v1/usage", "/usage"], role="key")
        async def get_usage(request: Request[Caller, Any, Any]) -> Response[bytes]:
            given = parameters_of(request.query_params.multi_items(), USAGE)
            query = usage_query(given, request.user, time.time_ns(), self.baseline())
            answer = usage_answer(query, await self.past().usage(query), await self._budget(request.user))
            if given.get("format") == "csv":
                return _csv(usage_columns(query), answer["groups"] if query.group_by else [answer["total"]])
            return _json(answer)

        @get(["/v1/requests", "/requests"], role="key")
        async def list_requests(request: Request[Caller, Any, Any]) -> Response[bytes]:
            given = parameters_of(request.query_params.multi_items(), REQUESTS)
            query = log_query(given, request.user)
            answer = log_answer(query, await self.past().log(query))
            if given.get("format") == "csv":
                cursor = {"x-next-cursor": answer["next_cursor"]} if answer["has_more"] else {}
                return _csv(tuple(LoggedRequest.__annotations__), answer["data"], cursor)
            return _json(answer)

        @get(["/v1/requests/{request_id:str}", "/requests/{request_id:str}"], role="key")
        async def get_request(request: Request[Caller, Any, Any], request_id: FromPath[str]) -> Response[bytes]:
            found = await self.past().past_call(request_id, own_key(request.user))
            if found is None:
                message = (
                    f"There is no request {request_id[:64]!r}. Its id is in the header x-request-id of its answer."
                )
                raise ProxyError(message, status=404, code="not_found", param="id")
            kept = restored_candidates(found["decision"]["candidates"])
            found["decision"] |= shown_candidates(kept, names_all=request.user.admin)
            return _json({**found, "attempts": attempt_tree(found["attempts"])})

        outcomes = outcome_routes(self.past, lambda: self.views().current().ensembles)
        return [list_models, get_model, get_usage, list_requests, get_request, *outcomes]


def _json(value: object, status: int = 200) -> Response[bytes]:
    return Response(encode(value), status_code=status, media_type="application/json", headers=NO_STORE)


def _csv(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], headers: Mapping[str, str] = MappingProxyType({})
) -> Response[bytes]:
    return Response(csv_table(columns, rows), media_type="text/csv", headers={**NO_STORE, **headers})
