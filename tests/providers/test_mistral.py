"""Rules of Mistral's dialect: every row of its fact page (November 2026)."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from mistralai.client import models as sdk

from proxy.providers.mistral import Mistral
from proxy.schema.chat import ChatResponse, KeptReasoning
from proxy.schema.errors import BadRequest
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.sse import EventFraming
from tests.providers.asking import USER, answered, built, event, folded, messages, request, sent
from tests.providers.corpus import PDF, PNG, audio, file, image, text, tool
from tests.providers.recordings import FIXTURES, answer, load, recordings

MISTRAL = Mistral()
WHOLE = [name for name in recordings("json", "mistral") if b'"choices"' in answer(name).body]
CALL: Any = {"id": "gSIMJiOkT", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LONG = {**CALL, "id": "call_0123456789"}
RESULT = {"role": "tool", "tool_call_id": "gSIMJiOkT", "content": "done"}


def asking(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"seed": 7}, {"random_seed": 7}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"tool_choice": "required", "tools": [tool()]}, {"tool_choice": "any", "tools": [tool()]}),
        ({"tool_choice": "none", "tools": [tool()]}, {"tool_choice": "none", "tools": [tool()]}),
        ({"stop": ["a"] * 9}, {"stop": ["a"] * 9}),
        ({"n": 3, "logprobs": True, "top_logprobs": 2}, {"n": 3, "logprobs": True, "top_logprobs": 2}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"safe_prompt": True, "top_k": 3, "min_tokens": 1}, {"safe_prompt": True, "top_k": 3, "min_tokens": 1}),
        (
            {"prediction": {"type": "content", "content": [text("a"), text("b")]}},
            {"prediction": {"type": "content", "content": "ab"}},
        ),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    ],
)
def test_names_that_mean_the_same_are_no_loss(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Nothing to report."""
    body = sent(MISTRAL, **fields)
    assert {name: body[name] for name in body if name not in ("model", "messages")} == expected
    result = built(MISTRAL, **fields)
    assert (result.dropped, result.adapted, result.stops) == ([], [], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "ada"},
        {"safety_identifier": "ada"},
        {"store": True},
        {"logit_bias": {"1": 1}},
        {"verbosity": "low"},
        {"web_search_options": {}},
        {"service_tier": "flex"},
        {"prompt_cache_retention": "24h"},
        {"reasoning": {"effort": "low"}},
        {"anything": 1},
    ],
)
def test_fields_that_are_a_422_there_are_dropped_and_told(fields: dict[str, Any]) -> None:
    """By their names."""
    assert set(sent(MISTRAL, **fields)) == {"model", "messages"}
    assert built(MISTRAL, **fields).dropped == list(fields)


def test_defaults_that_change_nothing_are_not_told() -> None:
    """Clients send them all the time."""
    assert built(MISTRAL, store=False, logit_bias={}, modalities=["text"], verbosity="medium").dropped == []


@pytest.mark.parametrize("name", ["functions", "function_call", "audio"])
def test_what_asks_for_another_kind_of_answer_is_refused(name: str) -> None:
    """Without it the answer would be of no use."""
    with pytest.raises(BadRequest) as caught:
        MISTRAL.build_request(request(**{name: [{"name": "f"}]}), "m")
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", name)


