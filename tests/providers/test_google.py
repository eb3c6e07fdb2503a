"""Rules of requests to Gemini: the rows of the vendor's translation table, by generation of the model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers.base.contract import Built
from proxy.providers.google import Google
from proxy.providers.google.contents import UNSIGNED
from proxy.schema.chat import KeptReasoning
from proxy.schema.embeddings import EmbeddingsRequest
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
from tests.upstream.google_wire import GoogleWire
from tests.upstream.http1 import Request

GOOGLE = Google()
NEW, OLD, OLDER = "gemini-3.8-flash", "gemini-2.5-flash", "gemini-2.0-flash"
BLANK = {"text": " "}


def built(*messages: dict[str, Any], model: str = NEW, provider: Google = GOOGLE, **fields: Any) -> Built:
    body = {"model": "x", "messages": list(messages) or [user("Hi.")], **fields}
    return provider.build_request(decode_chat(encode(body)), model)


def sent(*messages: dict[str, Any], model: str = NEW, provider: Google = GOOGLE, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(built(*messages, model=model, provider=provider, **fields).http.body)
    return body


def contents(*messages: dict[str, Any], model: str = NEW) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(content["role"], content["parts"]) for content in sent(*messages, model=model)["contents"]]


def config(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = sent(**fields).get("generationConfig", {})
    return found


# --- where it goes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "stream", "path"),
    [
        (None, False, "/v1beta/models/gemini-3.8-flash:generateContent"),
        (None, True, "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"),
        ("https://proxy.example.com/gemini", False, "/v1beta/models/gemini-3.8-flash:generateContent"),
        ("https://proxy.example.com/v1beta", False, "/models/gemini-3.8-flash:generateContent"),
    ],
)
def test_the_path_holds_version_model_and_method(base_url: str | None, stream: bool, path: str):
    """An address that ends with a version keeps it."""
    provider = Google(base_url=base_url)
    assert built(provider=provider, stream=stream).http.path == path
    assert built(provider=provider, stream=stream, model="models/gemini-3.8-flash").http.path == path


@pytest.mark.parametrize("odd", ["a/b", "a?key=1", "a#b", "a%2fb", "a\r\nx: y", "a b", "ä"])
def test_a_model_id_stays_one_segment_of_the_path(odd: str):
    """What it holds is quoted: no query, no fragment, no header."""
    path = built(model=odd).http.path
    assert path.startswith("/v1beta/models/") and path.endswith(":generateContent")
    assert path.count("/") == 3
    assert not set("?# \r\n") & set(path)


def test_a_model_id_that_goes_upwards_is_refused():
    """Servers in between may decode a quoted slash."""
    with pytest.raises(BadRequest, match="id is not valid"):
        built(model="gemini/../../admin")


def test_the_key_goes_into_a_header():
    """Never into the address, where logs would keep it."""
    assert GOOGLE.authorize("k") == {"x-goog-api-key": "k"}
    assert GOOGLE.key_variables == ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    assert Google(base_url="http://localhost:1").key_variables == ()
    assert Google(base_url="http://localhost:1", api_key_env="K").key_variables == ("K",)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_instructions_of_any_place_are_hoisted():
    """One text part each, system and developer alike."""
    body = sent(
        {"role": "system", "content": "Be brief."},
        user("Hi."),
        {"role": "developer", "content": [text("Be"), text("kind.")]},
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be"}, {"text": "kind."}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi."}]}]


def test_contents_are_never_empty_and_begin_with_the_user():
    """Instructions alone, and an assistant who speaks first."""
    assert contents({"role": "system", "content": "Be brief."}) == [("user", [BLANK])]
    assert contents({"role": "assistant", "content": "Hello."}, user("Hi.")) == [
        ("user", [BLANK]),
        ("model", [{"text": "Hello."}]),
        ("user", [{"text": "Hi."}]),
    ]
    assert contents(user("")) == [("user", [BLANK])]


def test_messages_of_one_role_in_a_row_are_one_content():
    """The vendor wants turns."""
    hello = {"role": "assistant", "content": "Hello."}
    assert contents(user("a"), user("b"), hello, hello, user("c")) == [
        ("user", [{"text": "a"}, {"text": "b"}]),
        ("model", [{"text": "Hello."}, {"text": "Hello."}]),
        ("user", [{"text": "c"}]),
    ]


def test_a_refusal_is_what_the_model_said():
    """As a field and as a part."""
    refused = {"role": "assistant", "content": None, "refusal": "No."}
    part = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    for message in (refused, part):
        assert contents(user("a"), message, user("b"))[1] == ("model", [{"text": "No."}])


def test_names_and_cache_marks_are_reported():
    """The vendor has neither."""
    assert built({**user(), "name": "Ada"}).dropped == ["messages.name"]
    assert built(user([text(cache_control={"type": "ephemeral"})])).dropped == ["messages.content.cache_control"]


def test_a_role_that_nobody_knows_is_refused():
    """With its place."""
    with pytest.raises(BadRequest) as caught:
        built(user(), {"role": "critic", "content": "Hm."})
    assert caught.value.param == "messages.1.role"


# --- media ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "kind", "data"),
    [
        (image(), "image/png", PNG),
        (file(), "application/pdf", PDF),
        (audio(), "audio/wav", WAV),
        ({"type": "input_audio", "input_audio": {"data": "SUQzBAAA", "format": "mp3"}}, "audio/mp3", "SUQzBAAA"),
        ({"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{WAV}"}}, "video/mp4", WAV),
        ({"type": "file", "file": {"filename": "a.csv", "file_data": "data:;base64,YTtiCg=="}}, "text/csv", "YTtiCg=="),
    ],
)
def test_data_goes_inline(part: dict[str, Any], kind: str, data: str):
    """Every kind, on old and new models; a content of media alone gets a blank text."""
    inline = {"inlineData": {"mimeType": kind, "data": data}}
    for model in (NEW, OLDER):
        assert contents(user([part]), model=model) == [("user", [inline, BLANK])]
        assert contents(user([text(), part]), model=model) == [("user", [{"text": "Describe it."}, inline])]


@pytest.mark.parametrize(
    ("part", "kind", "uri"),
    [
        (image("https://example.com/a.webp?x=1"), "image/webp", "https://example.com/a.webp?x=1"),
        (image("https://example.com/a"), "image/jpeg", "https://example.com/a"),
        (
            {"type": "video_url", "video_url": {"url": "https://youtu.be/lCdaVNyHtjU"}},
            "video/mp4",
            "https://youtu.be/lCdaVNyHtjU",
        ),
        (
            {"type": "file", "file": {"file_data": "https://example.com/b.pdf", "filename": "b.pdf"}},
            "application/pdf",
            "https://example.com/b.pdf",
        ),
        (
            {"type": "file", "file": {"file_id": "files/abc", "format": "audio/wav"}},
            "audio/wav",
            "https://generativelanguage.googleapis.com/v1beta/files/abc",
        ),
    ],
)
def test_links_are_fetched_by_the_vendor(part: dict[str, Any], kind: str, uri: str):
    """With the type that it wants beside every one."""
    assert contents(user([text("a"), part]))[0][1][1] == {"fileData": {"mimeType": kind, "fileUri": uri}}


@pytest.mark.parametrize(
    ("part", "model"),
    [
        (image("https://example.com/a.png"), OLDER),
        (image("http://example.com/a.png"), NEW),
        ({"type": "file", "file": {"file_id": "file-123"}}, NEW),
    ],
)
def test_what_the_vendor_would_not_fetch_is_refused(part: dict[str, Any], model: str):
    """Naming the part and the model, before anything is sent."""
    with pytest.raises(BadRequest) as caught:
        built(user([text(), part]), model=model)
    assert caught.value.code == "unsupported_content"
    assert str(caught.value.param).startswith("messages.0.content.1.")
    assert model in caught.value.message


def test_videos_of_youtube_and_own_files_go_to_old_models_too():
    """They always could."""
    for url in ("https://www.youtube.com/watch?v=1", "https://generativelanguage.googleapis.com/v1beta/files/a"):
        part = {"type": "video_url", "video_url": {"url": url}}
        assert contents(user([part]), model=OLDER)[0][1][0]["fileData"]["fileUri"] == url


def test_the_detail_of_a_picture_is_its_resolution():
    """For each part since Gemini 3; others have none."""
    part = image(detail="high")
    assert contents(user([part]))[0][1][0]["mediaResolution"] == {"level": "MEDIA_RESOLUTION_HIGH"}
    assert built(user([image(detail="auto")]), model=OLD).dropped == []
    assert built(user([part]), model=OLD).dropped == ["messages.image_url.detail"]


def test_a_picture_in_the_instructions_is_refused():
    """They are text."""
    with pytest.raises(BadRequest) as caught:
        built({"role": "system", "content": [image()]}, user())
    assert caught.value.param == "messages.0.content.0.image_url"


# --- calls and results ------------------------------------------------------------------------------------------------


def test_results_stand_in_one_content_in_the_order_of_their_calls():
    """Matched by id, named by the call; ids only where the model has them."""
    messages = (
        user(),
        asked(call("a"), call("b", "time", "")),
        result("b", '{"hour": 12}'),
        result("a"),
        user("And?"),
    )
    for model, ids in ((OLD, False), (NEW, True)):
        _, (role, calls), (answering, results), (_, last) = contents(*messages, model=model)
        assert (role, answering, last) == ("model", "user", [{"text": "And?"}])
        assert [part["functionCall"]["args"] for part in calls] == [{"city": "Paris"}, {}]
        responses = [part["functionResponse"] for part in results]
        assert [each["name"] for each in responses] == ["weather", "time"]
        assert [each["response"] for each in responses] == [{"output": "sunny, 21 degrees"}, {"hour": 12}]
        assert [each.get("id") for each in responses] == (["a", "b"] if ids else [None, None])
        assert [part["functionCall"].get("id") for part in calls] == (["a", "b"] if ids else [None, None])


def test_calls_and_results_that_do_not_match_are_made_to():
    """Exactly one result for each call, and what belongs to no call is told by the user: nothing is lost."""
    once = built(user(), asked(call("a"), call("b")), result("a"), result("z", "late"), model=OLD)
    _, _, results, told = json.loads(once.http.body)["contents"]
    assert [part["functionResponse"]["response"] for part in results["parts"]] == [
        {"output": "sunny, 21 degrees"},
        {"output": ""},
    ]
    assert told["parts"][-1] == {"text": "late"}
    assert once.adapted == ["messages.tool_calls", "messages.tool_call_id"]


def test_calls_split_over_messages_are_one_turn():
    """Some clients write each of several calls as a message of its own."""
    turns = contents(user(), asked(call("a")), asked(call("b")), result("a"), result("b"), model=OLD)
    assert [(role, len(said)) for role, said in turns] == [("user", 1), ("model", 2), ("user", 2)]


def test_a_picture_in_a_result_goes_with_it():
    """Inside the result since Gemini 3, behind the results before."""
    messages = (user(), asked(call("a")), result("a", [text("Here."), image()]))
    inline = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    response = contents(*messages)[2][1][0]["functionResponse"]
    assert (response["response"], response["parts"]) == ({"output": "Here."}, [inline])
    assert contents(*messages, model=OLD)[3] == ("user", [inline, BLANK])


def test_a_result_holds_only_what_the_vendor_takes_in_one():
    """Sounds and films stand behind it; it has no place for the detail of a picture."""
    sound = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}}
    once = built(user(), asked(call("a")), result("a", [picture, sound]))
    _, _, answer, behind = json.loads(once.http.body)["contents"]
    inline = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    assert answer["parts"][0]["functionResponse"]["parts"] == [inline]
    assert behind == {"role": "user", "parts": [{"inlineData": {"mimeType": "audio/wav", "data": "UklG"}}, BLANK]}
    assert once.dropped == ["messages.image_url.detail"]


@pytest.mark.parametrize(
    ("arguments", "args"),
    [("", {}), ("null", {}), ('{"a": 1}', {"a": 1}), ("[1]", {"_raw": "[1]"}), ('{"a', {"_raw": '{"a'})],
)
def test_arguments_that_are_no_object_are_carried_in_one(arguments: str, args: dict[str, Any]):
    """The vendor takes objects only."""
    assert contents(user(), asked(call("a", "f", arguments)))[1][1][0]["functionCall"]["args"] == args


def test_a_call_without_a_name_is_refused():
    """With its place."""
    with pytest.raises(BadRequest) as caught:
        built(user(), asked({"id": "a", "type": "function"}), result("a"))
    assert caught.value.param == "messages.1.tool_calls.0.function.name"


# --- signatures of thoughts -------------------------------------------------------------------------------------------


def signed(identity: str, signature: str) -> dict[str, Any]:
    return {**call(identity), "extra_content": {"google": {"thought_signature": signature}}}


def signatures(built_request: Built) -> list[str | None]:
    made = json.loads(built_request.http.body)["contents"]
    parts = [part for content in made for part in content["parts"] if "functionCall" in part]
    return [part.get("thoughtSignature") for part in parts]


def kept(identity: str, dialect: str) -> Built:
    body = {"model": "x", "messages": [user(), asked(call(identity)), result(identity)]}
    request = decode_chat(encode(body))
    state = {identity: KeptReasoning(dialect, "gemini-3.8-flash", {"thought_signature": "kept"})}
    fields = {name: getattr(request, name) for name in request.__struct_fields__}
    return GOOGLE.build_request(type(request)(**{**fields, "kept": state}), NEW)


def test_a_signature_that_the_client_sends_back_is_put_back():
    """On the part that it came with; the other calls of its batch have none."""
    once = built(user(), asked(signed("a", "c2ln"), call("b")), result("a"), result("b"))
    assert signatures(once) == ["c2ln", None]
    assert once.adapted == []


def test_a_signature_that_was_kept_here_is_put_back():
    """For clients that drop unknown fields; only what this vendor wrote."""
    assert signatures(kept("a", "google")) == ["kept"]
    assert signatures(kept("a", "anthropic")) == [UNSIGNED]


def test_a_turn_without_a_signature_gets_the_vendors_own_word_for_it():
    """On the first call of each turn, and only where models ask for one."""
    messages = (user(), asked(call("a"), call("b")), result("a"), result("b"), asked(call("c")), result("c"))
    once = built(*messages)
    assert signatures(once) == [UNSIGNED, None, UNSIGNED]
    assert once.adapted == ["messages.tool_calls"]
    assert signatures(built(*messages, model=OLD)) == [None, None, None]


def test_the_signature_of_a_text_goes_back_to_the_text():
    """It came with the message, not with a call."""
    message = {"role": "assistant", "content": "Hello.", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    assert contents(user(), message, user())[1][1] == [{"text": "Hello.", "thoughtSignature": "c2ln"}]


# --- tools ------------------------------------------------------------------------------------------------------------


def test_functions_are_declared_in_one_entry():
    """With JSON schemas; without one where there is nothing to say."""
    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    tools = sent(tools=[tool(), tool("now", empty), {"type": "function", "function": {"name": "bare"}}])["tools"]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    assert tools == [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "The weather.", "parametersJsonSchema": schema},
                {"name": "now", "description": "The now."},
                {"name": "bare"},
            ]
        }
    ]


def test_schemas_are_levelled_and_that_is_reported():
    """No reference, no pattern; properties may be called anything."""
    odd = {"type": "object", "properties": {"title": {"type": "string"}, "default": {"type": "string", "pattern": "a"}}}
    once = built(tools=[tool("rich", RICH), tool("odd", odd)])
    declared = json.loads(once.http.body)["tools"][0]["functionDeclarations"]
    rich = declared[0]["parametersJsonSchema"]
    assert "$defs" not in rich and "uniqueItems" not in rich["properties"]["pets"]
    assert rich["properties"]["kind"] == {"enum": ["person"]}
    assert rich["properties"]["pets"]["items"]["properties"]["name"] == {"type": "string"}
    assert list(declared[1]["parametersJsonSchema"]["properties"]) == ["title", "default"]
    assert once.adapted == ["tools.parameters"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", {"mode": "NONE"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "time"}}, {"mode": "ANY", "allowedFunctionNames": ["time"]}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]},
            },
            {"mode": "ANY", "allowedFunctionNames": ["time"]},
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "time"}}]},
            },
            {"mode": "VALIDATED", "allowedFunctionNames": ["time"]},
        ),
    ],
)
def test_the_choice_among_tools(choice: Any, expected: dict[str, Any]):
    """Every form of it; names are not allowed with AUTO."""
    body = sent(tools=[tool(), tool("time")], tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": expected}


@pytest.mark.parametrize("choice", ["maybe", {"type": "function"}, {"type": "custom", "custom": {"name": "x"}}, {}])
def test_a_choice_that_is_none_is_refused(choice: Any):
    """It must not become another one."""
    with pytest.raises(BadRequest) as caught:
        built(tools=[tool()], tool_choice=choice)
    assert str(caught.value.param).startswith("tool_choice")


def test_strict_tools_are_validated():
    """That mode holds calls to their schemas; models before 2.5 have none."""
    strict = [tool("person", SCHEMA, strict=True)]
    assert sent(tools=strict)["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert built(tools=strict, model=OLDER).dropped == ["tools.strict"]
    assert "toolConfig" not in sent(tools=[tool("person", SCHEMA, strict=False)])


def test_one_call_at_a_time_cannot_be_asked_for():
    """There is no such switch."""
    assert built(tools=[tool()], parallel_tool_calls=False).dropped == ["parallel_tool_calls"]
    assert built(tools=[tool()], parallel_tool_calls=True).dropped == []


def test_tools_of_another_kind_are_refused_and_the_vendors_own_pass():
    """`{"google_search": {}}` beside functions."""
    with pytest.raises(BadRequest) as caught:
        built(tools=[{"type": "custom", "custom": {"name": "x"}}])
    assert caught.value.param == "tools.0.type"
    assert sent(tools=[{"code_execution": {}}])["tools"] == [{"codeExecution": {}}]


def test_web_search_is_the_vendors_own_tool():
    """Beside functions only since Gemini 3, which then has to be told so."""
    assert sent(web_search_options={})["tools"] == [{"googleSearch": {}}]
    both = sent(web_search_options={}, tools=[tool()])
    assert both["tools"][1] == {"googleSearch": {}}
    assert both["toolConfig"] == {"includeServerSideToolInvocations": True}
    assert built(web_search_options={}, tools=[tool()], model=OLD).dropped == ["web_search_options"]
    sized = built(web_search_options={"search_context_size": "high"})
    assert sized.dropped == ["web_search_options.search_context_size"]


# --- options ----------------------------------------------------------------------------------------------------------


def test_numbers_and_stops():
    """Each under the vendor's name."""
    given = {"temperature": 0.2, "top_p": 0.5, "top_k": 40, "max_tokens": 9, "seed": 7, "stop": "END"}
    expected = {"temperature": 0.2, "topP": 0.5, "topK": 40, "maxOutputTokens": 9, "seed": 7, "stopSequences": ["END"]}
    assert config(model=OLD, **given) == expected
    assert config(model="gemini-3.1-pro-preview", **given) == expected
    assert config(max_completion_tokens=5, max_tokens=9) == {"maxOutputTokens": 5}
    assert built(temperature=0.2, top_p=0.5).dropped == ["temperature", "top_p"]  # such models sample as they please


