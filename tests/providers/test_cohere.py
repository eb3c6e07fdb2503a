"""Rules of requests to Cohere: what is sent, under which name, what is adapted, dropped, refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.providers.base.contract import Built
from proxy.providers.cohere import Cohere
from proxy.schema.chat import ChatRequest, KeptReasoning
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest
from proxy.schema.rerank import RerankRequest
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import CORPUS, PNG, RICH, SCHEMA, asked, audio, call, file, image, result, text, tool, user
from tests.upstream.cohere_wire import CohereWire, wants
from tests.upstream.http1 import Request

COHERE = Cohere()
MODEL = "command-a-plus-05-2026"  # sees, reasons
PLAIN = "command-r7b-12-2024"  # neither


def request(*messages: dict[str, Any], **fields: Any) -> ChatRequest:
    return decode_chat(json.dumps({"model": "x", "messages": list(messages) or [user()], **fields}).encode())


def built(*messages: dict[str, Any], model: str = MODEL, **fields: Any) -> Built:
    return COHERE.build_request(request(*messages, **fields), model)


def body_of(made: Built) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(made.http.body)
    return body


def sent(*messages: dict[str, Any], model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return body_of(built(*messages, model=model, **fields))


def turns(*messages: dict[str, Any], model: str = MODEL, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(*messages, model=model, **fields)["messages"]
    return found


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def schema_format(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, **more}}


# --- parameters -------------------------------------------------------------------------------------------------------

BUDGET = {"type": "enabled", "token_budget": 4096}
SENT: list[tuple[dict[str, Any], dict[str, Any], list[str], list[str]]] = [
    # fields of the client, what of the body they become, dropped, adapted
    ({"temperature": 0.3}, {"temperature": 0.3}, [], []),
    ({"temperature": 1.7}, {"temperature": 1.7}, [], []),
    ({"top_p": 0.5}, {"p": 0.5}, [], []),
    ({"top_p": 0}, {"p": 0.01}, [], ["top_p"]),
    ({"top_p": 1}, {"p": 0.99}, [], ["top_p"]),
    ({"p": 0.4}, {"p": 0.4}, [], []),
    ({"top_k": 40}, {"k": 40}, [], []),
    ({"k": 900}, {"k": 500}, [], ["top_k"]),
    ({"max_tokens": 100}, {"max_tokens": 100}, [], []),
    ({"max_completion_tokens": 100}, {"max_tokens": 100}, [], []),
    ({"max_tokens": 100, "max_completion_tokens": 50}, {"max_tokens": 50}, [], []),
    ({"max_tokens": 100_000}, {"max_tokens": 64_000}, [], ["max_tokens"]),
    ({"max_completion_tokens": 100_000}, {"max_tokens": 64_000}, [], ["max_completion_tokens"]),
    ({"stop": "END"}, {"stop_sequences": ["END"]}, [], []),
    ({"stop": []}, {}, [], []),
    ({"seed": 42}, {"seed": 42}, [], []),
    ({"frequency_penalty": 0.5}, {"frequency_penalty": 0.5}, [], []),
    ({"presence_penalty": 2}, {"presence_penalty": 1}, [], ["presence_penalty"]),
    ({"presence_penalty": -2}, {"presence_penalty": 0}, [], ["presence_penalty"]),
    ({"frequency_penalty": 0.5, "presence_penalty": 0.7}, {"frequency_penalty": 0.5}, ["presence_penalty"], []),
    ({"frequency_penalty": 0, "presence_penalty": 0.7}, {"presence_penalty": 0.7}, [], []),
    ({"logprobs": True}, {"logprobs": True}, [], []),
    ({"logprobs": False, "top_logprobs": 0}, {}, [], []),
    ({"logprobs": True, "top_logprobs": 5}, {"logprobs": True}, ["top_logprobs"], []),
    ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, [], []),
    ({"reasoning_effort": "medium"}, {"thinking": BUDGET}, [], ["reasoning_effort"]),
    ({"reasoning_effort": "max"}, {"thinking": {"type": "enabled"}}, [], ["reasoning_effort"]),
    (
        {"reasoning_effort": "high", "max_tokens": 500},
        {"max_tokens": 500, "thinking": {"type": "enabled", "token_budget": 250}},
        [],
        ["reasoning_effort"],
    ),
    ({"thinking": BUDGET, "reasoning_effort": "low"}, {"thinking": BUDGET}, ["reasoning_effort"], []),
    ({"thinking": BUDGET | {"clear_thinking": False}}, {"thinking": BUDGET}, ["thinking.clear_thinking"], []),
    ({"thinking": {"clear_thinking": False}}, {}, ["thinking"], []),
    ({"documents": ["a"]}, {"documents": ["a"]}, [], []),
    ({"documents": [{"id": "1", "data": {"t": "a"}}]}, {"documents": [{"id": "1", "data": {"t": "a"}}]}, [], []),
    ({"citation_options": {"mode": "FAST"}}, {"citation_options": {"mode": "FAST"}}, [], []),
    ({"safety_mode": "STRICT"}, {"safety_mode": "STRICT"}, [], []),
    ({"priority": 3}, {"priority": 3}, [], []),
    ({"response_format": {"type": "text"}}, {}, [], []),
    ({"n": 1, "parallel_tool_calls": True, "store": False, "service_tier": "auto", "modalities": ["text"]}, {}, [], []),
    ({"n": 2}, {}, ["n"], []),
    ({"stream": False}, {}, [], []),
    ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}, [], []),
    ({"tools": []}, {}, [], []),
    ({"tool_choice": "none"}, {}, [], []),
    ({"tool_choice": "required"}, {}, ["tool_choice"], []),
]
LACKING: dict[str, Any] = {
    "logit_bias": {"1": -100},
    "user": "ada",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "flex",
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "prompt_cache_retention": "24h",
    "verbosity": "low",
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "parallel_tool_calls": False,
    "min_p": 0.1,
}


@pytest.mark.parametrize(("fields", "expected", "dropped", "adapted"), SENT)
def test_parameters_go_out_in_the_vendors_words(
    fields: dict[str, Any], expected: dict[str, Any], dropped: list[str], adapted: list[str]
):
    """Each row of the table; a rename is reported as nothing, another value as adapted."""
    made = built(**fields)
    body = body_of(made)
    assert body.pop("model") == MODEL
    assert body.pop("messages") == [user()]
    assert (body, made.dropped, made.adapted) == (expected, dropped, adapted)


@pytest.mark.parametrize("name", LACKING)
def test_what_the_vendor_lacks_is_dropped_and_reported(name: str):
    """Nothing is dropped silently, and no field of another vendor is sent."""
    made = built(**{name: LACKING[name]})
    assert made.dropped == [name]
    assert body_of(made) == {"model": MODEL, "messages": [user()]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"frequency_penalty": "much"}, "frequency_penalty"),
        ({"presence_penalty": True}, "presence_penalty"),
        ({"top_k": "x"}, "top_k"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"top_logprobs": "x"}, "top_logprobs"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"reasoning_effort": ["low"]}, "reasoning_effort"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 1}}},
            "response_format.json_schema.schema",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.0.type"),
        ({"tools": [tool(), {"type": "function"}]}, "tools.1.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "x", "parameters": 1}}]}, "tools.0.function.parameters"),
        ({"tools": [tool()], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": named("other")}, "tool_choice"),
        ({"tools": [tool()], "tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": []}}}, "tool_choice"),
    ],
)
def test_a_value_that_is_none_is_refused_with_its_name(fields: dict[str, Any], param: str):
    """The client's mistake, seen before any money is spent."""
    with pytest.raises(BadRequest) as caught:
        built(**fields)
    assert caught.value.param == param


