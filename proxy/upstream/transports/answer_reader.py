"""Translates: the bytes of one connection to a provider into the answers to its requests. It does no I/O.

httptools parses, as tolerantly as aiohttp's parser does. Added here: interim answers are skipped, a head has a limit,
trailers are no headers, and the end of the connection ends a body that has no length.
"""

from __future__ import annotations

import httptools

from proxy.upstream.transports.base import MAX_PIECE_BYTES

MAX_HEAD_BYTES = 96 * 1024  # httpx's limit is 100 kB
_MAX_INTERIM = 32  # 1xx answers before the real one
_SWITCHING = 101  # the only 1xx that is not an interim answer: no HTTP follows


class UnusableAnswer(Exception):
    """Not an answer to the request, or not a whole one."""


class AnswerReader:
    """Reads consecutive answers. `expect` must be called before each request.

    `status` is 0 until the head is complete. `body` holds the part of the body that arrived and was not taken.
    `failure`: no more of the answer will come. `keeps_alive`: once the answer has ended, the connection can serve
    another request.
    """

    def __init__(self) -> None:
        self.received = 0  # bytes since `expect`
        self.status = 0
        self.body = bytearray()  # not a list of pieces: a chunk may be one byte, and an object is fifty
        self.headers: dict[str, str] = {}
        self.has_ended = True
        self.keeps_alive = True
        self.failure: BaseException | None = None
        self._interim = 0
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def expect(self) -> None:
        """Must be called before a request is sent."""
        self.received = self.status = self._interim = 0
        self.has_ended = False
        self.body.clear()

    def feed(self, data: bytes) -> None:
        """Parses more bytes. Bytes after an answer belong to no request, so the connection is not kept."""
        self.received += len(data)
        if self.has_ended or self.failure is not None:
            self.keeps_alive = False
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.keeps_alive = False
        except httptools.HttpParserError as error:
            self._fail(error if self.status else UnusableAnswer(f"no status line: {data[:8]!r}"))
        if not self.status and self.received > MAX_HEAD_BYTES:
            self._fail(UnusableAnswer("the head is too large"))

    def end(self, error: BaseException | None) -> None:
        """The connection has ended, and with it a body without a length."""
        has_length = "content-length" in self.headers or "chunked" in self.headers.get("transfer-encoding", "").lower()
        if error is None and self.status and not has_length:
            self.has_ended = True
        self._fail(error or UnusableAnswer("the connection ended"))
        del self._parser  # breaks a reference cycle, so that the garbage collector need not

    def take(self) -> bytes:
        """The part of the body that has arrived, at most MAX_PIECE_BYTES."""
        if len(self.body) <= MAX_PIECE_BYTES:
            piece = bytes(self.body)
            self.body.clear()
        else:
            piece = bytes(self.body[:MAX_PIECE_BYTES])
            del self.body[:MAX_PIECE_BYTES]
        return piece

    def _fail(self, error: BaseException) -> None:
        self.keeps_alive = False
        if not self.has_ended and self.failure is None:
            self.failure = error

    # --- called by httptools ---

    def on_message_begin(self) -> None:
        if self.has_ended:
            raise UnusableAnswer("an answer without a request")
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # after a body it is a trailer
            text = value.decode("utf-8", "surrogateescape").strip(" \t")
            self.headers.setdefault(name.decode("utf-8", "surrogateescape").lower(), text)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 or status == _SWITCHING:
            self.status = status
            return
        self._interim += 1
        if self._interim > _MAX_INTERIM:
            raise UnusableAnswer("too many interim answers")

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        if self.status:
            self.has_ended = True
            self.keeps_alive = self.keeps_alive and self._parser.should_keep_alive()
