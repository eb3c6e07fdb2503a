"""The contract of every provider, over every recording of real traffic: whole, streamed, failed."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse, Provider
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.sse import Event, EventFraming
from proxy.server.formats import chat_answer as wire
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import tool, user
from tests.providers.recordings import FIXTURES

# Recordings of servers that speak another vendor's language, and what is not recorded at the chat API.
SPEAKS = {"compatible": "openai", "deepseek": "openai", "responses": "openai"}
_OTHER_APIS = ("count_tokens", "/embed", "/openai/chat/completions")
_CHAT_KEYS = ("choices", "candidates", "promptFeedback", "message", "content", "output")


def _load() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(FIXTURES.glob("*/*.json")):
        if SPEAKS.get(path.parent.name, path.parent.name) in PROVIDERS:
            found[f"{path.parent.name}/{path.name}"] = json.loads(path.read_text())
    return found


def _is_chat(recording: dict[str, Any]) -> bool:
    request, response = recording.get("request") or {}, recording["response"]
    if any(word in (request.get("path") or "") for word in _OTHER_APIS):
        return False
    return "json" not in response or any(key in response["json"] for key in _CHAT_KEYS)


ALL = _load()
WHOLE = [name for name, each in ALL.items() if each["response"]["status"] == 200 and "json" in each["response"]]
WHOLE = [name for name in WHOLE if _is_chat(ALL[name])]
STREAMED = [name for name, each in ALL.items() if "stream" in each["response"] or "events" in each["response"]]
FAILED = [name for name, each in ALL.items() if each["response"]["status"] >= 400]


def provider_of(name: str) -> Provider:
    folder = name.partition("/")[0]
    return PROVIDERS[SPEAKS.get(folder, folder)]()


def request_of(name: str) -> ChatRequest:
    """A request with a tool of each name that the answer calls: some translations map names back."""
    return decode_chat(encode({"model": "m", "messages": [user()], "stream": name in STREAMED, "tools": [tool()]}))


def whole(name: str) -> ChatResponse:
    body = json.dumps(ALL[name]["response"]["json"]).encode()
    return provider_of(name).parse_response(HTTPResponse(200, {"content-type": "application/json"}, body))


def stream_bytes(name: str) -> bytes:
    """The stream as it came; decoded events are put back into frames."""
    response = ALL[name]["response"]
    if "stream" in response:
        return str(response["stream"]).encode()
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in response["events"])


def events(data: bytes, cuts: list[int]) -> list[Event]:
    framing = EventFraming()
    found: list[Event] = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += framing.feed(data[begin:end])
    return found + framing.close()


def streamed(name: str, seen: list[Event]) -> ChatResponse:
    decoder = provider_of(name).stream_decoder(request_of(name))
    fold = Fold()
    for event in seen:
        for chunk in decoder.feed(event):
            fold.add(chunk)
    for chunk in decoder.close():
        fold.add(chunk)
    assert decoder.finished
    return fold.response()


def check(name: str, answer: ChatResponse) -> None:
    """OpenAI's shape, usage that adds up, and tool calls that can be sent back."""
    usage = answer.get("usage")
    assert usage is not None, "no usage"
    sent = json.loads(encode(wire.whole(answer, "chatcmpl-1", "vendor/model", 1, usage.shown)))
    ChatCompletion.model_validate(sent)
    for choice in answer["choices"]:
        assert choice["finish_reason"] in ("stop", "length", "tool_calls", "content_filter", "function_call")
        calls = choice["message"].get("tool_calls") or []
        assert bool(calls) == (choice["finish_reason"] == "tool_calls") or choice["finish_reason"] == "length"
        assert len({call["id"] for call in calls}) == len(calls)
        for call in calls:
            assert call["type"] == "custom" or json.loads(call["function"]["arguments"]) is not None
    tokens = usage.billed
    assert tokens.input + tokens.cache_read + tokens.cache_write + tokens.output == tokens.total
    shown = (usage.shown["prompt_tokens"], usage.shown["completion_tokens"])
    if name.startswith("cohere/"):  # the answer shows what the model read, the bill is of less
        assert tokens.prompt <= shown[0]
        assert tokens.output <= shown[1]
    else:
        assert (tokens.prompt, tokens.output) == shown
    assert usage.shown["total_tokens"] == usage.shown["prompt_tokens"] + usage.shown["completion_tokens"]
    assert min(tokens.input, tokens.cache_read, tokens.cache_write, tokens.output, tokens.reasoning) >= 0
    assert tokens.reasoning <= tokens.output


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_becomes_openais_shape(name: str):
    """Parsed, typed by the SDK itself, its usage adds up: sum(parts) == total."""
    try:
        answer = whole(name)
    except UpstreamTruncated:
        pytest.fail("a whole answer was taken for a truncated one")
    check(name, answer)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_becomes_the_same_answer_wherever_its_bytes_are_cut(name: str):
    """In one piece, byte by byte, and at random offsets: multi-byte characters and line ends included."""
    data = stream_bytes(name)
    expected = events(data, [])
    check(name, streamed(name, expected))
    dice = random.Random(name)
    for cuts in (list(range(1, len(data))), *(sorted(dice.sample(range(1, len(data)), 9)) for _ in range(20))):
        assert events(data, cuts) == expected
    crlf = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert streamed(name, events(crlf, [])) == streamed(name, expected)


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.slow
def test_a_stream_that_breaks_off_is_an_error_at_every_event(name: str):
    """Until the finish arrived nothing may call the answer complete."""
    seen = events(stream_bytes(name), [])
    for end in range(len(seen)):
        decoder = provider_of(name).stream_decoder(request_of(name))
        for event in seen[:end]:
            decoder.feed(event)
        if not decoder.finished:
            with pytest.raises(UpstreamError):
                decoder.close()


