"""What becomes of a `/v1/messages` body: the request in OpenAI's words, and what is said about a wrong one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.building import build
from proxy.providers.base.native import changed_body
from proxy.providers.openai import OpenAI
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest, ProxyError
from proxy.server.formats.messages.conversation import MARK
from proxy.server.formats.messages.errors import error_body, shown
from proxy.server.formats.messages.request import decode_messages

USER = {"role": "user", "content": "hi"}
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"x": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "18 C"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}


def decoded(messages: Any = (USER,), **fields: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 9, "messages": messages, **fields}
    return decode_messages(json.dumps(body).encode(), {}, "/messages").request


def said(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The messages in OpenAI's form."""
    found: list[dict[str, Any]] = decoded(messages, **fields).fields["messages"]
    return found


def fields_of(**fields: Any) -> dict[str, Any]:
    """The other fields in OpenAI's form."""
    request = decoded(**fields)
    return {name: value for name, value in request.fields.items() if name not in ("model", "messages", "max_tokens")}


def lost(**fields: Any) -> list[str]:
    native = decoded(**fields).native
    assert native is not None
    return list(native.lost)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_texts_are_texts():
    """One block is a plain text; the system prompt is the first message."""
    assert said(USER, system="Be brief.") == [{"role": "system", "content": "Be brief."}, USER]
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]
    assert said({"role": "user", "content": blocks}, system=blocks[:1]) == [
        {"role": "system", "content": "a"},
        {"role": "user", "content": blocks},
    ]


def test_a_block_that_is_no_instruction_does_not_reach_other_vendors():
    """Claude Code's billing header, which is reported."""
    system = [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2;"}, {"type": "text", "text": "Hi."}]
    assert said(USER, system=system)[0] == {"role": "system", "content": "Hi."}
    assert lost(system=system) == ["system.billing_header"]


def test_a_turn_of_results_becomes_messages_of_tools():
    """Results first, then what the user says; errors and pictures among them."""
    turn = [
        {"type": "text", "text": "So?"},
        {**RESULT, "content": [{"type": "text", "text": "seen"}, {"type": "image", "source": PNG}]},
        {**RESULT, "tool_use_id": "t2", "content": None, "is_error": True},
    ]
    calls = [{"type": "text", "text": "Let me look."}, USE, {**USE, "id": "t2", "input": {}}]
    found = said(USER, {"role": "assistant", "content": calls}, {"role": "user", "content": turn})
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    assert found[1]["content"] == "Let me look."
    assert [call["function"] for call in found[1]["tool_calls"]] == [
        {"name": "look", "arguments": '{"x":1}'},
        {"name": "look", "arguments": "{}"},
    ]
    assert found[2:] == [
        {"role": "tool", "tool_call_id": "t1", "content": [{"type": "text", "text": "seen"}, picture]},
        {"role": "tool", "tool_call_id": "t2", "content": "", "is_error": True},
        {"role": "user", "content": "So?"},
    ]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}},
            {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}},
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
            {
                "type": "file",
                "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
            },
        ),
        (
            {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
            {"type": "text", "text": "T\nx"},
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
            {"type": "text", "text": "x"},
        ),
        (
            {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "x"}]},
            {"type": "text", "text": "T\nS\nx"},
        ),
    ],
)
def test_media_and_documents_have_a_form_of_openais(block: dict[str, Any], part: dict[str, Any]):
    """At the place where they stand, in the order of the blocks."""
    assert said({"role": "user", "content": [{"type": "text", "text": "see"}, block]})[0]["content"][1:] == [part]


