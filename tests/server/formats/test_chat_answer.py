"""Rules of our own stream, as OpenAI's clients rely on them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from proxy.schema.chat import ChatChunk, TextChunk
from proxy.schema.records import Tokens
from proxy.schema.usage import Usage, UsageReport
from proxy.server.formats.chat_answer import ChunkWriter, whole

USAGE: Usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def writer(include_usage: bool = False) -> ChunkWriter:
    return ChunkWriter("chatcmpl-1", 17, lambda: "openai/m", include_usage)


def parsed(frames: bytes) -> list[Any]:
    assert b"\r" not in frames
    events = [line.removeprefix("data: ") for line in frames.decode().split("\n\n") if line]
    return [event if event == "[DONE]" else json.loads(event) for event in events]


def chunk(finish_reason: str | None = None, index: int = 0, **delta: Any) -> ChatChunk:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}]}  # type: ignore[typeddict-item]


def test_a_stream_starts_with_the_role_and_ends_with_finish_and_done() -> None:
    """Role once, finish_reason once in a chunk of its own, one id and model throughout."""
    out = writer()
    events = parsed(out.write([chunk(content="Hi")]) + out.write([chunk(content="!"), chunk("stop")]) + out.tail(USAGE))
    assert events.pop() == "[DONE]"
    assert [event["choices"][0]["delta"] for event in events] == [
        {"role": "assistant", "content": ""},
        {"content": "Hi"},
        {"content": "!"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None, None, None, "stop"]
    assert {(event["id"], event["model"], event["created"], event["object"]) for event in events} == {
        ("chatcmpl-1", "openai/m", 17, "chat.completion.chunk")
    }
    assert not any("usage" in event for event in events)


@pytest.mark.parametrize(
    "pieces",
    [["a"], ["a", "b", "c"], [",", '"', '","'], ["\\", '\\"', "\\u007f"], ["a\x7fb", "\x7f", "c"], ["\n", "é", "😀"]],
)
def test_each_piece_of_a_run_of_texts_has_an_event_of_its_own(pieces: list[str]) -> None:
    """Whatever the texts hold, the mark that stands between them while they are written included."""
    out = writer()
    out.write([chunk(content="Hi")])
    run: Any = TextChunk(0, "".join(pieces), pieces)
    one_by_one: Any = [TextChunk(0, piece) for piece in pieces]
    frames = out.write([run])
    assert [event["choices"][0]["delta"]["content"] for event in parsed(frames)] == pieces
    assert frames == out.write(one_by_one)


def test_annotations_of_several_chunks_add_up_in_openais_sdk() -> None:
    """Its accumulator raises for a second list of objects that have no index; each choice counts for itself."""
    cited = [{"type": "url_citation", "url_citation": {"url": f"https://{name}.example"}} for name in "abc"]
    out, state = writer(), ChatCompletionStreamState()
    pieces = [chunk(content="x", annotations=cited[:2]), chunk(annotations=cited[2:]), chunk("stop")]
    others = [chunk(index=1, annotations=cited[:1]), chunk("stop", index=1)]
    *events, _ = parsed(out.write([*pieces, *others]) + out.tail(USAGE))
    for event in events:
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    found = [choice.message.annotations or [] for choice in state.get_final_completion().choices]
    urls = [[each.url_citation.url for each in annotations] for annotations in found]
    assert urls == [["https://a.example", "https://b.example", "https://c.example"], ["https://a.example"]]
    assert not any("index" in each for each in cited)


def test_the_usage_chunk_comes_only_when_asked_and_has_no_choices() -> None:
    """With include_usage every other chunk says `usage: null`."""
    out = writer(include_usage=True)
    *events, last, done = parsed(out.write([chunk("stop", content="Hi")]) + out.tail(USAGE))
    assert done == "[DONE]"
    assert (last["choices"], last["usage"]) == ([], USAGE)
    assert [event["usage"] for event in events] == [None] * len(events)


def test_extras_that_nobody_asked_for_come_with_the_finish() -> None:
    """Many clients read `choices[0]` of every chunk, so that none may be without choices unless it was asked for."""
    out = ChunkWriter("chatcmpl-1", 17, lambda: "openai/m", False, lambda: {"routing": {"ensemble": {}}})
    *events, last, done = parsed(out.write([chunk("stop", content="Hi")]) + out.tail(USAGE))
    assert done == "[DONE]"
    assert (last["choices"][0]["finish_reason"], last["usage"], last["routing"]) == ("stop", USAGE, {"ensemble": {}})
    assert all(len(event["choices"]) == 1 and "usage" not in event for event in events)


def test_the_finish_is_held_back_until_the_tail() -> None:
    """Nothing that tells a client its answer is complete may leave before the call is settled."""
    out = writer()
    before = out.write([chunk(content="Hi"), chunk("length"), {"choices": [], "usage": UsageReport(USAGE, Tokens())}])
    assert b'"finish_reason":"length"' not in before
    assert b"prompt_tokens" not in before
    assert b"[DONE]" not in before
    assert b'"finish_reason":"length"' in out.tail(USAGE)


def test_an_empty_answer_still_has_its_role_and_finish() -> None:
    """A model that says nothing sends a finish_reason all the same."""
    out = writer()
    events = parsed(out.write([chunk("stop")]) + out.tail(USAGE))
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert events[1]["choices"][0]["finish_reason"] == "stop"
    assert events[2] == "[DONE]"


def test_each_choice_has_its_own_role_and_finish() -> None:
    """n > 1: choices interleave, their roles and finishes come in order of their index."""
    out = writer()
    events = parsed(
        out.write([chunk(index=1, content="b"), chunk(index=0, content="a"), chunk("stop", 1), chunk("length", 0)])
        + out.tail(USAGE)
    )
    roles = [e["choices"][0]["index"] for e in events[:-1] if "role" in e["choices"][0]["delta"]]
    finishes = [(c["index"], c["finish_reason"]) for e in events[:-1] for c in e["choices"] if c["finish_reason"]]
    assert roles == [0, 1]
    assert finishes == [(0, "length"), (1, "stop")]
    state = ChatCompletionStreamState()
    for event in events[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    assert [choice.message.content for choice in state.current_completion_snapshot.choices] == ["a", "b"]


def test_vendor_fields_ride_along_in_chunks() -> None:
    """service_tier and system_fingerprint reach the client."""
    out = writer()
    first: ChatChunk = {**chunk(content="Hi"), "service_tier": "flex"}  # type: ignore[typeddict-unknown-key]
    assert parsed(out.write([first]))[0]["service_tier"] == "flex"


def test_a_whole_answer_names_the_model_that_answered() -> None:
    """Our id, the deployment's name, complete usage; the rest as the provider said it."""
    answer = whole({"id": "theirs", "model": "m-2026", "choices": []}, "chatcmpl-1", "openai/m", 17, USAGE)
    assert answer == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "openai/m",
        "choices": [],
        "usage": USAGE,
    }
