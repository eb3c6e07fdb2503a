"""`/v1/responses`, reading: every item and field becomes its part of a chat, or a 400 names it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.providers import PROVIDERS
from proxy.providers.base.building import build
from proxy.schema.errors import BadRequest, ProxyError
from proxy.server.formats.responses import RESPONSES, state
from proxy.server.formats.responses.request import ResponsesRequest
from tests.slowness import usual_s

OURS = f"msg_{'0123456789abcdef0123456789'}_0"
PNG = "data:image/png;base64,iVBORw0KGgo="
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "3"}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}


def body(input: Any = "hi", **fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": input, **fields}).encode()


def read(input: Any = "hi", **fields: Any) -> ResponsesRequest:
    return RESPONSES.decode(body(input, **fields))


def lost(request: ResponsesRequest) -> list[str]:
    return list(request.native.lost) if request.native is not None else []


def dialect(request: ResponsesRequest) -> str | None:
    return request.native.dialect if request.native is not None else None


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    return list(read(list(items), **fields).fields["messages"])


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def called(**more: Any) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **more}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([user("hi")], [user("hi")]),
        ([{"type": "message", **user("hi")}], [user("hi")]),
        ([user([{"type": "input_text", "text": "hi"}])], [user("hi")]),
        ([{"role": "developer", "content": "d"}, user("u")], [{"role": "developer", "content": "d"}, user("u")]),
        (
            [user([{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG, "detail": "low"}])],
            [user([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}])],
        ),
        (
            [user([{"type": "input_image", "file_id": "f1"}])],
            [user([{"type": "image_url", "image_url": {"file_id": "f1"}}])],
        ),
        (
            [user([{"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}])],
            [user([{"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}}])],
        ),
        (
            [user([{"type": "input_file", "file_url": "https://a.example/b.pdf"}])],
            [user([{"type": "file", "file": {"file_data": "https://a.example/b.pdf"}}])],
        ),
        ([user([{"type": "input_file", "file_id": "f1"}])], [user([{"type": "file", "file": {"file_id": "f1"}}])]),
        (
            [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}, user("u")],
            [{"role": "assistant", "content": "yes"}, user("u")],
        ),
        (
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, user("u")],
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, user("u")],
        ),
        ([user("u"), CALL, OUTPUT], [user("u"), called(), {"role": "tool", "tool_call_id": "c1", "content": "3"}]),
        (
            [user("u"), {"role": "assistant", "content": "so"}, CALL, OUTPUT],
            [user("u"), called(content="so"), {"role": "tool", "tool_call_id": "c1", "content": "3"}],
        ),
        (
            [CALL, {**OUTPUT, "output": [{"type": "input_image", "image_url": PNG}]}],
            [
                called(),
                {"role": "tool", "tool_call_id": "c1", "content": [{"type": "image_url", "image_url": {"url": PNG}}]},
            ],
        ),
        (  # some clients write thoughts as texts
            [{"role": "assistant", "content": "a"}, CALL, {"role": "assistant", "content": "b"}, OUTPUT],
            [called(content="a\n\nb"), {"role": "tool", "tool_call_id": "c1", "content": "3"}],
        ),
        (
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
        ),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}, user("u")], [user("u")]),
        (
            [{"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}, CALL, OUTPUT],
            [called(reasoning_content="hm"), {"role": "tool", "tool_call_id": "c1", "content": "3"}],
        ),
        ([user("u"), {"type": "web_search_call", "id": "ws_1", "status": "completed"}], [user("u")]),
    ],
)
def test_items_become_messages(items: list[Any], expected: list[dict[str, Any]]) -> None:
    """With `type` or without, in parts or as a text; what one answer said and called is one message."""
    assert messages(*items) == expected


def test_reasoning_goes_back_where_it_was() -> None:
    """Ours is unpacked into the message and its calls; OpenAI's own keeps its id and its place among the items."""
    signed = state.packed({"thinking_blocks": [{"type": "thinking"}]}, {"c1": {"google": {"thought_signature": "s"}}})
    item: dict[str, Any] = {"type": "reasoning", "id": "r", "summary": []}
    ours, theirs = {**item, "encrypted_content": signed}, {**item, "encrypted_content": "gA"}
    for items in ([ours, CALL], [CALL, ours]):  # before or after what followed from it
        message = messages(*items, OUTPUT)[0]
        assert message["thinking_blocks"] == [{"type": "thinking"}]
        assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "s"}}
    assert messages(theirs, {"role": "assistant", "content": "x"}, {**theirs, "id": "r2"}, CALL, OUTPUT)[0][
        "reasoning_details"
    ] == [
        {"type": "reasoning.encrypted", "data": "gA", "id": "r", "format": "openai-responses-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "gA", "id": "r2", "format": "openai-responses-v1", "index": 2},
    ]
    assert dialect(read([theirs, CALL, OUTPUT])) == "openai-responses"
    assert dialect(read([ours, CALL, OUTPUT])) == ""  # OpenAI could not read it


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"instructions": None, "tools": [], "include": None, "metadata": None, "store": False, "user": None}, {}),
        ({"reasoning": {}, "text": {}, "include": [], "truncation": "disabled", "previous_response_id": None}, {}),
        ({"max_output_tokens": 50, "temperature": 0.1}, {"max_completion_tokens": 50, "temperature": 0.1}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"verbosity": "low"}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "object"}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}},
                }
            },
        ),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"parallel_tool_calls": True}, {}),  # without tools it means nothing, and servers refuse it
        ({"prompt_cache_key": "k", "service_tier": "flex"}, {"prompt_cache_key": "k", "service_tier": "flex"}),
        (
            {"tools": [{"type": "web_search", "search_context_size": "low"}]},
            {"web_search_options": {"search_context_size": "low"}},
        ),
        ({"top_k": 5}, {"top_k": 5}),  # left to the provider
    ],
)
def test_fields_get_the_names_of_chats(given: dict[str, Any], fields: dict[str, Any]) -> None:
    """Nulls and empty values of SDKs say nothing."""
    read_fields = read(**given).fields
    assert read_fields == {"model": "m", "messages": [user("hi")], **fields}
    assert lost(read(**given)) == []


