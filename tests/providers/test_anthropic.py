"""Rules of requests to Anthropic: the rows of the vendor's translation table, by generation of the model."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.providers.anthropic import Anthropic
from proxy.providers.anthropic.messages import GO_ON, PLACEHOLDER
from proxy.providers.anthropic.request import API_VERSION
from proxy.providers.base.contract import Built
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import (
    CORPUS,
    PDF,
    PNG,
    RICH,
    SCHEMA,
    WAV,
    asked,
    audio,
    call,
    file,
    image,
    result,
    text,
    tool,
    user,
)
from tests.upstream.anthropic_wire import AnthropicWire
from tests.upstream.http1 import Request

ANTHROPIC = Anthropic()
ALWAYS, NEW, LATER, SAMPLED, BUDGET, OLD = (
    *("claude-opus-5-5", "claude-opus-5", "claude-opus-4-8", "claude-opus-4-6"),
    *("claude-haiku-4-5", "claude-sonnet-4-20250514"),
)
MODELS = (
    *(ALWAYS, NEW, LATER, SAMPLED, BUDGET, OLD),
    *("claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-2", "claude-opus-4-7", "claude-sonnet-4-5-20250929"),
    *("claude-opus-4-1", "claude-3-haiku-20240307", "another-model"),
)
HELLO = {"role": "assistant", "content": "Hello."}
SYSTEM = {"role": "system", "content": "Be brief."}
THOUGHT = {"type": "thinking", "thinking": "Ask the tool.", "signature": "c2ln"}
EPHEMERAL = {"type": "ephemeral"}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}


def built(*messages: dict[str, Any], model: str = NEW, provider: Anthropic = ANTHROPIC, **fields: Any) -> Built:
    body = {"model": "x", "messages": list(messages) or [user("Hi.")], **fields}
    return provider.build_request(decode_chat(encode(body)), model)


def sent(*messages: dict[str, Any], model: str = NEW, provider: Anthropic = ANTHROPIC, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(built(*messages, model=model, provider=provider, **fields).http.body)
    return body


def turns(*messages: dict[str, Any], model: str = NEW, **fields: Any) -> list[tuple[str, list[dict[str, Any]]]]:
    found = sent(*messages, model=model, **fields)["messages"]
    return [(message["role"], message["content"]) for message in found]


def said(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def refused(*messages: dict[str, Any], **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        built(*messages, **fields)
    return caught.value


# --- where it goes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        (None, "/v1/messages"),
        ("https://proxy.example.com/anthropic", "/v1/messages"),
        ("https://proxy.example.com/v1/", "/messages"),
    ],
)
def test_the_path_is_that_of_messages_in_version_1(base_url: str | None, path: str):
    """An address that ends with its version keeps it."""
    assert built(provider=Anthropic(base_url=base_url)).http.path == path


def test_headers_say_the_version_and_carry_the_key_by_the_vendors_name():
    """The older version: the newer one refuses sampling on all models."""
    http = built(stream=True).http
    assert http.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "anthropic-version": "2023-06-01",
    }
    assert ANTHROPIC.authorize("k") == {"x-api-key": "k"}
    assert ANTHROPIC.usual_headers == {"anthropic-version": API_VERSION}
    assert ANTHROPIC.key_variables == ("ANTHROPIC_API_KEY",)
    assert Anthropic(base_url="http://localhost:1").keyless
    assert Anthropic(base_url="http://localhost:1", api_key_env="K").key_variables == ("K",)


@pytest.mark.parametrize("model", MODELS)
def test_every_request_is_one_that_the_vendor_takes(model: str):
    """The whole corpus, whatever it holds, at a server with the vendor's checks."""
    taken = 0
    for name, body in CORPUS.items():
        try:
            http = ANTHROPIC.build_request(decode_chat(encode(body)), model).http
        except BadRequest as error:
            assert error.code == "unsupported_content", name
            continue
        AnthropicWire().ask(Request("POST", http.path, {}, http.headers, http.body), 1)
        taken += 1
    assert taken >= len(CORPUS) - 4


# --- messages ---------------------------------------------------------------------------------------------------------


def test_the_leading_instructions_are_the_system():
    """Each in a block of its own."""
    developer = {"role": "developer", "content": [text("In French."), text(" ")]}
    body = sent(SYSTEM, developer, user("Hi."))
    assert body["system"] == [said("Be brief."), said("In French.")]
    assert body["messages"] == [{"role": "user", "content": [said("Hi.")]}]


