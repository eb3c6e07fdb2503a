"""OpenAI's Responses API: what a chat request becomes, what comes back, and what is said of losses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.providers.openai import OpenAI
from proxy.schema.chat import ChatRequest, KeptReasoning
from proxy.schema.errors import BadRequest, UpstreamError, UpstreamTruncated
from tests.providers.asking import answered, built, event, folded, request, sent
from tests.providers.corpus import PDF, PNG, SCHEMA, asked, audio, call, file, image, result, text, tool, user
from tests.providers.recordings import load

OPENAI, ALWAYS = OpenAI(), OpenAI(base_url="https://gateway.example/v1", api="responses")
THINKER = "gpt-6-sol"
TOOLS = [tool()]
THOUGHT: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}


def body(model: str = THINKER, **fields: Any) -> dict[str, Any]:
    """The body for a model that thinks, with a tool, without what is the same in all."""
    whole = sent(OPENAI, model, **{"tools": TOOLS, **fields})
    return {name: value for name, value in whole.items() if name not in ("model", "store", "include", "tools", "input")}


def items(*messages: dict[str, Any], model: str = THINKER) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(OPENAI, model, tools=TOOLS, messages=list(messages))["input"]
    return found


def whole_answer(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
    head = {"id": "resp_1", "object": "response", "created_at": 1.0, "model": "m", "status": "completed"}
    return {**head, "output": list(output), "usage": usage, **fields}


def parsed(answer: dict[str, Any]) -> Any:
    return OPENAI.parse_response(answered(200, answer))


# --- which API --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1/"])
def test_openai_itself_gets_what_it_takes(base_url: str | None) -> None:
    """However its address is written."""
    assert built(OpenAI(base_url=base_url), THINKER, tools=TOOLS).http.path == "/responses"
    assert built(OpenAI(base_url=base_url), THINKER).http.path == "/chat/completions"


@pytest.mark.parametrize("base_url", ["https://models.example/v1", "https://api.openai.com.example/v1"])
def test_a_server_elsewhere_gets_the_chat_api_unless_said(base_url: str) -> None:
    """`api` says it: by OpenAI's rules, or always."""
    paths = [
        built(OpenAI(base_url=base_url, api=api), THINKER, tools=TOOLS).http.path
        for api in (None, "chat", "by_model", "responses")
    ]
    assert paths == ["/chat/completions", "/chat/completions", "/responses", "/responses"]
    assert built(ALWAYS, "my-deployment").http.path == "/responses"
    assert built(OpenAI(api="chat"), THINKER, tools=TOOLS).http.path == "/chat/completions"


def test_a_server_that_answers_in_the_other_shape_is_read() -> None:
    """A gateway may translate."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    answer = parsed({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]})
    assert answer["choices"][0]["message"]["content"] == "hi"
    streamed = [event({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]})]
    assert folded(OPENAI, [event({"type": "ping"}, "ping"), *streamed])["choices"][0]["message"]["content"] == "hi"


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"max_tokens": 500}, {"max_output_tokens": 500}),
        ({"max_completion_tokens": 500, "max_tokens": 600}, {"max_output_tokens": 500}),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        (
            {"reasoning": {"summary": "auto"}, "reasoning_effort": "low"},
            {"reasoning": {"summary": "auto", "effort": "low"}},
        ),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": SCHEMA, "strict": True},
                }
            },
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}}},
        ),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"service_tier": "flex", "user": "ada"}, {"service_tier": "flex", "user": "ada"}),
        ({"metadata": {"a": "b"}, "safety_identifier": "c"}, {"metadata": {"a": "b"}, "safety_identifier": "c"}),
        (
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
            {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
            {"tool_choice": {"type": "function", "name": "weather"}},
        ),
        ({"temperature": 1, "top_p": 1, "presence_penalty": 0, "n": 1}, {}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    ],
)
def test_what_has_another_name_is_no_loss(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Nothing to report."""
    assert body(**fields) == expected
    result = built(OPENAI, THINKER, tools=TOOLS, **fields)
    assert (result.dropped, result.adapted, result.stops) == ([], [], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"prediction": {"type": "content", "content": "x"}},
        {"temperature": 0.5},
        {"logprobs": True},
        {"presence_penalty": 0.5},
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"top_k": 3},
    ],
)
def test_what_the_api_lacks_is_dropped_and_told(fields: dict[str, Any]) -> None:
    """A conversation that the vendor stores is never used: what is said is in the request."""
    assert body(**fields) == {}
    assert built(OPENAI, THINKER, tools=TOOLS, **fields).dropped == list(fields)


