"""A vendor's own bytes: passed untouched, cut only between events, the end held back."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pipeline.native import NativeAnswer, with_whole_events

EVENTS = ["event: a\ndata: 1\n\n", ": ping\n\n", "data: two\ndata: lines\n\n", "data: é漢😀\n\n", "data: {}\n\n"]
FINISH = "data: finish\n\ndata: usage\n\ndata: [DONE]\n\n"
MARKS = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}


def wire(newline: str) -> tuple[bytes, bytes]:
    """A stream up to its finish, and from there on."""
    return ("".join(EVENTS).replace("\n", newline).encode(), FINISH.replace("\n", newline).encode())


def ends(newline: str) -> set[int]:
    """Where a keep-alive frame may stand: between two events."""
    sizes = (len(event.replace("\n", newline).encode()) for event in EVENTS)
    return {0, *itertools.accumulate(sizes)}


@pytest.mark.parametrize("newline", MARKS.values(), ids=MARKS)
@given(cuts=st.sets(st.integers(1, 200), max_size=12))
def test_bytes_cut_anywhere_leave_whole_events_in_order(newline: str, cuts: set[int]) -> None:
    """Nothing is lost, added or changed, and each piece ends between two events."""
    before, after = wire(newline)
    native, sent = NativeAnswer(), b""
    places = [0, *sorted(cut for cut in cuts if cut < len(before)), len(before)]
    for start, stop in itertools.pairwise(places):
        native.add(before[start:stop], False)
        sent += native.take()
        assert before.startswith(sent)
        assert len(sent) in ends(newline)
        # A CR that ends a piece may be the first half of a CRLF: what follows it decides.
        assert len(sent) == max(end for end in ends(newline) if end <= stop)
    assert sent == before
    native.add(after, True)
    assert native.take() == b""
    assert native.tail() == after


@pytest.mark.parametrize("newline", MARKS.values(), ids=MARKS)
def test_byte_by_byte(newline: str) -> None:
    """Each event leaves with its last byte."""
    before, after = wire(newline)
    native, sent = NativeAnswer(), b""
    for place in range(len(before)):
        native.add(before[place : place + 1], False)
        sent += native.take()
        assert len(sent) == max(end for end in ends(newline) if end <= place + 1)
    for place in range(len(after)):
        native.add(after[place : place + 1], True)
    assert (native.take(), native.tail()) == (b"", after)


def test_what_comes_with_the_finish_waits_for_the_settlement() -> None:
    """Also text before it in the same bytes, which could not be split off without parsing."""
    before, after = wire("\n")
    native = NativeAnswer()
    native.add(before + after, True)
    assert (native.take(), native.tail()) == (b"", before + after)


def test_half_an_event_before_the_finish_waits_with_it() -> None:
    """In the order it came, and once."""
    native = NativeAnswer()
    native.add(b"data: 1\n\ndata: fin", False)
    assert native.take() == b"data: 1\n\n"
    native.add(b"ish\n\n", True)
    native.add(b"data: [DONE]\n\n", True)
    assert native.take() == b""
    assert native.tail() == b"data: finish\n\ndata: [DONE]\n\n"


def test_what_was_not_taken_is_part_of_the_tail() -> None:
    """A reader that is slower than its upstream loses nothing."""
    native = NativeAnswer()
    native.add(b"data: 1\n\n", False)
    native.add(b"data: 2\n\n", False)
    native.add(b"data: finish\n\n", True)
    assert native.tail() == b"data: 1\n\ndata: 2\n\ndata: finish\n\n"


@pytest.mark.parametrize("piece", [b"data: 1\r", b"data: 1\r\n", b"data: 1\r\n\r", b"data: 1\n", b"data: 1"])
def test_an_event_without_its_end_does_not_leave(piece: bytes) -> None:
    """A keep-alive frame after it would become a part of it."""
    native = NativeAnswer()
    native.add(piece, False)
    assert native.take() == b""


def test_a_stream_of_many_small_pieces_is_not_searched_again_from_its_start() -> None:
    """One event of a million bytes, a hundred at a time: linear, not the square of it."""
    native, piece = NativeAnswer(), b"x" * 100
    for _ in range(10_000):
        native.add(piece, False)
    assert native.take() == b""
    native.add(b"\n\n", False)
    assert len(native.take()) == 1_000_002


@pytest.mark.parametrize(
    ("tail", "whole"),
    [
        (b"", b""),
        (b"data: {}\n\n", b"data: {}\n\n"),
        (b"data: {}\r\n\r\n", b"data: {}\r\n\r\n"),
        (b"data: {}\r\rdata: 1\r\r", b"data: {}\r\rdata: 1\r\r"),
        (b"data: {}\n\ndata: {}", b"data: {}\n\ndata: {}\n\n"),
        (b"data: {}\n\nevent: end\ndata: {}\r", b"data: {}\n\nevent: end\ndata: {}\n\n"),
        (b"data: {}\n\nevent: end\ndata: {", b"data: {}\n\n"),
        (b"data: {}\n\nevent: end", b"data: {}\n\n"),
        (b"event: end\nda", b""),
    ],
)
def test_a_stream_that_breaks_off_after_the_finish_ends_with_a_whole_event(tail: bytes, whole: bytes) -> None:
    """What came complete stays as it came."""
    assert with_whole_events(tail) == whole
