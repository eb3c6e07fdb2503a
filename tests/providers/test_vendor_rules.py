"""What clients write in several ways and vendors take in one, asked of every vendor (facts of November 2026)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.anthropic import Anthropic
from proxy.providers.base.contract import Provider
from proxy.providers.cohere import Cohere
from proxy.providers.google import Google
from proxy.providers.openai import OpenAI
from proxy.schema.errors import BadRequest
from tests.providers.asking import USER, answered, built, event, folded, messages, request, sent
from tests.providers.corpus import PDF, PNG, SCHEMA, asked, call, image, result, text, tool, user
from tests.providers.vendors import MODELS

ELSEWHERE = OpenAI(base_url="https://models.example/v1")
VENDORS: dict[str, Provider] = {
    **{name: make() for name, make in PROVIDERS.items() if name != "embedded"},
    "elsewhere": ELSEWHERE,
}
OPENAI_SHAPED = ["openai", "groq", "mistral", "together", "ollama", "vllm", "lmstudio", "localai", "elsewhere"]
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00").decode()
GIF = base64.b64encode(b"GIF89a\x01\x00\x01\x00\x80\x00\x00").decode()
WEBP = base64.b64encode(b"RIFF\x24\x00\x00\x00WEBPVP8 ").decode()


def model_of(name: str) -> str:
    return MODELS.get(name, ("m",))[-1]


def strings(value: Any) -> Iterator[str]:
    """All texts in a body, keys included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


# --- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VENDORS)
def test_flat_tools_are_the_nested_ones(name: str) -> None:
    """As the Responses API writes them, as Anthropic does, and without a type: the same bytes leave."""
    function = tool("look")["function"]
    anthropic = {"name": "look", "description": function["description"], "input_schema": function["parameters"]}
    for flat in ({"type": "function", **function}, anthropic, {**anthropic, "type": "custom"}, function):
        assert (
            built(VENDORS[name], model_of(name), tools=[flat]).http.body
            == built(VENDORS[name], model_of(name), tools=[tool("look")]).http.body
        )


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize(
    ("choice", "plain"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "required"}, "required"),
        ({"type": "any"}, "required"),
        ("any", "required"),
        ({"type": "tool", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
        ({"type": "function", "name": "look"}, {"type": "function", "function": {"name": "look"}}),
        ({"function": {"name": "look"}}, {"type": "function", "function": {"name": "look"}}),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "look"}}]},
            },
        ),
    ],
)
def test_a_choice_with_one_meaning_is_taken_as_that(name: str, choice: Any, plain: Any) -> None:
    """Objects for the words, and names beside the type."""
    tools = [tool("look"), tool("go")]
    one, other = (
        built(VENDORS[name], model_of(name), tools=tools, tool_choice=each).http.body for each in (choice, plain)
    )
    assert one == other


def test_a_choice_in_anthropics_words_keeps_what_it_says_of_parallel_calls() -> None:
    """The flag stands inside the choice there."""
    choice = {"type": "any", "disable_parallel_tool_use": True}
    tools = [tool("look")]
    assert sent(Anthropic(), "claude-sonnet-5", tools=tools, tool_choice=choice)["tool_choice"] == choice
    body = sent(ELSEWHERE, tools=tools, tool_choice=choice)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)


@pytest.mark.parametrize("name", VENDORS)
def test_a_tool_that_is_there_twice_is_sent_once(name: str) -> None:
    """Anthropic and Google refuse the request; a cache mark of either stays."""
    twice = [tool("look"), tool("go"), {**tool("look"), "cache_control": {"type": "ephemeral"}}]
    body = sent(VENDORS[name], model_of(name), tools=twice)
    assert list(strings(body["tools"])).count("look") == 1
    if name == "anthropic":
        assert [each.get("cache_control") for each in body["tools"]] == [{"type": "ephemeral"}, None]


@pytest.mark.parametrize("name", ["anthropic", "google"])
def test_two_different_tools_of_one_name_are_refused_where_the_vendor_does(name: str) -> None:
    """The error names the tool."""
    with pytest.raises(BadRequest, match="look") as caught:
        built(VENDORS[name], model_of(name), tools=[tool("look"), tool("look", SCHEMA)])
    assert caught.value.param == "tools.1.function.name"


