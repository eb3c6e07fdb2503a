"""Rules of Perplexity's Agent API: every row of its fact page (November 2026)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.providers.perplexity import Perplexity
from proxy.schema.chat import ChatResponse, KeptReasoning
from proxy.schema.errors import BadRequest, UpstreamError, UpstreamTruncated
from tests.providers.asking import USER, answered, built, event, folded, request, sent
from tests.providers.corpus import PDF, PNG, audio, file, image, text, tool
from tests.providers.recordings import answer, events, load

PPLX = Perplexity()
OTHER = "google/gemini-3.8-flash"  # of the models that do not search unasked
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
SIGNED = {"google": {"thought_signature": "sig"}}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("sonar", {"model": "perplexity/sonar"}),
        ("sonar-pro", {"model": "perplexity/sonar", "effort": "fast"}),
        ("sonar-reasoning-pro", {"model": "perplexity/sonar", "effort": "low"}),
        ("sonar-deep-research", {"model": "perplexity/sonar", "effort": "high"}),
        ("perplexity/sonar", {"model": "perplexity/sonar"}),
        (OTHER, {"model": OTHER}),
    ],
)
def test_models_of_the_older_api_become_the_one_that_replaced_them(model: str, expected: dict[str, str]) -> None:
    """With the effort that stands for each."""
    body = sent(PPLX, model)
    assert {name: body[name] for name in ("model", "effort") if name in body} == expected
    assert sent(PPLX, "sonar-pro", effort="xhigh")["effort"] == "xhigh"


def test_the_path_follows_the_base_url() -> None:
    """Its own address has no /v1, the one that OpenAI's SDKs are given has."""
    assert built(PPLX).http.path == "/v1/responses"
    assert built(Perplexity(base_url="https://api.perplexity.ai/v1")).http.path == "/responses"
    assert PPLX.key_variables == ("PERPLEXITY_API_KEY", "PPLX_API_KEY")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5, "top_p": 0.5}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"prompt_cache_key": "k", "store": False}, {"prompt_cache_key": "k", "store": False}),
        ({"language_preference": "fr", "max_steps": 3}, {"language_preference": "fr", "max_steps": 3}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"n": 1, "presence_penalty": 0, "logprobs": False, "parallel_tool_calls": True}, {}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        ),
    ],
)
def test_names_that_mean_the_same_are_no_loss(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Nothing to report."""
    body = sent(PPLX, OTHER, **fields)
    assert {name: body[name] for name in body if name not in ("model", "input")} == expected
    result = built(PPLX, OTHER, **fields)
    assert (result.dropped, result.adapted) == ([], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"presence_penalty": 0.5},
        {"logprobs": True},
        {"logit_bias": {"1": 1}},
        {"user": "ada"},
        {"metadata": {"a": "b"}},
        {"parallel_tool_calls": False},
        {"top_k": 3},
        {"service_tier": "scale"},
        {"background": True},
        {"return_images": True},
        {"search_mode": "academic"},
    ],
)
def test_fields_that_are_a_400_there_are_dropped_and_told(fields: dict[str, Any]) -> None:
    """`background` would answer before there is an answer."""
    assert set(sent(PPLX, OTHER, **fields)) == {"model", "input"}
    assert built(PPLX, OTHER, **fields).dropped == list(fields)


def test_stops_are_left_to_us() -> None:
    """There is no such parameter; the answer is cut on our side."""
    assert "stop" not in sent(PPLX, stop=["a", "b"])
    assert built(PPLX, stop=["a", "b"]).stops == ["a", "b"]


def test_the_highest_effort_is_the_vendors_highest() -> None:
    """`max` is a level of OpenAI's; told."""
    assert sent(PPLX, reasoning_effort="max")["reasoning"] == {"effort": "xhigh"}
    assert built(PPLX, reasoning_effort="max").adapted == ["reasoning_effort"]


def test_json_of_any_shape_is_asked_for_in_words() -> None:
    """There are schemas only, so the answer is checked; told."""
    result = built(PPLX, response_format={"type": "json_object"}, messages=[{"role": "system", "content": "S"}, USER])
    assert "JSON object" in json.loads(result.http.body)["instructions"]
    assert (result.unchecked_json, result.adapted) == (True, ["response_format"])


def test_messages_become_instructions_and_items() -> None:
    """System messages at the start are instructions, later ones items; calls and results are items of their own."""
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [text("Be"), text("kind.")]},
        {**USER, "name": "ada"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL], "annotations": []},
        {"role": "tool", "tool_call_id": "call_1", "content": [text("sunny")]},
        {"role": "system", "content": "Now be long."},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": [text("?", cache_control={}), image(detail="low"), file()]},
    ]
    body = sent(PPLX, OTHER, messages=said)
    assert body["instructions"] == "Be brief.\n\nBe\nkind."
    assert body["input"] == [
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "message", "role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {"type": "message", "role": "system", "content": "Now be long."},
        {"type": "message", "role": "assistant", "content": "No."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "?"},
                {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"},
            ],
        },
    ]
    assert built(PPLX, OTHER, messages=said).dropped == ["messages.name", "messages.content.cache_control"]


