"""Rules of reading an event stream: it may be cut anywhere, and nothing a server sends grows memory without end."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.schema.errors import UpstreamError
from proxy.schema.json_structure import MAX_NESTING
from proxy.schema.sse import Event, EventFraming, Events
from tests.slowness import usual_s

SAMPLE = (
    '\ufeffdata: {"a": "é漢🙂"}\r\n\r\n: ping\n\nevent: error\ndata: x\ndata: y\n\n'
    "id: 7\nretry: 10\ndata:no space\r\rdata:  two spaces\n\ndata\n\ndata: [DONE]\n\n"
).encode()
EVENTS = [
    Event("", '{"a": "é漢🙂"}'.encode()),
    Event("error", b"x\ny"),
    Event("", b"no space"),
    Event("", b" two spaces"),
    Event("", b""),
    Event("", b"[DONE]"),
]


def read(pieces: list[bytes], max_event_bytes: int = 1024) -> list[Event]:
    framing = EventFraming(max_event_bytes)
    return [event for piece in pieces for event in framing.feed(piece)] + framing.close()


@given(st.lists(st.integers(0, len(SAMPLE)), max_size=12))
def test_a_stream_reads_the_same_wherever_it_is_cut(cuts: list[int]) -> None:
    """Multi-byte characters, CRLF and the byte order mark may be cut in two."""
    places = [0, *sorted(cuts), len(SAMPLE)]
    assert read([SAMPLE[a:b] for a, b in itertools.pairwise(places)]) == EVENTS


class Plain(EventFraming):
    """Without the short way for usual events."""

    def _add_plain(self, piece: bytes, events: Events) -> bytes:
        return piece

    def _add_named(self, piece: bytes, events: Events) -> bytes:
        return piece


UNITS = (
    *(
        b"data: ",
        b"data:",
        b"event: ",
        b"event:",
        b"\n",
        b"\n\n",
        b"\r\n",
        b"{",
        b"}",
        b" ",
        b"x",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"event: a\n", b"data: {}\n", b"data: {}\n\n", b"data: [DONE]\n\n", b"event: a\ndata: {}\n\n", b'{"a":1}'),
    *(b": c\n", b"error: {}\n", b"id: 1\n", b"retry: 1\n"),
)


@given(st.lists(st.lists(st.sampled_from(UNITS), max_size=8).map(b"".join), max_size=4))
def test_the_short_way_reads_what_the_long_one_does(pieces: list[bytes]) -> None:
    """Whatever stands between usual events, and wherever they are cut."""
    long = Plain()
    assert read(pieces) == [event for piece in pieces for event in long.feed(piece)] + long.close()


def test_a_stream_of_single_bytes_reads_the_same() -> None:
    """The smallest pieces there are."""
    assert read([SAMPLE[i : i + 1] for i in range(len(SAMPLE))]) == EVENTS


def test_an_event_that_lacks_its_blank_line_counts_at_the_end() -> None:
    """Some servers close after `data: [DONE]`."""
    assert read([b"data: a\n\ndata: [DONE]"]) == [Event("", b"a"), Event("", b"[DONE]")]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 2000, b"data: x\n" * 300, b"x" * 2000, b": " + b"x" * 2000])
def test_an_event_over_the_cap_is_an_error(piece: bytes) -> None:
    """One line without end, or data lines without end."""
    with pytest.raises(UpstreamError, match="more than 1024 bytes"):
        read([piece])


def test_many_small_events_are_no_large_one() -> None:
    """The cap is per event, comments and other fields of past lines do not add up."""
    assert len(read([b": ping\n" * 500 + b"event: x\n" * 500 + b"data: 1\n\n"] * 50)) == 50


@pytest.mark.parametrize("unit", [b"\n", b"\r", b":\n", b"data:\n", b"data: {}\n\n", b"{\n", b"event: x\n", b"x:\n"])
@pytest.mark.sampled(4)
def test_no_line_is_dear(unit: bytes) -> None:
    """One read from a socket may bring 256 kB of the shortest lines there are."""
    piece = unit * (256 * 1024 // len(unit))

    assert usual_s(lambda: EventFraming().feed(piece)) < 0.06


@pytest.mark.slow
def test_a_line_in_tiny_pieces_takes_its_own_size() -> None:
    """Two bytes at a time, as a hostile server may send them, took 30 times the memory of the line."""
    framing = EventFraming()
    tracemalloc.start()
    for _ in range(100_000):
        framing.feed(b"xy")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 400_000


@pytest.mark.parametrize("prefix", ["data: ", ""])
def test_an_event_nested_too_deeply_is_an_error(prefix: str) -> None:
    """It could be read, but not be written again from deeper in the stack."""
    start, end = ('{"error": {"a": ', "}}") if not prefix else ("[[", "]]")

    def framed(levels: int) -> bytes:
        return (prefix + start + "[" * (levels - 2) + "]" * (levels - 2) + end + "\n\n").encode()

    assert len(EventFraming().feed(framed(MAX_NESTING))) == 1
    with pytest.raises(UpstreamError, match="nested too deeply"):
        EventFraming().feed(framed(MAX_NESTING + 1))
