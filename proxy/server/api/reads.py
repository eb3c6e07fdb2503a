"""Performs I/O: the routes on models and past calls: usage, the log of requests, single requests, outcomes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.metering.standing import windows
from proxy.routing.attempt_tree import attempt_tree
from proxy.routing.explain import shown_candidates
from proxy.routing.stored_facts import restored_candidates
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.schema.queries import TokenRates
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE
from proxy.server.api.cards import anthropic_card, anthropic_page, is_anthropics, model_card
from proxy.server.api.csv_table import csv_table
from proxy.server.api.outcomes import outcome_routes
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
from proxy.server.api.sites import site_routes
from proxy.server.runtime import Runtime


class Reads:
    """The reading routes. They need the current runtime, the start time of the server, and the prices that savings are
    measured against.
    """

    def __init__(self, live: Callable[[], Runtime], started: int, baseline: Callable[[], TokenRates | None]) -> None:
        self._live = live
        self._started = started
        self._baseline = baseline

    async def _budget(self, caller: Caller) -> dict[str, Any] | None:
        """The budget windows that a caller may see: all of them for an admin, and on a server without keys."""
        now_ns = time.time_ns()
        is_free = caller.admin or caller.key_id is None
        charges = self._live().budgets.of_caller(caller.key_id, every=is_free, now_ns=now_ns)
        return windows(charges, await self._live().ledger.read_spending(), now_ns) if charges else None

    async def _text(self, found: dict[str, Any]) -> dict[str, Any] | None:
        """The prompt and the answer of a call, for a caller that may read its row and has authenticated with a key."""
        owner = found["key_id"]
        return None if owner is None else await self._live().texts.find(owner, found["id"])

    def _list(self, request: Request[Caller, Any, Any]) -> dict[str, Any]:
        """The models in OpenAI's form, or as a page for clients of Anthropic's."""
        live = self._live()
        names = live.views.of(live.policies.of(request.user).allowed)
        cards = [model_card(names.resolve(name), self._started) for name in names.names()]
        if is_anthropics(request.query_params, request.headers):
            return anthropic_page(cards, request.query_params)
        return {"object": "list", "data": cards}

    def _card(self, request: Request[Caller, Any, Any], model: str) -> dict[str, Any]:
        live = self._live()
        allowed = live.policies.of(request.user).allowed
        card = model_card(live.views.resolve(model, 0.0, allowed), self._started)
        return anthropic_card(card) if is_anthropics({}, request.headers) else card

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""

        @get(["/v1/models", "/models"], sync_to_thread=False, role="key")
        def list_models(request: Request[Caller, Any, Any]) -> Response[bytes]:
            return _json(self._list(request))

        @get(["/v1/models/{model_id:path}", "/models/{model_id:path}"], sync_to_thread=False, role="key")
        def get_model(request: Request[Caller, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
            return _json(self._card(request, model_id.removeprefix("/")))

        @get(["/v1/usage", "/usage"], role="key")
        async def get_usage(request: Request[Caller, Any, Any]) -> Response[bytes]:
            given = parameters_of(request.query_params.multi_items(), USAGE)
            query = usage_query(given, request.user, time.time_ns(), self._baseline())
            answer = usage_answer(query, await self._live().ledger.usage(query), await self._budget(request.user))
            if given.get("format") == "csv":
                return _csv(usage_columns(query), answer["groups"] if query.group_by else [answer["total"]])
            return _json(answer)

        @get(["/v1/requests", "/requests"], role="key")
        async def list_requests(request: Request[Caller, Any, Any]) -> Response[bytes]:
            given = parameters_of(request.query_params.multi_items(), REQUESTS)
            query = log_query(given, request.user)
            answer = log_answer(query, await self._live().ledger.log(query))
            if given.get("format") == "csv":
                cursor = {"x-next-cursor": answer["next_cursor"]} if answer["has_more"] else {}
                return _csv(tuple(LoggedRequest.__annotations__), answer["data"], cursor)
            return _json(answer)

        @get(["/v1/requests/{request_id:str}", "/requests/{request_id:str}"], role="key")
        async def get_request(request: Request[Caller, Any, Any], request_id: FromPath[str]) -> Response[bytes]:
            found = await self._live().ledger.past_call(request_id, own_key(request.user))
            if found is None:
                message = (
                    f"There is no request {request_id[:64]!r}. Its id is in the header x-request-id of its answer."
                )
                raise ProxyError(message, status=404, code="not_found", param="id")
            kept = restored_candidates(found["decision"]["candidates"])
            found["decision"] |= shown_candidates(kept, names_all=request.user.admin)
            found["text"] = None if request.user.key_id is None else await self._text(found)
            return _json({**found, "attempts": attempt_tree(found["attempts"])})

        outcomes = outcome_routes(lambda: self._live().ledger, lambda: self._live().views.current())
        sites = site_routes(lambda: self._live().sites)
        return [list_models, get_model, get_usage, list_requests, get_request, *outcomes, *sites]


def _json(value: object, status: int = 200) -> Response[bytes]:
    return Response(encode(value), status_code=status, media_type="application/json", headers=NO_STORE)


def _csv(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], headers: Mapping[str, str] = MappingProxyType({})
) -> Response[bytes]:
    return Response(csv_table(columns, rows), media_type="text/csv", headers={**NO_STORE, **headers})
