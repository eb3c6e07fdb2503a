"""Compressed request bodies: what every encoder makes is read, at any length; a limit holds; the rest is refused."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from proxy.schema.errors import BadRequest, ProxyError
from proxy.server.api.inflate import TooMuch, encoding_of, inflated


def raw_deflate(data: bytes) -> bytes:
    press = zlib.compressobj(wbits=-15)
    return press.compress(data) + press.flush()


def streamed_zstd(data: bytes) -> bytes:
    """Without the size in its head, in blocks as they came."""
    press = zstd.ZstdCompressor()
    pieces = [press.compress(data[at : at + 1000], zstd.ZstdCompressor.FLUSH_BLOCK) for at in range(0, len(data), 1000)]
    return b"".join(pieces) + press.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip, stored": ("gzip", lambda data: gzip.compress(data, 0)),
    "gzip, members": ("gzip", lambda data: gzip.compress(data[:7]) + gzip.compress(b"") + gzip.compress(data[7:])),
    "deflate": ("deflate", zlib.compress),
    "deflate, best": ("deflate", lambda data: zlib.compress(data, 9)),
    "deflate, raw": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "zstd, streamed": ("zstd", streamed_zstd),
    "zstd, frames": ("zstd", lambda data: zstd.compress(data[:7]) + zstd.compress(data[7:])),
}
SAMPLES = [b"{}", b'{"a": 1}' * 3, os.urandom(200_000), b"x" * 3_000_000, b"".join(b"%d," % n for n in range(100_000))]


@pytest.mark.parametrize("name", ENCODERS)
def test_what_encoders_make_is_read(name: str) -> None:
    """Short, long, dense and without any content."""
    encoding, encode = ENCODERS[name]
    for data in SAMPLES:
        assert inflated(encode(data), encoding, 4_000_000) == data


@pytest.mark.parametrize("name", ENCODERS)
def test_the_limit_is_exact(name: str) -> None:
    """One byte more is too much."""
    encoding, encode = ENCODERS[name]
    for size in (10, 65_536, 1_048_576, 1_500_000):
        data = encode(b"a" * size)
        assert len(inflated(data, encoding, size)) == size
        with pytest.raises(TooMuch):
            inflated(data, encoding, size - 1)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_body_that_breaks_off_is_refused_at_every_byte(name: str) -> None:
    """Unless it ends where a member does."""
    encoding, encode = ENCODERS[name]
    data = encode(b'{"model": "auto", "messages": []}')
    for cut in range(len(data)):
        try:
            assert inflated(data[:cut], encoding, 1000) in (b'{"mode', b'{"model')
            assert "s" in name.partition(", ")[2]
        except BadRequest as error:
            assert encoding in error.message


@pytest.mark.parametrize("name", ENCODERS)
def test_damage_and_junk_are_refused(name: str) -> None:
    """Bytes changed, bytes behind, another format."""
    encoding, encode = ENCODERS[name]
    data = encode(b"the quick brown fox " * 50)
    for wrong in (data + b"junk", data + b"\0", b"junk" + data, b"{}", b"", os.urandom(64)):
        with pytest.raises((BadRequest, TooMuch)):
            inflated(wrong, encoding, 10_000)


def test_a_large_window_is_refused() -> None:
    """It is memory that one request would take before a byte comes."""
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 27,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    press = zstd.ZstdCompressor(options=options)
    data = press.compress(os.urandom(9_000_000)) + press.flush()
    with pytest.raises(BadRequest):
        inflated(data, "zstd", 20_000_000)


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None),
        ("identity", None),
        ("Identity", None),
        (" , ", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("identity, gzip", "gzip"),
        ("deflate", "deflate"),
        ("zstd", "zstd"),
    ],
)
def test_the_header_names_one_encoding(header: str, encoding: str | None) -> None:
    """In any case, by its old name too."""
    assert encoding_of(header) == encoding


@pytest.mark.parametrize("header", ["br", "compress", "gzip, gzip", "gzip, zstd", "aws-chunked", "utf-8", "gzip;q=1"])
def test_another_encoding_is_refused_with_those_that_work(header: str) -> None:
    """As RFC 7694 wants it."""
    with pytest.raises(ProxyError) as refused:
        encoding_of(header)
    assert (refused.value.status, refused.value.headers["accept-encoding"]) == (415, "gzip, deflate, zstd")