def test_more_than_five_stops_are_trimmed_here():
    """The rest is for the proxy to cut at."""
    once = built(stop=["a", "b", "c", "d", "e", "f"])
    assert once.stops == ["f"]
    assert json.loads(once.http.body)["generationConfig"] == {"stopSequences": ["a", "b", "c", "d", "e"]}


def test_a_seed_that_is_too_large_becomes_another():
    """The same one each time."""
    once = built(seed=2**40 + 1)
    assert once.adapted == ["seed"]
    assert 0 <= json.loads(once.http.body)["generationConfig"]["seed"] < 2**31


def test_penalties_are_for_models_that_take_them():
    """Others answer 400."""
    assert config(model=OLD, presence_penalty=0.5, frequency_penalty=1) == {
        "presencePenalty": 0.5,
        "frequencyPenalty": 1,
    }
    for model in (NEW, "gemini-2.5-flash-preview-09-2025"):
        assert built(model=model, presence_penalty=0.5).dropped == ["presence_penalty"]


def test_log_probabilities():
    """The count only together with the switch."""
    assert config(logprobs=True, top_logprobs=5) == {"responseLogprobs": True, "logprobs": 5}
    assert config(logprobs=True, top_logprobs=1)["logprobs"] == 1
    assert built(top_logprobs=5).dropped == ["top_logprobs"]
    assert built(logprobs=False).dropped == []