@pytest.mark.parametrize(
    ("model", "effort", "expected", "adapted", "dropped"),
    [
        ("mistral-medium-latest", "none", "none", [], []),
        ("mistral-small-latest", "high", "high", [], []),
        ("mistral-large-4", "minimal", "none", ["reasoning_effort"], []),
        ("mistral-large-4", "low", "high", ["reasoning_effort"], []),
        ("mistral-small-2603", "max", "high", ["reasoning_effort"], []),
        ("magistral-medium-latest", "high", None, [], ["reasoning_effort"]),
        ("mistral-large-latest", "high", None, [], ["reasoning_effort"]),
        ("codestral-2508", "low", None, [], ["reasoning_effort"]),
        ("zai-glm-5-3", "low", "low", [], []),
        ("zai-glm-5-3", "none", "low", ["reasoning_effort"], []),
        ("zai-glm-5-3", "medium", "high", ["reasoning_effort"], []),
    ],
)
def test_models_think_or_do_not(
    model: str, effort: str, expected: str | None, adapted: list[str], dropped: list[str]
) -> None:
    """There are two levels where there is a choice at all, and three of a guest (`['low', 'high', 'max']`)."""
    result = built(MISTRAL, model, reasoning_effort=effort)
    assert sent(MISTRAL, model, reasoning_effort=effort).get("reasoning_effort") == expected
    assert (result.adapted, result.dropped) == (adapted, dropped)


def test_a_temperature_above_the_vendors_is_its_highest() -> None:
    """1.5; told."""
    assert sent(MISTRAL, temperature=1.9)["temperature"] == 1.5
    assert built(MISTRAL, temperature=1.9).adapted == ["temperature"]


def test_tools_have_parameters_and_no_fields_of_others() -> None:
    """`parameters` is required there, `cache_control` a 422."""
    bare = {"type": "function", "cache_control": {"type": "ephemeral"}, "function": {"name": "f", "extra": 1}}
    body = sent(MISTRAL, tools=[bare])
    empty = {"type": "object", "properties": {}}
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": empty}}]
    assert built(MISTRAL, tools=[bare]).dropped == ["tools.cache_control", "tools.extra"]
    custom = {"type": "custom", "custom": {"name": "c"}}
    with pytest.raises(BadRequest) as caught:
        built(MISTRAL, tools=[custom])
    assert caught.value.param == "tools.0"


def test_allowed_tools_are_the_only_ones_sent() -> None:
    """Its mode is the choice."""
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "b"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body = sent(MISTRAL, tools=[tool("a"), tool("b")], tool_choice=choice)
    assert ([each["function"]["name"] for each in body["tools"]], body["tool_choice"]) == (["b"], "any")
    assert built(MISTRAL, tools=[tool("a")], tool_choice=choice).adapted == ["tool_choice"]


def test_messages_have_no_fields_of_others() -> None:
    """`name` is told, echoes of our own answers are not."""
    echo: dict[str, Any] = {
        "refusal": None,
        "annotations": [],
        "reasoning_content": "x",
        "thinking_blocks": [],
        "function_call": None,
    }
    said = [{**USER, "name": "ada"}, asking(CALL, **echo), {**RESULT, "name": "f"}]
    assert messages(MISTRAL, *said) == [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {**RESULT, "name": "f"},
    ]
    assert built(MISTRAL, messages=said).dropped == ["messages.name"]


def test_a_refusal_becomes_the_content() -> None:
    """There is no field for it."""
    said = messages(MISTRAL, USER, {"role": "assistant", "content": None, "refusal": "No."}, USER)
    assert said[1] == {"role": "assistant", "content": "No."}


def test_an_assistant_that_said_nothing_is_left_out() -> None:
    """Empty messages are a 400."""
    assert messages(MISTRAL, USER, {"role": "assistant", "content": ""}, USER) == [USER, USER]
    with pytest.raises(BadRequest):
        messages(MISTRAL, {"role": "assistant", "content": None})


def test_an_assistant_that_speaks_last_is_to_be_continued() -> None:
    """Else a 400; told, since OpenAI would begin anew."""
    said = [USER, {"role": "assistant", "content": "The answer is"}]
    assert messages(MISTRAL, *said)[-1] == {**said[-1], "prefix": True}
    assert built(MISTRAL, messages=said).adapted == ["messages"]


BEGUN: dict[str, Any] = {"role": "assistant", "content": "The answer is"}


