"""The fold law of `/v1/messages`: Anthropic's own SDK accumulates the events of a stream to the whole answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from anthropic._streaming import SSEDecoder
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import TextBlock

from proxy.pipeline.call import Call
from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.schema.chat import ChatRequest, ChatResponse, Message
from proxy.schema.errors import UpstreamError
from proxy.schema.fold import Fold
from proxy.schema.sse import EventFraming
from proxy.schema.unfold import chunks_of
from proxy.schema.usage import NOTHING, Usage, UsageReport
from proxy.server.formats.messages.answer import EventWriter, whole_message
from tests.providers.recordings import FIXTURES, events, load

LARGE = 30_000  # bytes of a recording that is not cut at every byte
OF_FOLDER = {"compatible": "openai", "deepseek": "openai", "responses": "openai"}
STREAMS = sorted(
    str(path.relative_to(FIXTURES)) for kind in ("stream", "events") for path in FIXTURES.glob(f"*/*.{kind}.json")
)


class Answering:
    native = cut = None

    class tally:
        usage: UsageReport | None = None


class OneCall:
    """What the writer asks of a call."""

    id, shown_model, seated, traced, panel_report = "1", "some/model", None, None, None
    request = ChatRequest(model="m", messages=[Message("user", "hi")], fields={})
    answering = Answering()
    attempts = (answering,)

    def __init__(self, usage: Usage) -> None:
        self._usage = usage

    def usage(self) -> Usage:
        return self._usage


def provider_of(name: str) -> Provider:
    folder = name.partition("/")[0]
    return PROVIDERS[OF_FOLDER.get(folder, folder)]()


def answered(name: str, size: int) -> list[list[Any]]:
    """The chunks of a recorded stream, read in pieces of this size."""
    fields = {"messages": [{"role": "user", "content": "hi"}], "tools": []}
    request = ChatRequest(model="m", messages=[Message("user", "hi")], stream=True, fields=fields)
    decoder, framing, batches = provider_of(name).stream_decoder(request), EventFraming(), []
    recorded = load(name)
    if "events" in recorded:
        return [*map(decoder.feed, events(name)), decoder.close()]
    text = recorded["stream"].encode()
    for at in range(0, len(text), size):
        for event in framing.feed(text[at : at + size]):
            batches.append(decoder.feed(event))
    for event in framing.close():
        batches.append(decoder.feed(event))
    return [*batches, decoder.close()]


def written(call: OneCall, batches: list[list[Any]], usage: Usage) -> bytes:
    writer = EventWriter(cast(Call, call), ["END"], hides_thoughts=False)
    return b"".join([*map(writer.write, batches), writer.tail(usage)])


def accumulated(data: bytes, size: int) -> dict[str, Any]:
    """What the SDK makes of a stream that arrives in pieces of this size."""

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    snapshot: Any = None
    texts: dict[int, bytes] = {}
    names = []
    for each in SSEDecoder().iter_bytes(pieces()):
        said: Any = each.json()
        assert each.event == said["type"]
        names.append(said["type"])
        snapshot = accumulate_event(event=said, current_snapshot=snapshot, json_bufs=texts)
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert names.count("content_block_start") == names.count("content_block_stop")
    made: dict[str, Any] = snapshot.to_dict()
    return made


def named(data: bytes) -> list[Any]:
    """The events of a stream."""
    return [json.loads(line.removeprefix("data: ")) for line in data.decode().split("\n") if line.startswith("data: ")]


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose texts are joined: an answer that is not streamed does not say what stood between its calls."""
    texts = {"thinking": "", "text": ""}
    calls = []
    for block in message["content"]:
        if block["type"] == "tool_use":
            calls.append({name: block[name] for name in ("id", "name", "input")})
        else:
            texts[block["type"]] += block[block["type"]]
    same = ("id", "type", "role", "model", "stop_reason", "stop_sequence")
    usage = {name: value for name, value in message["usage"].items() if name.endswith(("tokens", "details"))}
    return {**{name: message[name] for name in same}, **texts, "calls": calls, "usage": usage}