@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({"store": True}, ["store"]),
        (
            {"include": ["reasoning.encrypted_content", "web_search_call.action.sources"]},
            ["include.web_search_call.action.sources"],
        ),
        ({"truncation": "auto", "client_metadata": {"a": "b"}}, ["client_metadata", "truncation"]),
        (
            {"tools": [TOOL, {"type": "web_search"}, {"type": "image_generation"}]},
            ["tools.web_search", "tools.image_generation"],
        ),
        ({"reasoning": {"context": "all"}}, ["reasoning.context"]),
    ],
)
def test_what_chats_do_not_have_is_reported(given: dict[str, Any], left_out: list[str]) -> None:
    """A coding agent offers hosted tools beside its own, whatever the model: its turn goes on without them."""
    assert lost(read(**given)) == left_out


def test_tools_are_functions() -> None:
    """Flat, nested, grouped or of free text; each call finds its way back."""
    tools = [
        TOOL,
        {"type": "function", "function": {"name": "g"}},
        {"type": "namespace", "name": "n", "description": "d", "tools": [TOOL]},
        {"type": "custom", "name": "c", "description": "d", "format": {"type": "text"}},
    ]
    request = read(tools=tools, tool_choice={"type": "function", "name": "f"})
    names = [tool["function"]["name"] for tool in request.fields["tools"]]
    assert names == ["f", "g", "n__f", "c"]
    assert [request.names[name].namespace for name in names] == [None, None, "n", None]
    assert [request.names[name].is_custom for name in names] == [False, False, False, True]
    assert request.fields["tools"][0]["function"] == {"name": "f", "parameters": {"type": "object"}, "strict": False}
    assert request.fields["tools"][3]["function"]["parameters"]["required"] == ["input"]
    assert request.fields["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    history = [
        {**CALL, "namespace": "n"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "c", "input": 'x "y"'},
        OUTPUT,
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
    ]
    first, *outputs = messages(*history, tools=tools)
    assert [call["function"] for call in first["tool_calls"]] == [
        {"name": "n__f", "arguments": '{"a": 1}'},
        {"name": "c", "arguments": '{"input":"x \\"y\\""}'},
    ]
    assert [each["tool_call_id"] for each in outputs] == ["c1", "c2"]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}
    assert read(tools=tools, tool_choice=allowed).fields["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]},
    }


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools.0.type"),
        ({"tools": [TOOL, {"type": "mcp"}], "tool_choice": {"type": "mcp"}}, "tools.1.type"),
        ({"tools": [{"type": "web_search", "external_web_access": False}]}, "tools.0.type"),
        ({"input": [user("u"), {"type": "compaction", "encrypted_content": "x"}]}, "input.1.type"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [user("u"), {"type": "item_reference", "id": "msg_1"}]}, "input.1.id"),
        ({"input": [{"id": "fc_1"}, OUTPUT]}, "input.0.id"),  # the call may be in the item
    ],
)
def test_what_only_openai_can_do_is_left_to_openai(given: dict[str, Any], where: str) -> None:
    """Without it the request would make no sense. Others refuse it by name."""
    request = RESPONSES.decode(json.dumps({"model": "m", "input": "hi", **given}).encode())
    assert request.native is not None
    assert list(request.native.only_here) == [where]