@pytest.mark.parametrize(
    ("model", "effort", "expected", "exact"),
    [
        *[("gemini-3.5-flash", effort, "MINIMAL", effort == "minimal") for effort in ("none", "minimal")],
        *[("gemini-3.1-pro-preview", effort, "LOW", effort == "low") for effort in ("none", "minimal", "low")],
        *[(model, "minimal", "LOW", False) for model in ("gemini-3.7-flash", NEW, "gemini-4-argon")],
        (NEW, "medium", "MEDIUM", True),
        ("gemini-3-pro-preview", "medium", "HIGH", False),
        *[(NEW, effort, "HIGH", effort == "high") for effort in ("high", "xhigh", "max")],
        (OLD, "none", 0, True),
        ("gemini-2.5-pro", "none", 128, False),
        ("gemini-2.5-pro", "minimal", 128, True),
        (OLD, "minimal", 512, True),
        (OLD, "low", 1024, True),
        (OLD, "medium", 2048, True),
        (OLD, "high", 4096, True),
        (OLD, "max", 24_576, True),
        ("gemini-2.5-pro", "max", 32_768, True),
    ],
)
def test_the_effort_of_thinking(model: str, effort: str, expected: str | int, exact: bool):
    """A level since Gemini 3, a budget before; thoughts are shown unless there should be none."""
    once = built(model=model, reasoning_effort=effort)
    name = "thinkingLevel" if isinstance(expected, str) else "thinkingBudget"
    thinking = json.loads(once.http.body)["generationConfig"]["thinkingConfig"]
    assert thinking == {"includeThoughts": effort != "none", name: expected}
    assert once.adapted == ([] if exact else ["reasoning_effort"])


