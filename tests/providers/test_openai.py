"""Rules of the OpenAI-shaped dialects: whole and streamed answers agree, nothing is invented, nothing is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.openai import OpenAI
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse
from proxy.schema.errors import BadRequest, UpstreamError, UpstreamTruncated
from proxy.schema.fold import Fold
from proxy.schema.sse import Event
from proxy.server.formats.chat import decode_chat
from tests.providers.recordings import answer, events, recordings

OPENAI = OpenAI()


def request(**fields: Any) -> ChatRequest:
    return decode_chat(json.dumps({"model": "x", "messages": [{"role": "user", "content": "hi"}], **fields}).encode())


def sent(provider: OpenAI, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(provider.build_request(request(**fields), "the-model").http.body)
    return body


def folded(all_events: list[Event], n: int = 1) -> ChatResponse:
    decoder, fold = OPENAI.stream_decoder(request(n=n)), Fold()
    for event in all_events:
        for chunk in decoder.feed(event):
            fold.add(chunk)
    for chunk in decoder.close():
        fold.add(chunk)
    return fold.response()


def as_stream(response: dict[str, Any]) -> list[Event]:
    """The answer as OpenAI would have streamed it: text in pieces, tool calls as id and name, then argument
    fragments.
    """
    head = {name: value for name, value in response.items() if name not in ("choices", "usage")}
    chunks: list[dict[str, Any]] = []

    def say(index: int, delta: dict[str, Any], **extra: Any) -> None:
        chunks.append({**head, "choices": [{"index": index, "delta": delta, "finish_reason": None, **extra}]})

    for choice in response["choices"]:
        message, index = choice["message"], choice["index"]
        say(index, {"role": "assistant", "content": ""})
        for name in ("reasoning_content", "reasoning", "content", "refusal"):
            text = message.get(name)
            if isinstance(text, str):
                for start in range(0, len(text), 7):
                    say(index, {name: text[start : start + 7]})
        if "executed_tools" in message:
            say(index, {"executed_tools": message["executed_tools"]})
        for place, call in enumerate(message.get("tool_calls") or []):
            function = call["function"]
            say(
                index,
                {"tool_calls": [{"index": place, **call, "function": {"name": function["name"], "arguments": ""}}]},
            )
            for start in range(0, len(function["arguments"]), 5):
                piece = function["arguments"][start : start + 5]
                say(index, {"tool_calls": [{"index": place, "function": {"arguments": piece}}]})
        say(index, {}, finish_reason=choice["finish_reason"])
    chunks.append({**head, "choices": [], "usage": response["usage"]})
    return [Event("", json.dumps(chunk).encode()) for chunk in chunks] + [Event("", b"[DONE]")]


WHOLE = [name for name in recordings("json") if b'"choices"' in answer(name).body]
STREAMED = recordings("stream") + recordings("events")


@pytest.mark.parametrize("name", STREAMED)
def test_a_folded_stream_is_a_whole_answer_in_normal_form(name: str) -> None:
    """The fold law on recorded streams: parsing the folded answer as a whole one changes nothing."""
    whole = folded(events(name))
    sent = dict(whole) | ({"usage": whole["usage"].shown} if "usage" in whole else {})
    assert OPENAI.parse_response(HTTPResponse(200, {}, json.dumps(sent).encode())) == whole


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_folds_from_its_stream(name: str) -> None:
    """The fold law on recorded answers: streamed in pieces, they fold to what parse_response says."""
    whole = OPENAI.parse_response(answer(name))
    raw = json.loads(answer(name).body)
    texts_only = all(isinstance(choice["message"].get("content"), str | None) for choice in raw["choices"])
    if texts_only:
        streamed = folded(as_stream(raw))
        assert [_compared(c) for c in streamed["choices"]] == [_compared(c) for c in whole["choices"]]
        assert streamed["usage"] == whole["usage"]
    assert all(choice["message"]["annotations"] == [] and "refusal" in choice["message"] for choice in whole["choices"])


def _compared(choice: Any) -> Any:
    message = {name: value for name, value in choice["message"].items() if name not in ("function_call", "audio")}
    return message, choice["finish_reason"], choice["index"]


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WHOLE + STREAMED)
def test_the_parts_of_usage_sum_to_its_total(name: str) -> None:
    """The usage law on all recordings."""
    response = OPENAI.parse_response(answer(name)) if name in WHOLE else folded(events(name))
    usage = response["usage"]
    tokens = usage.billed
    assert tokens.input + tokens.cache_read + tokens.cache_write == usage.shown["prompt_tokens"]
    assert tokens.total == usage.shown["total_tokens"]
    assert tokens.reasoning <= tokens.output == usage.shown["completion_tokens"]


def test_reasoning_that_a_vendor_counts_beside_the_completion_bills_as_output() -> None:
    """xAI's total is 12 + 2 + 320 reasoning tokens; dropping the 320 would be a wrong bill."""
    usage = OPENAI.parse_response(answer("compatible/pair_xai-text.json.json"))["usage"]
    assert (usage.billed.prompt, usage.billed.output, usage.shown["total_tokens"]) == (12, 322, 334)


