"""A request is refused unread only if it is beyond doubt one whole POST."""

from __future__ import annotations

import pytest

from proxy.server.http1.refusal import whole_post
from tests.server.http1.test_reader import FOLLOWER, post

WHOLE = post("content-length: 2", body=b"{}")


@pytest.mark.parametrize(
    ("data", "keep_alive"),
    [
        (WHOLE, True),
        (post("Connection: close", "Content-Length: 2", body=b"{}"), False),
        (post("content-length:2", "connection: Keep-Alive", body=b"{}"), True),
        (post("content-length: 2", "connection: TE, close", body=b"{}"), False),
    ],
)
def test_a_whole_post_is_recognised(data: bytes, keep_alive: bool) -> None:
    found = whole_post(data)
    assert found is not None
    assert (found.path, found.keep_alive) == ("/a", keep_alive)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
        WHOLE[:-1],
        WHOLE[:20],
        WHOLE + FOLLOWER,
        b"\r\n" + WHOLE,
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WHOLE.replace(b"/a", b"http://a/a"),
        WHOLE.replace(b"/a", b"/%61"),
        WHOLE.replace(b"\r\n", b"\n"),
        post(body=b"{}"),
        post("content-length: 2", "content-length: 2", body=b"{}"),
        post("content-length: +2", body=b"{}"),
        post("content-length: 2", "content-length : 3", body=b"{}"),
        post("content-length: 2", "x: 1", " content-length: 3", body=b"{}"),
        post("content-length: 2", "transfer-encoding: chunked", body=b"{}"),
        post("content-length: 2", "expect: 100-continue", body=b"{}"),
        post("content-length: 2", "upgrade: h2c", body=b"{}"),
    ],
)
def test_everything_else_is_left_to_the_reader(data: bytes) -> None:
    assert whole_post(data) is None