@pytest.mark.parametrize(
    ("wrote", "left"),
    [
        (["The answer is", " 4."], " 4."),
        (["The", " answer", " is 4."], " 4."),
        (["", "The answer is 4."], " 4."),
        (["It is 4."], "It is 4."),
        (["The answer", " was 4."], "The answer was 4."),
        (["The answer"], "The answer"),
        (["The answer is"], ""),
    ],
)
def test_an_answer_that_continues_does_not_say_again_what_it_continues(wrote: list[str], left: str) -> None:
    """The vendor begins with it; whole and streamed, in every choice."""
    said = [USER, BEGUN]
    choice: Any = {"index": 0, "message": {"content": "".join(wrote)}, "finish_reason": "stop"}
    whole = MISTRAL.parse_response(answered(200, {"choices": [choice]}), request(messages=said))
    deltas: list[Any] = [{"delta": {"content": piece}, "finish_reason": None} for piece in wrote]
    deltas.append({"delta": {"content": ""}, "finish_reason": "stop"})
    frames = [event({"choices": [{"index": index, **delta}]}) for delta in deltas for index in (0, 1)]
    streamed = folded(MISTRAL, frames, messages=said, n=2)
    assert whole["choices"][0]["message"]["content"] == left
    assert [each["message"]["content"] for each in streamed["choices"]] == [left, left]


@pytest.mark.parametrize("last", [{**BEGUN, "prefix": True}, USER])
def test_an_answer_that_we_did_not_ask_to_continue_is_left_as_it_is(last: dict[str, Any]) -> None:
    """Who says `prefix` knows the vendor."""
    said = [USER, BEGUN, last]
    choice = {"index": 0, "message": {"content": "The answer is 4."}, "finish_reason": "stop"}
    whole = MISTRAL.parse_response(answered(200, {"choices": [choice]}), request(messages=said))
    frame = {"choices": [{"index": 0, "delta": {"content": "The answer is 4."}, "finish_reason": "stop"}]}
    streamed = folded(MISTRAL, [event(frame)], messages=said)
    assert whole["choices"][0]["message"]["content"] == "The answer is 4."
    assert streamed["choices"][0]["message"]["content"] == "The answer is 4."


def test_calls_that_continue_a_message_have_no_content() -> None:
    """Nothing was said, so nothing is cut."""
    choice = {"index": 0, "message": {"content": "", "tool_calls": [CALL]}, "finish_reason": "tool_calls"}
    whole = MISTRAL.parse_response(answered(200, {"choices": [choice]}), request(messages=[USER, BEGUN]))
    assert whole["choices"][0]["message"]["content"] is None


THOUGHT = {"type": "thinking", "thinking": [text("Well.")]}


@pytest.mark.parametrize(
    ("model", "fields", "back"),
    [
        ("mistral-small-latest", {"reasoning_effort": "medium"}, True),
        ("magistral-medium-latest", {}, True),
        ("mistral-small-latest", {}, False),
        ("open-mistral-nemo", {"reasoning_effort": "high"}, False),
    ],
)
def test_thoughts_go_back_to_a_model_that_thinks(model: str, fields: dict[str, Any], back: bool) -> None:
    """As chunks before the text, with calls too; an answer that is to be continued keeps its text alone."""
    spoke = {"role": "assistant", "content": "So.", "reasoning_content": "Well."}
    said = [USER, spoke, USER, asking(CALL, reasoning_content="Well."), RESULT, spoke]
    found = sent(MISTRAL, model, messages=said, **fields)["messages"]
    assert found[1]["content"] == ([THOUGHT, text("So.")] if back else "So.")
    assert found[3]["content"] == ([THOUGHT] if back else "")
    assert found[5]["content"] == "So."