@pytest.mark.parametrize("name", VENDORS)
def test_empty_lists_say_nothing(name: str) -> None:
    """OpenAI, vLLM and DeepSeek refuse them, and a choice without tools."""
    said = [USER, {"role": "assistant", "content": "a", "tool_calls": []}, USER]
    empty: dict[str, Any] = {"tools": [], "stop": [], "functions": [], "function_call": "auto"}
    empty |= {"tool_choice": "auto", "parallel_tool_calls": True}
    result = built(VENDORS[name], model_of(name), messages=said, **empty)
    plain = [{key: value for key, value in each.items() if key != "tool_calls"} for each in said]
    assert result.http.body == built(VENDORS[name], model_of(name), messages=plain).http.body
    assert (result.dropped, result.adapted) == ([], built(VENDORS[name], model_of(name), messages=plain).adapted)


@pytest.mark.parametrize("name", VENDORS)
def test_a_call_that_is_forced_without_tools_is_reported(name: str) -> None:
    """No tool can be meant."""
    result = built(VENDORS[name], model_of(name), tools=[], tool_choice="required")
    assert "tool_choice" not in json.loads(result.http.body)
    assert result.dropped == ["tool_choice"]


NAMES = ["21st_builder", "x/y z", "server.tool:get", "n" * 80, "größe", "", "_"]


@pytest.mark.parametrize("name", VENDORS)
def test_names_of_functions_go_out_as_the_vendor_takes_them(name: str) -> None:
    """In tools, choices and the history, all different; names that are right stay."""
    given = [each for each in NAMES if each]
    history = [USER, asked(*(call(f"c{place}", each) for place, each in enumerate(given)))]
    history += [result(f"c{place}", "ok") for place in range(len(given))]
    body = sent(
        VENDORS[name],
        model_of(name),
        tools=[*map(tool, given), tool("n" * 64), tool("get_weather")],
        messages=history,
        tool_choice={"type": "function", "function": {"name": "21st_builder"}},
    )
    leaves = set(strings(body))
    assert leaves.isdisjoint({"x/y z", "größe"})
    assert ("n" * 80 in leaves) == (name == "anthropic")  # which takes 128 characters
    if name in ("google", "cohere"):
        assert "21st_builder" not in leaves
        assert "_21st_builder" in leaves
    assert "server.tool:get" in leaves if name == "google" else "server_tool_get" in leaves
    if name not in ("lmstudio", "mistral", "ollama", "cohere"):  # those are sent the one tool alone
        assert {"n" * 64, "get_weather"} <= leaves


def test_names_come_back_as_the_client_has_them_from_google() -> None:
    """Whole and streamed."""
    google = Google()
    body = {
        "candidates": [
            {"content": {"parts": [{"functionCall": {"name": "_3d_render", "args": {}}}]}, "finishReason": "STOP"}
        ]
    }
    tools = [tool("3d_render"), tool("plain")]
    whole = google.parse_response(answered(200, body), request(tools=tools))
    for answer in (whole, folded(google, [event(body)], tools=tools)):
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "3d_render"