def test_references_to_our_items_become_the_items() -> None:
    """They name the answer that they were in. One that is missing, whole or in part, is refused by name."""
    call = {**CALL, "id": OURS.replace("msg", "fc")}
    items = [user("u"), {"id": OURS}, {"type": "item_reference", "id": call["id"]}, OUTPUT]
    request = read(items, store=True)
    (answer,) = request.references
    said = {"id": OURS, "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Höm"}]}
    resolved = request.resolved({answer: json.dumps([said, call]).encode()})
    assert resolved.native is not None
    assert json.loads(resolved.native.body) == json.loads(body([user("u"), said, call, OUTPUT], store=True))
    assert resolved.fields["messages"] == messages(user("u"), said, call, OUTPUT)
    for kept, param in (({}, "input.1.id"), ({answer: json.dumps([said]).encode()}, "input.2.id")):
        with pytest.raises(BadRequest, match=r"no item .* is stored here.*`store: false`") as caught:
            request.resolved(kept)
        assert caught.value.param == param
    with pytest.raises(BadRequest, match="no call before it"):
        read([{"id": OURS}, OUTPUT]).resolved({answer: json.dumps([said]).encode()})


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"input": ""}, "input", "got nothing"),
        ({"input": []}, "input", "got nothing"),
        ({"input": None}, "input", "Expected `str | array`"),
        ({"input": 5}, "input", "Expected `str | array`"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input", "at least one message"),
        ({"input": ["hi"]}, "input.0", "an object"),
        ({"input": [{}]}, "input.0.type", "unknown type of item"),
        ({"input": [{"type": 5}]}, "input.0.type", "unknown type of item"),
        ({"input": [{"type": ["message"]}]}, "input.0.type", "unknown type of item"),
        ({"input": [user("u"), {"type": "item_reference"}]}, "input.1.id", "expected a text"),
        ({"input": [user("u"), {"id": ""}]}, "input.1.id", "expected a text"),
        ({"input": [user("u"), *[{"type": "item_reference", "id": OURS}] * 2]}, "input.2.id", "twice"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role", "expected one of"),
        ({"input": [{"role": ["user"], "content": "x"}]}, "input.0.role", "expected one of"),
        ({"input": [{"role": "user"}]}, "input.0.content", "a text or a list"),
        ({"input": [user({"type": "input_text"})]}, "input.0.content", "a text or a list"),
        ({"input": [user(["x"])]}, "input.0.content.0.type", "unknown type of content part"),
        ({"input": [user("u"), user([{"type": "input_video"}])]}, "input.1.content.0.type", "'input_video'"),
        ({"input": [user([{"type": ["input_text"]}])]}, "input.0.content.0.type", "unknown type"),
        ({"input": [user([{"type": "input_text", "text": 5}])]}, "input.0.content.0.text", "expected a text"),
        ({"input": [user([{"type": "input_image"}])]}, "input.0.content.0.image_url", "a link or a data URL"),
        ({"input": [user([{"type": "input_file"}])]}, "input.0.content.0.file_data", "file_url"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": ""}]}, "input.0.call_id", "expected a text"),
        ({"input": [{**CALL, "arguments": {}}]}, "input.0.arguments", "expected a text"),
        ({"input": [{**CALL, "namespace": 5}]}, "input.0.namespace", "expected a text"),
        ({"input": [OUTPUT]}, "input.0.call_id", "no call before it"),
        ({"input": [CALL, {**OUTPUT, "output": None}]}, "input.1.output", "a text or a list"),
        ({"input": [CALL, {**OUTPUT, "output": [{"type": "x"}]}]}, "input.1.output.0.type", "unknown type"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input.0.summary", "expected a list"),
        ({"input": [{"type": "reasoning", "encrypted_content": 5}]}, "input.0.encrypted_content", "expected a text"),
        ({"input": [{"type": "reasoning", "encrypted_content": "mmp1.e30x"}]}, "input.0.encrypted_content", "damaged"),
        ({"input": [{"type": "reasoning", "encrypted_content": "mmp1.é"}]}, "input.0.encrypted_content", "damaged"),
        (
            {"input": [{"type": "reasoning", "encrypted_content": "mmp1.eyJ4IjoxfQ=="}]},
            "input.0.encrypted_content",
            "damaged",
        ),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "send the whole conversation"),
        ({"conversation": "conv_1"}, "conversation", "send the whole conversation"),
        ({"background": True}, "background", "Leave it out"),
        ({"max_output_tokens": 0}, "max_output_tokens", "at least 1"),
        ({"messages": []}, "messages", "/v1/chat/completions"),
        ({"response_format": {}}, "response_format", "/v1/chat/completions"),
        ({"instructions": [user("u")]}, "instructions", "Expected `str | null`"),
        ({"text": {"format": "json"}}, "text.format", "an object"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "json_schema"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "a JSON schema"),
        ({"tools": ["x"]}, "tools.0", "an object"),
        ({"tools": [{"type": 5}]}, "tools.0.type", "expected a text"),
        ({"tools": [{"type": "function"}]}, "tools.0.name", "needs a name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools.0.parameters", "JSON schema"),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools.0.name", "needs a name"),
        ({"tools": [{"type": "namespace", "name": "n"}]}, "tools.0.tools", "list of tools"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [5]}]}, "tools.0.tools.0.type", "holds tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice", "not among the tools"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "expected one of"),
        ({"tools": [TOOL], "tool_choice": {"type": ["function"]}}, "tool_choice", "not among the tools"),
        ({"include": "all"}, "include", "Expected `array | null`"),
        ({"Input": "hi"}, "Input", "Did you mean 'input'"),
    ],
)
def test_a_bad_body_is_a_400_that_names_the_field(fields: dict[str, Any], param: str, words: str) -> None:
    """In the words of this API, and quickly."""
    with pytest.raises(BadRequest) as caught:
        RESPONSES.decode(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    assert (caught.value.status, caught.value.param) == (400, param)
    assert words in caught.value.message


def test_large_and_deep_bodies_take_their_time_and_no_more() -> None:
    """As many items as a body may have are read in linear time; what is nested too deeply is no JSON."""
    many = [user("u"), CALL, OUTPUT] * 10_000
    assert usual_s(lambda: messages(*many), 1) < 5
    assert len(messages(*many)) == 30_000
    with pytest.raises(ProxyError) as refused:
        read([user("u")] * 100_000)
    assert refused.value.status == 413
    with pytest.raises(BadRequest) as caught:
        RESPONSES.decode(b'{"model":"m","input":' + b"[" * 100_000)
    assert caught.value.code == "invalid_json"
    with pytest.raises(BadRequest):
        RESPONSES.decode(b'{"model":"m","input":"\\ud800"}')


_words = st.sampled_from(
    [
        *(
            "message",
            "reasoning",
            "function_call",
            "function_call_output",
            "custom_tool_call",
            "item_reference",
            "user",
        ),
        *("assistant", "developer", "input_text", "output_text", "input_image", "input_file", "refusal", "function"),
        *("custom", "namespace", "web_search", "allowed_tools", "auto", "json_schema", "c1", "f", "mmp1.e30=", PNG),
    ]
)
_names = st.sampled_from(
    [
        *("type", "role", "content", "text", "call_id", "name", "arguments", "output", "summary", "encrypted_content"),
        *("id", "input", "namespace", "tools", "format", "schema", "effort", "image_url", "file_data", "parameters"),
    ]
)
_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=5),
    max_leaves=10,
)
_items = st.lists(
    st.fixed_dictionaries({"type": _words}, optional=dict.fromkeys(("role", "content", "call_id", "name"), _values))
    | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": _values})
    | st.sampled_from([CALL, OUTPUT, user("hi")])
    | _values,
    max_size=5,
)
_fields = st.dictionaries(
    st.sampled_from(["tools", "tool_choice", "text", "reasoning", "include", "metadata", "instructions", "store"]),
    _values | st.lists(st.sampled_from([TOOL, {"type": "web_search"}, {"type": "custom", "name": "f"}])),
    max_size=3,
)
_VENDORS = [PROVIDERS[name]() for name in ("openai", "anthropic", "google", "groq", "mistral", "cohere")]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(_items, _fields)
def test_whatever_comes_is_read_and_translated_or_refused_by_name(items: Any, fields: dict[str, Any]) -> None:
    """Nothing in a body is a fault of ours, at any vendor."""
    try:
        request = RESPONSES.decode(json.dumps({"model": "m", "input": items, **fields}).encode())
    except ProxyError as error:
        assert error.status in (400, 413) and (error.param or error.code == "invalid_json")
        return
    for vendor in _VENDORS:
        try:
            build(vendor, request, "gpt-5.5-pro")
        except BadRequest as error:
            assert error.message