def test_parts_of_other_apis_are_read_or_told() -> None:
    """Files as its older API had them, thoughts as Cohere and Mistral have them."""
    linked = {"type": "file_url", "file_url": {"url": "https://example.com/a.pdf"}}
    spoke = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Well."}, text("So.")]}
    made = built(PPLX, OTHER, messages=[{"role": "user", "content": [linked]}, spoke, USER])
    items = json.loads(made.http.body)["input"]
    assert items[0]["content"] == [{"type": "input_file", "file_url": "https://example.com/a.pdf"}]
    assert items[1]["content"] == "So."
    assert made.dropped == ["messages.content.thinking"]


def test_a_conversation_of_instructions_alone_is_still_one() -> None:
    """The vendor wants an input."""
    body = sent(PPLX, messages=[{"role": "system", "content": "Say hi."}])
    assert body["input"] == [{"type": "message", "role": "system", "content": "Say hi."}]
    assert "instructions" not in body


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("user", audio()),
        ("assistant", image()),
        ("user", {"type": "file", "file": {"file_id": "f"}}),
        ("system", image()),
    ],
)
def test_content_it_cannot_carry_is_refused(role: str, part: dict[str, Any]) -> None:
    """With its place and the model."""
    with pytest.raises(BadRequest, match="gemini") as caught:
        built(PPLX, OTHER, messages=[{"role": role, "tool_call_id": "c", "content": [part]}])
    assert (caught.value.code, caught.value.param) == ("unsupported_content", f"messages.0.content.0.{part['type']}")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "messages.0.tool_calls.0"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.0"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
    ],
)
def test_what_has_no_form_there_is_refused(fields: dict[str, Any], param: str) -> None:
    """400, never a crash."""
    with pytest.raises(BadRequest) as caught:
        built(PPLX, **fields)
    assert caught.value.param == param


def test_tools_are_flat() -> None:
    """A function's fields beside its type; the vendor's own tools as they are."""
    strict = {"type": "function", "cache_control": {}, "function": {"name": "f", "parameters": {}, "strict": True}}
    body = sent(PPLX, OTHER, tools=[strict, {"type": "fetch_url", "max_urls": 3}], tool_choice="required")
    assert body["tools"] == [
        {"type": "function", "name": "f", "parameters": {}, "strict": True},
        {"type": "fetch_url", "max_urls": 3},
    ]
    assert body["tool_choice"] == "required"
    assert built(PPLX, OTHER, tools=[strict]).dropped == ["tools.cache_control"]


def test_a_named_tool_and_allowed_tools() -> None:
    """The name is flat too; of the allowed ones only those are sent."""
    named = {"type": "function", "function": {"name": "a"}}
    assert sent(PPLX, OTHER, tools=[tool("a")], tool_choice=named)["tool_choice"] == {"type": "function", "name": "a"}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    body = sent(PPLX, OTHER, tools=[tool("a"), tool("b")], tool_choice=allowed)
    assert ([each["name"] for each in body["tools"]], body["tool_choice"]) == (["a"], "required")