def test_names_come_back_as_the_client_has_them_from_cohere() -> None:
    """It takes letters, digits and underscores alone."""
    cohere, tools = Cohere(), [tool("files.read-all")]
    made = {"id": "c1", "type": "function", "function": {"name": "files_read_all", "arguments": "{}"}}
    body = {"id": "a", "finish_reason": "TOOL_CALL", "message": {"role": "assistant", "tool_calls": [made]}}
    whole = cohere.parse_response(answered(200, body), request(tools=tools))
    events = [
        event({"type": "message-start", "id": "a"}),
        event({"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": made}}}),
        event({"type": "tool-call-end", "index": 0}),
        event({"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}),
    ]
    for answer in (whole, folded(cohere, events, tools=tools)):
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "files.read-all"


@pytest.mark.parametrize("name", OPENAI_SHAPED)
def test_names_come_back_as_the_client_has_them_from_openai_shaped_servers(name: str) -> None:
    """64 letters, digits, `_` and `-`."""
    provider, tools = VENDORS[name], [tool("x/y z"), tool("x_y_z")]
    made = {"id": "c1", "type": "function", "function": {"name": "x_y_z_2", "arguments": "{}"}}
    choice = {"index": 0, "finish_reason": "tool_calls"}
    body = {"id": "a", "choices": [{**choice, "message": {"role": "assistant", "tool_calls": [made]}}]}
    whole = provider.parse_response(answered(200, body), request(tools=tools))
    events = [event({"id": "a", "choices": [{**choice, "delta": {"tool_calls": [{"index": 0, **made}]}}]})]
    for answer in (whole, folded(provider, events, tools=tools)):
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "x/y z"


@pytest.mark.parametrize("provider", [OpenAI(), PROVIDERS["perplexity"]()])
def test_names_come_back_as_the_client_has_them_from_the_responses_api(provider: Provider) -> None:
    """Whole and streamed, at both vendors that have it."""
    tools = [tool("x/y z")]
    made = {"type": "function_call", "id": "f", "call_id": "c1", "name": "x_y_z", "arguments": "{}"}
    body = {"id": "r", "object": "response", "status": "completed", "output": [made]}
    whole = provider.parse_response(answered(200, body), request(tools=tools))
    events = [
        event({"type": "response.created", "response": {**body, "status": "in_progress", "output": []}}),
        event({"type": "response.output_item.done", "output_index": 0, "item": made}),
        event({"type": "response.completed", "response": body}),
    ]
    for answer in (whole, folded(provider, events, tools=tools)):
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "x/y z"


# --- Anthropic's keys -------------------------------------------------------------------------------------------------

ODATA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "$top": {"type": "integer", "default": 5},
        "filter[id]": {"type": "string"},
        "filter_id_": {"type": "string"},
        "where": {
            "type": "array",
            "items": {"type": "object", "properties": {"@odata.type": {"enum": ["$top"]}}, "required": ["@odata.type"]},
        },
        "k" * 70: {"type": "string"},
    },
    "required": ["$top", "where"],
}
GIVEN = {"$top": 3, "filter[id]": "$top", "where": [{"@odata.type": "$top"}], "other": {"$top": 1}}
SENT = {"_top": 3, "filter_id__2": "$top", "where": [{"_odata.type": "$top"}], "other": {"_top": 1}}


def test_keys_of_properties_go_to_anthropic_as_it_takes_them() -> None:
    """In the schema, at any depth, in `required` and in the arguments of earlier calls; values are no keys."""
    history = [USER, asked(call("c1", "look", json.dumps(GIVEN))), result("c1", "ok")]
    body = sent(Anthropic(), "claude-sonnet-5", tools=[tool("look", ODATA)], messages=history)
    schema = body["tools"][0]["input_schema"]
    assert list(schema["properties"]) == ["_top", "filter_id__2", "filter_id_", "where", "k" * 64]
    assert schema["required"] == ["_top", "where"]
    assert schema["properties"]["where"]["items"]["required"] == ["_odata.type"]
    assert schema["properties"]["where"]["items"]["properties"] == {"_odata.type": {"enum": ["$top"]}}
    assert body["messages"][1]["content"][0]["input"] == SENT


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_keys_come_back_from_anthropic_as_the_client_has_them(cut: int) -> None:
    """Whole and streamed, however the arguments are cut; those of other tools are not held back."""
    anthropic, tools = Anthropic(), [tool("look", ODATA), tool("go")]
    used = {"type": "tool_use", "id": "c1", "name": "look", "input": SENT}
    body = {"id": "m", "type": "message", "content": [used], "stop_reason": "tool_use"}
    written = json.dumps(SENT)
    events = [
        event({"type": "message_start", "message": {"id": "m"}}),
        event({"type": "content_block_start", "index": 0, "content_block": {**used, "input": {}}}),
        *(
            event(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "input_json_delta", "partial_json": written[at : at + cut]},
                }
            )
            for at in range(0, len(written), cut)
        ),
        event({"type": "content_block_stop", "index": 0}),
        event({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}),
        event({"type": "message_stop"}),
    ]
    whole = anthropic.parse_response(answered(200, body), request(tools=tools))
    for answer in (whole, folded(anthropic, events, tools=tools)):
        assert json.loads(answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]) == GIVEN