def test_models_that_do_not_think_report_the_effort():
    """But none is what they do anyway."""
    assert built(model=OLDER, reasoning_effort="high").dropped == ["reasoning_effort"]
    assert built(model=OLDER, reasoning_effort="none").dropped == []
    assert "thinkingConfig" not in config()
    with pytest.raises(BadRequest, match="reasoning_effort"):
        built(reasoning_effort="extreme")


def test_formats():
    """A type for JSON, and the schema with it, levelled."""
    assert config(response_format={"type": "text"}) == {}
    assert config(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "strict": True}}
    assert config(response_format=wanted) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }
    rich = {"type": "json_schema", "json_schema": {"name": "p", "schema": RICH}}
    assert built(response_format=rich).adapted == ["response_format"]
    with pytest.raises(BadRequest, match="response_format"):
        built(response_format={"type": "yaml"})


def test_json_beside_tools_is_an_instruction_for_older_models():
    """They answer 400 to both at once; so the answer must be checked."""
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
    once = built(tools=[tool()], response_format=wanted, model=OLD)
    body = json.loads(once.http.body)
    assert once.unchecked_json and once.adapted == ["response_format"]
    assert "generationConfig" not in body
    assert '"required":["name","age"]' in body["systemInstruction"]["parts"][0]["text"]
    assert config(tools=[tool()], response_format=wanted)["responseJsonSchema"] == SCHEMA


