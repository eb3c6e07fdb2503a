"""Rules of Groq's dialect: every row of its fact page (November 2026)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from groq.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.providers.groq import Groq
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest, UpstreamError
from tests.providers.asking import USER, answered, built, event, folded, messages, request, sent
from tests.providers.corpus import audio, file, image, text, tool
from tests.providers.recordings import answer, events, load, recordings

GROQ = Groq()
WHOLE = [name for name in recordings("json", "groq") if b'"choices"' in answer(name).body]
STREAMED = recordings("stream", "groq") + recordings("events", "groq")
OSS, QWEN, QWEN32, LLAMA = "openai/gpt-oss-120b", "qwen/qwen3.8-27b", "qwen/qwen3-32b", "llama-3.3-70b-versatile"
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"stop": "a"}, {"stop": "a"}),
        ({"seed": 1, "user": "ada"}, {"seed": 1, "user": "ada"}),
        ({"service_tier": "default"}, {"service_tier": "on_demand"}),
        ({"service_tier": "priority"}, {"service_tier": "performance"}),
        ({"service_tier": "on_demand"}, {"service_tier": "on_demand"}),
        ({"n": 1}, {}),
        ({"logprobs": False, "store": False, "metadata": {}}, {}),
        ({"search_settings": {"country": "fr"}}, {"search_settings": {"country": "fr"}}),
        (
            {"stream": True, "stream_options": {"include_obfuscation": False}},
            {"stream": True, "stream_options": {"include_usage": True}},
        ),
    ],
)
def test_names_that_mean_the_same_are_no_loss(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Nothing to report."""
    body = sent(GROQ, LLAMA, **fields)
    assert {name: body[name] for name in body if name not in ("model", "messages")} == expected
    result = built(GROQ, LLAMA, **fields)
    assert (result.dropped, result.adapted) == ([], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": True},
        {"top_logprobs": 3},
        {"logit_bias": {"1": 1}},
        {"frequency_penalty": 0.5},
        {"presence_penalty": 0.5},
        {"store": True},
        {"metadata": {"a": "b"}},
        {"verbosity": "low"},
        {"prediction": {"type": "content", "content": "x"}},
        {"prompt_cache_key": "x"},
        {"safety_identifier": "x"},
        {"web_search_options": {"search_context_size": "low"}},
        {"service_tier": "scale"},
        {"anything": 1},
    ],
)
def test_properties_that_are_a_400_there_are_dropped_and_told(fields: dict[str, Any]) -> None:
    """Penalties are taken and ignored, which is the same loss."""
    assert set(sent(GROQ, LLAMA, **fields)) == {"model", "messages"}
    assert built(GROQ, LLAMA, **fields).dropped == list(fields)


def test_more_than_four_stops_are_left_to_us() -> None:
    """The answer is cut at the fifth on our side."""
    assert sent(GROQ, stop=list("abcdef"))["stop"] == list("abcd")
    assert built(GROQ, stop=list("abcdef")).stops == ["e", "f"]