def test_only_five_stops_go_out_and_the_others_are_cut_here():
    """The vendor's maximum; `Built.stops` is what the proxy trims at."""
    made = built(stop=list("abcdefg"))
    assert body_of(made)["stop_sequences"] == list("abcde")
    assert made.stops == ["f", "g"]


def test_the_providers_own_parameters_stand_in_where_the_client_said_nothing():
    """Under OpenAI's names or the vendor's; a limit of the request stands above a default under the other name."""
    provider = Cohere(parameters={"max_completion_tokens": 500, "temperature": 0.1, "safety_mode": "OFF", "odd": 1})
    made = provider.build_request(request(temperature=0.9), MODEL)
    options = {name: value for name, value in body_of(made).items() if name not in ("model", "messages")}
    assert options == {"max_tokens": 500, "temperature": 0.9, "safety_mode": "OFF"}
    assert made.dropped == []
    assert body_of(provider.build_request(request(max_tokens=100), MODEL))["max_tokens"] == 100
    assert body_of(Cohere(parameters={"top_p": 0.9}).build_request(request(p=0.4), MODEL))["p"] == 0.4


@pytest.mark.parametrize("model", [PLAIN, "command-r-plus-08-2024", "command-a-03-2025", "command-a-vision-07-2025"])
def test_models_that_do_not_reason_are_not_asked_to(model: str):
    """Not to reason is what they do anyway."""
    assert built(model=model, reasoning_effort="high").dropped == ["reasoning_effort"]
    assert built(model=model, reasoning_effort="none").dropped == []
    assert "thinking" not in sent(model=model, reasoning_effort="high")