def test_a_later_instruction_follows_the_users_turn_where_the_model_takes_it():
    """Never before it, and never after an assistant's."""
    later = {"role": "system", "content": "Now rhyme."}
    for messages in ((user("a"), HELLO, later, user("b")), (user("a"), HELLO, user("b"), later)):
        assert [role for role, _ in turns(*messages, model=LATER)] == ["user", "assistant", "user", "system"]
        answer = built(*messages, model=BUDGET)
        body = json.loads(answer.http.body)
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
        assert body["system"] == [said("Now rhyme.")]
        assert answer.adapted == ["messages.role"]
    after_result = (user("a"), asked(call("c")), result("c"), later)
    assert turns(*after_result, model=LATER, tools=[tool()])[-1] == ("system", [said("Now rhyme.")])
    assert sent(*after_result, model="claude-haiku-5-5", tools=[tool()])["system"] == [said("Now rhyme.")]
    assert sent(user("a"), HELLO, later, model=LATER)["system"] == [said("Now rhyme.")]


def test_a_model_is_asked_at_least_something():
    """Only instructions, an assistant first, white space: a turn of the user's that says nothing stands in."""
    dot = ("user", [said(PLACEHOLDER)])
    for messages in ((SYSTEM,), (user(" \n"),)):
        assert turns(*messages) == [dot]
        assert built(*messages).adapted == ["messages"]
    assert turns(HELLO, user("b")) == [dot, ("assistant", [said("Hello.")]), ("user", [said("b")])]


def test_turns_of_one_role_are_one_and_empty_ones_are_none():
    """The vendor refuses a block without words."""
    found = turns(user("a"), user("b"), HELLO, {"role": "assistant", "content": "\n\n"}, HELLO, user("c"))
    assert found == [
        ("user", [said("a"), said("b")]),
        ("assistant", [said("Hello."), said("Hello.")]),
        ("user", [said("c")]),
    ]
    assert turns(user("a"), {"role": "assistant", "content": None}, user("b")) == [("user", [said("a"), said("b")])]


def test_a_refusal_goes_back_as_what_was_said():
    """In its field or in a part."""
    for answer in ({"content": None, "refusal": "No."}, {"content": [{"type": "refusal", "refusal": "No."}]}):
        assert turns(user("a"), {"role": "assistant", **answer}, user("b"))[1] == ("assistant", [said("No.")])


def test_an_assistant_at_the_end_is_gone_on_with_by_models_that_do_so():
    """Without white space at its end. The others are asked to go on."""
    last = {"role": "assistant", "content": "Autumn moon \n"}
    prefilled = built(user("a"), last, model=BUDGET)
    assert json.loads(prefilled.http.body)["messages"][-1] == {"role": "assistant", "content": [said("Autumn moon")]}
    assert prefilled.adapted == ["messages.content"]
    cases: list[tuple[str, Any]] = [(SAMPLED, {}), (NEW, {}), (BUDGET, {"response_format": FORMAT})]
    for model, fields in cases:
        assert turns(user("a"), last, model=model, **fields)[-1] == ("user", [said(GO_ON)])
        assert built(user("a"), last, model=model, **fields).adapted == ["messages"]


def test_names_of_speakers_are_dropped_and_said_so():
    """As is the sound of an earlier answer."""
    assert built({**user("a"), "name": "Ada"}, {**HELLO, "audio": {"id": "x"}}, user("b")).dropped == [
        "messages.name",
        "messages.audio",
    ]


def test_an_unknown_role_is_refused():
    """By its place."""
    assert refused(user("a"), {"role": "critic", "content": "b"}).param == "messages.1.role"


# --- content ----------------------------------------------------------------------------------------------------------


def test_pictures_and_files_are_blocks():
    """As data, as a link, as a file that the vendor has."""
    stored = {"type": "file", "file": {"file_id": "file_1"}}
    linked = {"type": "file", "file": {"file_data": "https://example.com/a.pdf"}}
    words = file("text/markdown", base64.b64encode(b"# Hi").decode(), "a.md")
    [(_, blocks)] = turns(user([image(), image("https://example.com/a.png"), file(), words, linked, stored]))
    assert blocks == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
            "title": "a.pdf",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "# Hi"}, "title": "a.md"},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
    ]
    untyped = file("application/octet-stream", PDF, "a")
    assert turns(user([untyped]))[0][1][0]["source"]["media_type"] == "application/pdf"
    assert turns(user([file("image/png", PNG)]))[0][1][0]["type"] == "image"


