"""The routes that only read: models and usage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.api.answers import NO_STORE
from proxy.codec import encode
from proxy.errors import BadRequest
from proxy.permits import Permits
from proxy.records import Caller, UsageQuery
from proxy.routing.allowed import Views
from proxy.routing.names import Deployment, Route

_GROUPS = ("model", "provider", "day")
_LAST_NS = 2**63 - 1  # the last moment a row can have; years beyond 2262 mean "ever"


def model_card(route: Route, created: int) -> dict[str, Any]:
    """One model in OpenAI's shape, with what it resolves to, sizes in tokens and prices in USD per 1M tokens."""
    name, deployment = route.requested, route.candidates[0]
    entry: dict[str, Any] = {"id": name, "object": "model", "created": created, "owned_by": deployment.provider_name}
    if deployment.name != name:
        entry["resolves_to"] = deployment.name
    return entry | _facts(deployment)


def _facts(deployment: Deployment) -> dict[str, Any]:
    price = deployment.price
    if price is None:
        return {"pricing": None}
    facts: dict[str, Any] = {
        "pricing": {"input": price.input, "output": price.output, "cached_input": price.cached_input}
    }
    sizes = {"context_length": price.context, "max_output_tokens": price.max_output, "capabilities": price.supports}
    facts |= {key: value for key, value in sizes.items() if value is not None}
    return facts | ({"shutdown_date": price.retires} if price.retires else {})


def usage_query(parameters: dict[str, str], caller: Caller) -> UsageQuery:
    """`since`, `until` (ISO 8601, UTC where no zone is given) and `group_by` (comma-separated). Raises BadRequest."""
    unknown = sorted(set(parameters) - {"since", "until", "group_by"})
    if unknown:
        raise BadRequest(
            f"Unknown parameter {unknown[0][:64]!r}. Known: since, until, group_by.", param=unknown[0][:64]
        )
    groups = tuple(dict.fromkeys(part.strip() for part in parameters.get("group_by", "").split(",") if part.strip()))
    for group in groups:
        if group not in _GROUPS:
            raise BadRequest(f"group_by: unknown group {group[:64]!r}. Known: {', '.join(_GROUPS)}.", param="group_by")
    since, until = (_unix_ns(parameters, name) for name in ("since", "until"))
    return UsageQuery(since, until, None if caller.admin else caller.key_id, groups)


def _unix_ns(parameters: dict[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "+"))
    except ValueError:
        raise BadRequest(
            f"{name}: expected a date or time such as 2026-11-22 or 2026-11-22T08:00:00Z.", param=name
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(int(moment.timestamp()) * 1_000_000_000, 0), _LAST_NS)


class Reads:
    """What the reading routes need."""

    def __init__(
        self,
        views: Callable[[], Views],
        permits: Callable[[], Permits],
        usage: Callable[[UsageQuery], Awaitable[dict[str, Any]]],
        started: int,
    ) -> None:
        self.views = views
        self.permits = permits
        self.usage = usage
        self.started = started

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""

        @get(["/v1/models", "/models"], sync_to_thread=False, role="key")
        def list_models(request: Request[Caller, Any, Any]) -> Response[bytes]:
            names = self.views().of(self.permits().of(request.user).allowed)
            cards = [model_card(names.resolve(name), self.started) for name in names.names()]
            return _json({"object": "list", "data": cards})

        @get(["/v1/models/{model_id:path}", "/models/{model_id:path}"], sync_to_thread=False, role="key")
        def get_model(request: Request[Caller, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
            allowed = self.permits().of(request.user).allowed
            return _json(model_card(self.views().resolve(model_id.removeprefix("/"), 0.0, allowed), self.started))

        @get(["/v1/usage", "/usage"], role="key")
        async def get_usage(request: Request[Caller, Any, Any]) -> Response[bytes]:
            parameters = dict(request.query_params)
            answer = await self.usage(usage_query(parameters, request.user))
            return _json({"since": parameters.get("since"), "until": parameters.get("until"), **answer, "budget": None})

        return [list_models, get_model, get_usage]


def _json(value: object, status: int = 200) -> Response[bytes]:
    return Response(encode(value), status_code=status, media_type="application/json", headers=NO_STORE)
