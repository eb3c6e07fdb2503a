"""Translates: a few words into a request, and what a provider sends for it."""

from __future__ import annotations

import json
from typing import Any

from proxy.providers.base.contract import Built, HTTPResponse, Provider
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.fold import Fold
from proxy.schema.sse import Event
from proxy.server.formats.chat import decode_chat

USER: dict[str, Any] = {"role": "user", "content": "hi"}


def request(**fields: Any) -> ChatRequest:
    return decode_chat(json.dumps({"model": "x", "messages": [USER], **fields}).encode())


def built(provider: Provider, model: str = "m", **fields: Any) -> Built:
    return provider.build_request(request(**fields), model)


def sent(provider: Provider, model: str = "m", **fields: Any) -> dict[str, Any]:
    """The body that leaves."""
    body: dict[str, Any] = json.loads(built(provider, model, **fields).http.body)
    return body


def messages(provider: Provider, *said: dict[str, Any], model: str = "m") -> list[dict[str, Any]]:
    """The messages that leave."""
    found: list[dict[str, Any]] = sent(provider, model, messages=list(said))["messages"]
    return found


def answered(status: int, body: object, **headers: str) -> HTTPResponse:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HTTPResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def folded(provider: Provider, events: list[Event], **fields: Any) -> ChatResponse:
    """The whole answer that a stream spells; fails where the stream has no end."""
    decoder, fold = provider.stream_decoder(request(stream=True, **fields)), Fold()
    for event in events:
        for chunk in decoder.feed(event):
            fold.add(chunk)
    for chunk in decoder.close():
        fold.add(chunk)
    return fold.response()


def event(value: object, name: str = "") -> Event:
    return Event(name, json.dumps(value).encode())
