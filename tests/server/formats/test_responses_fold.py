"""The fold law of `/v1/responses`: in OpenAI's own SDK the events of a stream add up to the whole answer."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from openai._models import construct_type
from openai._streaming import SSEDecoder
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from proxy.pipeline.call import Call
from proxy.providers import PROVIDERS
from proxy.schema.chat import ChatChunk
from proxy.schema.errors import ProxyError
from proxy.schema.fold import THOUGHTS_SO_FAR, Fold
from proxy.schema.unfold import chunks_of
from proxy.schema.usage import Usage
from proxy.server.formats.chat import decode_chat
from proxy.server.formats.responses import RESPONSES, response_of, state
from proxy.server.formats.responses.request import ResponsesRequest
from tests.providers.recordings import FIXTURES, answer, events

USAGE: Usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "cost": 0.5}
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_TYPE_OF = {"compatible": "openai", "deepseek": "openai", "responses": "openai"}  # folder -> provider
_DEEP = {"provider": "openai", "api": "responses"}
THOUGHTS = [{"type": "thinking", "thinking": "Höm, 🤔", "signature": "s"}]
CUSTOM = {"type": "custom", "name": "patch"}
GROUP = {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "function", "name": "f"}]}


def names(kind: str) -> list[str]:
    return sorted(
        str(path.relative_to(FIXTURES)) for path in FIXTURES.glob(f"*/*.{kind}.json") if path.parent.name != "config"
    )


def call_of(**asked: Any) -> Call:
    """What the format reads of a call that ended with USAGE."""
    request = RESPONSES.decode(json.dumps({"model": "x", "input": "hi", **asked}).encode())
    return cast(
        Call,
        SimpleNamespace(
            id="0123456789abcdef0123456789",
            request=request,
            created=17,
            clock=SimpleNamespace(unix_ns=lambda: 18 * 10**9),
            attempts=["one"],
            answering=SimpleNamespace(native=None),
            shown_model="openai/x",
            answer_bytes=0,
            traced=None,
            seated=None,
            panel_report=None,
            usage=lambda: USAGE,
        ),
    )


def streamed(call: Call, chunks: list[ChatChunk]) -> bytes:
    writer = RESPONSES.writer(call)
    return b"".join([*(writer.write([chunk]) for chunk in chunks), writer.tail(USAGE)])


def parsed(frames: bytes, cut: int = 1) -> list[Any]:
    """The events as the SDK reads them from pieces of `cut` bytes."""
    pieces = (frames[at : at + cut] for at in range(0, len(frames), cut))
    found = [(each.event, each.json()) for each in SSEDecoder().iter_bytes(pieces)]
    assert [name for name, _ in found] == [event["type"] for _, event in found]
    return [event for _, event in found]


def added_up(found: list[Any]) -> tuple[dict[str, Any], Any]:
    """The whole answer and the sum of its pieces in the SDK. Each event must be exactly what its types say."""
    held: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    for event in found:
        _EVENT.validate_python(event)
        held.handle_event(cast(Any, construct_type(type_=cast(Any, ResponseStreamEvent), value=event)))
    assert held._completed_response is not None or found[-1]["type"] != "response.completed"
    return found[-1]["response"], held


def agree(call: Call, chunks: list[ChatChunk], *, cut: int = 1) -> dict[str, Any]:
    """The whole answer, which the stream adds up to."""
    fold = Fold()
    for chunk in chunks:
        fold.add(chunk)
    whole = json.loads(RESPONSES.whole(call, fold.response()))
    found = parsed(streamed(call, chunks), cut)
    assert added_up(found)[0] == whole
    Response.model_validate(whole)
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == whole["output"]
    _same_pieces(found, whole)
    return dict(whole)


def _same_pieces(found: list[Any], whole: dict[str, Any]) -> None:
    """The deltas of each item add up to it."""
    told: dict[tuple[int, str], str] = {}
    for event in found:
        if event["type"].endswith(".delta"):
            key = (event["output_index"], event["type"])
            told[key] = told.get(key, "") + event["delta"]
    fields = {
        "response.output_text.delta": lambda item: _texts(item, "content", "text"),
        "response.refusal.delta": lambda item: _texts(item, "content", "refusal"),
        "response.reasoning_summary_text.delta": lambda item: _texts(item, "summary", "text"),
        "response.function_call_arguments.delta": lambda item: item["arguments"],
        "response.custom_tool_call_input.delta": lambda item: item["input"],
    }
    for (index, kind), text in told.items():
        assert text == fields[kind](whole["output"][index])


def _texts(item: dict[str, Any], name: str, field: str) -> str:
    return "".join(part.get(field, "") for part in item[name])


def chunks_in(name: str) -> list[ChatChunk]:
    """The canonical chunks of a recorded stream."""
    folder = name.partition("/")[0]
    kind = PROVIDERS[_TYPE_OF.get(folder, folder)]
    provider = kind(api="responses") if folder == "responses" else kind()  # type: ignore[call-arg]
    request = decode_chat(b'{"model":"x","messages":[{"role":"user","content":"hi"}],"stream":true}')
    decoder = provider.stream_decoder(request)
    return [*(chunk for event in events(name) for chunk in decoder.feed(event)), *decoder.close()]


def comes_in_order(chunks: list[ChatChunk]) -> bool:
    """True where reasoning, text and calls come one after the other, so that no item comes in two pieces."""
    order = ("reasoning_content", "content", "tool_calls")
    seen = [
        order.index(name)
        for chunk in chunks
        for choice in chunk.get("choices", ())
        for name in (choice.get("delta") or {})
        if name in order and cast(Any, choice["delta"])[name]
    ]
    return seen == sorted(seen)


@pytest.mark.parametrize("name", [*names("stream"), *names("events")])
@pytest.mark.sampled(4)
def test_a_recorded_stream_adds_up_to_the_whole_answer(name: str) -> None:
    """Of every vendor."""
    chunks = chunks_in(name)
    if comes_in_order(chunks):
        agree(call_of(), chunks, cut=1000)
    else:  # what the chat shape holds apart stays in the order of the stream
        last, _ = added_up(parsed(streamed(call_of(), chunks), 1000))
        whole = _folded(chunks)
        for kind, field, piece in (("message", "content", "text"), ("reasoning", "summary", "text")):
            texts = [
                "".join(_texts(item, field, piece) for item in each["output"] if item["type"] == kind)
                for each in (last, whole)
            ]
            assert texts[0] == texts[1]
        calls = [[item for item in each["output"] if item["type"] == "function_call"] for each in (last, whole)]
        assert [(call["call_id"], call["arguments"]) for call in calls[0]] == [
            (call["call_id"], call["arguments"]) for call in calls[1]
        ]


def _folded(chunks: list[ChatChunk]) -> dict[str, Any]:
    fold = Fold()
    for chunk in chunks:
        fold.add(chunk)
    return response_of(call_of(), fold.response())


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", names("json"))
def test_a_recorded_answer_is_a_response(name: str) -> None:
    """Whole answers are complete by the SDK's types, and their streams add up to them."""
    folder = name.partition("/")[0]
    kind = PROVIDERS[_TYPE_OF.get(folder, folder)]
    try:
        whole = kind().parse_response(answer(name))
    except ProxyError:
        pytest.skip("no answer of a chat")
    chunks = [chunk for batch in chunks_of(whole) for chunk in batch]
    response = response_of(call_of(), whole)
    Response.model_validate(response)
    assert added_up(parsed(streamed(call_of(), chunks), 1000))[0] == response