@pytest.mark.parametrize(
    ("name", "status", "code", "param"),
    [
        ("openai/openai_o1_mini_system_role_system_.10a884.error.json", 400, "unsupported_value", "messages[0].role"),
        ("groq/model_name_suggestion_groq_.2ad192.error.json", 404, "model_not_found", None),
        ("groq/tool_use_failed_error.dc4743.error.json", 400, "tool_use_failed", None),
        ("groq/tool_use_failed_error_with_text.5c50bc.error.json", 400, "tool_use_failed", None),
        (
            "openai/openai_web_search_tool_model_not_supported.d4fa0d.error.json",
            400,
            "invalid_value",
            "web_search_options",
        ),
    ],
)
def test_recorded_errors_keep_status_code_and_param(name: str, status: int, code: str, param: str | None) -> None:
    """A client's mistake stays the client's mistake."""
    error = OPENAI.parse_error(answer(name))
    assert (error.status, error.code, error.param, error.upstream_status) == (status, code, param, status)
    assert not error.retryable


def test_every_recorded_error_is_listed_above() -> None:
    """A new recording needs its line in the table."""
    assert len(recordings("error")) == 5


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, (429, "rate_limit_exceeded", True)),
        (429, {"error": {"message": "no money", "code": "insufficient_quota"}}, (429, "insufficient_quota", False)),
        (402, {"error": "credits used up"}, (429, "insufficient_quota", False)),
        (401, {"detail": "Unauthorized"}, (401, "invalid_api_key", False)),
        (404, {"error": "model 'x' not found"}, (404, "model_not_found", False)),
        (400, {"error": {"message": "gone", "code": "model_decommissioned"}}, (404, "model_not_found", False)),
        (
            400,
            {"error": {"code": 400, "message": "x", "type": "exceed_context_size_error"}},
            (400, "context_length_exceeded", False),
        ),
        (
            400,
            {"error": {"message": "This model's maximum context length is 8192 tokens."}},
            (400, "context_length_exceeded", False),
        ),
        (422, {"detail": [{"loc": ["body", "x"], "msg": "Extra"}]}, (422, None, False)),
        (404, {"error": {"message": "wait", "code": "DeploymentNotFound"}}, (404, "model_not_found", False)),
        (413, {"error": {"message": "too large", "code": "request_too_large"}}, (413, "request_too_large", False)),
        (500, {"error": {"message": "oops"}}, (502, "upstream_error", True)),
        (503, {"error": {"message": "overloaded"}}, (503, "upstream_unavailable", True)),
        (529, {"error": {"message": "overloaded"}}, (503, "upstream_unavailable", True)),
        (498, {"error": {"message": "capacity"}}, (503, "upstream_unavailable", True)),
        (504, b"<html>gateway</html>", (504, "upstream_timeout", True)),
        (502, b"<html>bad gateway</html>", (502, "upstream_error", True)),
        (500, b"[" * 5000, (502, "upstream_error", True)),
    ],
)
def test_errors_of_every_shape_become_openais(
    status: int, body: object, expected: tuple[int, str | None, bool]
) -> None:
    """Status, code and whether another try may help; never the vendor's HTML."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = OPENAI.parse_error(HTTPResponse(status, {"content-type": "text/html"}, raw))
    assert (error.status, error.code, error.retryable) == expected
    assert error.upstream_status == status
    assert "<" not in error.message


def test_an_error_keeps_the_vendors_rate_limit_headers_and_loses_its_secrets() -> None:
    """retry-after and x-ratelimit-* reach the client; cookies, keys and account ids do not."""
    headers = {
        "retry-after": "7",
        "x-ratelimit-limit-requests": "10",
        "set-cookie": "a=b",
        "x-ratelimit-bad": "a\r\nb: c",
    }
    said = {"error": {"message": "key sk-proj-abcDEF123456 of org_01h2xyz3 is over its limit"}}
    error = OPENAI.parse_error(HTTPResponse(429, headers, json.dumps(said).encode()))
    assert error.headers == {"retry-after": "7", "x-ratelimit-limit-requests": "10"}
    assert error.retry_after_s == 7
    assert error.message == "key [redacted] of [redacted] is over its limit"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": "x"}',
        b'{"choices": [{"index": 0, "message": {"tool_calls": [{"id": "a"}]}, "finish_reason": "stop"}]}',
        b'{"error": {"message": "late failure", "code": 503}}',
        b'{"error": "late failure"}',
        b'{"object": "error", "message": "late failure"}',
        b"[" * 5000,
    ],
)
def test_a_200_that_is_no_answer_is_an_upstream_error(body: bytes) -> None:
    """Whatever the vendor sent, the client gets a clear 5xx."""
    with pytest.raises(UpstreamError) as caught:
        OPENAI.parse_response(HTTPResponse(200, {}, body))
    assert caught.value.status in (502, 503)


def data(value: object) -> Event:
    return Event("", json.dumps(value).encode())


def piece(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **extra: Any) -> Event:
    return data({"choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}], **extra})


@pytest.mark.parametrize(
    "all_events",
    [
        [],
        [Event("", b"[DONE]")],
        [piece({"content": "a"})],
        [piece({"content": "a"}, "stop"), piece({"content": "b"}, index=1)],
    ],
)
def test_a_stream_without_its_finish_is_truncated(all_events: list[Event]) -> None:
    """Where nothing says that the answer is complete; `[DONE]` alone is no answer."""
    with pytest.raises(UpstreamTruncated):
        folded(all_events)


def test_an_error_inside_a_200_stream_keeps_its_status() -> None:
    """Groq's `event: error` and the bare error object of others."""
    decoder = OPENAI.stream_decoder(request())
    failed = {"error": {"message": "Tool choice is required", "code": "tool_use_failed", "status_code": 400}}
    with pytest.raises(UpstreamError) as caught:
        decoder.feed(Event("error", json.dumps(failed).encode()))
    assert (caught.value.status, caught.value.code) == (400, "tool_use_failed")
    with pytest.raises(UpstreamError):
        OPENAI.stream_decoder(request()).feed(data({"object": "error", "message": "engine dead"}))


