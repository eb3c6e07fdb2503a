"""Streams of every wire, as the client's own library puts them together: whatever was said arrives, in any order of
parallel calls and wherever the bytes are cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import StreamDecoder
from proxy.schema.chat import ChatChunk, TextChunk
from proxy.schema.errors import UpstreamError
from proxy.schema.fold import Fold
from proxy.schema.sse import Event, EventFraming, Events
from proxy.schema.usage import Usage
from proxy.server.formats.chat import decode_chat
from proxy.server.formats.chat_answer import ChunkWriter
from tests.upstream import anthropic_wire, cohere_wire, google_wire
from tests.upstream.modes import Script
from tests.upstream.wire import Said

NAMES = [f"tool_{place}" for place in range(5)]
REQUEST = decode_chat(
    json.dumps(
        {
            "model": "x",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "tools": [{"type": "function", "function": {"name": name}} for name in NAMES],
        }
    ).encode()
)
USAGE: Usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


# --- what is said -----------------------------------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**50), 2**50)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3), max_leaves=5
)
_arguments = st.dictionaries(_texts, _values, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False))


@st.composite
def saids(draw: st.DrawFn, most: int = 4) -> Said:
    """At most `most` calls, tokens and reasoning tokens each."""
    calls = [(name, draw(_arguments)) for name in NAMES[: draw(st.integers(0, most))]]
    return Said(
        tokens=draw(st.lists(_texts, max_size=most)),
        reasoning=draw(st.lists(_texts, max_size=most)),
        calls=calls,
        finish="tool_calls" if calls else "stop",
    )


turns_of = st.lists(st.integers(0, 3), max_size=30)


# --- the wires: each writes what is said as a stream, the pieces of parallel calls in the order of `turns` ------------


def openai_stream(said: Said, turns: list[int]) -> bytes:
    """Fragments by index. A call opens when its turn comes first, those before it too."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: " + json.dumps({**head, "choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"

    def fragments() -> Iterator[dict[str, Any]]:
        left = [[arguments[at : at + 3] for at in range(0, len(arguments), 3)] for _, arguments in said.calls]
        opened = 0
        for place in [turn for turn in turns if turn < len(left)] + [p for p, own in enumerate(left) for _ in own]:
            for other in range(opened, place + 1):
                function = {"name": said.calls[other][0], "arguments": ""}
                yield {"index": other, "id": f"call_{other}", "type": "function", "function": function}
            opened = max(opened, place + 1)
            if left[place]:
                yield {"index": place, "function": {"arguments": left[place].pop(0)}}

    events = [event({"role": "assistant", "content": ""})]
    events += [event({"reasoning_content": piece}) for piece in said.reasoning]
    events += [event({"content": piece}) for piece in said.tokens]
    events += [event({"tool_calls": [fragment]}) for fragment in fragments()]
    usage = json.dumps({**head, "choices": [], "usage": USAGE}).encode()
    return b"".join([*events, event({}, said.finish), b"data: " + usage + b"\n\n", b"data: [DONE]\n\n"])


def cohere_stream(said: Said, turns: list[int]) -> bytes:
    ids = ["answer", *(f"{name}_id" for name, _ in said.calls)]
    usage = {"tokens": {"input_tokens": 1.0, "output_tokens": 1.0}}
    frames = cohere_wire.stream(said, ids, said.finish, usage, turns)
    return b"".join([*(frame.data for frame in frames), b"data: [DONE]\n\n"])


def anthropic_stream(said: Said, turns: list[int]) -> bytes:
    """Blocks are written one after the other here."""
    ids = ["msg_1", *(f"{name}_id" for name, _ in said.calls)]
    frames = anthropic_wire.stream(said, ids, said.finish, {"input_tokens": 1, "output_tokens": 1})
    return b"".join([*(frame.data for frame in frames), b'data: {"type":"message_stop"}\n\n'])


def google_stream(said: Said, turns: list[int]) -> bytes:
    """A call comes in one piece here: there is nothing that could take turns."""
    head = {"modelVersion": "m", "responseId": "answer"}
    return b"".join(frame.data for frame in google_wire.stream(said, head, Script(), 1))


def responses_stream(said: Said, turns: list[int]) -> bytes:
    """OpenAI's own: items with numbers, whose pieces take turns here, then the whole answer once more."""

    def event(kind: str, **fields: Any) -> bytes:
        data = json.dumps({"type": f"response.{kind}", "sequence_number": 0, **fields}, ensure_ascii=False).encode()
        return f"event: response.{kind}\ndata: ".encode() + data + b"\n\n"

    thought = "".join(said.reasoning)
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": thought}] if thought else []},
        {"type": "message", "id": "msg", "content": [{"type": "output_text", "text": "".join(said.tokens)}]},
    ]
    pieces = [[("reasoning_summary_text.delta", each) for each in said.reasoning]]
    pieces.append([("output_text.delta", each) for each in said.tokens])
    for name, arguments in said.calls:
        items.append(
            {"type": "function_call", "id": name, "call_id": f"{name}_id", "name": name, "arguments": arguments}
        )
        cut = [arguments[at : at + 3] for at in range(0, len(arguments), 3)]
        pieces.append([("function_call_arguments.delta", each) for each in cut])
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}
    sent = [event("created", response={**head, "status": "in_progress", "output": []})]
    for index, item in enumerate(items):
        sent.append(event("output_item.added", output_index=index, item={**item, "arguments": ""}))
    for index in [turn for turn in turns if turn < len(items)] + [i for i, own in enumerate(pieces) for _ in own]:
        if pieces[index]:
            kind, delta = pieces[index].pop(0)
            sent.append(event(kind, output_index=index, item_id=str(len(sent)), summary_index=0, delta=delta))
    sent += [event("output_item.done", output_index=index, item=item) for index, item in enumerate(items)]
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    whole = {**head, "status": "completed", "output": items, "usage": usage}
    return b"".join([*sent, event("completed", response=whole)])