def test_the_detail_of_a_picture_is_dropped():
    """The vendor has one size."""
    assert built(user([image(detail="low")])).dropped == ["messages.image_url.detail"]
    assert built(user([image(detail="auto")])).dropped == []


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (user([text(), audio()]), "messages.0.content.1.input_audio"),
        (
            user([{"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}]),
            "messages.0.content.0.video_url",
        ),
        (user([image("data:image/tiff;base64,SUkqAAgA")]), "messages.0.content.0.image_url"),
        (user([file("application/zip", WAV)]), "messages.0.content.0.file"),
        ({"role": "system", "content": [image()]}, "messages.0.content.0.image_url"),
        ({"role": "assistant", "content": [image()]}, "messages.0.content.0.image_url"),
    ],
)
def test_what_the_model_cannot_take_is_refused_by_its_place(message: dict[str, Any], param: str):
    """Sound, video, other pictures and files, and pictures where only text may stand; the model is named."""
    error = refused(message)
    assert (error.status, error.code, error.param) == (400, "unsupported_content", param)
    assert NEW in error.message


def test_marks_for_the_cache_stay_the_last_four_of_them():
    """On instructions, tools and parts; of an hour too; OpenAI's own word means the same."""
    hour = {"type": "ephemeral", "ttl": "1h"}
    body = sent(
        {"role": "system", "content": [text("Long.", cache_control=hour)]},
        user([text("a", prompt_cache_breakpoint={"mode": "explicit"}), text("b")]),
        {**HELLO, "cache_control": EPHEMERAL},
        user("c"),
        tools=[{**tool(), "cache_control": hour}],
    )
    assert body["tools"][0]["cache_control"] == hour
    assert body["system"] == [said("Long.", cache_control=hour)]
    assert body["messages"][0]["content"][0]["cache_control"] == EPHEMERAL
    assert body["messages"][1]["content"][0]["cache_control"] == EPHEMERAL
    five = built(user([text(str(place), cache_control=EPHEMERAL) for place in range(5)]))
    blocks = json.loads(five.http.body)["messages"][0]["content"]
    assert ["cache_control" in block for block in blocks] == [False, True, True, True, True]
    assert five.dropped == ["cache_control"]
    assert built(user([text("a", cache_control={"type": "forever"})])).dropped == ["cache_control"]


def test_a_mark_of_an_hour_after_one_of_minutes_is_one_of_minutes():
    """The vendor refuses the other order."""
    hour = {"type": "ephemeral", "ttl": "1h"}
    late = built(
        {"role": "system", "content": [text("a", cache_control=EPHEMERAL)]}, user([text("b", cache_control=hour)])
    )
    assert json.loads(late.http.body)["messages"][0]["content"] == [said("b", cache_control=EPHEMERAL)]
    assert (late.dropped, late.adapted) == ([], ["cache_control"])


# --- tools ------------------------------------------------------------------------------------------------------------


def test_a_tool_has_a_name_a_description_and_the_schema_of_an_object():
    """Nothing is asked of what the client left out."""
    nothing = {"type": "object", "properties": {}}
    given = [
        tool(),
        {"type": "function", "function": {"name": "now", "parameters": None}},
        tool("b", {"properties": {"a": {"type": "string", "minLength": 3}}, "required": []}),
    ]
    assert sent(tools=given)["tools"] == [
        {"name": "weather", "description": "The weather.", "input_schema": tool()["function"]["parameters"]},
        {"name": "now", "input_schema": nothing},
        {
            "name": "b",
            "description": "The b.",
            "input_schema": {"properties": {"a": {"type": "string", "minLength": 3}}, "type": "object"},
        },
    ]


def test_alternatives_at_the_top_of_a_schema_become_one_object():
    """Their properties add up, what all of them require is required; it is said."""
    left: dict[str, Any] = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "id": {"type": "integer"}},
        "required": ["a", "id"],
    }
    right: dict[str, Any] = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["id"]}
    answer = built(tools=[tool("either", {"anyOf": [{"$ref": "#/$defs/left"}, right], "$defs": {"left": left}})])
    assert answer.adapted == ["tools.parameters"]
    assert json.loads(answer.http.body)["tools"][0]["input_schema"] == {
        "type": "object",
        "properties": {**left["properties"], **right["properties"]},
        "required": ["id"],
    }
    both = tool("both", {"allOf": [left, right]})
    assert sent(tools=[both])["tools"][0]["input_schema"]["required"] == ["a", "id"]
    odd: list[Any] = [
        {"anyOf": 7},
        {"anyOf": [{"properties": [], "required": [{}, 3]}]},
        {"oneOf": [left], "required": "x"},
    ]
    for schema in odd:  # what is no schema makes no tool of its own, and no crash
        assert sent(tools=[tool("odd", schema)])["tools"][0]["input_schema"]["type"] == "object"