@pytest.mark.parametrize(
    ("tier", "expected", "dropped"),
    [
        ("auto", None, []),
        ("default", "standard", []),
        ("flex", "flex", []),
        ("priority", "priority", []),
        ("scale", None, ["service_tier"]),
    ],
)
def test_tiers(tier: str, expected: str | None, dropped: list[str]):
    """Auto says nothing."""
    once = built(service_tier=tier)
    assert json.loads(once.http.body).get("serviceTier") == expected
    assert once.dropped == dropped


def test_modalities_and_voices():
    """Text alone needs no word."""
    assert config(modalities=["text"]) == {}
    assert config(modalities=["text", "image"]) == {"responseModalities": ["TEXT", "IMAGE"]}
    spoken = config(modalities=["audio"], audio={"voice": "Kore", "format": "wav"})
    voice = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}}
    assert spoken == {"responseModalities": ["AUDIO"], "speechConfig": voice}


@pytest.mark.parametrize(
    "field",
    [
        {"user": "u"},
        {"metadata": {"a": "b"}},
        {"store": True},
        {"logit_bias": {"1": 1}},
        {"prediction": {"type": "content", "content": "x"}},
        {"verbosity": "low"},
        {"safety_identifier": "x"},
        {"prompt_cache_key": "x"},
        {"something_new": 1},
    ],
)
def test_what_the_vendor_lacks_is_reported(field: dict[str, Any]):
    """And not sent: it refuses unknown fields."""
    once = built(**field)
    assert once.dropped == list(field)
    assert set(json.loads(once.http.body)) == {"contents"}