@pytest.mark.parametrize(
    ("model", "fields", "search"),
    [
        ("sonar", {}, {}),
        ("perplexity/sonar", {}, {}),
        ("sonar", {"disable_search": True}, None),
        ("sonar", {"tools": [tool()], "tool_choice": "required"}, None),
        (OTHER, {}, None),
        (OTHER, {"web_search_options": {}}, {"search_context_size": "medium"}),
        (
            OTHER,
            {
                "web_search_options": {
                    "search_context_size": "low",
                    "search_type": "pro",
                    "user_location": {"type": "approximate", "approximate": {"city": "Paris", "country": "FR"}},
                },
                "search_recency_filter": "week",
                "search_domain_filter": ["a.example"],
            },
            {
                "filters": {"search_domain_filter": ["a.example"], "search_recency_filter": "week"},
                "search_context_size": "low",
                "search_type": "web",
                "user_location": {"city": "Paris", "country": "FR"},
            },
        ),
    ],
)
def test_one_web_search_stands_for_all_its_options(
    model: str, fields: dict[str, Any], search: dict[str, Any] | None
) -> None:
    """Where the older API searched unasked, and where OpenAI's or its own options ask for it."""
    tools = [each for each in sent(PPLX, model, **fields).get("tools", []) if each["type"] == "web_search"]
    assert tools == ([] if search is None else [{"type": "web_search", **search}])
    assert built(PPLX, model, **fields).dropped == []


def test_a_signature_goes_back_with_its_call() -> None:
    """From the client's history, or from what was kept of it; to the model that signed, and to no other."""
    signed = {**CALL, "extra_content": SIGNED}
    body = sent(PPLX, OTHER, messages=[USER, {"role": "assistant", "tool_calls": [signed]}])
    assert body["input"][1]["thought_signature"] == "sig"
    said: Any = {"role": "assistant", "tool_calls": [signed]}
    state = PPLX.reasoning_state(said)
    assert state == {"call_1": {"extra_content": SIGNED}}
    plain = request(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}])
    asked = replace(plain, kept={"call_1": KeptReasoning("perplexity", OTHER, state["call_1"])})
    assert b"sig" in PPLX.build_request(asked, OTHER).http.body
    assert b"sig" not in PPLX.build_request(asked, "openai/gpt-6-sol").http.body


def test_the_same_request_gives_the_same_bytes() -> None:
    """Prompt caches hit on equal prefixes."""
    assert len({built(PPLX, tools=[tool()], temperature=0.5, user="x").http.body for _ in range(3)}) == 1


# --- answers ----------------------------------------------------------------------------------------------------------

RESULTS = [
    {"id": 1, "title": "One", "url": "https://a.example/1", "snippet": "s"},
    {"id": 2, "title": "Two", "url": "https://a.example/2", "snippet": "s"},
    {"id": 3, "title": "Two again", "url": "https://a.example/2", "snippet": "s"},
]
USAGE = {
    "input_tokens": 100,
    "output_tokens": 20,
    "total_tokens": 120,
    "input_tokens_details": {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 10},
    "output_tokens_details": {"reasoning_tokens": 5},
    "tool_calls_details": {"web_search": {"invocation": 2, "cost_usd": 0.005}},
    "cost": {"currency": "USD", "input_cost": 0.001, "output_cost": 0.002, "total_cost": 0.008},
}


def whole(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1770000000,
        "model": "perplexity/sonar",
        "status": "completed",
        "output": list(output),
        "usage": USAGE,
        **more,
    }


def saying(words: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "output_text", "text": words, "annotations": list(annotations)}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


