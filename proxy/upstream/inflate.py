"""Translates: a compressed answer into its bytes, piece by piece. Some gateways compress although `identity` was
requested, and some claim to compress and do not: the first bytes decide. Pieces are bounded, and so is the size that a
small answer may grow to.
"""

from __future__ import annotations

import zlib

from proxy.schema.errors import UpstreamError
from proxy.upstream.transports.base import MAX_PIECE_BYTES, Answer, ConnectionLost

ENCODINGS = ("gzip", "x-gzip", "deflate")
MAX_INFLATED_BYTES = 16 * 1024 * 1024
MEMBER = b"\x1f\x8b"  # the start of a gzip member
_EITHER = 32 + zlib.MAX_WBITS  # with a header of gzip or of zlib
_BARE = -zlib.MAX_WBITS  # deflate without a header: some servers take the name to mean that
_HEADER = 2  # bytes that show whether there is one
_PLAIN = (b"{", b"[", b"data:", b"event:", b":", b"id:", b"retry:", b"<", b"\xef\xbb\xbf")  # JSON, streams, pages
_MAX_LAYERS = 4
_UNKNOWN = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})  # names beyond these mean no compression


class Inflated:
    """An answer with its compression undone."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status, self.headers = answer.status, answer.headers
        self._stream = zlib.decompressobj(_EITHER)
        self._tail = b""  # arrived but not decompressed yet
        self._grown = 0
        self._begun: bytes | None = b""  # the bytes so far; None once it is known to be compressed
        self._is_plain = False

    def read_nowait(self) -> bytes | None:
        while True:
            if self._tail:
                piece: bytes | None = b""
            else:
                piece = self._answer.read_nowait()
                if not piece:
                    return b"" if piece is not None and self._has_ended else None
            if grown := self._inflate(piece or b""):
                return grown

    async def read(self) -> bytes:
        while (piece := self.read_nowait()) is None:
            arrived = await self._answer.read()
            if not arrived and not self._has_ended:
                raise ConnectionLost
            if not arrived:
                return b""
            if grown := self._inflate(arrived):
                return grown
        return piece

    def close(self, *, complete: bool = False) -> None:
        self._answer.close(complete=complete)

    @property
    def _has_ended(self) -> bool:
        return self._stream.eof or self._is_plain

    def _inflate(self, piece: bytes) -> bytes:
        if self._is_plain:
            return piece
        begun = self._begun = None if self._begun is None else self._begun + piece
        try:
            grown = self._stream.decompress(self._tail + piece, MAX_PIECE_BYTES)
        except zlib.error:
            if begun is None:
                raise UpstreamError("The provider sent a compressed answer that is broken.") from None
            return self._without_header(begun)
        if begun is not None and len(begun) >= _HEADER:
            self._begun = None
        self._tail = self._stream.unconsumed_tail
        if self._stream.eof and self._stream.unused_data.startswith(MEMBER):  # an answer may have several members
            self._tail, self._stream = self._stream.unused_data, zlib.decompressobj(_EITHER)
        self._grown += len(grown)
        if self._grown > MAX_INFLATED_BYTES:
            raise UpstreamError(f"The provider sent a compressed answer of more than {MAX_INFLATED_BYTES} bytes.")
        return grown

    def _without_header(self, begun: bytes) -> bytes:
        """The first bytes of an answer that has no header of gzip or zlib: bare deflate, or not compressed at all."""
        self._begun, self._tail = None, b""
        if begun.lstrip().startswith(_PLAIN):
            self._is_plain = True
            return begun
        self._stream = zlib.decompressobj(_BARE)
        return self._inflate(begun)


def inflated(answer: Answer) -> Answer:
    """The answer itself, unless it is compressed in a way that can be read."""
    encoding = answer.headers.get("content-encoding")
    if encoding:
        for _ in range(sum(each in ENCODINGS for each in _names(encoding))):
            answer = Inflated(answer)
    return answer


def unzipped(body: bytes) -> bytes:
    """A whole body, with gzip undone that no header names: gateways lose the header. JSON does not begin like that."""
    if not body.startswith(MEMBER):
        return body
    stream = zlib.decompressobj(_EITHER)
    try:
        grown = stream.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error:
        raise UpstreamError("The provider sent a compressed answer that is broken.") from None
    if stream.unconsumed_tail:
        raise UpstreamError(f"The provider sent a compressed answer of more than {MAX_INFLATED_BYTES} bytes.")
    return grown


def can_inflate(encoding: str) -> bool:
    """True for a `content-encoding` that can be read. A name that is no encoding, such as `utf-8`, does not count."""
    names = _names(encoding)
    return _UNKNOWN.isdisjoint(names) and len(names) <= _MAX_LAYERS


def _names(encoding: str) -> list[str]:
    return [each.strip() for each in encoding.lower().split(",")]