def test_fields_of_the_vendors_own_pass_through():
    """By either of its names, in its own block, or in the one of its OpenAI-compatible endpoint."""
    safety = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    assert sent(safety_settings=safety)["safetySettings"] == safety
    assert sent(cachedContent="cachedContents/1")["cachedContent"] == "cachedContents/1"
    assert config(generation_config={"top_k": 3}) == {"topK": 3}
    assert built(generationConfig={"evil": 3}).dropped == ["generationConfig.evil"]
    thinking = {"thinking_budget": 64, "include_thoughts": True}
    nested = built(extra_body={"google": {"thinking_config": thinking}}, reasoning_effort="low", model=OLD)
    assert json.loads(nested.http.body)["generationConfig"] == {"thinkingConfig": thinking}
    assert nested.dropped == ["reasoning_effort"]


@pytest.mark.parametrize("block", [{"tools": 1}, {"tools": [None]}, {"max_tokens": 9000}, {"stop": 5}, {"n": 8}])
def test_the_vendors_own_block_holds_only_the_vendors_own(block: dict[str, Any]):
    """What is OpenAI's is checked where it belongs, and dropped here."""
    given: dict[str, Any]
    for given in ({"google": block}, {"extra_body": {"google": block, "more": 1}}):
        once = built(user("Hi."), **given)
        assert json.loads(once.http.body) == {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]}
        assert once.dropped == [f"google.{name}" for name in block] + ["extra_body.more"] * ("extra_body" in given)