CALLING = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'}
SEARCHED = {"type": "search_results", "queries": ["q"], "results": RESULTS}
ANSWERS = {
    "text": whole(saying("Hello.")),
    "searched": whole(SEARCHED, saying("About 1[1] and 2[3], not [9].")),
    "annotated": whole(
        SEARCHED,
        saying("First. ", {"type": "url_citation", "url": "https://a.example/1", "start_index": 0, "end_index": 5}),
        saying("Second.", {"url": "https://a.example/2", "title": "Two", "start_index": 0, "end_index": 6}),
    ),
    "called": whole(CALLING, {**CALLING, "call_id": "call_2", "thought_signature": "sig"}, status="requires_action"),
    "called beside text": whole(saying("Let me see."), CALLING),
    "thought": whole({"type": "reasoning", "summary": [{"text": "Hm. "}, {"text": "Yes."}]}, saying("Yes.")),
    "refused": whole({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}),
    "cut": whole(saying("Hel"), max_output_tokens=20),
    "incomplete": whole(saying("Hel"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    "filtered": whole(saying("Hel"), status="incomplete", incomplete_details={"reason": "content_filter"}),
    "unknown items": whole({"type": "sandbox_results"}, saying("Hello."), {"type": "new_one"}),
    "nothing": whole(),
}


def streamed_events(body: dict[str, Any], split: int = 3) -> list[Any]:
    """The answer as the vendor streams it."""
    head = {**body, "status": "in_progress", "output": []}
    said: list[dict[str, Any]] = [{"type": "response.created", "response": head}]
    for place, item in enumerate(body["output"]):
        said.append({"type": "response.output_item.added", "item": item, "output_index": place})
        if item["type"] == "reasoning":
            thought = "".join(part["text"] for part in item["summary"])
            said.append({"type": "response.reasoning.started", "thought": None})
            said.append({"type": "response.reasoning.stopped", "thought": thought})
        if item["type"] == "search_results":
            said.append({"type": "response.reasoning.search_results", "results": item["results"], "usage": None})
        for part in item.get("content", []):
            kind, words = part["type"], part.get("text") or part.get("refusal")
            for at in range(0, len(words), split):
                said.append({"type": f"response.{kind}.delta", "delta": words[at : at + split], "item_id": None})
            said.append({"type": f"response.{kind}.done", "text": words})
        said.append({"type": "response.output_item.done", "item": item, "output_index": place})
    said.append({"type": "response.completed", "response": body})
    return [event({**each, "sequence_number": place}, each["type"]) for place, each in enumerate(said)]


def parsed(body: dict[str, Any]) -> ChatResponse:
    return PPLX.parse_response(answered(200, body))


@pytest.mark.parametrize("name", ANSWERS)
def test_the_fold_law_holds(name: str) -> None:
    """Streamed in pieces, an answer folds to the same whole one; also when only its last event says anything."""
    expected = parsed(ANSWERS[name])
    assert folded(PPLX, streamed_events(ANSWERS[name])) == expected
    last = event({"type": "response.completed", "response": ANSWERS[name]})
    assert folded(PPLX, [last]) == expected


def test_an_answer_has_openais_shape() -> None:
    """Text, finish, id and model."""
    found: Any = parsed(ANSWERS["text"])
    assert found["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello.", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert (found["id"], found["created"], found["model"]) == ("resp_1", 1770000000, "perplexity/sonar")


def test_usage_has_openais_names() -> None:
    """Prompt tokens include cached ones; the vendor's own cost stays."""
    usage: Any = parsed(ANSWERS["text"])["usage"]
    assert usage.shown == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 5},
        "provider_cost": 0.008,
    }
    tokens = usage.billed
    assert (tokens.input, tokens.cache_read, tokens.cache_write) == (60, 30, 10)
    assert (tokens.output, tokens.reasoning, tokens.searches, tokens.total) == (20, 5, 2, 120)


def test_searches_are_counted_where_usage_does_not() -> None:
    """By the results in the answer."""
    body = whole(SEARCHED, SEARCHED, saying("a"), usage={"input_tokens": 1, "output_tokens": 1})
    assert parsed(body)["usage"].billed.searches == 2
    assert "usage" not in parsed(whole(saying("a"), usage=None))


def test_markers_in_the_text_become_citations() -> None:
    """`[1]` is the number of a search result; one that has none stays a text."""
    found: Any = parsed(ANSWERS["searched"])
    content = found["choices"][0]["message"]["content"]
    noted = [each["url_citation"] for each in found["choices"][0]["message"]["annotations"]]
    assert [(content[each["start_index"] : each["end_index"]], each["url"]) for each in noted] == [
        ("[1]", "https://a.example/1"),
        ("[3]", "https://a.example/2"),
    ]
    assert found["citations"] == ["https://a.example/1", "https://a.example/2"]
    assert found["search_results"] == RESULTS


def test_markers_of_the_web_count_over_all_searches() -> None:
    """`[web:2]` is the second result of all, though each search numbers its own."""
    searches = [
        {"type": "search_results", "results": [{"id": 1, "url": f"https://{name}.example"}]} for name in ("a", "b")
    ]
    said = {"type": "message", "content": [{"type": "output_text", "text": "So[web:2], no[web:9]."}]}
    found: Any = parsed({**ANSWERS["searched"], "output": [*searches, said]})
    [noted] = found["choices"][0]["message"]["annotations"]
    assert noted["url_citation"]["url"] == "https://b.example"
    assert (noted["url_citation"]["start_index"], noted["url_citation"]["end_index"]) == (2, 9)


@pytest.mark.parametrize("name", ["search_web", "web_search"])
def test_searches_that_are_billed_are_counted_under_either_name(name: str) -> None:
    """The vendor asks for `web_search` in requests and bills `search_web`; one item may hold several searches."""
    usage = {"input_tokens": 5, "output_tokens": 2, "tool_calls_details": {name: {"cost_usd": 0.005, "invocation": 2}}}
    found: Any = parsed({**ANSWERS["searched"], "usage": usage})["usage"]
    assert found.billed.searches == 2


def test_a_search_in_a_stream_is_neither_a_call_nor_a_thought() -> None:
    """The vendor announces its own search as a call of `search_web`, and says how it goes where thoughts stand."""
    body: Any = ANSWERS["searched"]
    searching = {"type": "function_call", "call_id": "c", "name": "search_web", "arguments": "{}"}
    said: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**body, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "item": searching},
        {"type": "response.reasoning.search_queries", "queries": ["q"], "thought": "Searching the web..."},
        {"type": "response.reasoning.search_results", "results": RESULTS, "thought": "Found 2 results"},
        {"type": "response.output_item.done", "item": body["output"][0]},
        {"type": "response.output_item.added", "item": {"type": "message", "content": None}},
        {"type": "response.completed", "response": body},
    ]
    assert folded(PPLX, [event(each, each["type"]) for each in said])["choices"] == parsed(body)["choices"]


