"""The routes that only read: models, usage, liveness and readiness."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.api.answers import NO_STORE
from proxy.auth import Auth
from proxy.codec import encode
from proxy.errors import BadRequest
from proxy.records import Caller, UsageQuery
from proxy.routing.names import Deployment, Names

_GROUPS = ("model", "provider", "day")
_LAST_NS = 2**63 - 1  # the last moment a row can have; years beyond 2262 mean "ever"


def model_card(names: Names, name: str, created: int) -> dict[str, Any]:
    """One model in OpenAI's shape, with what it resolves to, sizes in tokens and prices in USD per 1M tokens."""
    deployment = names.resolve(name).candidates[0]
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
    """What the reading routes need; `ready` answers the problems that keep the server from serving."""

    def __init__(
        self,
        names: Callable[[], Names],
        auth: Auth,
        usage: Callable[[UsageQuery], Awaitable[dict[str, Any]]],
        ready: Callable[[], list[str]],
        started: int,
    ) -> None:
        self.names = names
        self.auth = auth
        self.usage = usage
        self.ready = ready
        self.started = started

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""

        @get(["/v1/models", "/models"], sync_to_thread=False)
        def list_models(request: Request[Any, Any, Any]) -> Response[bytes]:
            self.auth.identify(request.headers)
            names = self.names()
            return _json({"object": "list", "data": [model_card(names, name, self.started) for name in names.names()]})

        @get(["/v1/models/{model_id:path}", "/models/{model_id:path}"], sync_to_thread=False)
        def get_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[bytes]:
            self.auth.identify(request.headers)
            return _json(model_card(self.names(), model_id.removeprefix("/"), self.started))

        @get(["/v1/usage", "/usage"])
        async def get_usage(request: Request[Any, Any, Any]) -> Response[bytes]:
            caller = self.auth.identify(request.headers)
            parameters = dict(request.query_params)
            answer = await self.usage(usage_query(parameters, caller))
            return _json({"since": parameters.get("since"), "until": parameters.get("until"), **answer, "budget": None})

        @get("/livez", sync_to_thread=False)
        def livez() -> Response[bytes]:
            return _json({"status": "ok"})

        @get("/readyz", sync_to_thread=False)
        def readyz() -> Response[bytes]:
            problems = self.ready()
            return _json({"status": "degraded" if problems else "ok", "problems": problems}, 503 if problems else 200)

        return [list_models, get_model, get_usage, livez, readyz]


def _json(value: object, status: int = 200) -> Response[bytes]:
    return Response(encode(value), status_code=status, media_type="application/json", headers=NO_STORE)