def test_keys_of_a_json_answer_that_is_given_by_tool_come_back_too() -> None:
    """Older models have no formats."""
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": ODATA}}
    body = sent(Anthropic(), "claude-3-5-haiku-20241022", response_format=form)
    assert "$top" not in body["tools"][0]["input_schema"]["properties"]
    used = {"type": "tool_use", "id": "c1", "name": body["tools"][0]["name"], "input": SENT}
    said = {"id": "m", "type": "message", "content": [used], "stop_reason": "tool_use"}
    answer = Anthropic().parse_response(answered(200, said), request(response_format=form))
    assert json.loads(answer["choices"][0]["message"]["content"] or "") == GIVEN


@pytest.mark.parametrize(
    "model", ["claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8"]
)
@pytest.mark.parametrize("asked_for", [{"reasoning_effort": "high"}, {"thinking": {"type": "adaptive"}}])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look"}}])
def test_no_model_is_asked_to_think_where_a_call_is_forced(model: str, asked_for: dict[str, Any], choice: Any) -> None:
    """Thinking may not be enabled when tool_choice forces tool use; the field is adapted."""
    fields = {"tools": [tool("look")], "tool_choice": choice, "max_tokens": 9000, **asked_for}
    result = built(Anthropic(), model, **fields)
    assert "thinking" not in json.loads(result.http.body)
    assert result.adapted == list(asked_for)
    free = sent(Anthropic(), model, **{**fields, "tool_choice": "auto"})
    assert free["thinking"]["type"] in ("adaptive", "enabled")


MARK = {"type": "ephemeral"}


def test_cache_marks_reach_a_block_or_are_named() -> None:
    """On a message of calls alone, a call, an empty text, a tool's result; one without any block is dropped."""
    anthropic, model = Anthropic(), "claude-sonnet-5"
    marked = {"cache_control": MARK}
    done = result("c1", "ok")
    said = messages(anthropic, USER, asked(call("c1"), content="Let me see.", **marked), done, model=model)
    assert [block.get("cache_control") for block in said[1]["content"]] == [None, MARK]
    said = messages(anthropic, USER, asked(call("c1"), **marked), done, model=model)
    assert said[1]["content"][0]["cache_control"] == MARK
    said = messages(anthropic, USER, asked({**call("c1"), **marked}, call("c2")), done, result("c2", "ok"), model=model)
    assert [block.get("cache_control") for block in said[1]["content"]] == [MARK, None]
    said = messages(anthropic, user([text("long"), {**text(""), **marked}]), model=model)
    assert said[0]["content"][0]["cache_control"] == MARK
    said = messages(anthropic, USER, asked(call("c1")), {**result("c1", ""), **marked}, model=model)
    assert said[2]["content"][0]["cache_control"] == MARK
    lost = built(anthropic, model, messages=[{"role": "system", "content": "", **marked}, USER])
    assert lost.dropped == ["cache_control"]


@pytest.mark.parametrize("name", ["openai", "groq", "mistral", "google", "cohere", "perplexity"])
def test_a_cache_mark_that_is_lost_is_named(name: str) -> None:
    """On messages, on calls, and on parts."""
    marked = {"cache_control": MARK}
    history = [user([{**text("a"), **marked}]), {**asked({**call("c1"), **marked}), **marked}, result("c1", "ok")]
    made = built(VENDORS[name], model_of(name), messages=history)
    assert "cache_control" not in list(strings(json.loads(made.http.body)))
    assert {"messages.content.cache_control", "messages.cache_control"} <= set(made.dropped)
    assert "messages.tool_calls.cache_control" in made.dropped