def test_places_of_annotations_are_those_of_the_whole_text() -> None:
    """Each message counts from its own start."""
    found: Any = parsed(ANSWERS["annotated"])
    message = found["choices"][0]["message"]
    places = [
        (each["url_citation"]["start_index"], each["url_citation"]["end_index"]) for each in message["annotations"]
    ]
    assert [message["content"][start:end] for start, end in places] == ["First", "Second"]


@pytest.mark.parametrize(
    ("name", "finish"),
    [
        ("called", "tool_calls"),
        ("called beside text", "tool_calls"),
        ("cut", "length"),
        ("incomplete", "length"),
        ("filtered", "content_filter"),
        ("refused", "stop"),
    ],
)
def test_the_finish_is_one_of_openais_words(name: str, finish: str) -> None:
    """Read from what there is: items, status, numbers."""
    assert parsed(ANSWERS[name])["choices"][0]["finish_reason"] == finish


def test_calls_carry_id_arguments_and_signature() -> None:
    """And can be sent back as they are."""
    message: Any = parsed(ANSWERS["called"])["choices"][0]["message"]
    first, second = message["tool_calls"]
    assert first == {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    assert second["extra_content"] == SIGNED
    body = sent(PPLX, OTHER, messages=[USER, message])
    assert [item.get("thought_signature") for item in body["input"][1:]] == [None, "sig"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>401 Authorization Required</html>",
        b"[]",
        {},
        whole(saying("a"), status="in_progress"),
        whole(saying("a"), status="queued"),
        whole(status=None),
        whole(status="completed", output=None),
        whole({"type": "function_call", "call_id": "c"}),
        {"status": "failed", "error": {"message": "no", "code": "internal"}},
    ],
)
def test_a_200_that_is_no_answer_is_an_upstream_error(body: Any) -> None:
    """Half an answer is none."""
    with pytest.raises(UpstreamError) as caught:
        PPLX.parse_response(answered(200, body))
    assert caught.value.status in (502, 503)


@pytest.mark.parametrize(
    "body", [{}, whole(status=None), whole(status="bored"), whole(status="completed", output=None)]
)
def test_a_200_without_an_answer_is_not_bought_again(body: Any) -> None:
    """The vendor named no failure: it may have billed the request."""
    with pytest.raises(UpstreamError) as caught:
        PPLX.parse_response(answered(200, body))
    caught.value.upstream_status = caught.value.upstream_status or 200  # as the exchange notes it
    assert not caught.value.resendable