def test_a_limit_above_the_models_own_is_lowered_to_it():
    """The vendor refuses such a request instead of answering as far as it can."""
    assert sent(model=PLAIN, max_tokens=8192)["max_tokens"] == 4096
    assert sent(model="some-new-model", max_tokens=8192)["max_tokens"] == 8192


# --- tools ------------------------------------------------------------------------------------------------------------


def test_tools_go_out_as_they_are_less_strict():
    """A tool without parameters gets the empty schema, which the vendor requires."""
    made = built(tools=[tool(), {"type": "function", "function": {"name": "now"}}, tool("s", SCHEMA, strict=True)])
    tools = body_of(made)["tools"]
    assert [each["function"]["name"] for each in tools] == ["weather", "now", "s"]
    assert tools[1]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert "strict" not in tools[2]["function"]
    assert made.dropped == ["tools.strict"]


def test_tools_that_are_all_strict_are_strict_tools():
    """The vendor's switch is for all tools at once, and for tools that require something."""
    assert sent(tools=[tool("s", SCHEMA, strict=True)])["strict_tools"] is True
    empty = {"type": "object", "properties": {}, "required": []}
    assert built(tools=[tool("s", SCHEMA, strict=True), tool("e", empty, strict=True)]).dropped == ["tools.strict"]
    many = {"type": "object", "properties": {f"p{place}": {} for place in range(201)}, "required": ["p0"]}
    assert built(tools=[tool("s", many, strict=True)]).dropped == ["tools.strict"]
    assert sent(tools=[tool()], strict_tools=True)["strict_tools"] is True


@pytest.mark.parametrize(
    ("choice", "word", "names", "adapted"),
    [
        ("auto", None, ["weather", "time"], []),
        ("none", "NONE", ["weather", "time"], []),
        ("required", "REQUIRED", ["weather", "time"], []),
        (named("time"), "REQUIRED", ["time"], ["tool_choice"]),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("time")]}},
            "REQUIRED",
            ["time"],
            ["tool_choice"],
        ),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named("time")]}},
            None,
            ["time"],
            ["tool_choice"],
        ),
    ],
)
def test_tool_choice_is_a_word_or_fewer_tools(choice: Any, word: str | None, names: list[str], adapted: list[str]):
    """The vendor has no named tool: the others are left out, and one must be called."""
    made = built(tools=[tool(), tool("time")], tool_choice=choice)
    body = body_of(made)
    assert body.get("tool_choice") == word
    assert [each["function"]["name"] for each in body["tools"]] == names
    assert made.adapted == adapted


# --- response_format --------------------------------------------------------------------------------------------------


def test_a_schema_is_enforced_by_the_vendor():
    """With the description that stands beside it, less what the vendor cannot enforce: that goes into words."""
    made = built(response_format=schema_format(SCHEMA, description="A person.", strict=True))
    assert body_of(made)["response_format"] == {
        "type": "json_object",
        "json_schema": {**SCHEMA, "description": "A person."},
    }
    assert (made.adapted, made.unchecked_json) == ([], False)
    rich = built(response_format=schema_format(RICH))
    properties = body_of(rich)["response_format"]["json_schema"]["properties"]
    assert "minimum" not in properties["age"]
    assert "minimum: 0" in properties["age"]["description"]
    assert "$ref" not in rich.http.body.decode()
    assert rich.adapted == ["response_format"]


