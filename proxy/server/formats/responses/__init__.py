"""Translates: `/v1/responses`, stateless: bodies into chat requests, answers into Responses and their events."""

from __future__ import annotations

from typing import Any, cast

from proxy.pipeline.call import Call
from proxy.schema.chat import ChatResponse
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import ProxyError, UpstreamError
from proxy.schema.json import encode, encode_sized
from proxy.server.formats.responses.answer import Envelope, native_of
from proxy.server.formats.responses.output import Output
from proxy.server.formats.responses.request import ResponsesRequest, decode, unread
from proxy.server.formats.responses.stream import EventWriter


class ResponsesFormat:
    """OpenAI's newer API. A deployment of OpenAI gets bodies unchanged, and its answers are passed on unchanged."""

    paths = ("/v1/responses", "/responses")

    def decode(self, body: bytes) -> ResponsesRequest:
        return decode(body)

    def unread(self, model: str) -> ResponsesRequest:
        return unread(model)

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        if (native := native_of(call)) is not None:
            return native.whole
        return encode_sized(response_of(call, cast(ChatResponse, answer)), call.answer_bytes)

    def writer(self, call: Call) -> EventWriter:
        return EventWriter(call)

    def error(self, error: ProxyError) -> bytes:
        if isinstance(error, UpstreamError) and error.received is not None:
            return error.received.body
        return encode(error.body())


RESPONSES = ResponsesFormat()


def response_of(call: Call, answer: ChatResponse) -> dict[str, Any]:
    """The Response object of a whole answer."""
    names = call.request.names if isinstance(call.request, ResponsesRequest) else {}
    output = Output(call.id, names, _silent)
    output.add_whole(answer)
    return Envelope(call).ended(output.end(), output.finish_reason, call.usage(), output.extras, call.answer_bytes)


def _silent(kind: str, fields: dict[str, Any]) -> None:
    """Discards events, for answers that are not streamed."""