@pytest.mark.parametrize(
    "output", [[1, None, "x"], [{"type": "message", "content": 3}], [{"type": "message", "content": [1]}]]
)
def test_items_that_are_none_are_left_out(output: Any) -> None:
    """Never a crash."""
    assert parsed(whole(output=output))["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (
            {"type": "response.failed", "error": {"message": "no", "code": "rate_limit_exceeded"}},
            429,
            "rate_limit_exceeded",
        ),
        (
            {"type": "response.failed", "response": {"error": {"message": "no", "type": "invalid_request"}}},
            400,
            "invalid_value",
        ),
        ({"type": "response.failed", "error": {"message": "no", "code": 503}}, 503, "upstream_unavailable"),
        ({"type": "response.failed"}, 502, "upstream_error"),
        ({"type": "error", "message": "no"}, 502, "upstream_error"),
        ({"error": {"message": "no"}}, 502, "upstream_error"),
        ({"type": "response.completed"}, 502, "upstream_error"),
        ({"type": "response.error"}, 502, "upstream_error"),
    ],
)
def test_an_error_in_a_stream_is_one(said: dict[str, Any], status: int, code: str) -> None:
    """With its status where it says one."""
    with pytest.raises(UpstreamError) as caught:
        PPLX.stream_decoder(request(stream=True)).feed(event(said))
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_stream_without_its_last_event_is_truncated() -> None:
    """At every event before it; `[DONE]` ends nothing."""
    seen = streamed_events(ANSWERS["searched"])
    for end in range(len(seen)):
        decoder = PPLX.stream_decoder(request(stream=True))
        for each in seen[:end]:
            decoder.feed(each)
        assert not decoder.finished
        with pytest.raises(UpstreamTruncated):
            decoder.close()


def test_calls_and_text_reach_the_client_as_they_come() -> None:
    """Each event is a chunk at once; what `done` events repeat is not said twice."""
    decoder = PPLX.stream_decoder(request(stream=True))
    chunks = [chunk for each in streamed_events(ANSWERS["called beside text"]) for chunk in decoder.feed(each)]
    deltas: list[Any] = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "Let me see."
    assert [call["index"] for delta in deltas for call in delta.get("tool_calls", [])] == [0]
    assert decoder.done


# --- the older API ----------------------------------------------------------------------------------------------------


def test_recorded_answers_of_the_older_api_are_read() -> None:
    """Gateways still speak it: OpenAI's shape, with citations beside."""
    name = "perplexity/pair_perplexity-citations.json.json"
    found: Any = PPLX.parse_response(answer(name))
    recorded = load(name)["json"]
    assert found["choices"][0]["message"]["content"] == recorded["choices"][0]["message"]["content"]
    assert found["citations"] == recorded["citations"]
    assert found["usage"].shown["total_tokens"] == 261
    seen = events("perplexity/pair_perplexity-citations.events.json")
    stream: Any = folded(PPLX, seen)
    assert stream["choices"][0]["finish_reason"] == "stop"
    assert len(stream["citations"]) == 7
    assert stream["usage"].shown["total_tokens"] == 346
    assert set(stream) == set(found)


def test_searches_and_reasoning_of_the_older_api_are_counted() -> None:
    """Reasoning stands beside the output there, and the vendor's cost is an object."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 22,
        "reasoning_tokens": 7,
        "num_search_queries": 3,
        "cost": {"total_cost": 0.01},
    }
    choice = {"message": {"content": "a"}, "delta": {"content": ""}, "finish_reason": "stop"}
    found: Any = PPLX.parse_response(answered(200, {"choices": [choice], "usage": usage}))
    tokens = found["usage"].billed
    assert (tokens.output, tokens.reasoning, tokens.searches) == (12, 7, 3)
    assert found["usage"].shown["provider_cost"] == 0.01
    assert "delta" not in found["choices"][0]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "x", "type": "invalid_message", "code": 400}}, (400, "invalid_value", False)),
        (
            400,
            {"error": {"message": "too long", "type": "too_many_prompt_tokens"}},
            (400, "context_length_exceeded", False),
        ),
        (401, b"<html>401 Authorization Required</html>", (401, "invalid_api_key", False)),
        (402, {"error": {"message": "no credits"}}, (429, "insufficient_quota", False)),
        (404, {"error": {"message": "no model", "type": "invalid_model"}}, (404, "model_not_found", False)),
        (422, {"detail": [{"loc": ["body", "x"], "msg": "bad"}]}, (400, "invalid_value", False)),
        (429, {"error": {"message": "slow", "code": 429}}, (429, "rate_limit_exceeded", True)),
        (500, {"error": {"message": "oops"}}, (502, "upstream_error", True)),
    ],
)
def test_errors_have_openais_status_and_code(status: int, body: object, expected: tuple[int, str, bool]) -> None:
    """Pages of the edge too."""
    error = PPLX.parse_error(answered(status, body))
    assert (error.status, error.code, error.retryable) == expected
    assert error.upstream_status == status
    assert "<" not in error.message
