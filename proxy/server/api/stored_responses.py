"""Performs I/O: `/v1/responses/{id}`: the error of each route for stored Responses, because none is stored here;
`compact` and `input_tokens` are OpenAI's own.
"""

from __future__ import annotations

from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.schema.errors import ProxyError

_PATHS = ["/v1/responses/{response_id:str}", "/responses/{response_id:str}"]


def stored_response_routes() -> list[HTTPRouteHandler]:
    """The Litestar handlers, each with and without `/v1`."""

    @get(_PATHS, role="key", sync_to_thread=False)
    def read(response_id: FromPath[str]) -> None:
        raise _not_stored(response_id)

    @delete(_PATHS, role="key", sync_to_thread=False)
    def forget(response_id: FromPath[str]) -> None:
        raise _not_stored(response_id)

    @get([f"{path}/input_items" for path in _PATHS], role="key", sync_to_thread=False)
    def input_items(response_id: FromPath[str]) -> None:
        raise _not_stored(response_id)

    @post(_PATHS, role="key", sync_to_thread=False)
    def act(response_id: FromPath[str]) -> None:
        message = f"There is no POST /responses/{response_id[:64]}. Use POST /responses, without an id."
        raise ProxyError(message, status=404, code="not_found")

    return [read, forget, input_items, act]


def _not_stored(response_id: str) -> ProxyError:
    message = f"There is no Response {response_id[:64]!r}: nothing is stored here, whatever `store` says."
    return ProxyError(message, status=404, code="not_found", param="response_id")