def test_a_strict_tool_is_strict_where_the_model_can_be():
    """With the schema that the vendor enforces; what it does not is in the description."""
    answer = built(tools=[tool("person", RICH, strict=True)])
    [sent_tool] = json.loads(answer.http.body)["tools"]
    assert sent_tool["strict"] is True
    assert answer.adapted == ["tools.parameters"]
    schema = sent_tool["input_schema"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["age"] == {"type": "integer", "description": "minimum: 0. maximum: 150"}
    assert "$ref" not in json.dumps(schema)
    older = built(tools=[tool("person", SCHEMA, strict=True)], model=OLD)
    assert "strict" not in json.loads(older.http.body)["tools"][0]
    assert older.dropped == ["tools.strict"]
    assert built(tools=[tool("person", SCHEMA, strict=True)]).adapted == []


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", {"type": "none"}),
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "time"}}, {"type": "tool", "name": "time"}),
    ],
)
def test_a_choice_of_tools_is_said_in_the_vendors_words(choice: Any, expected: dict[str, Any]):
    """One at a time is part of the choice, but of none."""
    tools = [tool(), tool("time")]
    assert sent(tools=tools, tool_choice=choice)["tool_choice"] == expected
    one = {} if choice == "none" else {"disable_parallel_tool_use": True}
    assert sent(tools=tools, tool_choice=choice, parallel_tool_calls=False)["tool_choice"] == {**expected, **one}


def test_without_a_choice_only_one_at_a_time_is_said():
    """Without tools there is nothing to choose from."""
    assert "tool_choice" not in sent(tools=[tool()], parallel_tool_calls=True)
    alone = sent(tools=[tool()], parallel_tool_calls=False)
    assert alone["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert built(tool_choice="required", parallel_tool_calls=False).dropped == ["tool_choice"]


def test_allowed_tools_are_the_only_ones_that_are_sent():
    """In a mode."""
    time = {"type": "function", "function": {"name": "time"}}
    for mode, kind in (("auto", "auto"), ("required", "any")):
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [time]}}
        answer = built(tools=[tool(), tool("time")], tool_choice=choice)
        body = json.loads(answer.http.body)
        assert [each["name"] for each in body["tools"]] == ["time"]
        assert body["tool_choice"] == {"type": kind}
        assert answer.adapted == ["tool_choice"]


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1", "claude-mythos-5-2"])
def test_a_model_that_cannot_be_forced_is_told(model: str):
    """By an instruction; haiku can be."""
    answer = built(tools=[tool()], tool_choice="required", model=model)
    body = json.loads(answer.http.body)
    assert body["tool_choice"] == {"type": "auto"}
    assert "Call one of the tools" in body["system"][0]["text"]
    assert answer.adapted == ["tool_choice"]
    assert sent(tools=[tool()], tool_choice="required", model="claude-haiku-5-5")["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [tool("x", {}), {"type": "function"}]}, "tools.1.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": 1}}]}, "tools.0.function.parameters"),
        ({"tools": [tool()], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "y"}}}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"temperature": True}, "temperature"),
        ({"functions": [{"name": "x"}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
    ],
)
def test_what_is_no_request_is_refused_by_its_field(fields: dict[str, Any], param: str):
    """A 400 that names it."""
    body = {"model": "x", "messages": [user("Hi.")], **fields}
    request = replace(decode_chat(encode(CORPUS["one user message"])), fields=body)  # past the checks at the door
    with pytest.raises(BadRequest) as caught:
        ANTHROPIC.build_request(request, SAMPLED)
    assert caught.value.param == param


def test_names_that_the_vendor_refuses_are_renamed_one_by_one():
    """Different names stay different; those that need no change keep theirs."""
    long = "n" * 130
    tools = [tool("a.b"), tool("a_b"), tool("a b"), tool(long), tool(long + "x"), tool("größe")]
    names = [each["name"] for each in sent(tools=tools)["tools"]]
    assert names == ["a_b_2", "a_b", "a_b_3", "n" * 128, "n" * 126 + "_2", "gr__e"]
    history = (user("a"), asked(call("c", "a.b")), result("c"))
    assert turns(*history, tools=tools)[1][1][0]["name"] == "a_b_2"
    chosen = {"type": "function", "function": {"name": "a.b"}}
    assert sent(tools=tools, tool_choice=chosen)["tool_choice"]["name"] == "a_b_2"


def test_results_stand_first_in_the_turn_after_their_calls():
    """All of them, whatever else was said in between."""
    calls = asked(call("a"), call("b", "time", "{}"), content="Let me see.")
    found = turns(user("x"), calls, result("b", "noon"), user("Well?"), result("a", ""), tools=[tool(), tool("time")])
    assert found[1:] == [
        (
            "assistant",
            [
                said("Let me see."),
                {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "b", "name": "time", "input": {}},
            ],
        ),
        (
            "user",
            [
                {"type": "tool_result", "tool_use_id": "b", "content": "noon"},
                {"type": "tool_result", "tool_use_id": "a", "content": ""},
                said("Well?"),
            ],
        ),
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ("null", {}), ("{}", {}), ('{"a": 1}', {"a": 1}), ("[1]", {"_raw": "[1]"}), ('{"a', {"_raw": '{"a'})],
)
def test_arguments_are_always_an_object(arguments: str, expected: dict[str, Any]):
    """What is none rides in one."""
    assert turns(user("x"), asked(call("a", "f", arguments)), result("a"))[1][1][0]["input"] == expected