def test_thoughts_that_a_client_lost_are_put_back() -> None:
    """Clients of OpenAI send back calls without them; only the same model's count."""
    kept = MISTRAL.reasoning_state({"reasoning_content": "Well.", "tool_calls": [CALL]})
    assert kept == {CALL["id"]: {"reasoning_content": "Well."}}
    asked = request(messages=[USER, asking(CALL), RESULT], reasoning_effort="high")
    for model, content in (("mistral-small-latest", [THOUGHT]), ("mistral-medium-latest", "")):
        state = {CALL["id"]: KeptReasoning("mistral", model, kept[CALL["id"]])}
        body = MISTRAL.build_request(msgspec.structs.replace(asked, kept=state), "mistral-small-latest").http.body
        assert json.loads(body)["messages"][1]["content"] == content


@pytest.mark.parametrize("thinking", ["Well.", [text("Well.")]])
def test_thinking_parts_of_a_client_are_chunks_or_told(thinking: Any) -> None:
    """As Cohere has them and as Mistral does; models that cannot think are not shown them."""
    said = [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": thinking}, text("So.")]}, USER]
    assert messages(MISTRAL, *said, model="mistral-small-latest")[1]["content"] == [THOUGHT, text("So.")]
    assert messages(MISTRAL, *said, model="open-mistral-nemo")[1]["content"] == [text("So.")]
    assert built(MISTRAL, "open-mistral-nemo", messages=said).dropped == ["messages.content.thinking"]


def test_embeddings_are_asked_in_batches_that_the_vendor_takes() -> None:
    """257 inputs are "Too many inputs in request, split into more batches."."""
    assert MISTRAL.embeddings_batch == 256


def test_a_user_does_not_speak_right_after_a_tool() -> None:
    """ "Unexpected role 'user' after role 'tool'": an answer stands between; told."""
    said = messages(MISTRAL, USER, asking(CALL), RESULT, USER)
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "assistant", "user"]
    assert said[3] == {"role": "assistant", "content": "OK"}


def test_ids_of_tool_calls_are_nine_letters_or_digits() -> None:
    """The same each time, call and result alike; what fits is kept, and nothing collides with it."""
    said = [USER, asking(CALL, LONG), RESULT, {**RESULT, "tool_call_id": LONG["id"]}]
    first, second = messages(MISTRAL, *said), messages(MISTRAL, *said)
    assert first == second
    ids = [call["id"] for call in first[1]["tool_calls"]]
    assert ids[0] == "gSIMJiOkT"
    assert re.fullmatch("[a-zA-Z0-9]{9}", ids[1])
    assert [message["tool_call_id"] for message in first[2:]] == ids
    taken = {**CALL, "id": ids[1]}
    crowded = messages(MISTRAL, USER, asking(LONG, taken), {**RESULT, "tool_call_id": LONG["id"]})
    assert len({call["id"] for call in crowded[1]["tool_calls"]}) == 2
    assert crowded[2]["tool_call_id"] == crowded[1]["tool_calls"][0]["id"]


@pytest.mark.parametrize(
    ("part", "chunk"),
    [
        (text("a"), {"type": "text", "text": "a"}),
        (image("https://a.example/b.png"), {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}),
        (
            image(detail="low"),
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}},
        ),
        (audio(), {"type": "input_audio", "input_audio": audio()["input_audio"]["data"]}),
        (
            file(),
            {
                "type": "document_url",
                "document_url": f"data:application/pdf;base64,{PDF}",
                "document_name": "a.pdf",
            },
        ),
        ({"type": "file", "file": {"file_id": "f1"}}, {"type": "file", "file_id": "f1"}),
    ],
)
def test_parts_become_chunks(part: dict[str, Any], chunk: dict[str, Any]) -> None:
    """As the SDK's own types have them."""
    assert messages(MISTRAL, {"role": "user", "content": [part]})[0]["content"] == [chunk]
    sdk.UserMessage.model_validate({"role": "user", "content": [chunk]})


