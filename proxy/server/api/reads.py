"""Performs I/O: the routes that only read: models, usage and single requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.pipeline.admission import KeyPolicies
from proxy.routing.allowed import Views
from proxy.routing.attempt_tree import attempt_tree
from proxy.routing.explain import shown_candidates
from proxy.routing.stored_facts import restored_candidates
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.schema.records import Caller, UsageQuery
from proxy.server.api.answers import NO_STORE
from proxy.server.api.cards import model_card
from proxy.server.api.queries import usage_query


class Reads:
    """What the reading routes need."""

    def __init__(
        self,
        views: Callable[[], Views],
        policies: Callable[[], KeyPolicies],
        usage: Callable[[UsageQuery], Awaitable[dict[str, Any]]],
        past_call: Callable[[str, str | None], Awaitable[dict[str, Any] | None]],
        started: int,
    ) -> None:
        self.views = views
        self.policies = policies
        self.usage = usage
        self.past_call = past_call
        self.started = started

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
            parameters = dict(request.query_params)
            answer = await self.usage(usage_query(parameters, request.user))
            return _json({"since": parameters.get("since"), "until": parameters.get("until"), **answer, "budget": None})

        @get(["/v1/requests/{request_id:str}", "/requests/{request_id:str}"], role="key")
        async def get_request(request: Request[Caller, Any, Any], request_id: FromPath[str]) -> Response[bytes]:
            key_id = None if request.user.admin else request.user.key_id or ""
            found = await self.past_call(request_id, key_id)
            if found is None:
                message = (
                    f"There is no request {request_id[:64]!r}. Its id is in the header x-request-id of its answer."
                )
                raise ProxyError(message, status=404, code="not_found", param="id")
            kept = restored_candidates(found["decision"]["candidates"])
            found["decision"] |= shown_candidates(kept, names_all=request.user.admin)
            return _json({**found, "attempts": attempt_tree(found["attempts"])})

        return [list_models, get_model, get_usage, get_request]


def _json(value: object, status: int = 200) -> Response[bytes]:
    return Response(encode(value), status_code=status, media_type="application/json", headers=NO_STORE)
