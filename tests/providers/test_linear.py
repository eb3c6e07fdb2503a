"""What a client or a vendor sends may be large in number: every provider's work grows with it, not with its square."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from proxy.providers import PROVIDERS
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest
from proxy.schema.sse import Event
from tests.providers.vendors import MODELS
from tests.slowness import assert_growth, slowness

USER: dict[str, Any] = {"role": "user", "content": "hi"}
GROWTH = 3.5  # of CPU time at twice the size; quadratic work has 4
ENOUGH_S = 0.12  # what the usual machine does faster is not measured: it is too near to the noise


def call(place: int, identity: str = "call_{}") -> dict[str, Any]:
    return {"id": identity.format(place), "type": "function", "function": {"name": f"f{place}", "arguments": "{}"}}


def tool(place: int) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"f{place}", "parameters": {"type": "object", "properties": {}}}}


def unknown_fields(n: int) -> dict[str, Any]:
    return {"messages": [USER], **{f"field_{place}": place for place in range(n)}}


def unknown_message_fields(n: int) -> dict[str, Any]:
    return {"messages": [{**USER, **{f"field_{place}": place for place in range(n)}}]}


def results_in_reverse(n: int) -> dict[str, Any]:
    calls = [call(place) for place in range(n)]
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "done"} for each in reversed(calls)]
    return {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": calls}, *results]}


def calls_of_one_id(n: int) -> dict[str, Any]:
    """In turns of their own, as servers that count from 0 make them."""
    said: list[dict[str, Any]] = [USER]
    for _ in range(n):
        said += [
            {"role": "assistant", "content": None, "tool_calls": [call(0)]},
            {"role": "tool", "tool_call_id": "call_0", "content": "done"},
        ]
    return {"messages": said}


def calls_without_results(n: int) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": list(map(call, range(n)))}, USER]}


def orphans(n: int) -> dict[str, Any]:
    results = [{"role": "tool", "tool_call_id": f"call_{place}", "content": "done"} for place in range(n)]
    return {"messages": [USER, *results, USER]}


def tools(n: int) -> dict[str, Any]:
    return {"messages": [USER], "tools": list(map(tool, range(n)))}


def allowed_tools(n: int) -> dict[str, Any]:
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": f"f{n - 1 - i}"}} for i in range(n)]}
    return {**tools(n), "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}


def names_to_mend(n: int) -> dict[str, Any]:
    """Names that no vendor takes, and that all become the same."""
    odd = [{"type": "function", "function": {"name": chr(0x4E00 + place)}} for place in range(n)]
    return {"messages": [USER], "tools": odd}


def messages(n: int) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": "yes"}] * (n // 2) + [USER]}


def instructions(n: int) -> dict[str, Any]:
    return {"messages": [USER, {"role": "system", "content": "be brief"}] * (n // 2) + [USER]}


def parts(n: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}] * n}]}


def parts_then_others(n: int) -> dict[str, Any]:
    """Half of them none that any vendor takes."""
    content = [{"type": "text", "text": "hi"}] * (n // 2) + [{"type": f"odd_{i}", "x": 1} for i in range(n // 2)]
    return {"messages": [{"role": "user", "content": content}]}


def thoughts(n: int) -> dict[str, Any]:
    blocks = [{"type": "thinking", "thinking": "x", "signature": "s", "after_calls": i} for i in range(n)]
    calls = list(map(call, range(n)))
    said = {"role": "assistant", "content": None, "tool_calls": calls, "thinking_blocks": blocks}
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "done"} for each in calls]
    return {"messages": [USER, said, *results]}


def schema_of_all(n: int) -> dict[str, Any]:
    """`allOf` with many parts, each of which requires something."""
    parts = [{"properties": {f"p{i}": {"type": "string"}}, "required": [f"p{i}"]} for i in range(n)]
    schema = {"type": "object", "allOf": parts}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    return {"messages": [USER], "response_format": wanted}


def schema_of_many(n: int) -> dict[str, Any]:
    named = {f"p{i}": {"type": "string"} for i in range(n)}
    schema = {"type": "object", "properties": named, "required": list(named)}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    function = {"name": "f", "strict": True, "parameters": schema}
    return {
        "messages": [USER],
        "response_format": wanted,
        "tools": [{"type": "function", "function": function}],
    }


REQUESTS: dict[Callable[[int], dict[str, Any]], int] = {
    unknown_fields: 40_000,
    unknown_message_fields: 20_000,
    results_in_reverse: 20_000,
    calls_of_one_id: 5_000,
    calls_without_results: 10_000,
    orphans: 8_000,
    tools: 20_000,
    allowed_tools: 8_000,
    names_to_mend: 8_000,
    messages: 20_000,
    instructions: 8_000,
    parts: 20_000,
    parts_then_others: 10_000,
    thoughts: 8_000,
    schema_of_all: 4_800,
    schema_of_many: 4_800,
}


def cpu_s(work: Callable[[], object]) -> float:
    """One run. Garbage collection has moments of its own."""
    gc.collect()
    gc.disable()
    try:
        begun = time.process_time()
        work()
        return time.process_time() - begun
    finally:
        gc.enable()


def assert_linear(work: Callable[[int], Callable[[], object]], n: int) -> None:
    """`work(n)` prepares, what it returns is measured."""
    whole = work(n)
    if cpu_s(whole) >= ENOUGH_S * slowness():
        half = work(n // 2)
        assert_growth(lambda: cpu_s(half), lambda: cpu_s(whole), GROWTH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize("body", REQUESTS, ids=lambda body: body.__name__)
def test_a_request_costs_what_its_size_costs(kind: str, body: Callable[[int], dict[str, Any]]) -> None:
    """For the newest model and the oldest; a request that is refused is refused as fast."""
    for model in dict.fromkeys((MODELS[kind][0], MODELS[kind][-1])):

        def prepared(n: int, model: str = model) -> Callable[[], object]:
            fields = body(n)
            request = ChatRequest(
                model="x", messages=msgspec.convert(fields["messages"], list[Message]), fields={"model": "x", **fields}
            )

            def build() -> None:
                try:
                    PROVIDERS[kind]().build_request(request, model)
                except BadRequest:
                    return

            return build

        assert_linear(prepared, REQUESTS[body])


# --- streams ----------------------------------------------------------------------------------------------------------


def openai_shaped(delta: dict[str, Any]) -> dict[str, Any]:
    return {"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def arguments(place: int) -> dict[str, Any]:
    first = {"id": "call_1", "type": "function"} if place == 0 else {}
    function = {"name": "f", "arguments": "{"} if place == 0 else {"arguments": " "}
    return openai_shaped({"tool_calls": [{"index": 0, **first, "function": function}]})


def odd_arguments(place: int) -> dict[str, Any]:
    """The name each time, in an object that never ends."""
    return openai_shaped(
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a":' if place else ""}}]}
    )


def late_name(place: int) -> dict[str, Any]:
    return openai_shaped({"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": '{"a":'}}]})


def calls_at_one_index(place: int) -> dict[str, Any]:
    """The same id and the same call, again and again."""
    return openai_shaped(
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": f"[{place}]"}}]}
    )


def calls_named_again(place: int) -> dict[str, Any]:
    """Nothing else is new."""
    return openai_shaped({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "" if place else "{}"}}]})


def anthropic_text(place: int) -> dict[str, Any]:
    if place == 0:
        return {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello "}}


def anthropic_arguments(place: int) -> dict[str, Any]:
    if place == 0:
        block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
        return {"type": "content_block_start", "index": 0, "content_block": block}
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": " "}}


def gemini(part: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [part]}, **beside}], "responseId": "a"}


def gemini_arguments(place: int) -> dict[str, Any]:
    piece = [{"jsonPath": "$.text", "stringValue": "hello " * 20}]
    return gemini(
        {"functionCall": {**({"name": "f"} if not place else {}), "partialArgs": piece, "willContinue": True}}
    )


def gemini_late(place: int) -> dict[str, Any]:
    """What comes behind the finish, about a long text."""
    return gemini({"text": "hello " * 20_000}, finishReason="STOP") if not place else gemini({"text": ""})


def cohere_text(place: int) -> dict[str, Any]:
    content = {"content": {"text": "hello " * 20}}
    return {"type": "content-delta", "index": 0, "delta": {"message": content}}


def cohere_blank(place: int) -> dict[str, Any]:
    """Arguments that begin with white space without end."""
    call = (
        {"id": "c", "function": {"name": "f", "arguments": ""}} if not place else {"function": {"arguments": " " * 40}}
    )
    kind = "tool-call-start" if not place else "tool-call-delta"
    return {"type": kind, "index": 0, "delta": {"message": {"tool_calls": call}}}


def cohere_cited(place: int) -> dict[str, Any]:
    """Every second event is a new block, or cites it."""
    if place % 2:
        source = {"document": {"url": "https://x", "title": "x"}}
        cited = {"start": 0, "end": 1, "content_index": place - 1, "sources": [source]}
        return {"type": "citation-start", "index": 0, "delta": {"message": {"citations": cited}}}
    return {**cohere_text(place), "index": place}


def agent_text(place: int) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": "hello "}


def agent_calls(place: int) -> dict[str, Any]:
    """Each call begins and says a little."""
    item = {"type": "function_call", "call_id": f"c{place}", "name": "f"}
    fragment = {"type": "response.function_call_arguments.delta", "output_index": place - 1, "delta": "1"}
    return fragment if place % 2 else {"type": "response.output_item.added", "output_index": place, "item": item}


STREAMS: list[tuple[str, str, Callable[[int], dict[str, Any]]]] = [
    *((kind, "text", lambda place: openai_shaped({"content": "hello "})) for kind in ("openai", "mistral", "vllm")),
    *((kind, "arguments", arguments) for kind in ("openai", "groq")),
    *(("openai", "named each time", odd_arguments), ("openai", "late name", late_name)),
    *(("openai", "one index", calls_at_one_index), ("openai", "named again", calls_named_again)),
    *(("anthropic", "text", anthropic_text), ("anthropic", "arguments", anthropic_arguments)),
    *(("google", "text", lambda place: gemini({"text": "hello "})), ("google", "arguments", gemini_arguments)),
    *(("google", "late", gemini_late), ("perplexity", "text", agent_text)),
    *(("openai", "named text", agent_text), ("openai", "named calls", agent_calls)),
    *(("cohere", "text", cohere_text), ("cohere", "blank", cohere_blank), ("cohere", "cited", cohere_cited)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name", "event"), STREAMS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_stream_costs_what_its_size_costs(kind: str, name: str, event: Callable[[int], dict[str, Any]]) -> None:
    """Event by event, without its end."""
    request = ChatRequest(model="x", messages=[Message("user", "hi")], fields={"messages": [USER]})

    def prepared(n: int) -> Callable[[], object]:
        events = [Event("", json.dumps(event(place)).encode()) for place in range(n)]

        def feed() -> None:
            decoder = PROVIDERS[kind]().stream_decoder(request)
            for each in events:
                decoder.feed(each)

        return feed

    assert_linear(prepared, 40_000)


@pytest.mark.slow
def test_the_start_of_an_answer_that_is_continued_is_held_back_in_linear_time() -> None:
    """Mistral repeats the message that it continues, in pieces as small as it likes."""

    def prepared(n: int) -> Callable[[], object]:
        said = [USER, {"role": "assistant", "content": "hello " * n}]
        request = ChatRequest(model="x", messages=msgspec.convert(said, list[Message]), fields={"messages": said})
        data = json.dumps(openai_shaped({"content": "hello "})).encode()

        def feed() -> None:
            decoder = PROVIDERS["mistral"]().stream_decoder(request)
            for _ in range(n):
                decoder.feed(Event("", data))

        return feed

    assert_linear(prepared, 60_000)