@pytest.mark.parametrize(
    "chunk",
    [
        {"type": "document_url", "document_url": "https://example.com/a.pdf", "document_name": "a"},
        {"type": "input_audio", "input_audio": "UklGRg=="},
        {"type": "file", "file_id": "f1"},
        {"type": "reference", "reference_ids": [1]},
    ],
)
def test_chunks_in_the_vendors_own_words_are_sent_as_they_are(chunk: dict[str, Any]) -> None:
    """Beside OpenAI's parts."""
    said = messages(MISTRAL, {"role": "user", "content": [text("?"), chunk]})
    assert said[0]["content"] == [text("?"), chunk]


def test_what_parts_lose_is_told() -> None:
    """A marker for caches, a level of detail that is unknown there."""
    said = [{"role": "user", "content": [text("a", cache_control={"type": "ephemeral"}), image(detail="original")]}]
    result = built(MISTRAL, messages=said)
    assert result.dropped == ["messages.content.cache_control"]
    assert result.adapted == ["messages.content.image_url.detail"]


def test_a_video_is_refused_with_its_place_and_the_model() -> None:
    """Mistral has none."""
    part = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    with pytest.raises(BadRequest, match="pixtral") as caught:
        built(MISTRAL, "pixtral", messages=[{"role": "user", "content": [part]}])
    assert (caught.value.code, caught.value.param) == ("unsupported_content", "messages.0.content.0.video_url")


def test_the_same_request_gives_the_same_bytes() -> None:
    """Prompt caches hit on equal prefixes."""
    said = [USER, asking(LONG), {**RESULT, "tool_call_id": LONG["id"]}]
    assert len({built(MISTRAL, messages=said, tools=[tool()], seed=1).http.body for _ in range(3)}) == 1


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_answer_says_what_the_vendors_sdk_reads(name: str) -> None:
    """Text, calls, finish and usage as `mistralai` has them."""
    theirs = sdk.ChatCompletionResponse.model_validate(load(name)["json"])
    ours = MISTRAL.parse_response(answer(name))
    for mine, other in zip(ours["choices"], theirs.choices, strict=True):
        content = other.message.content if other.message else None
        plain = content if isinstance(content, str) else "".join(getattr(chunk, "text", "") for chunk in content or [])
        assert (mine["message"]["content"] or "") == plain
        asked = (other.message.tool_calls if other.message else None) or []
        calls = [(call.function.name, call.function.arguments) for call in asked]
        assert [
            (c["function"]["name"], c["function"]["arguments"]) for c in mine["message"].get("tool_calls", [])
        ] == calls
        assert mine["finish_reason"] == other.finish_reason
    assert ours["usage"].shown["prompt_tokens"] == theirs.usage.prompt_tokens
    assert ours["usage"].shown["completion_tokens"] == theirs.usage.completion_tokens


def _chunks(answered_with: dict[str, Any]) -> bytes:
    """The answer as the vendor would have streamed it: content in pieces, calls whole, with finish and usage."""
    head = {"id": answered_with["id"], "object": "chat.completion.chunk", "model": answered_with["model"]}
    head["created"] = answered_with["created"]
    deltas: list[dict[str, Any]] = []
    for choice in answered_with["choices"]:
        message, index = choice["message"], choice["index"]
        content = message.get("content") or ""
        pieces = [content[at : at + 9] for at in range(0, len(content), 9)] if isinstance(content, str) else content
        deltas.append({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})
        for piece in pieces:
            told = piece if isinstance(piece, str) else [piece]
            deltas.append({"index": index, "delta": {"content": told}, "finish_reason": None})
        calls = {"tool_calls": message["tool_calls"]} if message.get("tool_calls") else {}
        deltas.append({"index": index, "delta": {"content": None, **calls}, "finish_reason": choice["finish_reason"]})
    frames = [{**head, "choices": [delta]} for delta in deltas]
    frames[-1]["usage"] = answered_with["usage"]
    return b"".join(b"data: " + encode(frame) + b"\n\n" for frame in frames) + b"data: [DONE]\n\n"