@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({"tools": [tool()]}, SCHEMA),
        ({"documents": ["a"]}, SCHEMA),
        ({}, {"type": "object", "properties": {"a": {"type": "string"}}}),
        ({}, {"type": "array", "items": {"type": "string"}}),
    ],
)
def test_a_schema_that_the_vendor_refuses_is_an_instruction(fields: dict[str, Any], schema: dict[str, Any]):
    """Beside tools and documents, and where nothing is required: the answer is checked here."""
    made = built(response_format=schema_format(schema), **fields)
    body = body_of(made)
    assert "response_format" not in body
    assert body["messages"][0]["role"] == "system"
    assert json.dumps(schema, separators=(",", ":")) in body["messages"][0]["content"]
    assert (made.adapted, made.unchecked_json) == (["response_format"], True)


def test_json_without_a_schema_is_asked_for_in_words():
    """The vendor: without an instruction the model may write an infinite stream of characters."""
    made = built(response_format={"type": "json_object"})
    assert body_of(made)["response_format"] == {"type": "json_object"}
    assert "JSON" in body_of(made)["messages"][0]["content"]
    assert (made.adapted, made.unchecked_json) == (["response_format"], False)
    told = built(user("Answer in JSON."), response_format={"type": "json_object"})
    assert body_of(told)["messages"] == [user("Answer in JSON.")]
    assert told.adapted == []
    with_tools = built(response_format={"type": "json_object"}, tools=[tool()])
    assert with_tools.unchecked_json
    assert "Unless you call a tool" in body_of(with_tools)["messages"][0]["content"]


# --- messages ---------------------------------------------------------------------------------------------------------

SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([SYSTEM, user("Hi.")], [SYSTEM, user("Hi.")]),
        ([{"role": "developer", "content": "Be brief."}, user("Hi.")], [SYSTEM, user("Hi.")]),
        (
            [SYSTEM, {"role": "developer", "content": "In French."}, user("Hi.")],
            [{"role": "system", "content": [text("Be brief."), text("In French.")]}, user("Hi.")],
        ),
        ([user([text("a"), text(""), text("b")])], [user([text("a"), text("b")])]),
        ([user("Hi."), {"role": "assistant", "content": ""}, user("Ho.")], [user("Hi."), user("Ho.")]),
        ([user("Hi."), {"role": "assistant", "content": None}, user("Ho.")], [user("Hi."), user("Ho.")]),
        (
            [user("Hi."), {"role": "assistant", "content": [text("a"), text("b")]}, user("Ho.")],
            [user("Hi."), {"role": "assistant", "content": "ab"}, user("Ho.")],
        ),
        (
            [user("Hi."), {"role": "assistant", "content": None, "refusal": "No."}, user("Ho.")],
            [user("Hi."), {"role": "assistant", "content": "No."}, user("Ho.")],
        ),
        ([user([image()])], [user([image()])]),
        (
            [user([image("https://example.com/a.png", detail="high")])],
            [user([image("https://example.com/a.png", detail="high")])],
        ),
    ],
)
def test_messages_become_turns(messages: list[dict[str, Any]], expected: list[dict[str, Any]]):
    """One system turn at the start, no empty turns, parts as they are."""
    made = built(*messages)
    assert body_of(made)["messages"] == expected
    assert (made.dropped, made.adapted) == ([], [])


def test_a_system_message_in_the_middle_stays_in_its_place():
    """Several models take the system turn at the start only; moved there, it would change what came before it."""
    made = built(SYSTEM, user("Hi."), {"role": "system", "content": "Now rhyme."}, user("Ho."))
    assert [turn["role"] for turn in body_of(made)["messages"]] == ["system", "user", "user", "user"]
    assert made.adapted == ["messages.role"]