def test_stops_are_left_to_us_and_a_tiny_limit_is_raised() -> None:
    """A limit below 16 is a 400 there; told. The bound of the call counts with it."""
    result = built(OPENAI, THINKER, tools=TOOLS, stop=["a", "b"], max_tokens=3)
    assert (result.stops, result.adapted) == (["a", "b"], ["max_tokens"])
    assert body(max_completion_tokens=3) == {"max_output_tokens": 16}
    asked_for = request(tools=TOOLS, max_tokens=3)
    assert [OPENAI.least_output(asked_for, model) for model in (THINKER, "gpt-4.1")] == [16, 1]
    assert OpenAI(base_url="https://models.example/v1").least_output(asked_for, THINKER) == 1
    assert OPENAI.least_output(request(tools=TOOLS), THINKER) == 1


def test_nothing_is_stored_unless_the_client_says_so() -> None:
    """Then the reasoning comes back encrypted; a model that cannot think is not asked for it."""
    whole = sent(OPENAI, THINKER, tools=TOOLS)
    assert (whole["store"], whole["include"]) == (False, ["reasoning.encrypted_content"])
    assert sent(OPENAI, THINKER, tools=TOOLS, store=True)["store"] is True
    assert "include" not in sent(ALWAYS, "gpt-4.1")
    assert "include" not in sent(ALWAYS, "my-deployment")
    assert sent(ALWAYS, "my-deployment", reasoning_effort="low")["include"] == ["reasoning.encrypted_content"]


def test_probabilities_are_asked_for_where_the_model_has_them() -> None:
    """A model that does not think."""
    whole = sent(ALWAYS, "gpt-4.1", logprobs=True, top_logprobs=3, temperature=0.5)
    assert (whole["include"], whole["top_logprobs"]) == (["message.output_text.logprobs"], 3)
    assert whole["temperature"] == 0.5


def test_tools_are_flat_and_only_strict_where_the_client_says_so() -> None:
    """Without a word the API would hold functions to strict schemas, which most are not."""
    grammar = {"type": "grammar", "grammar": {"definition": "a", "syntax": "lark"}}
    given = [
        tool(),
        {"type": "function", "function": {"name": "now"}},
        {"type": "function", "function": {"name": "s", "parameters": SCHEMA, "strict": True}, "cache_control": {}},
        {"type": "custom", "custom": {"name": "sql", "description": "d", "format": grammar}},
        {"type": "function", "name": "flat", "parameters": SCHEMA},
        {"type": "web_search", "search_context_size": "low"},
    ]
    found = {each.get("name", "search"): each for each in sent(OPENAI, THINKER, tools=given)["tools"]}
    assert found["weather"] == {**tool()["function"], "type": "function", "strict": False}
    assert found["now"]["parameters"] == {"type": "object", "properties": {}}
    assert (found["s"]["strict"], found["flat"]["strict"]) == (True, False)
    flat = {"type": "grammar", "definition": "a", "syntax": "lark"}
    assert found["sql"] == {"type": "custom", "name": "sql", "description": "d", "format": flat}
    assert found["search"] == given[-1]
    assert built(OPENAI, THINKER, tools=given).dropped == ["tools.cache_control"]