def compare(batches: list[list[Any]], size: int) -> None:
    fold = Fold()
    for batch in batches:
        for chunk in batch:
            fold.add(chunk)
    usage = (fold.usage or NOTHING).shown
    call = OneCall(usage)
    whole = whole_message(cast(Call, call), fold.response(), ["END"], hides_thoughts=False)
    if any("_raw" in block.get("input", {}) for block in whole["content"]):
        pytest.skip("arguments that are no JSON: the SDK raises")
    streamed = accumulated(written(call, batches, usage), size)
    assert plain(streamed) == plain(json.loads(json.dumps(whole)))


@pytest.mark.parametrize("name", STREAMS)
def test_the_sdk_accumulates_every_recorded_stream_to_its_whole_answer(name: str):
    """Of every vendor, cut at every byte on its way in and on its way out; large ones in pieces."""
    size = 1 if (FIXTURES / name).stat().st_size <= LARGE else 97
    try:
        batches = answered(name, size)
    except UpstreamError:
        pytest.skip("a stream that is an error, or another API of the vendor")
    compare(batches, size)


def test_most_recordings_are_compared():
    """A folder that is not found would test nothing."""
    assert len(STREAMS) > 50
    assert {name.partition("/")[0] for name in STREAMS} >= {"anthropic", "google", "openai", "mistral", "cohere"}


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": [1, "é"]}'}}
EMPTY = {"id": "c2", "type": "function", "function": {"name": "stop", "arguments": ""}}