def test_names_and_cache_markers_are_dropped_and_reported():
    """The vendor caches by itself and knows no names."""
    made = built({**user([text("a", cache_control={"type": "ephemeral"})]), "name": "Ada"})
    assert body_of(made)["messages"] == [user([text("a")])]
    assert set(made.dropped) == {"messages.name", "messages.content.cache_control"}
    result = [text("sun", cache_control={"type": "ephemeral"})]
    made = built(
        user("weather?"),
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "a", "content": result},
    )
    assert body_of(made)["messages"][-1]["content"] == [text("sun")]
    assert made.dropped == ["messages.content.cache_control"]


def test_a_detail_the_vendor_does_not_know_is_left_to_it():
    """`original` is newer than the vendor's three words."""
    made = built(user([image(detail="original")]))
    assert body_of(made)["messages"][0]["content"][0]["image_url"] == {"url": f"data:image/png;base64,{PNG}"}
    assert made.adapted == ["messages.content.image_url.detail"]


@pytest.mark.parametrize(
    ("messages", "model", "param"),
    [
        ([user([text(), image()])], PLAIN, "messages.0.content.1.image_url"),
        ([user([text(), image()])], "command-a-03-2025", "messages.0.content.1.image_url"),
        ([user([image("gs://bucket/a.png")])], MODEL, "messages.0.content.0.image_url"),
        ([user([audio()])], MODEL, "messages.0.content.0.input_audio"),
        ([user([text(), file()])], MODEL, "messages.0.content.1.file"),
        ([user(), asked(call("a")), result("a", [text(), image()])], PLAIN, "messages.3.content.1.image_url"),
        ([SYSTEM | {"content": [image()]}, user()], MODEL, "messages.0.content.0.image_url"),
    ],
)
def test_content_that_the_model_cannot_take_is_refused_by_its_place(
    messages: list[dict[str, Any]], model: str, param: str
):
    """400 `unsupported_content`, which names the part and the model."""
    with pytest.raises(BadRequest) as caught:
        built(*messages, model=model)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_content")
    assert model in caught.value.message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([user("")], "messages.0.content"),
        ([user([text("")])], "messages.0.content"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages.0.role"),
        ([user(), {"role": "assistant", "tool_calls": [{"id": "a"}]}], "messages.1.tool_calls.0.function.name"),
        ([user(), {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], "messages.1.tool_calls.0.id"),
        ([user(), asked(call("a")), result("a", [text(), {"type": "text"}])], "messages.2.content.1.text"),
    ],
)
def test_messages_that_are_none_are_refused_by_their_place(messages: list[dict[str, Any]], param: str):
    """An empty turn is refused by the vendor too, without saying which."""
    with pytest.raises(BadRequest) as caught:
        built(*messages)
    assert caught.value.param == param


def test_the_text_beside_tool_calls_is_the_plan():
    """And what was thought goes back as thinking, to models that think."""
    thought = {"reasoning_content": "Ask the tool."}
    calls = [call("call_1")]
    assert turns(user(), asked(*calls, content="Let me see."), result("call_1"))[1] == {
        "role": "assistant",
        "tool_calls": calls,
        "tool_plan": "Let me see.",
    }
    assert turns(user(), asked(*calls, **thought), result("call_1"))[1]["tool_plan"] == "Ask the tool."
    both = asked(*calls, content="Let me see.", **thought)
    thinking = [{"type": "thinking", "thinking": "Ask the tool."}]
    assert turns(user(), both, result("call_1"))[1]["content"] == thinking
    assert built(user(), both, result("call_1"), model=PLAIN).dropped == ["messages.reasoning_content"]
    answered = {"role": "assistant", "content": "Hello.", **thought}
    assert turns(user(), answered, user())[1]["content"] == [*thinking, {"type": "text", "text": "Hello."}]
    assert turns(user(), answered, user(), model=PLAIN)[1]["content"] == "Hello."