def chunk(finish_reason: str | None = None, **delta: Any) -> ChatChunk:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}  # type: ignore[typeddict-item]


def opening(index: int, name: str, arguments: str = "", **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"c{index}", "type": "function", "function": function, **more}


def more(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


def test_what_was_not_asked_is_told_with_openais_default() -> None:
    """Numbers where the schema has numbers, and functions in full; what was asked stands."""
    call = call_of(temperature=0.2, top_p=None, tools=[{"type": "function", "name": "f", "strict": True}, CUSTOM])
    whole = agree(call, [chunk(content="x"), chunk("stop")])
    numbers = ("temperature", "top_p", "top_logprobs", "presence_penalty", "frequency_penalty")
    assert [whole[name] for name in numbers] == [0.2, 1.0, 0, 0.0, 0.0]
    full = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": True}
    assert whole["tools"] == [full, CUSTOM]


def test_a_stream_cut_at_every_byte() -> None:
    """Thoughts, text with letters of several bytes, two calls whose pieces alternate, a custom tool, a group."""
    call = call_of(tools=[CUSTOM, GROUP])
    chunks = [
        chunk(reasoning_content="Höm, "),
        chunk(reasoning_content="🤔"),
        cast(ChatChunk, {"choices": [], THOUGHTS_SO_FAR: THOUGHTS}),
        chunk(content="Grüß "),
        chunk(content="Gott 👋\n\n"),
        chunk(tool_calls=[opening(0, "n__f")]),
        chunk(tool_calls=[more(0, '{"a"')]),
        chunk(tool_calls=[opening(1, "patch", '{"inp')]),
        chunk(tool_calls=[more(0, ":1}")]),
        chunk(tool_calls=[more(1, 'ut":"a\\nb"}')]),
        chunk(tool_calls=[opening(2, "none")]),
        chunk("tool_calls", thinking_blocks=THOUGHTS, extra_content={"google": {"thought_signature": "t"}}),
    ]
    whole = agree(call, chunks, cut=1)
    thought, message, grouped, patch, plain, late = whole["output"]
    assert (thought["type"], thought["summary"]) == ("reasoning", [{"type": "summary_text", "text": "Höm, 🤔"}])
    assert message["content"][0]["text"] == "Grüß Gott 👋\n\n"
    assert (grouped["name"], grouped["namespace"], grouped["arguments"]) == ("f", "n", '{"a":1}')
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", "a\nb")
    assert (plain["name"], plain["arguments"]) == ("none", "{}")
    assert state.unpacked(thought["encrypted_content"]) == (
        {"thinking_blocks": [{"type": "thinking", "thinking": "Höm, 🤔", "signature": "s"}]},
        {},
    )
    assert state.unpacked(late["encrypted_content"]) == ({"extra_content": {"google": {"thought_signature": "t"}}}, {})
    back = RESPONSES.decode(json.dumps({"model": "x", "tools": [CUSTOM, GROUP], "input": whole["output"]}).encode())
    (said,) = back.fields["messages"]
    assert said["reasoning_content"] == "Höm, 🤔"
    assert said["content"] == "Grüß Gott 👋\n\n"
    assert [each["function"]["name"] for each in said["tool_calls"]] == ["n__f", "patch", "none"]
    assert said["thinking_blocks"][0]["signature"] == "s"
    assert said["extra_content"] == {"google": {"thought_signature": "t"}}


def test_reasoning_without_state_can_go_back_too() -> None:
    """Some clients drop an item without encrypted content; OpenAI would refuse one that is not its own."""
    (thought, _) = agree(call_of(), [chunk(reasoning_content="hm"), chunk(content="a"), chunk("stop")])["output"]
    back = RESPONSES.decode(
        json.dumps({"model": "x", "input": [thought, {"role": "assistant", "content": "a"}]}).encode()
    )
    assert back.fields["messages"] == [{"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    assert back.native is not None and back.native.dialect == ""


@pytest.mark.parametrize(
    ("finish", "status", "why"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_an_answer_ends(finish: str, status: str, why: dict[str, str] | None) -> None:
    """An answer that was cut says so, with its last item."""
    whole = agree(call_of(), [chunk(content="a"), chunk(finish)])
    assert (whole["status"], whole["incomplete_details"]) == (status, why)
    assert whole["output"][-1]["status"] == ("incomplete" if finish == "length" else "completed")
    assert whole["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 9,
        "cost": 0.5,
    }


def test_refusals_sources_pictures_and_empty_answers() -> None:
    """Each has its place in a Response."""
    cited = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "title": "t", "url": "u"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    whole = agree(call_of(), [chunk(content="a"), chunk(annotations=[cited]), chunk("stop", images=[picture])])
    message, image = whole["output"]
    assert message["content"][0]["annotations"] == [{"type": "url_citation", **cited["url_citation"]}]  # type: ignore[dict-item]
    assert (image["type"], image["result"]) == ("image_generation_call", "AAAA")
    refused = agree(call_of(), [chunk(content="a"), chunk(refusal="no"), chunk("stop")])
    assert [part["type"] for part in refused["output"][0]["content"]] == ["output_text", "refusal"]
    assert agree(call_of(), [chunk("stop")])["output"][0]["content"][0]["text"] == ""


def test_log_probabilities_are_those_of_the_text() -> None:
    """Events tell them without bytes, the whole answer with."""
    token = {"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": []}
    first = chunk(content="a")
    cast(Any, first)["choices"][0]["logprobs"] = {"content": [token]}
    whole = agree(call_of(include=["message.output_text.logprobs"]), [first, chunk("stop")])
    assert whole["output"][0]["content"][0]["logprobs"] == [token]


def test_a_stream_that_breaks_off_says_error_and_failed() -> None:
    """Nothing of it looks like an end; the SDK raises at the first of the two."""
    writer = RESPONSES.writer(call_of())
    frames = writer.write([chunk(content="a")])
    assert writer.keep_alive.startswith(b"event: keepalive\n")
    error = ProxyError("It broke off.", status=502, code="upstream_truncated")
    *_, told, failed = parsed(frames + writer.error(error), 1000)
    assert (told["type"], told["error"]["code"], told["message"]) == ("error", "upstream_truncated", "It broke off.")
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "It broke off."}
    assert failed["response"]["status"] == "failed"


def test_a_stream_waits_with_comments_until_it_begins() -> None:
    """The SDK takes nothing before `response.created`."""
    assert RESPONSES.writer(call_of()).keep_alive == b": ping\n\n"


def test_an_error_before_the_first_event_still_begins() -> None:
    """Its request may be unreadable, too."""
    call = call_of()
    cast(Any, call).request = RESPONSES.unread("x")
    assert isinstance(call.request, ResponsesRequest)
    error = ProxyError("No.", status=429, code="rate_limit_exceeded")
    found = parsed(RESPONSES.writer(call).error(error), 1000)
    assert [event["type"] for event in found] == [
        "response.created",
        "response.in_progress",
        "error",
        "response.failed",
    ]
    assert found[-1]["response"]["error"]["code"] == "rate_limit_exceeded"
