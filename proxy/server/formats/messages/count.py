"""Translates: a body of `/v1/messages/count_tokens`, which is one of `/v1/messages` without an output limit."""

from __future__ import annotations

from proxy.schema.chat import ChatRequest
from proxy.server.formats.messages import PATH, MessagesFormat
from proxy.server.formats.messages.request import decode_messages


class CountFormat(MessagesFormat):
    """Keeps the request that it decoded."""

    decoded: ChatRequest

    def decode(self, body: bytes) -> ChatRequest:
        self.decoded = decode_messages(body, self._headers, f"{PATH}/count_tokens", needs_limit=False).request
        return self.decoded