def test_thoughts_go_on_with_their_signatures():
    """Anthropic's as blocks that it can read, and every thought as a text for models that read texts."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    redacted = {"type": "redacted_thinking", "data": "xyz"}
    foreign = {"type": "thinking", "thinking": "so", "signature": MARK + "1"}
    (_, turn) = said(USER, {"role": "assistant", "content": [thinking, redacted, foreign, USE, thinking]})
    assert turn["thinking_blocks"] == [thinking, redacted, {**thinking, "after_calls": 1}]
    assert turn["reasoning_content"] == "hm\n\nso\n\nhm"


def test_instructions_before_the_first_answer_are_the_system_prompt():
    """Claude Code sends some behind the first turn, which many templates refuse; later ones keep their place."""
    later = {"role": "system", "content": [{"type": "text", "text": "x"}]}
    parts = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "x"}]
    assert said(USER, later) == [{"role": "system", "content": "x"}, USER]
    assert said(USER, later, system="Be brief.") == [{"role": "system", "content": parts}, USER]
    answer = {"role": "assistant", "content": "ok"}
    plain = {"role": "system", "content": "x"}
    assert said(USER, answer, USER, plain) == [USER, answer, USER, plain]


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"stop_sequences": ["END"]}, {"stop": ["END"]}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 4}, {"temperature": 0.5, "top_p": 0.9, "top_k": 4}),
        ({"stream": True}, {"stream": True}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"metadata": {"user_id": "u1"}}, {"user": "u1"}),
        ({"metadata": {"user_id": "u" * 200}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, {"reasoning_effort": "max"}),
        ({"thinking": {"type": "adaptive"}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"context_management": {"edits": []}, "x_new": 1}, {}),
        ({"system": None, "tools": None, "metadata": None}, {}),
    ],
)
def test_options_have_openais_names(given: dict[str, Any], found: dict[str, Any]):
    """Nulls are not set, and what has no name is reported."""
    assert fields_of(**given) == found


def test_what_no_other_vendor_has_is_reported():
    """By its path."""
    tool = {**TOOL, "defer_loading": True, "eager_input_streaming": True, "input_examples": [{}]}
    found = lost(
        context_management={"edits": []},
        cache_control={"type": "ephemeral"},
        tools=[tool],
        metadata={"user_id": "u" * 99},
        service_tier="fast",
    )
    assert sorted(found) == [
        "cache_control",
        "context_management",
        "metadata.user_id",
        "service_tier",
        "tools.defer_loading",
        "tools.input_examples",
    ]


def test_a_deferred_tool_is_offered_once_it_was_looked_up():
    """Or called, or forced. Before that models do not see it at Anthropic either."""
    search, later = {**TOOL, "name": "search"}, {**TOOL, "name": "later", "defer_loading": True}
    found = [{"type": "tool_reference", "tool_name": "later"}]
    looked_up = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "search", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": found}]},
    ]
    called = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "later", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "ok"}]},
    ]
    for offered, given in (
        (["search"], {}),
        (["search", "later"], {"messages": looked_up}),
        (["search", "later"], {"messages": called}),
        (["search", "later"], {"tool_choice": {"type": "tool", "name": "later"}}),
    ):
        said = fields_of(tools=[search, later], **given)
        assert [tool["function"]["name"] for tool in said["tools"]] == offered
    assert decoded(tools=[search, later], messages=looked_up).fields["messages"][-1]["content"] == (
        "The tool later can be called now."
    )


def test_a_format_of_the_answer_is_a_schema():
    """In the older place of the beta too."""
    form = {"type": "json_schema", "schema": {"type": "object"}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}}
    assert fields_of(output_config={"format": form})["response_format"] == wanted
    assert fields_of(output_format=form)["response_format"] == wanted


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}, "parallel_tool_calls": False},
        ),
    ],
)
def test_tools_are_functions(choice: dict[str, Any], found: dict[str, Any]):
    """With their cache marks, and each choice of Anthropic's."""
    made = fields_of(tools=[{**TOOL, "cache_control": {"type": "ephemeral"}}], tool_choice=choice)
    (tool,) = made.pop("tools")
    function = {"name": "look", "description": "Looks.", "parameters": TOOL["input_schema"]}
    assert tool == {"type": "function", "function": function, "cache_control": {"type": "ephemeral"}}
    assert made == found


def test_web_search_is_the_vendors_own_where_it_has_one():
    """Elsewhere the request is refused by the name of the tool."""
    place = {"type": "approximate", "city": "Paris"}
    request = decoded(tools=[TOOL, {"type": "web_search_20250305", "name": "web_search", "user_location": place}])
    options = {"user_location": {"type": "approximate", "approximate": {"city": "Paris"}}}
    assert request.fields["web_search_options"] == options
    assert len(request.fields["tools"]) == 1


