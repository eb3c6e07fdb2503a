"""Cutting at stops: a stream is cut where the whole answer is, wherever its chunks end."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pipeline.stop_sequences import MAX_LENGTH, MAX_STOPS, StopSequences
from proxy.schema.chat import ChatChunk, ChatResponse
from proxy.schema.errors import BadRequest
from proxy.schema.fold import Fold
from tests.slowness import usual_s


def whole(text: str | None, finish_reason: str = "length", **message: Any) -> ChatResponse:
    said = {"role": "assistant", "content": text, **message}
    return cast(ChatResponse, {"choices": [{"index": 0, "message": said, "finish_reason": finish_reason}]})


def chunk(text: str | None, index: int = 0, finish_reason: str | None = None, **more: Any) -> ChatChunk:
    delta = {} if text is None else {"content": text}
    choice = {"index": index, "delta": delta | more.pop("said", {}), "finish_reason": finish_reason, **more}
    return cast(ChatChunk, {"choices": [choice]})


def cut_stream(stops: list[str], chunks: list[ChatChunk]) -> ChatResponse:
    """The stream as a client reads it."""
    cut, fold = StopSequences(stops), Fold()
    for each in chunks:
        for passed in cut.feed([each]):
            fold.add(passed)
    return fold.response()


def passed(cut: StopSequences, *chunks: ChatChunk) -> list[str]:
    """The text sent with each chunk."""
    return [out["choices"][0]["delta"].get("content") or "" for out in cut.feed(list(chunks))]


@pytest.mark.parametrize(
    ("stops", "text", "left"),
    [
        (["END"], "one END two", "one "),
        (["b", "a"], "xaxb", "x"),
        (["aab"], "aaab", "a"),
        (["END"], "no such thing", "no such thing"),
        (["x"], "x", ""),
        (["é漢"], "aé漢b", "a"),
        (["ab", "abc"], "xabc", "x"),
        ([""], "text", "text"),
    ],
)
def test_an_answer_ends_before_the_first_stop(stops: list[str], text: str, left: str) -> None:
    """The stop is not part of it, and finish_reason says `stop` where it was cut."""
    choice = StopSequences(stops).whole(whole(text))["choices"][0]
    assert choice["message"]["content"] == left
    assert choice["finish_reason"] == ("stop" if left != text else "length")


@given(
    text=st.text("ab\n", max_size=30),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_where_chunks_end_does_not_matter(text: str, stops: list[str], sizes: list[int]) -> None:
    """However it is chunked, a stream says the same as the whole answer."""
    chunks: list[ChatChunk] = []
    place = 0
    while place < len(text):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(chunk(text[place : place + size]))
        place += size
    streamed = cut_stream(stops, [*chunks, chunk(None, finish_reason="length")])["choices"][0]
    expected = StopSequences(stops).whole(whole(text))["choices"][0]
    assert streamed["message"]["content"] == expected["message"]["content"]
    assert streamed["finish_reason"] == expected["finish_reason"]


def test_only_what_may_be_a_stop_is_held_back() -> None:
    """It is sent as soon as it cannot be a stop any more, and at the end."""
    cut = StopSequences(["<end>"])
    assert passed(cut, chunk("one <"), chunk("en"), chunk("try <e")) == ["one ", "", "<entry "]
    assert passed(cut, chunk(None, finish_reason="stop")) == ["<e"]


def test_after_the_cut_nothing_goes_out() -> None:
    """Whatever else the model writes, further stops included; the finish says `stop`."""
    cut = StopSequences(["X"])
    assert passed(cut, chunk("aXb"), chunk("c"), chunk("Xd")) == ["a", "", ""]
    (last,) = cut.feed([chunk("e", finish_reason="length")])
    assert last["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "stop"}


def test_each_choice_is_cut_on_its_own() -> None:
    """A stop in one choice does not affect the others."""
    chunks = [chunk("aX"), chunk("b", 1), chunk("c"), chunk("d", 1)]
    ends = [chunk(None, index, "length") for index in (0, 1)]
    choices = cut_stream(["X"], chunks + ends)["choices"]
    assert [choice["message"]["content"] for choice in choices] == ["a", "bd"]
    assert [choice["finish_reason"] for choice in choices] == ["stop", "length"]


def test_only_content_is_cut() -> None:
    """Reasoning, refusals and tool calls pass; an answer that calls tools still says so."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '"X"'}}
    said = {"reasoning_content": "X1", "refusal": "X2", "tool_calls": [call]}
    out = cut_stream(["X"], [chunk("aX", said=said), chunk(None, finish_reason="tool_calls")])["choices"][0]
    message = out["message"]
    assert (message["content"], message["reasoning_content"], message["refusal"]) == ("a", "X1", "X2")
    assert message["tool_calls"][0]["function"]["arguments"] == '"X"'
    assert out["finish_reason"] == "tool_calls"
    kept = StopSequences(["X"]).whole(whole("aX", "tool_calls", tool_calls=[call]))["choices"][0]
    assert (kept["message"]["content"], kept["finish_reason"]) == ("a", "tool_calls")


def test_log_probabilities_go_with_their_text() -> None:
    """They are held back and cut with their text, in streams and in whole answers."""
    tokens: list[dict[str, Any]] = [{"token": text, "logprob": -1.0} for text in ("one ", "E", "x", "END", "two")]
    chunks = [chunk(token["token"], logprobs={"content": [token]}) for token in tokens]
    cut = StopSequences(["END"])
    passed_on = [
        [token["token"] for token in (out["choices"][0].get("logprobs") or {}).get("content", [])]
        for out in cut.feed([*chunks, chunk(None, finish_reason="stop")])
    ]
    assert passed_on == [["one "], [], ["E", "x"], [], [], []]
    answer = whole("".join(token["token"] for token in tokens))
    answer["choices"][0]["logprobs"] = {"content": tokens}
    assert StopSequences(["END"]).whole(answer)["choices"][0]["logprobs"] == {"content": tokens[:3]}


def test_chunks_keep_what_else_they_carry() -> None:
    """Usage, and fields of the vendor's own."""
    given_chunk = cast(ChatChunk, {"choices": [], "usage": {"total_tokens": 3}, "system_fingerprint": "fp"})
    assert StopSequences(["X"]).feed([given_chunk]) == [given_chunk]


@pytest.mark.parametrize("stops", [["x"] * (MAX_STOPS + 1), ["x" * (MAX_LENGTH + 1)], ["x" * MAX_LENGTH] * 5])
def test_what_cannot_be_looked_for_is_refused(stops: list[str]) -> None:
    """Before anything is sent."""
    with pytest.raises(BadRequest) as caught:
        StopSequences(stops)
    assert caught.value.param == "stop"


@pytest.mark.parametrize("stops", [["a" * 999 + letter for letter in "bcde"], ["ab" * 30 + str(n) for n in range(64)]])
@pytest.mark.parametrize("piece", ["a", "ab" * 500, "ab" * 50_000])
def test_no_stops_hold_up_the_event_loop(stops: list[str], piece: str) -> None:
    """Texts that are always about to match, in chunks of any size."""
    cut = StopSequences(stops)
    times = [usual_s(lambda: cut.feed([chunk(piece)]), 1) for _ in range(20)]
    assert sorted(times)[-3] < 0.03
