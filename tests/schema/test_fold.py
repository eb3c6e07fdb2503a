"""What comes in pieces of a vendor's own is put together, as texts and tool calls are."""

from __future__ import annotations

import gc
import time
from typing import Any, cast

import pytest

from proxy.schema.chat import ChatChunk
from proxy.schema.fold import Fold
from tests.slowness import assert_growth


def folded(*deltas: dict[str, Any]) -> Any:
    """The message that these deltas spell."""
    fold = Fold()
    for delta in deltas:
        fold.add(cast(ChatChunk, {"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
    return fold.response()["choices"][0]["message"]


def test_details_of_thoughts_grow_by_their_index():
    """Texts and summaries go on, a signature that comes later is added; another kind at the same index is its own."""
    thought = {"type": "reasoning.text", "index": 0, "format": "unknown"}
    sealed = {"type": "reasoning.encrypted", "index": 0, "data": "c2VhbGVk"}
    message = folded(
        {"reasoning_details": [{**thought, "text": "He wants", "signature": ""}]},
        {
            "reasoning_details": [
                {**thought, "text": " two."},
                {"type": "reasoning.summary", "index": 1, "summary": "T"},
            ]
        },
        {"reasoning_details": [{"type": "reasoning.summary", "index": 1, "summary": "wo"}, sealed]},
        {"reasoning_details": [{**thought, "signature": "signed"}]},
    )
    assert message["reasoning_details"] == [
        {**thought, "text": "He wants two.", "signature": "signed"},
        {"type": "reasoning.summary", "index": 1, "summary": "Two"},
        sealed,
    ]


def test_details_without_an_index_stand_one_after_the_other():
    """Nothing says that they belong together."""
    pieces: list[Any] = [{"text": "a"}, {"text": "b"}, "c"]
    assert folded(*({"reasoning_details": [piece]} for piece in pieces))["reasoning_details"] == pieces


def test_audio_grows():
    """Data and transcript come in pieces, the id and the end once."""
    message = folded(
        {"audio": {"id": "audio_1", "transcript": "Hel"}},
        {"audio": {"data": "AAAA", "transcript": "lo"}},
        {"audio": {"data": "BBBB"}},
        {"audio": {"expires_at": 1795404526}},
    )
    assert message["audio"] == {"id": "audio_1", "transcript": "Hello", "data": "AAAABBBB", "expires_at": 1795404526}


def test_pieces_that_are_none_replace():
    """Whatever a server sends there, it ends no call."""
    assert folded({"audio": {"id": "a"}}, {"audio": 7})["audio"] == 7
    assert folded({"reasoning_details": "a"}, {"reasoning_details": [1]})["reasoning_details"] == [1]


@pytest.mark.parametrize(
    "piece",
    [
        lambda number: {"audio": {"data": "x" * 800}},
        lambda number: {"reasoning_details": [{"index": 0, "type": "t", "text": "x" * 80}]},
        lambda number: {"reasoning_details": [{"index": number, "type": "t", "text": "x"}]},
        lambda number: {"reasoning_details": [{"text": "x"}]},
        lambda number: {"content": "x" * 80},
        lambda number: {"tool_calls": [{"index": number % 500, "function": {"arguments": "x" * 80}}]},
        lambda number: {"annotations": [{"url": "x"}]},
    ],
)
def test_a_piece_never_copies_what_came_before_it(piece: Any):
    """Four times as many pieces take about four times as long: 2,000 pieces of audio took 8 seconds."""

    def spent_s(pieces: int) -> float:
        fold = Fold()
        chunks = [cast(ChatChunk, {"choices": [{"index": 0, "delta": piece(number)}]}) for number in range(pieces)]
        gc.collect()
        gc.disable()
        began = time.thread_time()
        for each in chunks:
            fold.add(each)
        fold.response()
        spent = time.thread_time() - began
        gc.enable()
        return spent

    assert_growth(lambda: spent_s(2_000), lambda: spent_s(8_000), 10)