@pytest.mark.parametrize("said", ["Well.", [text("Well.")]])
def test_thinking_parts_of_the_history_go_back_as_thinking(said: Any):
    """As Cohere writes them, and as Mistral does; before calls too. A model that does not think has plans only."""
    content = [{"type": "thinking", "thinking": said}, text("So.")]
    spoke = {"role": "assistant", "content": content}
    called = {"role": "assistant", "content": content[:1], "tool_calls": [call("c1")]}
    made = built(user(), spoke, user(), called, result("c1"))
    found = body_of(made)["messages"]
    thought = {"type": "thinking", "thinking": "Well."}
    assert found[1] == {"role": "assistant", "content": [thought, text("So.")]}
    assert found[3] == {"role": "assistant", "content": [thought], "tool_calls": [call("c1")]}
    assert made.dropped == []
    for fields in ({"model": PLAIN}, {"reasoning_effort": "none"}):
        made = built(user(), spoke, user(), called, result("c1"), **fields)
        found = body_of(made)["messages"]
        assert found[1] == {"role": "assistant", "content": "So."}
        assert found[3] == {"role": "assistant", "tool_plan": "Well.", "tool_calls": [call("c1")]}
        assert made.dropped == ["messages.content.thinking"]


def test_a_plan_in_the_vendors_own_field_stays_there():
    """After what was said, which the vendor refuses as a content beside calls; one that led to no call has no place."""
    called = {"role": "assistant", "content": None, "tool_plan": "I will ask.", "tool_calls": [call("c1")]}
    expected = {"role": "assistant", "tool_plan": "I will ask.", "tool_calls": [call("c1")]}
    assert turns(user(), called, result("c1"))[1] == expected
    found = turns(user(), {**called, "content": "Wait."}, result("c1"))[1]
    assert found == {**expected, "tool_plan": "Wait.\n\nI will ask."}
    made = built(user(), {"role": "assistant", "content": "So.", "tool_plan": "I will ask."}, user())
    assert body_of(made)["messages"][1] == {"role": "assistant", "content": "So."}
    assert made.dropped == ["messages.tool_plan"]


def test_what_messages_and_tools_say_in_fields_of_others_is_told():
    """Echoes of our own answers are not: nothing of the client's is lost with them."""
    asking = {**user([text("Hi.", weight=2)]), "audience": "all"}
    made = built(
        asking, {"role": "assistant", "content": "Ho.", "annotations": []}, user(), tools=[{**tool(), "origin": "x"}]
    )
    assert made.dropped == ["tools.origin", "messages.audience", "messages.content.weight"]


def test_a_plan_that_the_client_lost_is_put_back():
    """Clients of OpenAI send back calls without `reasoning_content`; only what this dialect kept counts."""
    kept = COHERE.reasoning_state({"reasoning_content": "I will ask.", "tool_calls": [{"id": "call_1"}]})
    assert kept == {"call_1": {"tool_plan": "I will ask."}}
    asking = request(user(), asked(call("call_1")), result("call_1"))
    for dialect, expected in (("cohere", "I will ask."), ("google", None)):
        found = msgspec.structs.replace(asking, kept={"call_1": KeptReasoning(dialect, MODEL, kept["call_1"])})
        assert body_of(COHERE.build_request(found, MODEL))["messages"][1].get("tool_plan") == expected
    assert COHERE.reasoning_state({"content": "Hi."}) == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"city": "Paris"}', '{"city": "Paris"}'),
        ("", "{}"),
        ("null", "{}"),
        ("[1]", '{"_raw":"[1]"}'),
        ('{"city": ', '{"_raw":"{\\"city\\": "}'),
    ],
)
def test_arguments_in_the_history_are_always_an_object(given: str, expected: str):
    """Whatever a model once wrote, the vendor takes it back."""
    assert (
        turns(user(), asked(call("a", "f", given)), result("a"))[1]["tool_calls"][0]["function"]["arguments"]
        == expected
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("sunny", "sunny"),
        ("", "{}"),
        ([], "{}"),
        ([text("sunny"), text("")], [text("sunny")]),
        (
            [{"type": "document", "document": {"id": "1", "data": {"url": "https://a"}, "odd": 1}}],
            [{"type": "document", "document": {"id": "1", "data": {"url": "https://a"}}}],
        ),
    ],
)
def test_tool_results_are_texts_or_documents(content: Any, expected: Any):
    """An empty result is an empty object: an empty turn is refused. Documents are cited."""
    assert turns(user(), asked(call("a")), result("a", content))[2] == {
        "role": "tool",
        "tool_call_id": "a",
        "content": expected,
    }


