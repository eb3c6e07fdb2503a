"""Bytes become answers, however they are cut; what is no answer to the request costs the connection."""

from __future__ import annotations

import pytest

from proxy.upstream.transports.answer_reader import MAX_HEAD_BYTES, AnswerReader
from proxy.upstream.transports.base import MAX_PIECE_BYTES

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"content-length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
UNSIZED = OK + b"\r\nhello"
BROKEN = ConnectionResetError()


def reader_of(data: bytes, step: int | None = None) -> AnswerReader:
    reader = AnswerReader()
    reader.expect()
    for at in range(0, len(data), step or len(data)):
        reader.feed(data[at : at + (step or len(data))])
    return reader


@pytest.mark.parametrize("step", [1, 2, 7, None])
@pytest.mark.parametrize(
    "data",
    [SIZED, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + SIZED],
    ids=["sized", "chunked", "interim"],
)
def test_an_answer_is_the_same_however_it_is_cut(data: bytes, step: int | None) -> None:
    """And its connection serves the next request."""
    reader = reader_of(data, step)
    for _ in range(2):
        assert (reader.status, reader.has_ended, reader.failure, reader.keeps_alive) == (200, True, None, True)
        assert "link" not in reader.headers
        body = b""
        while reader.body:
            body += reader.take()
        assert body == b"hello"
        reader.expect()
        assert reader.status == 0
        reader.feed(data)


@pytest.mark.parametrize("data", [SIZED + b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n", CHUNKED + b"garbage", SIZED + SIZED])
@pytest.mark.parametrize("at_once", [True, False])
def test_bytes_behind_an_answer_cost_the_connection(data: bytes, at_once: bool) -> None:
    """Not the answer itself."""
    first = CHUNKED if data.startswith(CHUNKED) else SIZED
    reader = reader_of(data) if at_once else reader_of(first)
    if not at_once:
        reader.feed(data[len(first) :])
    assert (reader.has_ended, reader.failure, reader.keeps_alive) == (True, None, False)
    assert (reader.take(), "x" in reader.headers) == (b"hello", False)


@pytest.mark.parametrize(
    ("data", "error", "is_whole"),
    [
        (UNSIZED, None, True),
        (OK + b"transfer-encoding: gzip\r\n\r\nhello", None, True),
        (UNSIZED, BROKEN, False),
        (SIZED[:-1], None, False),
        (CHUNKED[:-2], None, False),
        (OK, None, False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", None, False),
    ],
)
def test_the_end_of_the_connection_ends_only_a_body_without_a_length(
    data: bytes, error: Exception | None, is_whole: bool
) -> None:
    """Anything else is broken, and a reset breaks everything."""
    reader = reader_of(data)
    reader.end(error)
    assert (reader.has_ended, reader.failure is None, reader.keeps_alive) == (is_whole, is_whole, False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 33,
        OK + b"x: " + b"y" * MAX_HEAD_BYTES,
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    ],
    ids=["not HTTP", "endless interim", "large head", "broken chunk", "two lengths"],
)
def test_what_is_no_answer_is_a_failure(data: bytes) -> None:
    reader = reader_of(data, 16 * 1024)
    assert (reader.has_ended, reader.failure is None, reader.keeps_alive) == (False, False, False)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.0 200 OK\r\n", OK + b"connection: close\r\n", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n"],
    ids=["HTTP/1.0", "close", "101"],
)
def test_an_answer_that_ends_its_connection_is_read(head: bytes) -> None:
    reader = reader_of(head + b"content-length: 2\r\n\r\nhi")
    reader.end(None)
    assert (reader.status > 0, reader.keeps_alive) == (True, False)


def test_headers_are_lower_case_the_first_counts_and_trailers_are_none() -> None:
    chunked = b"X-One:  a \t\r\nx-one: b\r\nX-Text: \xc3\xa9\xff\r\nX-Empty:\r\ntransfer-encoding: chunked\r\n\r\n"
    reader = reader_of(OK + chunked + b"1\r\nx\r\n0\r\nx-late: c\r\n\r\n")
    assert reader.headers == {"x-one": "a", "x-text": "é\udcff", "x-empty": "", "transfer-encoding": "chunked"}
    assert reader.has_ended


def test_pieces_are_limited() -> None:
    size = 3 * MAX_PIECE_BYTES
    reader = reader_of(OK + b"content-length: %d\r\n\r\n" % size + b"x" * size, MAX_PIECE_BYTES // 2)
    pieces = []
    while reader.body:
        pieces.append(len(reader.take()))
    assert sum(pieces) == size
    assert max(pieces) <= MAX_PIECE_BYTES