def _read(data: bytes, cuts: list[int]) -> ChatResponse:
    framing, decoder, fold = EventFraming(), MISTRAL.stream_decoder(request()), Fold()
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        for each in framing.feed(data[begin:end]):
            for chunk in decoder.feed(each):
                fold.add(chunk)
    decoder.close()
    return fold.response()


@pytest.mark.parametrize("name", WHOLE)
def test_the_fold_law_holds_for_recorded_answers(name: str) -> None:
    """Streamed as the vendor streams, wherever its bytes are cut."""
    data = _chunks(load(name)["json"])
    whole = MISTRAL.parse_response(answer(name))
    for cuts in ([], list(range(1, len(data))), list(range(7, len(data), 13))):
        streamed = _read(data, cuts)
        assert [(c["message"], c["finish_reason"]) for c in streamed["choices"]] == [
            (c["message"], c["finish_reason"]) for c in whole["choices"]
        ]
        assert streamed["usage"] == whole["usage"]


def test_thoughts_stand_beside_the_content() -> None:
    """Chunks of type `thinking`, whole and streamed."""
    message = MISTRAL.parse_response(answer("mistral/pair_mistral-reasoning.json.json"))["choices"][0]["message"]
    assert (message["reasoning_content"] or "").startswith("The user is asking for 2+2.")
    assert "thinking" not in (message["content"] or "")