# --- the whole request ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MODEL, PLAIN])
def test_the_corpus_is_taken_by_a_strict_server(model: str):
    """The fake upstream, written from the SDK's types and the vendor's rules, refuses none of our requests but those
    that are wrong in themselves.
    """
    wire = CohereWire()
    wrong = {"call without a result", "result without a call"}
    taken = 0
    for name, body in CORPUS.items():
        try:
            made = COHERE.build_request(decode_chat(json.dumps(body).encode()), model)
        except BadRequest:
            continue
        if name not in wrong:
            asked_for = wire.ask(Request("POST", made.http.path, {}, made.http.headers, made.http.body), 1)
            assert wants(asked_for.body).turns == len(body_of(made)["messages"]), name
            taken += 1
    assert taken > 150


def test_the_same_request_gives_the_same_bytes_in_the_clients_order():
    """Prompt caches hit on equal prefixes."""
    schema = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "string"}}, "required": ["z"]}
    fields: dict[str, Any] = {"tools": [tool("f", schema)], "seed": 1}
    assert built(**fields).http == built(**fields).http
    assert built(**fields).http.body.index(b'"z"') < built(**fields).http.body.index(b'"a"')


def test_the_request_goes_to_the_vendors_own_address_with_its_key():
    """Version 2 of chat; either name of the key."""
    made = built(stream=True)
    assert (made.http.method, made.http.path) == ("POST", "/v2/chat")
    assert made.http.headers["accept"] == "text/event-stream"
    assert COHERE.default_base_url == "https://api.cohere.com"
    assert COHERE.key_variables == ("COHERE_API_KEY", "CO_API_KEY")
    assert Cohere(base_url="https://own.example").key_variables == ()
    assert COHERE.authorize("k") == {"authorization": "Bearer k"}
    assert COHERE.max_choices(MODEL) == 1


# --- embeddings and rankings ------------------------------------------------------------------------------------------


def embeddings(inputs: Any, **fields: Any) -> EmbeddingsRequest:
    dimensions = fields.get("dimensions")
    whole = {"model": "x", "input": inputs, **fields}
    return EmbeddingsRequest(model="x", inputs=inputs, dimensions=dimensions, fields=whole)


def test_embeddings_are_asked_as_numbers_for_documents():
    """Models since v3 must be told what the texts are for; base64 is made by the proxy."""
    made = COHERE.build_embeddings(
        embeddings(["a", "b"], encoding_format="base64", dimensions=256, user="u"), "embed-v4.0"
    )
    assert made.http.path == "/v2/embed"
    assert body_of(made) == {
        "model": "embed-v4.0",
        "texts": ["a", "b"],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "output_dimension": 256,
    }
    assert made.dropped == ["user"]
    query = COHERE.build_embeddings(embeddings(["a"], input_type="search_query", truncate="NONE"), "embed-v4.0")
    assert body_of(query)["input_type"] == "search_query"
    assert body_of(query)["truncate"] == "NONE"
    assert query.dropped == []
    assert COHERE.embeddings_batch == 96


def test_lists_of_tokens_are_refused():
    """They are numbers of another vendor's tokenizer."""
    with pytest.raises(BadRequest) as caught:
        COHERE.build_embeddings(embeddings([[1, 2]]), "embed-v4.0")
    assert (caught.value.param, caught.value.code) == ("input", "unsupported_content")


def test_a_ranking_is_asked_in_the_vendors_shape():
    """The texts come back from the request, not from the vendor."""
    whole = {
        "query": "q",
        "documents": ["a", "b"],
        "top_n": 1,
        "return_documents": True,
        "max_tokens_per_doc": 9,
        "x": 1,
    }
    asking = RerankRequest(
        model="x", query="q", documents=["a", "b"], top_n=1, return_documents=True, fields={"model": "x", **whole}
    )
    made = COHERE.build_rerank(asking, "rerank-v3.5")
    assert made.http.path == "/v2/rerank"
    expected = {"model": "rerank-v3.5", "query": "q", "documents": ["a", "b"], "top_n": 1, "max_tokens_per_doc": 9}
    assert body_of(made) == expected
    assert made.dropped == ["x"]
