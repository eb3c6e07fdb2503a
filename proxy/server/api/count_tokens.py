"""Performs I/O: `POST /v1/messages/count_tokens`: counts the tokens of a prompt. Free, and not a metered call.

For Anthropic's models it asks Anthropic, with the client's own bytes. For every other vendor the proxy estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from litestar import Request, Response, post
from litestar.handlers import HTTPRouteHandler

from proxy.providers.base.building import is_native
from proxy.routing.decision import Decision
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import UpstreamError
from proxy.schema.json import encode
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE, new_id, safe_headers
from proxy.server.api.request import Bodies, ClientGone
from proxy.server.formats.messages.count import CountFormat
from proxy.server.runtime import Runtime


class CountTokens:
    """The route. `live` lends the current configuration."""

    def __init__(self, live: Callable[[], AbstractContextManager[Runtime]], bodies: Bodies) -> None:
        self._live = live
        self._bodies = bodies

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""

        @post(["/v1/messages/count_tokens", "/messages/count_tokens"], role="key")
        async def count_tokens(request: Request[Caller, Any, Any]) -> Response[bytes]:
            """How many tokens the prompt of a `/v1/messages` body has. Free; Anthropic counts for its own models."""
            headers, call_id = dict(request.headers), new_id()
            try:
                body = await self._bodies.read(request.receive, headers)
            except ClientGone:
                return Response(b"", status_code=499)
            format = CountFormat(call_id, headers)
            with self._live() as live:
                decision, _ = await live.pipeline.decide(request.user, body, format, headers)
                return await _counted(live, decision, format.decoded, call_id)

        return [count_tokens]


async def _counted(live: Runtime, decision: Decision, request: ChatRequest, call_id: str) -> Response[bytes]:
    deployment = decision.route.candidates[0]
    provider, native = deployment.provider, request.native
    if native is None or decision.route.ensemble or not is_native(provider, request):
        return _answer(200, encode({"input_tokens": decision.facts.input_tokens_estimate}), call_id, {})
    upstream = live.upstreams[deployment.provider_name]
    built = provider.build_native(request, native, deployment.model)
    exchange = upstream.exchange(built, call_id, stream=False)
    try:
        async with exchange:
            answer = await exchange.body()
    except UpstreamError as error:
        if (received := error.received) is None:
            raise
        headers = provider.native_headers(received.headers) | error.headers
        return _answer(received.status, received.body, call_id, headers)
    finally:
        if exchange.lease is not None:
            exchange.lease.settle(0)
    return _answer(answer.status, bytes(answer.body), call_id, provider.native_headers(answer.headers))


def _answer(status: int, body: bytes, call_id: str, headers: Mapping[str, str]) -> Response[bytes]:
    known = {"request-id": call_id, **NO_STORE, **headers, "x-request-id": call_id}
    return Response(body, status_code=status, media_type="application/json", headers=safe_headers(known))