def test_deferred_tools_are_shown_from_the_start() -> None:
    """No other vendor searches, so nothing else would make them callable. That is reported."""
    later = {**TOOL, "name": "later", "defer_loading": True}
    request = read("hi", tools=[TOOL, later, {"type": "tool_search"}])
    assert [each["function"]["name"] for each in request.fields["tools"]] == ["f", "later"]
    assert all("defer_loading" not in each["function"] for each in request.fields["tools"])
    assert lost(request) == ["tools.defer_loading", "tools.tool_search"]


@pytest.mark.parametrize("kind", ["tool_search_output", "additional_tools"])
def test_tools_that_a_search_has_found_can_be_called(kind: str) -> None:
    """Once each, in their groups; the history may call them."""
    group = {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find", "defer_loading": True}]}
    search = {"type": "tool_search_call", "call_id": "s1", "arguments": {}, "execution": "client"}
    found = {"type": kind, "call_id": "s1", "execution": "client", "tools": [TOOL, group, {"type": "web_search"}]}
    call = {**CALL, "name": "find", "namespace": "crm"}
    request = read([user("hi"), search, found, call, OUTPUT, found], tools=[TOOL])
    assert [each["function"]["name"] for each in request.fields["tools"]] == ["f", "crm__find"]
    assert request.fields["messages"][1]["tool_calls"][0]["function"]["name"] == "crm__find"
    assert lost(request) == ["input.tool_search_call"]
    assert request.own_path("tools.1.function.parameters") == "input.2.tools.1.tools.0"