def test_one_call_has_one_choice() -> None:
    """More are asked by more calls."""
    assert GROQ.max_choices(OSS) == 1


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (OSS, "low", "low"),
        (OSS, "none", "low"),
        (OSS, "minimal", "low"),
        (OSS, "xhigh", "high"),
        (OSS, "max", "high"),
        (QWEN, "none", "none"),
        (QWEN, "minimal", "low"),
        (QWEN, "high", "high"),
        (QWEN, "xhigh", "high"),
        (QWEN32, "none", "none"),
        (QWEN32, "minimal", "none"),
        (QWEN32, "high", "default"),
        (QWEN32, "default", "default"),
        (LLAMA, "low", None),
    ],
)
def test_each_family_has_its_levels(model: str, effort: str, expected: str | None) -> None:
    """What is changed or lost is told."""
    assert sent(GROQ, model, reasoning_effort=effort).get("reasoning_effort") == expected
    result = built(GROQ, model, reasoning_effort=effort)
    assert result.adapted == (["reasoning_effort"] if expected not in (effort, None) else [])
    assert result.dropped == (["reasoning_effort"] if expected is None else [])


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (QWEN, {}, {"reasoning_format": "parsed"}),
        (QWEN, {"reasoning_format": "hidden"}, {"reasoning_format": "hidden"}),
        (QWEN, {"reasoning_format": "raw"}, {"reasoning_format": "raw"}),
        (QWEN, {"reasoning_format": "raw", "tools": [tool()]}, {"reasoning_format": "parsed"}),
        (QWEN, {"reasoning_format": "raw", "response_format": {"type": "json_object"}}, {"reasoning_format": "parsed"}),
        (QWEN, {"include_reasoning": False}, {"include_reasoning": False}),
        (QWEN, {"include_reasoning": True, "reasoning_format": "parsed"}, {"reasoning_format": "parsed"}),
        (OSS, {}, {}),
        (OSS, {"include_reasoning": False}, {"include_reasoning": False}),
        (OSS, {"reasoning_format": "parsed"}, {}),
        (LLAMA, {}, {}),
    ],
)
def test_thoughts_come_in_a_field_of_their_own(model: str, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Never as <think> in the content unasked; the two parameters exclude each other."""
    body = sent(GROQ, model, **fields)
    assert {name: body[name] for name in ("reasoning_format", "include_reasoning") if name in body} == expected


def test_messages_have_no_properties_of_others() -> None:
    """Real refusal: "property 'reasoning_content' is unsupported"."""
    echo: dict[str, Any] = {
        "refusal": None,
        "annotations": [],
        "reasoning_content": "x",
        "reasoning": "x",
        "function_call": None,
    }
    said = [
        {"role": "developer", "content": [text("Be"), text("brief.")]},
        {**USER, "name": "ada"},
        {"role": "assistant", "content": None, **echo, "tool_calls": [{**CALL, "extra_content": {}, "index": 0}]},
        {"role": "tool", "tool_call_id": "call_1", "content": [text("sunny")], "cost": 3},
    ]
    assert messages(GROQ, *said) == [
        {"role": "system", "content": "Be\nbrief."},
        {**USER, "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert built(GROQ, messages=said).dropped == ["messages.cost"]


def test_markers_of_caches_are_told() -> None:
    """In parts and in tools."""
    said = [{"role": "user", "content": [text("a", cache_control={"type": "ephemeral"})]}]
    result = built(GROQ, messages=said, tools=[{**tool(), "cache_control": {"type": "ephemeral"}}])
    assert result.dropped == ["tools.cache_control", "messages.content.cache_control"]
    mixed = [text("a", cache_control={"type": "ephemeral"}), {**image(), "cache_control": {"type": "ephemeral"}}]
    result = built(GROQ, model="meta-llama/llama-4-scout", messages=[{"role": "user", "content": mixed}])
    assert result.dropped == ["messages.content.cache_control"]
    assert json.loads(result.http.body)["messages"] == [{"role": "user", "content": [text("a"), image()]}]


@pytest.mark.parametrize(
    ("model", "role", "part"),
    [
        (OSS, "user", image()),
        ("groq/compound", "user", image()),
        (QWEN, "assistant", image()),
        (QWEN, "user", audio()),
        (QWEN, "user", file()),
        (OSS, "user", {"type": "document_url", "document_url": "https://example.com/a.pdf"}),
    ],
)
def test_content_that_a_model_cannot_take_is_refused(model: str, role: str, part: dict[str, Any]) -> None:
    """Before any money is spent; the error names part and model."""
    said = [{"role": role, "tool_call_id": "call_1", "content": [part]}]
    with pytest.raises(BadRequest, match=model) as caught:
        built(GROQ, model, messages=said)
    assert (caught.value.code, caught.value.param) == ("unsupported_content", f"messages.0.content.0.{part['type']}")


def test_thoughts_of_other_vendors_models_are_told() -> None:
    """It has no part for them."""
    said = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Well."}, text("So.")]}
    assert messages(GROQ, USER, said, model=OSS)[1] == {"role": "assistant", "content": "So."}
    assert built(GROQ, OSS, messages=[USER, said]).dropped == ["messages.content.thinking"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"type": "json_object"}, "one JSON object"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}, '{"type":"object"}'),
    ],
)
def test_json_beside_tools_is_asked_for_in_words(wanted: dict[str, Any], words: str) -> None:
    """Real refusal: "json mode cannot be combined with tool/function calling"; the answer is checked here."""
    said = [{"role": "system", "content": "Be brief."}, USER]
    result = built(GROQ, OSS, messages=said, tools=[tool()], response_format=wanted)
    body = sent(GROQ, OSS, messages=said, tools=[tool()], response_format=wanted)
    assert [message["role"] for message in body["messages"]] == ["system", "system", "user"]
    assert words in body["messages"][1]["content"]
    assert "response_format" not in body
    assert (result.adapted, result.unchecked_json) == (["response_format"], True)
    plain = built(GROQ, OSS, messages=said, response_format=wanted)
    assert (plain.adapted, plain.unchecked_json) == ([], False)


def test_it_has_no_embeddings() -> None:
    """None of its models makes any: refused before it is asked."""
    with pytest.raises(BadRequest, match="embeddings") as caught:
        GROQ.build_embeddings(EmbeddingsRequest(model="x", inputs=["a"], fields={"model": "x", "input": "a"}), "x")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "model")


def test_a_model_that_sees_gets_its_picture() -> None:
    """As it came."""
    assert messages(GROQ, {"role": "user", "content": [text("?"), image()]}, model=QWEN)[0]["content"][1] == image()


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_answer_says_what_the_vendors_sdk_reads(name: str) -> None:
    """Text, reasoning, calls, finish and usage as `groq` has them."""
    theirs = ChatCompletion.construct(**load(name)["json"])  # as the SDK reads answers: it checks nothing
    ours = GROQ.parse_response(answer(name))
    for mine, other in zip(ours["choices"], theirs.choices, strict=True):
        assert (mine["message"]["content"] or "") == (other.message.content or "")
        assert mine["message"].get("reasoning_content") == other.message.reasoning
        calls = [(call.id, call.function.name, call.function.arguments) for call in other.message.tool_calls or []]
        assert [
            (call["id"], call["function"]["name"], call["function"]["arguments"])
            for call in mine["message"].get("tool_calls", [])
        ] == calls
        assert mine["finish_reason"] == other.finish_reason
    assert theirs.usage is not None
    assert ours["usage"].shown["prompt_tokens"] == theirs.usage.prompt_tokens
    assert ours["usage"].shown["completion_tokens"] == theirs.usage.completion_tokens


@pytest.mark.parametrize("name", STREAMED)
def test_a_recorded_stream_says_what_the_vendors_sdk_reads(name: str) -> None:
    """Its chunks, added up by hand."""
    chunks = [ChatCompletionChunk.model_validate_json(each.data) for each in events(name) if each.data != b"[DONE]"]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    message = folded(GROQ, events(name))["choices"][0]["message"]
    assert (message["content"] or "") == "".join(delta.content or "" for delta in deltas)
    assert message.get("reasoning_content", "") == "".join(getattr(delta, "reasoning", "") or "" for delta in deltas)
    named = [call.function.name for delta in deltas for call in delta.tool_calls or [] if call.function]
    assert [call["function"]["name"] for call in message.get("tool_calls", [])] == named


def test_usage_comes_from_x_groq_where_it_is_alone() -> None:
    """Older answers had it nowhere else."""
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "queue_time": 0.1}
    found = folded(GROQ, [event({"choices": [choice], "x_groq": {"id": "req_1", "usage": usage}})])
    assert found["usage"].shown["total_tokens"] == 5
    assert "x_groq" not in found


def test_the_tier_of_an_answer_is_one_of_openais() -> None:
    """`on_demand` is a word of Groq's."""
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "service_tier": "on_demand"}
    assert GROQ.parse_response(answered(200, body))["service_tier"] == "default"  # type: ignore[typeddict-item]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (400, {"code": "tool_use_failed", "failed_generation": "{}"}, (400, "tool_use_failed", True)),
        (400, {"code": "json_validate_failed"}, (400, "json_validate_failed", True)),
        (400, {"code": "output_parse_failed"}, (400, "output_parse_failed", True)),
        (400, {"code": "model_decommissioned"}, (404, "model_not_found", False)),
        (400, {"code": "context_length_exceeded"}, (400, "context_length_exceeded", False)),
        (400, {"message": "property 'store' is unsupported"}, (400, "invalid_value", False)),
        (401, {"code": "invalid_api_key"}, (401, "invalid_api_key", False)),
        (403, {"code": "blocked_api_access", "type": "permissions_error"}, (403, "blocked_api_access", False)),
        (404, {"code": "model_not_found"}, (404, "model_not_found", False)),
        (413, {"code": "rate_limit_exceeded", "type": "tokens"}, (413, "rate_limit_exceeded", False)),
        (422, {"type": "invalid_request_error"}, (400, "invalid_value", False)),
        (424, {"type": "failed_dependency"}, (424, None, False)),
        (429, {"code": "rate_limit_exceeded", "type": "tokens"}, (429, "rate_limit_exceeded", True)),
        (498, {"code": "capacity_exceeded"}, (503, "capacity_exceeded", True)),
        (499, {"message": "client closed"}, (499, None, False)),
        (500, {"type": "internal_server_error"}, (502, "upstream_error", True)),
        (503, {"type": "service_unavailable"}, (503, "upstream_unavailable", True)),
    ],
)
def test_errors_have_openais_status_and_code(
    status: int, said: dict[str, Any], expected: tuple[int, str | None, bool]
) -> None:
    """A model's own slip may go better the next time; a request too large never will."""
    error = GROQ.parse_error(answered(status, {"error": {"message": "x", **said}}))
    assert (error.status, error.code, error.retryable) == expected
    assert error.upstream_status == status


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("4.77s", 4.77), ("9m38.016s", 578.016), ("26ms", 0.026), ("1h2m3s", 3723.0), ("2m", 120.0), ("a while", None)],
)
def test_the_time_to_wait_is_read_from_the_words(words: str, seconds: float | None) -> None:
    """Where no header says it."""
    said = f"Rate limit reached in organization `org_01abcdefg`: Limit 6000. Please try again in {words}."
    error = GROQ.parse_error(answered(429, {"error": {"message": said, "code": "rate_limit_exceeded"}}))
    assert error.retry_after_s == (pytest.approx(seconds) if seconds is not None else None)
    assert "org_01abcdefg" not in error.message
    with_header = GROQ.parse_error(answered(429, {"error": {"message": said}}, retry_after="7"))
    assert (with_header.retry_after_s, with_header.headers["retry-after"]) == (7, "7")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no call", "code": "tool_use_failed", "status_code": 400, "failed_generation": ""}},
        {
            "choices": [],
            "x_groq": {"id": "r", "error": {"message": "no", "code": "tool_use_failed", "status_code": 400}},
        },
    ],
)
def test_an_error_in_the_middle_of_a_stream_keeps_its_status(body: dict[str, Any]) -> None:
    """An event of its own, or inside `x_groq`."""
    with pytest.raises(UpstreamError) as caught:
        GROQ.stream_decoder(request(stream=True)).feed(event(body, "error" if "error" in body else ""))
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (400, "tool_use_failed", True)