def test_a_call_nobody_answered_and_a_result_nobody_asked_for():
    """The vendor refuses both: the one gets a result, of the other the user tells."""
    answer = built(user("x"), asked(call("a"), call("b")), result("a"), tools=[tool()])
    results = json.loads(answer.http.body)["messages"][2]["content"]
    assert [(each["tool_use_id"], each.get("is_error", False)) for each in results] == [("a", False), ("b", True)]
    assert answer.adapted == ["messages.tool_calls"]
    orphan = built(user("x"), result("zz", "sunny"), tools=[tool()])
    [only] = json.loads(orphan.http.body)["messages"]
    assert [block["text"] for block in only["content"]][-1] == "sunny"
    assert orphan.adapted == ["messages.tool_call_id"]


def test_ids_are_made_of_the_vendors_letters_and_never_twice_the_same():
    """Some clients count from 0 in each turn."""
    odd = "fc:1/+=.|"
    found = turns(
        user("x"), asked(call(odd)), result(odd), asked(call("0")), result("0"), asked(call("0")), result("0")
    )
    ids = [block["id"] for _, blocks in found for block in blocks if block["type"] == "tool_use"]
    results = [block["tool_use_id"] for _, blocks in found for block in blocks if block["type"] == "tool_result"]
    assert ids == results == ["fc_1_____", "0", "0_2"]


def test_a_result_may_hold_pictures():
    """In blocks; the mark for the cache stands on the result."""
    parts = [text("Here."), image(), text("So.", cache_control=EPHEMERAL)]
    _, blocks = turns(user("x"), asked(call("a")), result("a", parts), tools=[tool()])[2]
    [block] = blocks
    assert [each["type"] for each in block["content"]] == ["text", "image", "text"]
    assert block["cache_control"] == EPHEMERAL


def test_tools_that_only_the_history_knows_are_declared_and_cannot_be_called():
    """The vendor wants tools where there are calls."""
    body = sent(user("x"), asked(call("a"), call("b", "time")), result("a"), result("b"), user("Thanks."))
    assert [each["name"] for each in body["tools"]] == ["weather", "time"]
    assert body["tool_choice"] == {"type": "none"}


# --- the web ----------------------------------------------------------------------------------------------------------


def test_a_search_of_the_web_is_the_vendors_own_tool():
    """With the place of the user; how much of it is read, the vendor does not let choose."""
    place = {"type": "approximate", "approximate": {"country": "FR", "city": "Paris"}}
    answer = built(
        web_search_options={"search_context_size": "low", "user_location": place}, tools=[tool("web_search")]
    )
    assert json.loads(answer.http.body)["tools"] == [
        {**json.loads(built(tools=[tool("web_search")]).http.body)["tools"][0], "name": "web_search_2"},
        {
            "type": "web_search_20250305",
            "name": "web_search",
            "user_location": {"type": "approximate", "city": "Paris", "country": "FR"},
        },
    ]
    assert answer.dropped == ["web_search_options.search_context_size"]


def test_the_vendors_own_tools_pass():
    """Their types are dated."""
    native = {"type": "code_execution_20250825", "name": "code_execution"}
    assert sent(tools=[native, tool("code_execution")])["tools"][0] == native
    assert sent(tools=[native, tool("code_execution")])["tools"][1]["name"] == "code_execution_2"