@pytest.mark.parametrize(
    ("message", "finish", "reason"),
    [
        ({"content": "Hi"}, {"finish_reason": "stop"}, "end_turn"),
        ({"content": ""}, {"finish_reason": "stop"}, "end_turn"),
        ({"content": "Hi", "reasoning_content": "hm"}, {"finish_reason": "length"}, "max_tokens"),
        ({"content": None, "tool_calls": [CALL, EMPTY]}, {"finish_reason": "tool_calls"}, "tool_use"),
        (
            {"content": "x", "tool_calls": [EMPTY], "reasoning_content": "y"},
            {"finish_reason": "tool_calls"},
            "tool_use",
        ),
        ({"content": None, "refusal": "No."}, {"finish_reason": "content_filter"}, "refusal"),
        ({"content": None, "refusal": "No."}, {"finish_reason": "stop"}, "refusal"),
        ({"content": "a"}, {"finish_reason": "stop", "stop_sequence": "END"}, "stop_sequence"),
        ({"content": "a"}, {"finish_reason": "stop", "stop_reason": "END"}, "stop_sequence"),
        ({"content": "a"}, {"finish_reason": "stop", "stop_reason": 128001}, "end_turn"),
        ({"content": "a"}, {"finish_reason": "stop", "native_finish_reason": "pause_turn"}, "pause_turn"),
        (
            {"content": "a"},
            {"finish_reason": "length", "native_finish_reason": "model_context_window_exceeded"},
            "model_context_window_exceeded",
        ),
    ],
)
def test_each_kind_of_answer_is_the_same_whole_and_streamed(
    message: dict[str, Any], finish: dict[str, Any], reason: str
):
    """With the vendor's words for its end, and in one piece or cut at every byte."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, **finish}
    answer = cast(ChatResponse, {"choices": [choice]})
    usage: Usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    usage["prompt_tokens_details"] = {"cached_tokens": 2, "cache_write_tokens": 3}
    usage["completion_tokens_details"] = {"reasoning_tokens": 1}
    call = OneCall(usage)
    whole = whole_message(cast(Call, call), answer, ["END"], hides_thoughts=False)
    data = written(call, chunks_of(answer), usage)
    for size in (1, 7, len(data)):
        assert plain(accumulated(data, size)) == plain(whole)
    assert whole["stop_reason"] == reason
    assert (whole["stop_sequence"] == "END") is (reason == "stop_sequence")
    counts = {name: whole["usage"][name] for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")}
    assert counts == {"input_tokens": 4, "output_tokens": 4, "cache_read_input_tokens": 2}
    assert whole["usage"]["cache_creation_input_tokens"] == 3


def test_thoughts_that_nobody_wants_are_not_shown():
    """Nor is there an empty block in their place."""
    answer = cast(
        ChatResponse,
        {"choices": [{"index": 0, "message": {"reasoning_content": "hm", "content": "Hi"}, "finish_reason": "stop"}]},
    )
    call = OneCall(NOTHING.shown)
    whole = whole_message(cast(Call, call), answer, [], hides_thoughts=True)
    writer = EventWriter(cast(Call, call), [], hides_thoughts=True)
    data = b"".join([*map(writer.write, chunks_of(answer)), writer.tail(NOTHING.shown)])
    assert [block["type"] for block in whole["content"]] == ["text"]
    assert [block["type"] for block in accumulated(data, 5)["content"]] == ["text"]


def test_calls_that_are_written_by_turns_are_blocks_one_after_the_other():
    """Each with all of its arguments between its start and its stop."""
    pieces = [(0, "f", ""), (1, "g", ""), (0, None, '{"a"'), (1, None, '{"b"'), (0, None, ":1}"), (1, None, ":2}")]
    batches = []
    for index, name, piece in pieces:
        call: dict[str, Any] = {"index": index, "function": {"arguments": piece}}
        if name is not None:
            call |= {"id": f"id{index}", "type": "function", "function": {"name": name, "arguments": piece}}
        batches.append([{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}])
    end = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]
    data = written(OneCall(NOTHING.shown), [*batches, end], NOTHING.shown)
    found = accumulated(data, len(data))["content"]
    assert [(block["id"], block["input"]) for block in found] == [("id0", {"a": 1}), ("id1", {"b": 2})]
    indexes = [event["index"] for event in named(data) if "index" in event]
    assert indexes == sorted(indexes)


def test_text_between_thoughts_and_calls_keeps_its_place():
    """A stream tells the order, and each block ends before the next one begins."""
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "a"},
        {"content": "b"},
        {"reasoning_content": "c"},
        {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {"content": "d"},
    ]
    batches = [[{"choices": [{"index": 0, "delta": delta}]}] for delta in deltas]
    end = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}]
    data = written(OneCall(NOTHING.shown), [*batches, end], NOTHING.shown)
    kinds = [block["type"] for block in accumulated(data, len(data))["content"]]
    assert kinds == ["thinking", "text", "thinking", "tool_use", "text"]
    starts = [line for line in data.decode().split("\n") if line.startswith("event: content_block_s")]
    assert starts == ["event: content_block_start", "event: content_block_stop"] * 5


def test_the_sources_of_a_search_are_citations_of_the_text():
    """As the SDK's types have them, whole and streamed; other annotations and sources without a link are none."""
    source = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0}}
    flat = {"type": "url_citation", "url": "https://b.example"}
    cited: dict[str, Any] = {"annotations": [source, {"type": "file_citation"}, flat]}
    batches = [
        [{"choices": [{"index": 0, "delta": {"content": "It is."}}]}],
        [{"choices": [{"index": 0, "delta": cited}]}],
    ]
    batches += [[{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]]
    compare(batches, 7)
    call = OneCall(cast(Usage, {}))
    fold = Fold()
    for batch in batches:
        fold.add(cast(Any, batch[0]))
    (block,) = whole_message(cast(Call, call), fold.response(), [], hides_thoughts=False)["content"]
    text: Any = TextBlock.model_validate(block)
    assert [(each.type, each.url, each.title) for each in text.citations] == [
        ("web_search_result_location", "https://a.example", "A"),
        ("web_search_result_location", "https://b.example", ""),
    ]
    (message,) = accumulated(written(call, batches, cast(Usage, {})), 1)["content"]
    assert message["citations"] == block["citations"]