@pytest.mark.parametrize("name", [name for name in STREAMED if name.replace(".events.", ".json.") in WHOLE])
def test_both_forms_of_an_answer_have_the_same_fields(name: str):
    """The recorded pairs are two answers to one question: the words differ, the shape may not."""
    one, other = streamed(name, events(stream_bytes(name), [])), whole(name.replace(".events.", ".json."))
    for left, right in zip(one["choices"], other["choices"], strict=True):
        assert left["finish_reason"] == right["finish_reason"]
        assert set(left["message"]) ^ set(right["message"]) <= {"reasoning_content", "thinking_blocks", "citations"}
    assert set(one["usage"].shown) == set(other["usage"].shown)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", [*WHOLE, *STREAMED])
def test_tool_calls_can_be_sent_back(name: str):
    """An answer with calls, and a result for each, make a request that holds every name and argument."""
    answer = whole(name) if name in WHOLE else streamed(name, events(stream_bytes(name), []))
    message = answer["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    if not calls:
        assert answer["choices"][0]["finish_reason"] != "tool_calls"
        return
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in calls]
    calls = [call for call in calls if call["type"] == "function"]
    tools = [tool(name) for name in dict.fromkeys(call["function"]["name"] for call in calls)]
    body = {"model": "m", "messages": [user(), message, *results], "tools": tools}
    built = provider_of(name).build_request(decode_chat(encode(body)), "m")
    sent = built.http.body.decode()
    for call in calls:
        assert call["function"]["name"] in sent
        for value in json.loads(call["function"]["arguments"]).values():
            if isinstance(value, str) and value.isalnum():
                assert value in sent


@pytest.mark.parametrize("name", FAILED)
def test_a_failed_answer_becomes_an_error_with_its_status(name: str):
    """The vendor's status is kept; its body never passes for an answer."""
    response = ALL[name]["response"]
    error = provider_of(name).parse_error(
        HTTPResponse(response["status"], {"content-type": "application/json"}, json.dumps(response["json"]).encode())
    )
    assert error.upstream_status == response["status"]
    assert error.status in (400, 401, 403, 404, 413, 422, 429, 502, 503, 504)
    assert error.message
    assert error.code


def test_the_recordings_are_there():
    """A folder that is empty or misspelled would test nothing."""
    assert len(WHOLE) > 150
    assert len(STREAMED) > 20
    assert len(FAILED) >= 5