def test_a_limit_by_the_vendors_name_does_not_go_beyond_the_requests_own():
    """What a call may cost was bounded by `max_tokens` and `n`."""
    own: dict[str, Any] = {"generationConfig": {"max_output_tokens": 9000, "candidateCount": 8, "topK": 3}}
    once = built(user(), max_tokens=10, **own)
    assert json.loads(once.http.body)["generationConfig"] == {"maxOutputTokens": 10, "topK": 3}
    assert sorted(once.dropped) == ["generationConfig.candidateCount", "generationConfig.max_output_tokens"]
    assert json.loads(built(user(), **own).http.body)["generationConfig"] == {"maxOutputTokens": 9000, "topK": 3}


def test_defaults_of_the_file_stand_in_where_the_client_said_nothing():
    """And a limit of the request stands above one of the file under either name."""
    provider = Google(parameters={"temperature": 0.1, "max_completion_tokens": 50, "safety_settings": []})
    assert sent(provider=provider, model=OLD)["generationConfig"] == {"maxOutputTokens": 50, "temperature": 0.1}
    own = sent(provider=provider, model=OLD, temperature=1, max_tokens=99)["generationConfig"]
    assert own == {"maxOutputTokens": 99, "temperature": 1}


def test_one_call_answers_one_choice():
    """Most models say: only one candidate can be specified."""
    assert GOOGLE.max_choices(NEW) == 1


@pytest.mark.parametrize("model", [NEW, OLD, OLDER, "gemini-3.1-pro-preview"])
def test_the_fake_vendor_takes_every_request_of_the_corpus(model: str):
    """It was written from the vendor's rules, not from this adapter."""
    apart = ("n 2", "thought signature sent back")  # asked one by one; a signature that it never wrote
    taken = 0
    for name, body in CORPUS.items():
        try:
            http = GOOGLE.build_request(decode_chat(encode(body)), model).http
        except BadRequest:
            continue
        path, _, query = http.path.partition("?")
        if name not in apart:
            GoogleWire().ask(Request("POST", path, {"alt": "sse"} if query else {}, {}, http.body), 1)
            taken += 1
    assert taken > 150


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_embeddings_are_asked_in_one_batch():
    """Each text with the model's full name and the options."""
    request = EmbeddingsRequest(
        model="x",
        inputs=["a", "b"],
        dimensions=8,
        fields={"model": "x", "input": ["a", "b"], "dimensions": 8, "task_type": "RETRIEVAL_QUERY", "user": "u"},
    )
    once = GOOGLE.build_embeddings(request, "gemini-embedding-001")
    assert once.http.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    expected = [
        {
            "model": "models/gemini-embedding-001",
            "content": {"parts": [{"text": each}]},
            "outputDimensionality": 8,
            "taskType": "RETRIEVAL_QUERY",
        }
        for each in ("a", "b")
    ]
    assert json.loads(once.http.body) == {"requests": expected}
    assert once.dropped == ["user"]
    assert GOOGLE.embeddings_batch == 100


def test_embeddings_of_tokens_are_refused():
    """Their numbers are another vendor's."""
    with pytest.raises(BadRequest) as caught:
        GOOGLE.build_embeddings(EmbeddingsRequest(model="x", inputs=[[1, 2]], fields={"input": [[1, 2]]}), "e")
    assert caught.value.param == "input"