def test_a_search_that_is_forced_is_a_search():
    """Claude Code asks so for what it looks up."""
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    choice = {"type": "tool", "name": "web_search"}
    assert fields_of(tools=[tool], tool_choice=choice) == {"web_search_options": {"max_uses": 8}}
    assert lost(tools=[tool], tool_choice=choice) == ["tool_choice"]


def test_what_the_vendor_bills_is_known_and_sent_nowhere_else():
    """`speed` has a price of its own."""
    request = decoded(speed="fast")
    assert request.fields["speed"] == "fast"
    built = build(OpenAI(base_url="http://localhost:1/v1"), request, "m")
    assert "speed" not in json.loads(built.http.body)
    assert built.dropped == ["speed"]


@pytest.mark.parametrize("vendor", ["cohere", "together", "mistral"])
def test_a_search_that_a_vendor_lacks_is_refused(vendor: str):
    """By the place of the tool, instead of an answer that searched nothing."""
    request = decoded(tools=[TOOL, {"type": "web_search_20250305", "name": "web_search"}])
    with pytest.raises(BadRequest) as caught:
        build(PROVIDERS[vendor](), request, "m")
    assert caught.value.param == "tools.1"
    assert "web search" in caught.value.message


@pytest.mark.parametrize(
    ("where", "fields"),
    [
        ("tools.0", {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}),
        ("thread", {"thread": {"type": "create"}}),
        ("mcp_servers", {"mcp_servers": [{"type": "url", "url": "https://a.b", "name": "n"}]}),
        (
            "messages.0.content.0.source",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
        ),
        ("messages.0.content.0", {"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "bash"}}),
    ],
)
def test_what_only_anthropic_has_is_refused_by_name_elsewhere(where: str, fields: dict[str, Any]):
    """It decides what the answer is, so it is not left out. Anthropic itself gets it."""
    request = decoded(**fields)
    with pytest.raises(BadRequest) as caught:
        build(OpenAI(), request, "gpt-6")
    assert caught.value.param == where
    assert caught.value.code == "unsupported_parameter"


def test_refused_threads_tell_the_sdk_to_send_the_whole_conversation():
    """It looks for this code, and would otherwise give up."""
    with pytest.raises(BadRequest) as caught:
        build(OpenAI(), decoded(thread={"type": "create"}), "gpt-6")
    error = shown(caught.value, "req_1")["error"]
    assert isinstance(error, dict)
    assert error["details"]["error_code"] == "thread_unsupported_request"


def test_old_answers_of_anthropics_own_tools_are_left_out_and_reported():
    """What they found stands in the text behind them."""
    blocks = [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        {"type": "text", "text": "Found."},
    ]
    assert said(USER, {"role": "assistant", "content": blocks})[1] == {"role": "assistant", "content": "Found."}


# --- Anthropic's own body ---------------------------------------------------------------------------------------------


def own(body: bytes, headers: dict[str, str] | None = None) -> bytes:
    native = decode_messages(body, headers or {}, "/messages").request.native
    assert native is not None
    return changed_body(native, native.changes)


def test_anthropic_gets_the_same_bytes():
    """Whatever they hold: unknown fields and blocks, spaces, escapes."""
    body = b'{ "model":"m","max_tokens":9, "x_new": 1.50, "messages":[{"role":"user","content":[{"type":"new"}]}] }'
    assert own(body) is body


def test_our_own_fields_are_taken_out():
    """The others keep their bytes."""
    body = b'{"model":"m","max_tokens":9,"routing":{"task":"code"},"messages":[{ "role":"user","content":"\\u0068i"}],'
    body += b'"metadata":{"user_id":"u","routing.trace":"true"}}'
    assert own(body) == (
        b'{"model":"m","max_tokens":9,"messages":[{ "role":"user","content":"\\u0068i"}],"metadata":{"user_id":"u"}}'
    )


def test_thoughts_and_ids_of_other_vendors_are_taken_out():
    """Anthropic would refuse the conversation."""
    call = {"type": "tool_use", "id": "functions.look:0", "name": "look", "input": {}}
    thought = {"type": "thinking", "thinking": "so", "signature": MARK + "1"}
    turns = [
        USER,
        {"role": "assistant", "content": [thought, call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "functions.look:0"}]},
        {"role": "assistant", "content": [thought]},
        USER,
    ]
    native = decoded(turns).native
    assert native is not None
    assert native.adapted == ("messages",)
    assert json.loads(changed_body(native, native.changes))["messages"] == [
        USER,
        {"role": "assistant", "content": [{**call, "id": "functions_look_0"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "functions_look_0"}]},
        USER,
    ]


def test_headers_that_belong_to_the_body_go_with_it():
    """And no others."""
    headers = {"anthropic-version": "v", "anthropic-beta": "a,b", "anthropic-workspace-id": "w", "x-api-key": "k"}
    body = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
    native = decode_messages(body, headers, "/messages").request.native
    assert native is not None
    assert native.headers == {"anthropic-version": "v", "anthropic-beta": "a,b", "anthropic-workspace-id": "w"}


# --- wrong requests ---------------------------------------------------------------------------------------------------

BLOCKS = "messages.0.content.0"


def user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": list(blocks)}]}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("max_tokens", {"max_tokens": "9"}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 10**12}),
    ("max_tokens", {"max_tokens": None}),
    ("model", {"model": 5}),
    ("model", {"model": ""}),
    ("messages", {"messages": []}),
    ("messages", {"messages": "hi"}),
    ("messages.0", {"messages": ["hi"]}),
    ("messages.0.role", {"messages": [{"role": "tool", "content": "x"}]}),
    ("messages.0.role", {"messages": [{"content": "x"}]}),
    ("messages.0.role", {"messages": [{"role": ["user"], "content": "x"}]}),
    ("messages.0.content", {"messages": [{"role": "user"}]}),
    ("messages.0.content", {"messages": [{"role": "user", "content": 5}]}),
    ("messages.0.content", {"messages": [{"role": "user", "content": {"type": "text"}}]}),
    (BLOCKS, user("hi")),
    (BLOCKS, user(None)),
    (f"{BLOCKS}.type", user({})),
    (f"{BLOCKS}.type", user({"type": 5})),
    (f"{BLOCKS}.type", user({"type": ["text"]})),
    (f"{BLOCKS}.text", user({"type": "text"})),
    (f"{BLOCKS}.text", user({"type": "text", "text": ["x"]})),
    (f"{BLOCKS}.source", user({"type": "image"})),
    (f"{BLOCKS}.source", user({"type": "image", "source": {"type": {}}})),
    (f"{BLOCKS}.source.data", user({"type": "image", "source": {"type": "base64", "media_type": "image/png"}})),
    (f"{BLOCKS}.source.media_type", user({"type": "document", "source": {"type": "base64", "data": "x"}})),
    (f"{BLOCKS}.source.content", user({"type": "document", "source": {"type": "content", "content": 5}})),
    (f"{BLOCKS}.source.content.0.type", user({"type": "document", "source": {"type": "content", "content": [{}]}})),
    (f"{BLOCKS}.tool_use_id", user(RESULT)),
    (f"{BLOCKS}.tool_use_id", user({"type": "tool_result"})),
    (f"{BLOCKS}.content", user({"type": "search_result", "content": "x"})),
    ("messages.1.content.0.id", assistant({**USE, "id": ""})),
    ("messages.1.content.0.id", assistant({**USE, "id": 5})),
    ("messages.1.content.0.name", assistant({**USE, "name": None})),
    ("messages.1.content.0.input", assistant({**USE, "input": "{}"})),
    ("messages.1.content.0.thinking", assistant({"type": "thinking", "signature": "x"})),
    ("messages.1.content.0.signature", assistant({"type": "thinking", "thinking": "x", "signature": 5})),
    ("messages.1.content.0.data", assistant({"type": "redacted_thinking"})),
    ("messages.1.content.0.type", assistant({"text": "x"})),
    (
        "messages.2.content.0.content",
        {"messages": [*assistant(USE)["messages"], {"role": "user", "content": [{**RESULT, "content": 5}]}]},
    ),
    (
        "messages.2.content.0.content.0",
        {"messages": [*assistant(USE)["messages"], {"role": "user", "content": [{**RESULT, "content": ["x"]}]}]},
    ),
    ("messages.0.content.0.type", {"messages": [{"role": "system", "content": [{"type": "image"}]}]}),
    ("system", {"system": 5}),
    ("system.0", {"system": ["x"]}),
    ("system.0.type", {"system": [{"type": "image"}]}),
    ("system.0.text", {"system": [{"type": "text", "text": 5}]}),
    ("tools", {"tools": {}}),
    ("tools.0", {"tools": ["x"]}),
    ("tools.0.name", {"tools": [{}]}),
    ("tools.0.name", {"tools": [{**TOOL, "name": "a b"}]}),
    ("tools.0.input_schema", {"tools": [{"name": "a"}]}),
    ("tools.0.input_schema", {"tools": [{"name": "a", "input_schema": []}]}),
    ("tools.0.description", {"tools": [{**TOOL, "description": 5}]}),
    ("tools.0.type", {"tools": [{**TOOL, "type": 5}]}),
    ("tools.0.user_location", {"tools": [{"type": "web_search_20250305", "user_location": "x"}]}),
    ("tool_choice", {"tool_choice": "auto"}),
    ("tool_choice.type", {"tool_choice": {}}),
    ("tool_choice.type", {"tool_choice": {"type": ["auto"]}}),
    ("tool_choice.name", {"tool_choice": {"type": "tool"}}),
    ("thinking", {"thinking": True}),
    ("thinking.type", {"thinking": {}}),
    ("thinking.type", {"thinking": {"type": {}}}),
    ("thinking.budget_tokens", {"thinking": {"type": "enabled"}}),
    ("thinking.budget_tokens", {"thinking": {"type": "enabled", "budget_tokens": True}}),
    ("output_config", {"output_config": []}),
    ("output_config.effort", {"output_config": {"effort": "huge"}}),
    ("output_config.effort", {"output_config": {"effort": []}}),
    ("output_config.format", {"output_config": {"format": {"type": "text"}}}),
    ("output_format", {"output_format": 5}),
    ("metadata", {"metadata": []}),
    ("stop_sequences", {"stop_sequences": "END"}),
    ("stop_sequences.0", {"stop_sequences": [5]}),
    ("temperature", {"temperature": "hot"}),
    ("top_k", {"top_k": 1.5}),
    ("stream", {"stream": "yes"}),
    ("service_tier", {"service_tier": 5}),
    ("Stream", {"Stream": True}),
]