# --- the conversation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize(
    ("given", "text"), [("", "{}"), (None, "{}"), ("null", "{}"), (" ", "{}"), ({}, "{}"), ({"a": [1]}, '{"a":[1]}')]
)
def test_arguments_of_earlier_calls_are_the_text_of_an_object(name: str, given: object, text: str) -> None:
    """Servers parse them, and refuse a text that is no object, or an object that is no text: the same bytes leave."""
    bodies = []
    for arguments in (given, text):
        asked_for = {"id": "a", "type": "function", "function": {"name": "look", "arguments": arguments}}
        said = [USER, {"role": "assistant", "content": None, "tool_calls": [asked_for]}, result("a", "ok")]
        made = built(VENDORS[name], model_of(name), messages=said, tools=[tool("look")])
        bodies.append(made.http.body)
        assert "tool_calls" not in "".join(made.dropped)
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("name", VENDORS)
def test_a_result_stands_beside_its_call(name: str) -> None:
    """Also where the user spoke in between, or another turn began: the same bytes leave as in the right order."""
    calls = asked(call("c1"), call("c2"))
    first, second = result("c1", "sun"), result("c2", "rain")
    mixed = [USER, calls, user("hurry"), second, {"role": "assistant", "content": "wait"}, first, user("and now?")]
    right = [USER, calls, second, first, user("hurry"), {"role": "assistant", "content": "wait"}, user("and now?")]
    one, other = (built(VENDORS[name], model_of(name), messages=each, tools=[tool()]) for each in (mixed, right))
    assert one.http.body == other.http.body
    assert one.adapted == other.adapted


@pytest.mark.parametrize("name", ["openai", "elsewhere", "lmstudio", "localai", "ollama", "together", "groq", "cohere"])
def test_a_picture_in_a_result_follows_in_the_words_of_the_user(name: str) -> None:
    """The text stays; the picture comes after all results of the turn, before what the user says next."""
    model = {"groq": "qwen/qwen3.8-27b", "cohere": "command-a-plus-05-2026"}.get(name, "m")
    shown = [USER, asked(call("c1"), call("c2")), result("c1", [text("shot"), image()]), result("c2", "ok")]
    provider = OpenAI(api="chat") if name == "openai" else VENDORS[name]
    for history in (shown, [*shown, user("what is it?")]):
        made = built(provider, model, messages=history, tools=[tool()])
        said = json.loads(made.http.body)["messages"]
        assert [each["role"] for each in said] == ["user", "assistant", "tool", "tool", "user"]
        assert PNG not in str(said[:4])
        assert PNG in str(said[4])
        assert "shot" in str(said[2])
        if name != "cohere":
            assert said[2]["content"] == "shot"
        assert ("what is it?" in str(said[4])) == (history is not shown)
        assert made.adapted == ["messages.content"]


# --- media ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in VENDORS if name not in ("groq", "together", "ollama")])
@pytest.mark.parametrize(
    ("data", "kind"), [(PNG, "image/png"), (JPEG, "image/jpeg"), (GIF, "image/gif"), (WEBP, "image/webp")]
)
def test_a_picture_has_the_type_that_its_bytes_show(name: str, data: str, kind: str) -> None:
    """Whatever the data URL says, and where there is only the data."""
    model = "command-a-plus-05-2026" if name == "cohere" else model_of(name)
    for told in ("image/jpg", "image/png", "application/octet-stream", "", None):
        part = image(data if told is None else f"data:{told};base64,{data}")
        leaves = list(strings(sent(VENDORS[name], model, messages=[user([text(), part])])))
        assert f"data:{kind};base64,{data}" in leaves or {data, kind} <= set(leaves)


@pytest.mark.parametrize("name", ["anthropic", "google", "mistral", "openai", "vllm"])
def test_a_pdf_that_is_sent_as_a_picture_is_a_file(name: str) -> None:
    """By its signature too."""
    part = image(f"data:image/png;base64,{PDF}")
    leaves = list(strings(sent(VENDORS[name], model_of(name), messages=[user([text(), part])])))
    assert "application/pdf" in leaves or f"data:application/pdf;base64,{PDF}" in leaves


@pytest.mark.parametrize("name", ["anthropic", "google", "mistral", "openai", "vllm"])
def test_a_picture_that_is_sent_as_a_file_is_a_picture(name: str) -> None:
    """Also where it is called a PDF."""
    part = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{JPEG}"}}
    leaves = list(strings(sent(VENDORS[name], model_of(name), messages=[user([text(), part])])))
    assert "image/jpeg" in leaves or f"data:image/jpeg;base64,{JPEG}" in leaves