def test_tool_call_deltas_carry_id_type_and_name_once() -> None:
    """Servers repeat them, leave the index out, send empty names, objects as arguments, interleave calls."""
    all_events = [
        piece(
            {"tool_calls": [{"index": 7, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        piece({"tool_calls": [{"index": 9, "function": {"name": "g", "arguments": {"x": 1}}}]}),
        piece(
            {"tool_calls": [{"index": 7, "id": "a", "type": "function", "function": {"name": "", "arguments": '{"y"'}}]}
        ),
        piece({"tool_calls": [{"index": 7, "id": "a", "function": {"name": "f", "arguments": ":2}"}}]}),
        piece({}, "stop"),
    ]
    tools = [{"type": "function", "function": {"name": name}} for name in "fg"]
    decoder = OPENAI.stream_decoder(request(tools=tools))
    chunks: list[ChatChunk] = [chunk for event in all_events for chunk in decoder.feed(event)]
    deltas = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", [])]
    assert deltas == [
        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "id": "call_0_1", "type": "function", "function": {"name": "g", "arguments": '{"x":1}'}},
        {"index": 0, "function": {"arguments": '{"y"'}},
        {"index": 0, "function": {"arguments": ":2}"}},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("vendor", "ours"),
    [
        *(("eos", "stop"), ("weird", "stop"), ("model_length", "length"), ("max_output_tokens", "length")),
        *(("MAX_NEW_TOKENS", "length"), ("BLOCKLIST", "content_filter"), ("guardrail_intervened", "content_filter")),
    ],
)
def test_a_vendors_own_finish_reason_becomes_one_of_openais_and_is_kept_beside(vendor: str, ours: str) -> None:
    """Clients know five words."""
    choice = folded([piece({"content": "a"}, vendor)])["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == (ours, vendor)  # type: ignore[typeddict-item]


def test_usage_is_always_asked_for_in_streams() -> None:
    """Metering does not depend on what the client wanted."""
    assert sent(OPENAI, stream=True)["stream_options"] == {"include_usage": True}
    options = {"include_usage": False, "include_obfuscation": False}
    assert sent(OPENAI, stream=True, stream_options=options)["stream_options"] == {**options, "include_usage": True}
    assert "stream_options" not in sent(OPENAI)


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("openai", {"max_tokens": 5}, {"max_tokens": 5}),
        ("openai", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("groq", {"max_completion_tokens": 5}, {"max_completion_tokens": 5}),
        ("mistral", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("together", {"max_completion_tokens": 5, "max_tokens": 3}, {"max_tokens": 3}),
        ("together", {"max_completion_tokens": 3, "max_tokens": 5}, {"max_tokens": 3}),
        ("ollama", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("vllm", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("lmstudio", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("localai", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("embedded", {"max_completion_tokens": 5}, {"max_tokens": 5}),
    ],
)
def test_the_output_limit_goes_out_under_the_name_the_server_reads(
    kind: str, fields: dict[str, int], expected: dict[str, int]
) -> None:
    """Ollama ignores max_completion_tokens, Mistral refuses it."""
    body = sent(PROVIDERS[kind](), **fields)  # type: ignore[arg-type]
    assert {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body} == expected


def test_the_developer_role_goes_out_as_system_where_it_is_unknown() -> None:
    """Another name for the same thing: nothing is lost, nothing is reported."""
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}]
    built = PROVIDERS["groq"]().build_request(request(messages=messages), "m")
    assert [m["role"] for m in json.loads(built.http.body)["messages"]] == ["system", "user"]
    assert (built.adapted, built.dropped) == ([], [])
    assert [m["role"] for m in sent(OPENAI, messages=messages)["messages"]] == ["developer", "user"]


@pytest.mark.parametrize("kind", ["openai", "mistral", "vllm"])
@pytest.mark.parametrize("default", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("asked", ["max_tokens", "max_completion_tokens"])
def test_a_default_limit_never_stands_above_the_clients(kind: str, default: str, asked: str) -> None:
    """Whichever of the two names either has: holds and caps were reckoned by the client's."""
    body = sent(PROVIDERS[kind](parameters={default: 4096}), **{asked: 5})  # type: ignore[arg-type]
    assert {body[name] for name in ("max_tokens", "max_completion_tokens") if name in body} == {5}
    body = sent(PROVIDERS[kind](parameters={default: 4096}))  # type: ignore[arg-type]
    assert {body[name] for name in ("max_tokens", "max_completion_tokens") if name in body} == {4096}


def test_parameters_are_sent_when_the_client_left_them_out() -> None:
    """`parameters:` in routing_rules.yaml are defaults, never overrides; null leaves them out."""
    provider = OpenAI(parameters={"temperature": 0.2, "top_p": None})
    assert sent(provider)["temperature"] == 0.2
    assert sent(provider, temperature=1.0)["temperature"] == 1.0
    assert "top_p" not in sent(provider)


def test_mistral_gets_no_stream_options() -> None:
    """It answers 422 to them, and sends usage unasked."""
    assert "stream_options" not in sent(PROVIDERS["mistral"](), stream=True)  # type: ignore[arg-type]


def test_the_same_request_gives_the_same_bytes() -> None:
    """Prompt caches hit on equal prefixes: the order of keys is the client's."""
    fields = {"temperature": 0.5, "tools": [{"type": "function", "function": {"name": "f"}}]}
    first, second = (OPENAI.build_request(request(**fields), "m").http.body for _ in range(2))
    assert first == second
    assert list(json.loads(first)) == ["model", "messages", "temperature", "tools"]


def test_the_path_follows_the_base_url() -> None:
    """Ollama's address is written with and without /v1."""
    paths = [
        PROVIDERS["ollama"](base_url=url).build_request(request(), "m").http.path
        for url in (None, "http://x:1", "http://x/v1")
    ]
    assert paths == ["/v1/chat/completions", "/v1/chat/completions", "/chat/completions"]
    assert OPENAI.build_request(request(), "m").http.path == "/chat/completions"


def test_the_embedded_model_refuses_what_is_not_text() -> None:
    """Before anything is sent: a picture would be a 500 of llama.cpp's, tried three times."""
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    with pytest.raises(BadRequest, match="reads only text") as caught:
        PROVIDERS["embedded"]().build_request(request(messages=[{"role": "user", "content": parts}]), "smollm2-135m")
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        400,
        "unsupported_content",
        "messages.0.content",
    )
    text = PROVIDERS["embedded"]().build_request(request(messages=[{"role": "user", "content": parts[:1]}]), "m")
    assert text.http.headers["connection"] == "close"