@pytest.mark.parametrize(("where", "fields"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_request_is_refused_by_the_name_of_the_field(where: str, fields: dict[str, Any]):
    """In Anthropic's shape, whose message begins with the path."""
    with pytest.raises(BadRequest) as caught:
        decoded(**fields)
    assert caught.value.param == where
    body = json.loads(error_body(caught.value, "id"))
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", "invalid_request_error", "id")
    assert where in body["error"]["message"]


def test_huge_and_deep_bodies_are_read_or_refused():
    """Many blocks are no error; nesting beyond the limit and half a surrogate pair are."""
    many = [{"type": "text", "text": "x"}] * 40_000
    assert len(said({"role": "user", "content": many})[0]["content"]) == 40_000
    with pytest.raises(ProxyError) as too_many:
        said({"role": "user", "content": many * 3})
    assert too_many.value.status == 413
    half = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"\\ud83d"}]}'
    text = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":%s}]}'
    for body in (half, text % (b"[" * 5000 + b"]" * 5000), b"[]", b"", b"{"):
        with pytest.raises(BadRequest) as caught:
            decode_messages(body, {}, "/messages")
        assert caught.value.code == "invalid_json"


def test_sources_of_other_vendors_are_taken_out():
    """Anthropic has no key to them; its own stay."""
    own = {"type": "web_search_result_location", "url": "u", "title": "t", "cited_text": "x", "encrypted_index": "e"}
    text = {"type": "text", "text": "It is.", "citations": [own, {**own, "encrypted_index": MARK + "1"}]}
    alone = {"type": "text", "text": "So.", "citations": [{**own, "encrypted_index": MARK + "1"}]}
    native = decoded([USER, {"role": "assistant", "content": [text, alone]}, USER]).native
    assert native is not None and native.adapted == ("messages",)
    (_, answer, _) = json.loads(changed_body(native, native.changes))["messages"]
    assert [block["citations"] for block in answer["content"]] == [[own], None]
    same = decoded([USER, {"role": "assistant", "content": [{**text, "citations": [own]}]}, USER]).native
    assert same is not None and (same.adapted, same.changes) == ((), {})