def test_calls_without_type_index_and_id_are_completed() -> None:
    """The SDK's own default id is the text "null"."""
    calls = [{"id": "null", "function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g"}}]
    choice = {"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}
    found = folded(MISTRAL, [event({"choices": [choice]})])["choices"][0]["message"]
    expected = [
        {"id": "call_0_0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "call_0_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert found["tool_calls"] == expected
    body = {"choices": [{"index": 0, "message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}
    assert MISTRAL.parse_response(answered(200, body))["choices"][0]["message"]["tool_calls"] == expected


def test_tokens_of_what_was_heard_are_read_too() -> None:
    """Its total is 9 + 375 + 248: `prompt_tokens` leaves the audio out."""
    details = {"cached_tokens": 0, "audio_tokens": 375}
    usage = {"prompt_tokens": 9, "completion_tokens": 248, "total_tokens": 632, "prompt_tokens_details": details}
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    found = MISTRAL.parse_response(answered(200, {"choices": [choice], "usage": usage}))["usage"]
    assert (found.billed.prompt, found.billed.output, found.shown["total_tokens"]) == (384, 248, 632)


def test_a_delta_has_what_is_no_part_of_the_message() -> None:
    """`index` here, `channel` at Groq: sent back with the history they would be refused."""
    delta = {"content": "a", "index": 0, "channel": "analysis"}
    found = folded(MISTRAL, [event({"choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]})])
    assert set(found["choices"][0]["message"]) == {"role", "content", "refusal", "annotations"}


def test_cached_tokens_are_where_clients_look() -> None:
    """Mistral counts them as `num_cached_tokens`."""
    usage = {"prompt_tokens": 70, "completion_tokens": 12, "total_tokens": 82, "num_cached_tokens": 69}
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    found = MISTRAL.parse_response(answered(200, {"choices": [choice], "usage": usage}))["usage"]
    assert found.shown["prompt_tokens_details"] == {"cached_tokens": 69}
    assert (found.billed.cache_read, found.billed.input) == (69, 1)


# --- errors -----------------------------------------------------------------------------------------------------------

EXTRA = {
    "type": "extra_forbidden",
    "loc": ["body", "max_completion_tokens"],
    "msg": "Extra inputs are not permitted",
    "input": 32000,
}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            400,
            {"message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
            (404, "model_not_found", False),
        ),
        (401, {"detail": "Unauthorized"}, (401, "invalid_api_key", False)),
        (401, {"message": "Unauthorized", "request_id": "x"}, (401, "invalid_api_key", False)),
        (402, {"message": "Upgrade your plan"}, (403, None, False)),
        (404, {"detail": "Not Found"}, (404, "model_not_found", False)),
        (413, {"message": "too large"}, (413, None, False)),
        (422, {"object": "error", "message": {"detail": [EXTRA]}, "code": None}, (400, "invalid_value", False)),
        (422, {"detail": [EXTRA]}, (400, "invalid_value", False)),
        (
            400,
            {"message": "Prompt contains 9 tokens, too large for model with 8 maximum context length", "code": "3051"},
            (400, "context_length_exceeded", False),
        ),
        (
            400,
            {"object": "error", "message": "Tool call id was", "type": "invalid_function_call", "code": "3280"},
            (400, "invalid_function_call", False),
        ),
        (
            429,
            {"message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
            (429, "rate_limit_exceeded", True),
        ),
        (429, {"message": "Requests rate limit exceeded"}, (429, "rate_limit_exceeded", True)),
        (429, {"message": "Service tier capacity exceeded", "code": "3505"}, (503, "upstream_unavailable", True)),
        (503, {"message": "Service tier capacity exceeded", "code": "3505"}, (503, "upstream_unavailable", True)),
        (500, {"message": "Internal", "type": "internal_server_error", "code": "1000"}, (502, "upstream_error", True)),
        (520, b"<html>", (502, "upstream_error", True)),
        (504, b"", (504, "upstream_timeout", True)),
    ],
)
def test_errors_have_openais_status_and_code(status: int, body: object, expected: tuple[int, str | None, bool]) -> None:
    """The vendor's own status stays beside them."""
    error = MISTRAL.parse_error(answered(status, body))
    assert (error.status, error.code, error.retryable) == expected
    assert error.upstream_status == status
    assert "<" not in error.message


def test_a_checkers_list_becomes_a_sentence_that_names_the_field() -> None:
    """FastAPI's shape, inside `message` or beside it."""
    for body in ({"object": "error", "message": {"detail": [EXTRA]}}, {"detail": [EXTRA]}):
        error = MISTRAL.parse_error(answered(422, body))
        assert error.message == "max_completion_tokens: Extra inputs are not permitted"
        assert error.param == "max_completion_tokens"


def test_rate_limits_have_openais_names() -> None:
    """Three generations of headers."""
    headers = {
        "x-ratelimit-limit-req-10-second": "60",
        "x-ratelimit-remaining-tokens-minute": "49000",
        "ratelimitbysize-reset": "12",
        "mistral-correlation-id": "corr-1",
        "x-kong-upstream-latency": "9",
    }
    error = MISTRAL.parse_error(answered(429, {"message": "slow down"}, **headers))
    assert error.headers == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-tokens": "49000",
        "x-ratelimit-reset-tokens": "12s",
        "x-upstream-request-id": "corr-1",
    }


def test_an_error_inside_a_200_has_its_status() -> None:
    """`raw_status_code` says it."""
    body = {"object": "error", "message": "Rate limit exceeded", "code": "1300", "raw_status_code": 429}
    decoder = MISTRAL.stream_decoder(request(stream=True))
    with pytest.raises(Exception, match="Rate limit") as caught:
        decoder.feed(event(body))
    assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")  # type: ignore[attr-defined]


def test_every_recorded_request_is_taken_as_it_is() -> None:
    """What a real client sent to the vendor goes through us unchanged in meaning: nothing is dropped."""
    for path in recordings("json", "mistral"):
        asked = json.loads((FIXTURES / path).read_text()).get("request") or {}
        body = asked.get("body")
        if isinstance(body, dict) and "document_url" not in json.dumps(body) and "messages" in body:
            fields = {name: value for name, value in body.items() if name not in ("model", "tool_choice")}
            assert built(MISTRAL, body["model"], **fields).dropped == []