def test_a_choice_among_allowed_tools_and_a_search_have_places() -> None:
    """Nothing is lost of either."""
    named = {"type": "function", "function": {"name": "weather"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    place = {"type": "approximate", "approximate": {"country": "FR"}}
    whole = sent(OPENAI, THINKER, tools=TOOLS, tool_choice=choice, web_search_options={"user_location": place})
    flat = {"type": "function", "name": "weather"}
    assert whole["tool_choice"] == {"type": "allowed_tools", "mode": "required", "tools": [flat]}
    assert whole["tools"][1] == {"type": "web_search", "user_location": {"type": "approximate", "country": "FR"}}


def test_content_of_every_kind_becomes_an_item() -> None:
    """Images with their detail, files, results with pictures, marks of the cache."""
    marked = text("Long.", prompt_cache_breakpoint={"mode": "explicit"})
    said = [
        {"role": "developer", "content": "Be brief."},
        user([marked, image(detail="high"), image("https://a.example/b.png"), file()]),
        {"role": "assistant", "content": None, "refusal": "No."},
        user(),
        asked(call("call_1"), content="Let me see."),
        result("call_1", [text("Here."), image()]),
    ]
    found = items(*said)
    assert found[0] == {"type": "message", "role": "developer", "content": "Be brief."}
    data = f"data:image/png;base64,{PNG}"
    assert found[1]["content"] == [
        {"type": "input_text", "text": "Long.", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "detail": "high", "image_url": data},
        {"type": "input_image", "detail": "auto", "image_url": "https://a.example/b.png"},
        {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"},
    ]
    assert found[2] == {"type": "message", "role": "assistant", "content": "No."}
    assert [each["type"] for each in found[4:]] == ["message", "function_call", "function_call_output"]
    assert found[-1]["output"][1] == {"type": "input_image", "detail": "auto", "image_url": data}
    assert built(OPENAI, THINKER, tools=TOOLS, messages=said).dropped == []


@pytest.mark.parametrize(
    "content", [[audio()], [{"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA=="}}]]
)
def test_content_without_a_place_is_refused(content: list[dict[str, Any]]) -> None:
    """Before any money is spent; the error names part and model."""
    with pytest.raises(BadRequest, match=THINKER) as caught:
        built(OPENAI, THINKER, tools=TOOLS, messages=[user(content)])
    assert (caught.value.code, str(caught.value.param).startswith("messages.0.content.0")) == (
        "unsupported_content",
        True,
    )


def test_custom_tools_and_long_ids_of_other_vendors_go_back() -> None:
    """A call and its result keep the same id, of at most 64 characters."""
    long = "call_" + "x" * 80
    custom = {"id": "c1", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}
    found = items(user(), asked(custom, call(long)), result("c1", "1"), result(long))
    assert found[1] == {"type": "custom_tool_call", "call_id": "c1", "name": "sql", "input": "SELECT 1"}
    assert found[3] == {"type": "custom_tool_call_output", "call_id": "c1", "output": "1"}
    assert found[2]["call_id"] == found[4]["call_id"]
    assert len(found[2]["call_id"]) <= 64


# --- reasoning --------------------------------------------------------------------------------------------------------


def remembering(asked_for: ChatRequest, state: dict[str, Any], model: str = THINKER) -> ChatRequest:
    return replace(asked_for, kept={name: KeptReasoning("openai", model, each) for name, each in state.items()})


@pytest.mark.parametrize(
    "order",
    [
        ["reasoning", "function_call", "function_call"],
        ["reasoning", "message", "function_call"],
        ["message", "reasoning", "function_call"],
        ["reasoning", "function_call", "reasoning", "function_call"],
        ["reasoning", "message", "reasoning", "function_call"],
    ],
)
def test_reasoning_goes_back_where_it_was(order: list[str]) -> None:
    """Kept for a client that drops it, or sent back by one that does not: the same items in the same order."""
    output: list[dict[str, Any]] = [
        {
            "reasoning": {
                **THOUGHT,
                "id": f"rs_{place}",
                "summary": [{"type": "summary_text", "text": f"why {place}"}],
            },
            "message": {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hm."}]},
            "function_call": {"type": "function_call", "call_id": f"c{place}", "name": "weather", "arguments": "{}"},
        }[kind]
        for place, kind in enumerate(order)
    ]
    message = parsed(whole_answer(*output))["choices"][0]["message"]
    results = [result(each["id"]) for each in message["tool_calls"]]
    plain = {"role": "assistant", "content": message["content"], "tool_calls": message["tool_calls"]}
    dropped = request(messages=[user(), plain, *results], tools=TOOLS)
    kept = remembering(dropped, OPENAI.reasoning_state(message))
    echoed = request(messages=[user(), message, *results], tools=TOOLS)
    for each in (kept, echoed):
        found = json.loads(OPENAI.build_request(each, THINKER).http.body)["input"]
        assert [item["type"] for item in found[1 : 1 + len(order)]] == order
        thoughts = [item for item in found if item["type"] == "reasoning"]
        assert thoughts == [item for item in output if item["type"] == "reasoning"]
    elsewhere = json.loads(OPENAI.build_request(kept, "gpt-6-luna").http.body)["input"]
    assert "reasoning" not in [item["type"] for item in elsewhere]


@pytest.mark.parametrize(
    "details",
    [
        "text",
        [None, {"format": "anthropic-claude-v1", "id": "a", "index": 0, "data": "x"}],
        [{"format": "openai-responses-v1", "id": 5, "index": 0, "data": "x"}],
        [{"format": "openai-responses-v1", "id": "a", "index": "0", "data": "x"}],
        [{"format": "openai-responses-v1", "id": "a", "index": 0, "summary": "told, and nothing sealed"}],
    ],
)
def test_details_of_others_are_left_out(details: Any) -> None:
    """Nobody's own words are lost: they are echoes of an answer."""
    message = asked(call("c"), reasoning_details=details)
    assert [item["type"] for item in items(user(), message, result("c"))][1:] == [
        "function_call",
        "function_call_output",
    ]


def test_a_longer_conversation_only_adds_bytes_at_the_end() -> None:
    """So the vendor's cache of prompts hits, turn after turn; the same bytes for the same request."""
    state = OPENAI.reasoning_state(parsed(whole_answer(THOUGHT, {**_called("c0")}))["choices"][0]["message"])
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, user()]
    before = b""
    for turn in range(8):
        asked_for = remembering(request(messages=messages, tools=TOOLS, reasoning_effort="high"), state)
        now = OPENAI.build_request(asked_for, THINKER).http.body
        assert now.startswith(before)
        assert now == OPENAI.build_request(asked_for, THINKER).http.body
        before = now.removesuffix(b"]}")
        messages += [asked(call(f"c{turn}")), result(f"c{turn}")]
    assert before.count(b'"sealed"') == 1


# --- answers ----------------------------------------------------------------------------------------------------------


def _called(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{name}",
        "call_id": name,
        "name": "weather",
        "arguments": "{}",
        **fields,
    }


def _summary(said: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": said}


def _message(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": said, **fields}]}


@pytest.mark.parametrize(
    ("output", "fields", "finish"),
    [
        ([_message("hi")], {}, "stop"),
        ([_called("a")], {}, "tool_calls"),
        ([_message("hi")], {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ([], {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ([_called("a")], {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ([], {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
    ],
)
def test_the_end_of_an_answer_has_one_of_openais_words(
    output: list[dict[str, Any]], fields: dict[str, Any], finish: str
) -> None:
    """Whole, and as the last event of a stream that said nothing before: the same answer."""
    answer = whole_answer(*output, **fields)
    assert parsed(answer)["choices"][0]["finish_reason"] == finish
    last = f"response.{answer['status']}"
    assert folded(OPENAI, [event({"type": last, "response": answer}, last)]) == parsed(answer)


def test_usage_says_what_was_cached_and_what_was_thought() -> None:
    """Parts of the whole; searches are counted beside the tokens, and the tier is the one that served."""
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "output_tokens": 30,
        "output_tokens_details": {"reasoning_tokens": 20},
        "total_tokens": 130,
    }
    search = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"type": "search", "query": "q"}}
    opened = {**search, "action": {"type": "open_page", "url": "https://a.example"}}
    answer = parsed(whole_answer(search, opened, _message("hi"), usage=usage, service_tier="flex"))
    billed = answer["usage"].billed
    assert (billed.input, billed.cache_read, billed.cache_write) == (30, 60, 10)
    assert (billed.output, billed.reasoning, billed.searches) == (30, 20, 1)
    assert answer["usage"].shown["prompt_tokens"] == 100
    assert answer["usage"].shown["completion_tokens_details"] == {"reasoning_tokens": 20}
    assert (answer["service_tier"], answer["created"]) == ("flex", 1)
    counted = whole_answer(search, usage=usage, tool_usage={"web_search": {"num_requests": 3}})
    assert parsed(counted)["usage"].billed.searches == 3


def test_messages_and_summaries_are_told_apart() -> None:
    """A word before the answer, and two steps of reasoning; positions of sources count in the whole text."""
    steps = [_summary("one"), _summary("two")]
    cited = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    output = [{**THOUGHT, "summary": steps}, _message("Wait."), _message("Hi.", annotations=[cited])]
    message = parsed(whole_answer(*output))["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("one\n\ntwo", "Wait.\n\nHi.")
    assert message["annotations"][0]["url_citation"]["start_index"] == len("Wait.\n\n")
    pieces: list[tuple[str, dict[str, Any]]] = [
        ("reasoning_summary_text.delta", {"output_index": 0, "summary_index": 0, "delta": "one"}),
        ("reasoning_summary_text.delta", {"output_index": 0, "summary_index": 1, "delta": "two"}),
        ("output_text.delta", {"output_index": 1, "delta": "Wait."}),
        ("output_text.delta", {"output_index": 2, "delta": "Hi."}),
        ("completed", {"response": whole_answer(*output)}),
    ]
    told = [event({"type": f"response.{kind}", **fields}, f"response.{kind}") for kind, fields in pieces]
    assert folded(OPENAI, told) == parsed(whole_answer(*output))


def test_a_call_is_put_together_however_its_events_are_numbered() -> None:
    """Some servers give an item another id in each event, leave out its beginning, or repeat nothing at the end."""
    full = _called("c", arguments='{"city":"Rome"}')
    begun: dict[str, Any] = {
        "type": "response.output_item.added",
        "output_index": 1,
        "item": {**full, "id": "a", "arguments": ""},
    }
    pieces: list[dict[str, Any]] = [
        {"type": "response.function_call_arguments.delta", "output_index": 1, "item_id": f"id{place}", "delta": piece}
        for place, piece in enumerate(['{"city"', ':"Ro'])
    ]
    done: dict[str, Any] = {"type": "response.output_item.done", "output_index": 1, "item": {**full, "id": "z"}}
    expected = parsed(whole_answer(full))["choices"]
    for said in ([begun, *pieces, done], [begun, *pieces], [done], [*pieces, done], []):
        last: dict[str, Any] = {"type": "response.completed", "response": whole_answer(full)}
        assert folded(OPENAI, [event(each, each["type"]) for each in [*said, last]])["choices"] == expected
    empty: dict[str, Any] = {"type": "response.completed", "response": whole_answer()}
    assert folded(OPENAI, [event(each, each["type"]) for each in [begun, *pieces, done, empty]])["choices"] == expected


def test_probabilities_come_in_the_chat_apis_shape() -> None:
    """Streams leave out the bytes, which whole answers have."""
    top = [{"token": "é", "logprob": -0.1}]
    token = {"token": "é", "logprob": -0.1, "top_logprobs": top}
    told = {**token, "bytes": [195, 169], "top_logprobs": [{**top[0], "bytes": [195, 169]}]}
    answer = whole_answer(_message("é", logprobs=[told]))
    assert parsed(answer)["choices"][0]["logprobs"] == {"content": [told]}
    delta: dict[str, Any] = {"type": "response.output_text.delta", "output_index": 0, "delta": "é", "logprobs": [token]}
    last: dict[str, Any] = {"type": "response.completed", "response": answer}
    assert folded(OPENAI, [event(each, each["type"]) for each in (delta, last)]) == parsed(answer)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "server_error", "message": "Sorry."}, (502, "upstream_error", True)),
        ({"code": "rate_limit_exceeded", "message": "Slow."}, (429, "rate_limit_exceeded", True)),
        ({"code": "invalid_prompt", "message": "No."}, (400, "invalid_prompt", False)),
        ({"code": "image_parse_error", "message": "No picture."}, (400, "image_parse_error", False)),
        ({"code": "insufficient_quota", "message": "Empty."}, (429, "insufficient_quota", False)),
        (None, (502, "upstream_error", True)),
    ],
)
def test_an_answer_that_failed_is_an_error_with_its_meaning(error: Any, expected: tuple[int, str, bool]) -> None:
    """In a whole 200, in the last event, and as an event of its own."""
    failed = whole_answer(status="failed", error=error)
    said: list[dict[str, Any]] = [{"type": "response.failed", "response": failed}]
    said += (
        [{"type": "error", "sequence_number": 1, "param": None, **error}, {"type": "error", "error": error}]
        if error
        else []
    )
    for each in said:
        with pytest.raises(UpstreamError) as caught:
            folded(OPENAI, [event(each, each["type"])])
        assert (caught.value.status, caught.value.code, caught.value.retryable) == expected
    with pytest.raises(UpstreamError) as caught:
        parsed(failed)
    assert (caught.value.status, caught.value.code, caught.value.retryable) == expected


@pytest.mark.parametrize(
    ("status", "param", "said"),
    [
        (400, "reasoning_effort", "Function tools are not supported here. Use /v1/responses, or set it to 'none'."),
        (400, "reasoning_effort", "To use function tools, use /v1/responses or set reasoning_effort to 'none'."),
        (404, "model", "This model is only supported in v1/responses and not in v1/chat/completions."),
    ],
)
def test_a_refusal_that_a_key_helps_against_names_it(status: int, param: str, said: str) -> None:
    """From a server in front of OpenAI, in each of its wordings; OpenAI's own address needs none."""
    refusal = answered(status, {"error": {"message": said, "type": "invalid_request_error", "param": param}})
    assert OPENAI.parse_error(refusal).message == said
    elsewhere = OpenAI(base_url="https://gateway.example/v1").parse_error(refusal)
    assert (elsewhere.status, elsewhere.param) == (status, param)
    assert elsewhere.message.endswith("set `api: by_model` in routing_rules.yaml.")


def test_a_recorded_failure_keeps_its_meaning() -> None:
    """An empty account, after the stream began."""
    events = [event(each, each["type"]) for each in load("responses/failed.failure.json")["failed"]]
    with pytest.raises(UpstreamError) as caught:
        folded(OPENAI, events)
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (429, "insufficient_quota", False)


@pytest.mark.parametrize("status", ["in_progress", "queued", "cancelled", None, {}])
def test_an_answer_that_is_not_finished_is_an_error(status: Any) -> None:
    """Never an empty answer."""
    with pytest.raises(UpstreamError):
        parsed(whole_answer(status=status))
    with pytest.raises(UpstreamTruncated):
        folded(OPENAI, [event({"type": "response.output_text.delta", "delta": "hi"}, "response.output_text.delta")])


def test_a_custom_call_is_the_same_whole_and_streamed() -> None:
    """As recorded."""
    told = [event(each, each["type"]) for each in load("responses/custom.events.json")["events"]]
    assert folded(OPENAI, told)["choices"] == parsed(load("responses/custom.json.json")["json"])["choices"]
