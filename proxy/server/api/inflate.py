"""Translates: a compressed request body into its bytes, up to a limit."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from proxy.schema.errors import BadRequest, ProxyError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = ("gzip", "deflate", "zstd")  # `br` has no decoder here
_STEP_BYTES = 64 * 1024  # of input, because zlib copies unused input
_PIECE_BYTES = 1024 * 1024  # of output
_WINDOW_LOG = 23  # 8 MB, the most that a zstd decoder must support (RFC 8878, 3.1.1.1.2)


class TooMuch(Exception):
    """The body is larger than the limit once decompressed."""


class _Stream(Protocol):
    """One gzip member, one zstd frame, or a whole body. `decompress` accepts input once `needs_input`."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Zlib:
    """zlib's object, which keeps no input itself."""

    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def encoding_of(header: str) -> str | None:
    """The one encoding of a body; None: it is not compressed. Raises ProxyError 415 for any other."""
    names = [name for name in (each.strip().lower() for each in header.split(",")) if name not in ("", "identity")]
    found = [name.removeprefix("x-") for name in names]
    if not found:
        return None
    if len(found) == 1 and found[0] in ENCODINGS:
        return found[0]
    message = f"Send the body with one content-encoding of {', '.join(ENCODINGS)}, or without; got {header[:64]!r}."
    headers = {"accept-encoding": ", ".join(ENCODINGS)}  # RFC 7694
    raise ProxyError(message, status=415, code="unsupported_media_type", headers=headers)


def inflated(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The decompressed body. Raises TooMuch, and BadRequest for a body that cannot be decompressed."""
    new_stream = _stream_of(encoding, body)
    stream, grown = new_stream(), bytearray()
    view, at, rest = memoryview(body), 0, b""
    try:
        while True:
            if stream.eof:
                rest = stream.unused_data or rest
                if not rest and at >= len(body):
                    return bytes(grown)
                if encoding == "deflate":
                    raise _broken(encoding, "has bytes after its end")
                stream = new_stream()  # several members or frames are one body
            data = b""
            if rest:
                data, rest = rest, b""
            elif stream.needs_input:
                data = bytes(view[at : at + _STEP_BYTES])
                at += len(data)
            piece = stream.decompress(data, min(_PIECE_BYTES, max_bytes + 1 - len(grown)))
            if not piece and not data and not stream.eof:
                raise _broken(encoding, "breaks off")
            grown += piece
            if len(grown) > max_bytes:
                raise TooMuch
    except (zlib.error, zstd.ZstdError):
        raise _broken(encoding, "is damaged") from None


def _stream_of(encoding: str, body: bytes) -> Callable[[], _Stream]:
    if encoding == "zstd":
        options: Any = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
        return lambda: zstd.ZstdDecompressor(options=options)
    if encoding == "gzip":
        return lambda: _Zlib(16 + zlib.MAX_WBITS)
    # `deflate` means zlib's format (RFC 9110, 8.4.1.2); some clients leave out its header.
    has_header = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
    return lambda: _Zlib(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)


def _broken(encoding: str, how: str) -> BadRequest:
    return BadRequest(f"The body's {encoding} {how}.")
