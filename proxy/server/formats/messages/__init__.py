"""Translates: `/v1/messages`, Anthropic's wire shape.

A deployment of Anthropic gets the client's bytes and answers with its own. For every other one the body is translated
into a chat request, and the answer into a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from proxy.pipeline.call import Call
from proxy.pipeline.format import PerRequest, StreamWriter
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode_sized
from proxy.server.formats.messages.answer import EventWriter, whole_message
from proxy.server.formats.messages.errors import error_body
from proxy.server.formats.messages.request import decode_messages

PATH = "/messages"  # below the root of the vendor's API


class MessagesFormat(PerRequest):
    """`/v1/messages` of one request. `headers`: those of the client."""

    paths = ("/v1/messages", "/messages")

    def __init__(self, call_id: str = "", headers: Mapping[str, str] | None = None) -> None:
        self._call_id = call_id
        self._headers = headers or {}
        self._stops: list[str] = []
        self._hides_thoughts = False

    def bound(self, call_id: str, headers: Mapping[str, str]) -> MessagesFormat:
        return type(self)(call_id, headers)

    def decode(self, body: bytes) -> ChatRequest:
        decoded = decode_messages(body, self._headers, PATH)
        self._stops, self._hides_thoughts = decoded.stops, decoded.hides_thoughts
        return decoded.request

    def unread(self, model: str) -> ChatRequest:
        return ChatRequest(model=model, messages=[], fields={})

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        if call.seated is None and (native := call.answering.native) is not None:
            return native.whole
        self._name(call)
        said = cast(ChatResponse, answer)
        message: dict[str, Any] = whole_message(call, said, self._stops, hides_thoughts=self._hides_thoughts)
        return encode_sized(message, call.answer_bytes)

    def writer(self, call: Call) -> StreamWriter:
        self._name(call)
        return EventWriter(call, self._stops, hides_thoughts=self._hides_thoughts)

    def _name(self, call: Call) -> None:
        """Anthropic's name of the header with the id; if its own answer is passed on, its own id is there."""
        call.limit_headers = {**call.limit_headers, "request-id": call.id}

    def error(self, error: ProxyError) -> bytes:
        """The error's body. Anthropic's clients retry after a total failure if they are told when."""
        if error.status >= 500:
            error.headers.setdefault("retry-after", "1")
            error.headers.pop("x-should-retry", None)
        error.headers.setdefault("request-id", self._call_id)
        return error_body(error, self._call_id)