def perplexity_stream(said: Said, turns: list[int]) -> bytes:
    """Named events; a thought is told as a whole, a call too."""

    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\n".encode() + b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n"

    thought, text = "".join(said.reasoning), "".join(said.tokens)
    calls = [
        {"type": "function_call", "id": f"fc_{name}", "call_id": f"{name}_id", "name": name, "arguments": arguments}
        for name, arguments in said.calls
    ]
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}
    return b"".join(
        [
            event("response.created", response={**head, "status": "in_progress", "output": []}),
            *([event("response.reasoning.stopped", thought=thought)] if thought else []),
            *(event("response.output_text.delta", delta=piece) for piece in said.tokens),
            *(event("response.output_item.done", item=item) for item in calls),
            event(
                "response.completed",
                response={**head, "status": "completed", "output": [message, *calls], "usage": usage},
            ),
        ]
    )


WRITERS: dict[str, Callable[[Said, list[int]], bytes]] = {
    **dict.fromkeys(("openai", "groq", "mistral", "together", "ollama", "vllm", "lmstudio", "localai"), openai_stream),
    "embedded": openai_stream,
    "anthropic": anthropic_stream,
    "cohere": cohere_stream,
    "google": google_stream,
    "perplexity": perplexity_stream,
    "openai, responses": responses_stream,
}
KINDS = [*PROVIDERS, "openai, responses"]


# --- reading ----------------------------------------------------------------------------------------------------------


def framed(data: bytes, cuts: list[int]) -> list[Event]:
    framing = EventFraming()
    bounds = [0, *cuts, len(data)]
    found = [event for begin, end in pairwise(bounds) for event in framing.feed(data[begin:end])]
    return found + framing.close()


def decoded(kind: str, events: list[Event]) -> tuple[list[ChatChunk], StreamDecoder]:
    decoder = PROVIDERS[kind.partition(",")[0]]().stream_decoder(REQUEST)
    return [chunk for event in events for chunk in decoder.feed(event)], decoder


def as_the_sdk_has_it(chunks: list[ChatChunk]) -> Any:
    """Our own stream of these chunks, put together by the `openai` package. Every frame is one JSON value."""
    writer = ChunkWriter("chatcmpl-1", 1, lambda: "vendor/model", include_usage=True)
    data = b"".join([*(writer.write([chunk]) for chunk in chunks), writer.tail(USAGE)])
    *events, done = framed(data, [])
    assert done.data == b"[DONE]"
    state: Any = ChatCompletionStreamState()
    for event in events:
        state.handle_chunk(ChatCompletionChunk.model_validate(json.loads(event.data)))
    return state.get_final_completion()


def check(kind: str, said: Said, chunks: list[ChatChunk]) -> None:
    """Text, reasoning, calls and finish are what was said."""
    choice = as_the_sdk_has_it(chunks).choices[0]
    assert (choice.message.content or "") == "".join(said.tokens)
    calls = choice.message.tool_calls or []
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        (name, json.loads(arguments)) for name, arguments in said.calls
    ]
    assert len({call.id for call in calls}) == len(calls)
    assert choice.finish_reason == said.finish
    fold = Fold()
    for chunk in chunks:
        fold.add(chunk)
    message = fold.response()["choices"][0]["message"]
    assert message.get("reasoning_content", "") == "".join(said.reasoning)
    assert (message["content"] or "") == (choice.message.content or "")


