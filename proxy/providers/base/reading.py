"""Translates: the body of a 2xx answer into our endpoint's shape, whatever form it has."""

from __future__ import annotations

from proxy.providers.base.answers import json_or_none, objects
from proxy.providers.base.contract import HTTPResponse, Provider
from proxy.providers.base.envelopes import error_inside
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.endpoints import AnyRequest, AnyResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.json_structure import check_nesting
from proxy.schema.sse import Event, EventFraming

_BOM = b"\xef\xbb\xbf"
_MAX_LINES = 16 * 1024 * 1024  # bytes; a copy of more would take too long
_BEGINNING = 1024  # bytes; a copy of the whole body could be large
_WRAPS = ("data", "result", "response", "body")  # where gateways put the whole answer of the server behind them
_MAX_WRAPS = 3
_EVENTS = (b"data:", b"event:", b":", b"id:", b"retry:", b"error:")  # prefixes of a stream that no JSON has


def parse(provider: Provider, request: AnyRequest, response: HTTPResponse) -> AnyResponse:
    """A whole 2xx answer to `request` as our endpoint's shape. Raises UpstreamError if it is not one."""
    if response.body.startswith(_BOM):
        response = HTTPResponse(response.status, response.headers, response.body.removeprefix(_BOM))
    if isinstance(request, ChatRequest) and response.body[:_BEGINNING].lstrip().startswith(_EVENTS):
        return _folded(provider, request, _events(response.body))
    try:
        check_nesting(response.body)
    except RecursionError:
        raise UpstreamError("The provider sent JSON that is nested too deeply.", upstream_status=200) from None
    if isinstance(request, ChatRequest):
        return _chat(provider, request, response)
    if isinstance(request, EmbeddingsRequest):
        return provider.parse_embeddings(response)
    return provider.parse_rerank(response)


def _chat(provider: Provider, request: ChatRequest, response: HTTPResponse) -> ChatResponse:
    """A whole chat answer. Several objects, in sequence or in a list, are events."""
    try:
        return provider.parse_response(response, request)
    except UpstreamError:
        if len(response.body) > _MAX_LINES:
            raise
        if (answer := _unwrapped(provider, request, response)) is not None:
            return answer
        if not (events := _listed(response.body) or _lines(response.body)):
            raise
    return _folded(provider, request, events)


def _unwrapped(provider: Provider, request: ChatRequest, response: HTTPResponse) -> ChatResponse | None:
    """The answer inside an envelope of a gateway, or as the JSON text of itself; None if there is none."""
    body = response.body
    for _ in range(_MAX_WRAPS):
        value = json_or_none(body)
        if isinstance(value, dict):
            inner = [value[name] for name in _WRAPS if isinstance(value.get(name), dict | str)]
            value = inner[0] if inner and error_inside(value) is None else None
        if not isinstance(value, dict | str):
            return None
        body = value.encode("utf-8", "replace") if isinstance(value, str) else encode(value)
        try:
            return provider.parse_response(HTTPResponse(response.status, response.headers, body), request)
        except UpstreamError:
            continue
    return None


def _listed(body: bytes) -> list[Event]:
    """The events in a list, as Google's API sends them without a request for a stream; [] if it is not a list."""
    value = json_or_none(body) if body[:_BEGINNING].lstrip().startswith(b"[") else None
    return [Event("", encode(each)) for each in objects(value) if not each.get("error")]


def _lines(body: bytes) -> list[Event]:
    """The events in lines of JSON; [] if there is only one, or one of them is too large."""
    try:
        return events if len(events := _events(body)) > 1 else []
    except UpstreamError:
        return []


def _events(body: bytes) -> list[Event]:
    framing = EventFraming()
    return [*framing.feed(bytes(body)), *framing.close()]


def _folded(provider: Provider, request: ChatRequest, events: list[Event]) -> ChatResponse:
    """The whole answer of a server that streams without being asked to. After the finish nothing is an error."""
    decoder, fold = provider.stream_decoder(request), Fold()
    for event in events:
        chunks: list[ChatChunk] = []
        try:
            chunks = decoder.feed(event)
        except UpstreamError as error:
            if not decoder.finished:
                raise
            if error.usage is not None:
                chunks = [{"choices": [], "usage": error.usage}]
        for chunk in chunks:
            fold.add(chunk)
    for chunk in decoder.close():
        fold.add(chunk)
    return fold.response()