@pytest.mark.parametrize("name", ["anthropic", "google"])
def test_a_picture_in_a_result_has_the_type_that_its_bytes_show(name: str) -> None:
    """Screenshots are often called PNG and are not."""
    history = [USER, asked(call("c1")), result("c1", [image(f"data:image/png;base64,{JPEG}")])]
    assert "image/jpeg" in list(strings(sent(VENDORS[name], model_of(name), messages=history, tools=[tool()])))


# --- schemas ----------------------------------------------------------------------------------------------------------


def doubling(levels: int) -> dict[str, Any]:
    """Each definition uses the next one twice: inlined, they double at each level."""
    node = {"type": "object", "required": ["a", "b"], "additionalProperties": False}
    defs: dict[str, Any] = {f"d{levels}": {"type": "string"}}
    for level in range(levels):
        following = {"$ref": f"#/$defs/d{level + 1}"}
        defs[f"d{level}"] = {**node, "properties": {"a": following, "b": following}}
    top = {**node, "required": ["top"], "properties": {"top": {"$ref": "#/$defs/d0"}}}
    return {**top, "$defs": defs}


@pytest.mark.parametrize("levels", [3, 14])
def test_references_stay_where_the_vendor_follows_them(levels: int) -> None:
    """Google's answers, Anthropic's answers and strict tools: nothing grows, nothing is refused."""
    schema = doubling(levels)
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    google = built(Google(), "gemini-3.8-flash", response_format=form)
    assert json.loads(google.http.body)["generationConfig"]["responseJsonSchema"] == schema
    claude = built(Anthropic(), "claude-sonnet-5", response_format=form)
    assert json.loads(claude.http.body)["output_config"]["format"]["schema"] == schema
    strict = sent(Anthropic(), "claude-sonnet-5", tools=[tool("look", schema, strict=True)])
    assert strict["tools"][0]["input_schema"] == schema
    assert (google.adapted, claude.adapted) == ([], [])


def test_references_with_a_description_stay_once_too_much_would_be_inlined() -> None:
    """Nothing may stand beside them, so they are inlined as long as that is small."""
    schema = doubling(30)
    for node in schema["$defs"].values():
        for each in node.get("properties", {}).values():
            each["description"] = "One half."
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    made = built(Google(), "gemini-3.8-flash", response_format=form)
    assert made.adapted == ["response_format"]
    assert len(made.http.body) < 2_000_000
    assert "d29" in json.loads(made.http.body)["generationConfig"]["responseJsonSchema"]["$defs"]


def test_references_are_cut_where_the_vendor_follows_none() -> None:
    """Parameters of Google's functions: within bounds, and reported."""
    small = built(Google(), "gemini-3.8-flash", tools=[tool("look", doubling(3))])
    assert "$ref" not in list(strings(json.loads(small.http.body)))
    assert small.adapted == []
    large = built(Google(), "gemini-3.8-flash", tools=[tool("look", doubling(30))])
    assert len(large.http.body) < 2_000_000
    assert large.adapted == ["tools.parameters"]


def test_what_is_required_is_there() -> None:
    """Google refuses a required name without a property, in answers too."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "ghost"]}
    body = sent(Google(), "gemini-3.8-flash", tools=[tool("look", schema)])
    assert body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"]["required"] == ["a"]
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = sent(Google(), "gemini-3.8-flash", response_format=form)
    assert body["generationConfig"]["responseJsonSchema"]["required"] == ["a"]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_what_the_model_wrote_stays_in_the_error() -> None:
    """Agents mend the call by it."""
    wrote = '<function=look{"city": "Oslo"}</function>'
    said = {"message": "Failed to call a function.", "code": "tool_use_failed", "failed_generation": wrote}
    error = VENDORS["groq"].parse_error(answered(400, {"error": said}))
    assert error.body()["error"]["failed_generation"] == wrote  # type: ignore[index]
    as_object = VENDORS["groq"].parse_error(answered(400, {"error": {**said, "failed_generation": {"name": "look"}}}))
    assert as_object.failed_generation == '{"name":"look"}'
    plain = VENDORS["groq"].parse_error(answered(400, {"error": {"message": "no"}}))
    assert "failed_generation" not in plain.body()["error"]  # type: ignore[operator]
