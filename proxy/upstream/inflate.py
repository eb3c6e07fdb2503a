"""Translates: a compressed answer into its bytes, piece by piece. Some gateways compress though `identity` was asked
for. Pieces are bounded, and so is what a small answer may grow into.
"""

from __future__ import annotations

import zlib

from proxy.schema.errors import UpstreamError
from proxy.upstream.transports.base import MAX_PIECE_BYTES, Answer, ConnectionLost

ENCODINGS = ("gzip", "x-gzip", "deflate")
MAX_INFLATED_BYTES = 16 * 1024 * 1024
_MEMBER = b"\x1f\x8b"  # how one of gzip begins
_EITHER = 32 + zlib.MAX_WBITS  # with a header of gzip or of zlib


class Inflated:
    """An answer as it was before its server compressed it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status, self.headers = answer.status, answer.headers
        self._stream = zlib.decompressobj(_EITHER)
        self._tail = b""  # arrived, and not decompressed yet
        self._grown = 0

    def read_nowait(self) -> bytes | None:
        while True:
            if self._tail:
                piece: bytes | None = b""
            else:
                piece = self._answer.read_nowait()
                if not piece:
                    return b"" if piece is not None and self._stream.eof else None
            if grown := self._inflate(piece or b""):
                return grown

    async def read(self) -> bytes:
        while (piece := self.read_nowait()) is None:
            arrived = await self._answer.read()
            if not arrived and not self._stream.eof:
                raise ConnectionLost
            if not arrived:
                return b""
            if grown := self._inflate(arrived):
                return grown
        return piece

    def close(self, *, complete: bool = False) -> None:
        self._answer.close(complete=complete)

    def _inflate(self, piece: bytes) -> bytes:
        try:
            grown = self._stream.decompress(self._tail + piece, MAX_PIECE_BYTES)
        except zlib.error:
            raise UpstreamError("The provider sent a compressed answer that is broken.") from None
        self._tail = self._stream.unconsumed_tail
        if self._stream.eof and self._stream.unused_data.startswith(_MEMBER):  # an answer may be in several
            self._tail, self._stream = self._stream.unused_data, zlib.decompressobj(_EITHER)
        self._grown += len(grown)
        if self._grown > MAX_INFLATED_BYTES:
            raise UpstreamError(f"The provider sent a compressed answer of more than {MAX_INFLATED_BYTES} bytes.")
        return grown


def inflated(answer: Answer) -> Answer:
    """The answer itself, unless it is compressed in a way that can be read."""
    return Inflated(answer) if answer.headers.get("content-encoding", "").lower() in ENCODINGS else answer
