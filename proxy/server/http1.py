"""Performs I/O: uvicorn's HTTP/1.1 reader, with an end to what it collects before a request has begun.

httptools keeps the pieces of a head for as long as they come, and uvicorn answers what is no HTTP in plain text. Here a
head has a limit (S16), and every error has the shape of an API error.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.server.api.answers import NO_STORE, new_id, raw_headers

MAX_HEAD_BYTES = 64 * 1024  # more than the guard allows: what it can refuse, it refuses


class HTTP1Protocol(HttpToolsProtocol):
    """One connection."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            message = f"The request's head is larger than {MAX_HEAD_BYTES // 1024} KB."
            self._hang_up(ProxyError(message, status=431, code="invalid_value"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._in_head = 0, True

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False

    def send_400_response(self, msg: str) -> None:
        """What the parser refused; `msg` is uvicorn's."""
        self._hang_up(ProxyError("This is not an HTTP/1.1 request.", status=400, code="invalid_value"))

    def _hang_up(self, error: ProxyError) -> None:
        """Says why where no other answer has begun on this connection, and closes it."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = encode(error.body())
            headers = {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "connection": "close",
                "x-request-id": new_id(),
                **NO_STORE,
            }
            lines = [name + b": " + value + b"\r\n" for name, value in raw_headers(headers)]
            self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        self.transport.close()
