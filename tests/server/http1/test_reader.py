"""What bytes are as requests, in whatever pieces they come. No request is ever made of another one's body."""

from __future__ import annotations

import random

import pytest

from proxy.schema.errors import ProxyError
from proxy.server.http1.reader import MAX_HEAD_BYTES, Head, RequestReader


class Heard:
    """The requests that a reader reported: method, path, body, whether it ended."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.bodies: list[bytes] = []
        self.ended = 0
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1

    def head(self, head: Head) -> None:
        self.heads.append(head)
        self.bodies.append(b"")

    def body(self, piece: bytes) -> None:
        self.bodies[-1] += piece

    def end(self) -> None:
        self.ended += 1

    @property
    def requests(self) -> list[tuple[str, str, bytes]]:
        assert self.ended == len(self.heads)
        return [(head.method, head.path, body) for head, body in zip(self.heads, self.bodies, strict=True)]


def read(*pieces: bytes) -> Heard:
    heard = Heard()
    reader = RequestReader(heard)
    for piece in pieces:
        reader.feed(piece)
    return heard


def refused(*pieces: bytes) -> int:
    """The status of the refusal."""
    with pytest.raises(ProxyError) as raised:
        read(*pieces)
    return raised.value.status


def post(*headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    return "\r\n".join([f"POST /a HTTP/{version}", "host: a", *headers, "", ""]).encode() + body


SMUGGLED = b"POST /smuggled HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
FOLLOWER = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n"
UPGRADES = {
    "h2c": ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAABAAMAAABk"),
    "websocket": ("connection: keep-alive, Upgrade", "upgrade: websocket", "sec-websocket-version: 13"),
    "made up": ("Upgrade: x", "Connection: uPgRaDe"),
    "several lines": ("connection: upgrade", "connection: http2-settings", "upgrade: h2c", "http2-settings: a"),
    "several protocols": ("connection: keep-alive, upgrade", "upgrade: foo/2, h2c, websocket"),
    "without connection": ("upgrade: h2c",),
    "connection alone": ("connection: upgrade",),
}


@pytest.mark.parametrize("headers", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("chunked", [False, True])
def test_an_upgrade_is_ignored_wherever_the_bytes_are_split(headers: tuple[str, ...], chunked: bool) -> None:
    """RFC 9110, 7.8: the request is answered as if it had not asked. Its body, itself a request, stays a body."""
    framing = "transfer-encoding: chunked" if chunked else f"content-length: {len(SMUGGLED)}"
    data = post(*headers, framing, body=CHUNKED if chunked else SMUGGLED) + FOLLOWER
    expected = [("POST", "/a", SMUGGLED), ("GET", "/next", b"")]
    assert read(data).requests == expected
    for split in range(len(data)):
        assert read(data[:split], data[split:]).requests == expected
    assert read(*(data[place : place + 1] for place in range(len(data)))).requests == expected


@pytest.mark.parametrize("headers", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.parametrize("lengths", [(), ("content-length: 0",)])
def test_an_upgrade_without_a_body_is_ignored(headers: tuple[str, ...], lengths: tuple[str, ...]) -> None:
    """What follows is the next request, which may ask for an upgrade too."""
    one = post(*headers, *lengths)
    data = one + one + FOLLOWER
    expected = [("POST", "/a", b""), ("POST", "/a", b""), ("GET", "/next", b"")]
    for split in range(len(data)):
        assert read(data[:split], data[split:]).requests == expected


def test_an_upgrade_that_closes_is_the_last_request() -> None:
    """Nothing behind it is read."""
    data = post("connection: close, upgrade", "upgrade: h2c", "content-length: 3", body=b"abc") + FOLLOWER
    for split in range(len(data)):
        heard = read(data[:split], data[split:])
        assert heard.requests == [("POST", "/a", b"abc")]
        assert not heard.heads[0].keep_alive


@pytest.mark.parametrize("last", [post("connection: close"), post("content-length: 3", body=b"abc", version="1.0")])
def test_bytes_behind_a_last_request_are_no_request(last: bytes) -> None:
    """The connection closes after it."""
    data = last + FOLLOWER
    for split in range(len(data)):
        assert len(read(data[:split], data[split:]).requests) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post("content-length: 3", "transfer-encoding: chunked", body=b"0\r\n\r\n"), 400),
        (post("content-length: 3", "content-length: 4", body=b"abcd"), 400),
        (post("content-length: +3", body=b"abc"), 400),
        (post("content-length: 3, 3", body=b"abc"), 400),
        (post("transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
        (post("transfer-encoding: gzip", body=b"0\r\n\r\n"), 501),
        (post("transfer-encoding: identity", body=b"abc"), 501),
        (post("transfer-encoding: chunked", "transfer-encoding: chunked", body=b"0\r\n\r\n"), 400),
        (post("transfer-encoding: xchunked", body=b"0\r\n\r\n"), 501),
        (post("transfer-encoding: chunked", version="1.0", body=b"0\r\n\r\n"), 400),
        (post("connection: upgrade", "upgrade: h2c", "transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
        (post("x: a", " folded"), 400),
        (post("x : a"), 400),
        (b"POST / HTTP/1.1\nhost: a\n\n", 400),
        (b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n", 405),
        (b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (post("transfer-encoding: chunked", body=b"3\r\nabcd\r\n"), 400),
        (post("transfer-encoding: chunked", body=b"-1\r\n"), 400),
        (post("transfer-encoding: chunked", body=b"3\nabc\n"), 400),
    ],
    ids=lambda value: ascii(value)[2:60],
)
def test_doubtful_framing_is_refused(data: bytes, status: int) -> None:
    """Where two readers could see different ends, nothing is read."""
    assert refused(data) == status
    assert refused(*(data[place : place + 1] for place in range(len(data)))) == status


def test_trailers_are_no_headers() -> None:
    """What comes behind the body cannot change who asks."""
    heard = read(post("transfer-encoding: chunked", body=b"1\r\na\r\n0\r\nauthorization: Bearer b\r\n\r\n") + FOLLOWER)
    assert [dict(head.headers).get(b"authorization") for head in heard.heads] == [None, None]
    assert heard.requests == [("POST", "/a", b"a"), ("GET", "/next", b"")]


@pytest.mark.parametrize(
    ("begins", "piece"),
    [(b"1", b";x=" + b"y" * 1000), (b"0", b"0" * 1000), (b"1\r\na\r\n0\r\n", b"x: y\r\n" * 200)],
    ids=["extensions", "zeros", "trailers"],
)
def test_framing_without_a_body_has_a_limit(begins: bytes, piece: bytes) -> None:
    """Chunk extensions, leading zeros and trailers are read by nobody."""
    assert refused(post("transfer-encoding: chunked", body=begins), *[piece] * 100) == 400


def test_a_body_in_tiny_chunks_is_read() -> None:
    """One byte in six is allowed."""
    chunks = b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n"
    data = post("transfer-encoding: chunked", body=chunks)
    heard = read(*(data[place : place + 4096] for place in range(0, len(data), 4096)))
    assert heard.requests == [("POST", "/a", b"a" * 100_000)]


def test_a_head_has_a_limit_of_its_own() -> None:
    """Bytes of the body before it do not count."""
    large = post("content-length: 100000", body=b"x" * 100_000) + FOLLOWER[:20]
    assert read(large, FOLLOWER[20:]).requests[1] == ("GET", "/next", b"")
    assert refused(FOLLOWER[:20], b"x" * MAX_HEAD_BYTES) == 431
    assert refused(large, b"x" * MAX_HEAD_BYTES, b"x") == 431


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_who_waits_for_100_says_so(value: str) -> None:
    """HTTP/1.0 knows no 100."""
    (head,) = read(post(f"expect: {value}", "content-length: 2")).heads
    assert head.expects_continue
    (head,) = read(post(f"expect: {value}", "content-length: 2", version="1.0")).heads
    assert not head.expects_continue


def test_any_pipeline_in_any_pieces_is_the_same_requests() -> None:
    """500 random ones."""
    dice = random.Random(10)
    for _ in range(500):
        data, expected = b"", []
        for _ in range(dice.randrange(1, 6)):
            body = dice.choice([b"", b"{}", SMUGGLED, FOLLOWER, b"\r\n" * 20])
            headers = dice.choice([(), *UPGRADES.values()])
            if body and dice.random() < 0.5:
                chunks = b"".join(b"%x;e=1\r\n%b\r\n" % (len(part), part) for part in (body[:1], body[1:]) if part)
                data += post(*headers, "transfer-encoding: chunked", body=chunks + b"0\r\n\r\n")
            else:
                data += post(*headers, f"content-length: {len(body)}", body=body)
            expected.append(("POST", "/a", body))
        cuts = sorted(dice.randrange(len(data)) for _ in range(dice.randrange(8)))
        pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert read(*pieces).requests == expected