def decoded_at_once(kind: str, data: bytes, cuts: list[int]) -> tuple[list[ChatChunk], StreamDecoder]:
    """As the pipeline does it: the events of each piece, first those that only add text."""
    decoder = PROVIDERS[kind.partition(",")[0]]().stream_decoder(REQUEST)
    framing, chunks = EventFraming(), []
    bounds = [0, *cuts, len(data)]
    for events in [*(framing.take(data[begin:end]) for begin, end in pairwise(bounds)), framing.end()]:
        at = 0
        while at < len(events):
            if (run := decoder.texts(events, at)) is not None:
                assert run.text == "".join(run.pieces)
                chunks += [cast(ChatChunk, TextChunk(run.index, piece)) for piece in run.pieces]
                at += len(run.pieces)
            else:
                chunks += decoder.feed(events[at])
                at += 1
    return chunks, decoder


def plainly(chunks: list[ChatChunk]) -> list[Any]:
    """Chunks as the dictionaries that they represent."""
    return [chunk.whole() if isinstance(chunk, TextChunk) else chunk for chunk in chunks]


# --- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(said=saids(), turns=turns_of)
@pytest.mark.sampled(4)
def test_whatever_is_said_arrives_in_the_clients_library(kind: str, said: Said, turns: list[int]):
    """Parallel calls that take turns at random keep their arguments apart."""
    chunks, decoder = decoded(kind, framed(WRITERS[kind](said, turns), []))
    decoder.close()
    check(kind, said, chunks)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(said=saids(most=6), turns=turns_of, places=st.lists(st.floats(0, 1), max_size=3))
@pytest.mark.sampled(4)
def test_texts_read_at_once_are_those_read_one_by_one(kind: str, said: Said, turns: list[int], places: list[float]):
    """Also if tool calls and thoughts stand between them, wherever the bytes are cut."""
    data = WRITERS[kind](said, turns)
    cuts = sorted(int(place * len(data)) for place in places)
    at_once, decoder = decoded_at_once(kind, data, cuts)
    one_by_one, other = decoded(kind, framed(data, cuts))
    assert plainly(at_once) == plainly(one_by_one)
    assert (decoder.finished, decoder.done) == (other.finished, other.done)


@pytest.mark.parametrize("kind", ["groq", "anthropic", "openai"])
def test_nearly_all_texts_are_read_at_once(kind: str):
    """In one go, from the second or third on: each other way costs several times as much."""
    said = Said(tokens=[f"tok{number} " for number in range(50)], reasoning=[], calls=[], finish="stop")
    decoder = PROVIDERS[kind]().stream_decoder(REQUEST)
    events = Events(framed(WRITERS[kind](said, []), []))
    taken: list[str] = []
    at = 0
    while at < len(events):
        run = decoder.texts(events, at)
        pieces = [] if run is None else run.pieces
        taken += pieces
        if not pieces:
            decoder.feed(events[at])
        at += len(pieces) or 1
    assert taken in (said.tokens, said.tokens[1:], said.tokens[2:])


@pytest.mark.parametrize("kind", ["openai", "anthropic", "cohere", "google", "perplexity", "openai, responses"])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(said=saids(most=1), turns=turns_of)
@pytest.mark.sampled(3)
def test_the_bytes_may_be_cut_at_every_offset(kind: str, said: Said, turns: list[int]):
    """In the middle of a character, of a line end, of an event; and everywhere at once. Every wire once: what cuts
    bytes into events is the same for all decoders.
    """
    data = WRITERS[kind](said, turns)
    expected = framed(data, [])
    assert all(framed(data, [cut]) == expected for cut in range(1, len(data)))
    assert framed(data, list(range(1, len(data)))) == expected
    crlf = framed(data.replace(b"\n", b"\r\n"), list(range(1, len(data))))
    assert decoded(kind, crlf)[0] == decoded(kind, expected)[0]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(said=saids(), turns=turns_of)
@pytest.mark.sampled(4)
def test_a_stream_that_ends_early_is_an_error_and_nothing_is_invented(kind: str, said: Said, turns: list[int]):
    """Whatever was lost, what arrived is the beginning of what was said, and the end is no finish."""
    seen = framed(WRITERS[kind](said, turns), [])
    for end in range(len(seen)):
        chunks, decoder = decoded(kind, seen[:end])
        fold = Fold()
        for chunk in chunks:
            fold.add(chunk)
        for choice in fold.response()["choices"]:
            assert "".join(said.tokens).startswith(choice["message"]["content"] or "")
            for (_, arguments), call in zip(said.calls, choice["message"].get("tool_calls", []), strict=False):
                written = call["function"]["arguments"]
                assert written == "{}" or arguments.startswith(written) or kind == "google"
        if decoder.finished:
            decoder.close()
        else:
            assert all(choice["finish_reason"] is None for choice in fold.response()["choices"])
            with pytest.raises(UpstreamError):
                decoder.close()
