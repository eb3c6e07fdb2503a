"""Values: OpenAI chat requests that cover every parameter and every kind of content, for all providers.

`CORPUS` maps a name to a request's body; a name says what is special about it. Pictures, sounds and files are the
smallest valid ones of their kind.
"""

from __future__ import annotations

import base64
from typing import Any

MODEL = "model"
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001"
        "e221bc330000000049454e44ae426082"
    )
).decode()
PDF = base64.b64encode(b"%PDF-1.1\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF").decode()
WAV = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00").decode()
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
RICH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "nick": {"type": ["string", "null"], "minLength": 1, "pattern": "^[a-z]+$"},
        "kind": {"const": "person"},
        "born": {"type": "string", "format": "date-time"},
        "pets": {"type": "array", "items": {"$ref": "#/$defs/pet"}, "minItems": 1, "maxItems": 3, "uniqueItems": True},
        "home": {"oneOf": [{"type": "string"}, {"type": "object", "properties": {"street": {"type": "string"}}}]},
    },
    "required": ["age", "pets"],
    "$defs": {"pet": {"type": "object", "properties": {"name": {"type": "string"}, "young": {"$ref": "#/$defs/pet"}}}},
}


def user(content: Any = "What is the weather in Paris?") -> dict[str, Any]:
    return {"role": "user", "content": content}


def tool(name: str = "weather", parameters: dict[str, Any] | None = None, **function: Any) -> dict[str, Any]:
    default = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {
        "type": "function",
        "function": {"name": name, "description": f"The {name}.", "parameters": parameters or default, **function},
    }


def call(identity: str, name: str = "weather", arguments: str = '{"city": "Paris"}') -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def asked(*calls: dict[str, Any], content: Any = None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def result(identity: str, content: Any = "sunny, 21 degrees") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identity, "content": content}


def image(url: str = f"data:image/png;base64,{PNG}", **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(words: str = "Describe it.", **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def file(media_type: str = "application/pdf", data: str = PDF, filename: str = "a.pdf") -> dict[str, Any]:
    return {"type": "file", "file": {"filename": filename, "file_data": f"data:{media_type};base64,{data}"}}


def audio() -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}


def _with(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": list(messages) or [user()], **fields}


def _json_schema(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, **more}}


_SYSTEM = {"role": "system", "content": "Be brief."}
_DEVELOPER = {"role": "developer", "content": "Answer in French."}
_HELLO = {"role": "assistant", "content": "Hello."}
_LONG_ID = "call_" + "x" * 59

_CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one user message": _with(),
    "system": _with(_SYSTEM, user()),
    "developer": _with(_DEVELOPER, user()),
    "system and developer": _with(_SYSTEM, _DEVELOPER, user()),
    "system in parts": _with({"role": "system", "content": [text("Be brief."), text("Be kind.")]}, user()),
    "system in the middle": _with(_SYSTEM, user("Hi."), _HELLO, {"role": "system", "content": "Now rhyme."}, user()),
    "system only": _with(_SYSTEM),
    "system last": _with(user(), _SYSTEM),
    "several turns": _with(user("Hi."), _HELLO, user()),
    "assistant first": _with(_HELLO, user()),
    "assistant last": _with(user("Write a haiku."), {"role": "assistant", "content": "Autumn moon \n"}),
    "assistant in parts": _with(user("Hi."), {"role": "assistant", "content": [text("Hello."), text("Yes?")]}, user()),
    "assistant empty": _with(user("Hi."), {"role": "assistant", "content": ""}, user()),
    "assistant null": _with(user("Hi."), {"role": "assistant", "content": None}, user()),
    "assistant refused": _with(
        user("Hi."), {"role": "assistant", "content": None, "refusal": "I cannot help with that."}, user()
    ),
    "assistant refused in a part": _with(
        user("Hi."), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, user()
    ),
    "our own answer sent back": _with(
        user("Hi."),
        {"role": "assistant", "content": "Hello.", "refusal": None, "annotations": [], "reasoning_content": "A hello."},
        user(),
    ),
    "two users in a row": _with(user("Hi."), user()),
    "three assistants in a row": _with(user("Hi."), _HELLO, _HELLO, _HELLO, user()),
    "names": _with({**user(), "name": "Ada"}, {**_HELLO, "name": "Bot"}, {**user("And you?"), "name": "Bob"}),
    "user in parts": _with(user([text("What is"), text("the weather?")])),
    "empty part": _with(user([text(""), text("What is the weather?")])),
    "unicode": _with(user("Größe 漢字 😀 \u200d ﷺ")),
    "control characters": _with(user("a\u0000b\u001b[0m\r\n\tc")),
    "white space": _with(user(" \n\t ")),
    "long": _with(user("word " * 2000)),
    "many turns": _with(*[message for _ in range(20) for message in (user("Hi."), _HELLO)], user()),
}
_MEDIA: dict[str, dict[str, Any]] = {
    "image as data": _with(user([text(), image()])),
    "image as link": _with(user([text(), image("https://example.com/a.png")])),
    "image detail low": _with(user([text(), image(detail="low")])),
    "image detail high": _with(user([image(detail="high"), text()])),
    "image jpeg": _with(user([image(f"data:image/jpeg;base64,{PNG}")])),
    "image webp": _with(user([image(f"data:image/webp;base64,{PNG}")])),
    "three images": _with(user([image(), image(), text(), image("https://example.com/c.png")])),
    "image in an earlier turn": _with(user([image(), text()]), _HELLO, user("And the colour?")),
    "image only": _with(user([image()])),
    "pdf": _with(user([text("Sum it up."), file()])),
    "text file": _with(user([file("text/plain", base64.b64encode(b"Hello.").decode(), "a.txt"), text()])),
    "audio": _with(user([text("What is said?"), audio()])),
    "audio mp3": _with(user([{"type": "input_audio", "input_audio": {"data": WAV, "format": "mp3"}}])),
    "video as data": _with(user([text(), {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{WAV}"}}])),
    "video as link": _with(user([{"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}])),
    "image and pdf": _with(user([image(), file(), text("Do they fit?")])),
    "cached parts": _with(
        {"role": "system", "content": [text("Be brief.", cache_control={"type": "ephemeral"})]},
        user([text("Long.", cache_control={"type": "ephemeral", "ttl": "1h"}), text("Short.")]),
    ),
    "five cached parts": _with(
        user([text(str(place), cache_control={"type": "ephemeral"}) for place in range(5)]),
    ),
}
_TOOLS: dict[str, dict[str, Any]] = {
    "one tool": _with(tools=[tool()]),
    "two tools": _with(tools=[tool(), tool("time")]),
    "tool without parameters": _with(tools=[{"type": "function", "function": {"name": "now", "description": "Now."}}]),
    "tool without description": _with(tools=[{"type": "function", "function": {"name": "now", "parameters": SCHEMA}}]),
    "tool with empty parameters": _with(tools=[tool("now", {"type": "object", "properties": {}})]),
    "strict tool": _with(tools=[tool("person", SCHEMA, strict=True)]),
    "tool with a rich schema": _with(tools=[tool("person", RICH)]),
    "strict tool with a rich schema": _with(tools=[tool("person", RICH, strict=True)]),
    "tool with a schema of alternatives": _with(tools=[tool("either", {"anyOf": [SCHEMA, {"type": "object"}]})]),
    "tool with a long name": _with(tools=[tool("n" * 64)]),
    "tool with dashes": _with(tools=[tool("get-the_weather-2")]),
    "cached tool": _with(tools=[{**tool(), "cache_control": {"type": "ephemeral"}}]),
    "choice auto": _with(tools=[tool()], tool_choice="auto"),
    "choice none": _with(tools=[tool()], tool_choice="none"),
    "choice required": _with(tools=[tool()], tool_choice="required"),
    "choice named": _with(tools=[tool(), tool("time")], tool_choice={"type": "function", "function": {"name": "time"}}),
    "choice among allowed": _with(
        tools=[tool(), tool("time")],
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]},
        },
    ),
    "choice among allowed, auto": _with(
        tools=[tool(), tool("time")],
        tool_choice={
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "time"}}]},
        },
    ),
    "one call at a time": _with(tools=[tool()], parallel_tool_calls=False),
    "parallel calls": _with(tools=[tool()], parallel_tool_calls=True),
    "required, one at a time": _with(tools=[tool()], tool_choice="required", parallel_tool_calls=False),
    "none, one at a time": _with(tools=[tool()], tool_choice="none", parallel_tool_calls=False),
    "twenty tools": _with(tools=[tool(f"tool_{place}") for place in range(20)]),
    "call and result": _with(user(), asked(call("call_1")), result("call_1"), tools=[tool()]),
    "call with text": _with(user(), asked(call("call_1"), content="Let me see."), result("call_1"), tools=[tool()]),
    "call with empty text": _with(user(), asked(call("call_1"), content=""), result("call_1"), tools=[tool()]),
    "parallel results": _with(
        user(),
        asked(call("a"), call("b", "time", "{}")),
        result("a"),
        result("b", "noon"),
        tools=[tool(), tool("time")],
    ),
    "results in another order": _with(
        user(),
        asked(call("a"), call("b", "time", "{}")),
        result("b", "noon"),
        result("a"),
        tools=[tool(), tool("time")],
    ),
    "result in parts": _with(user(), asked(call("a")), result("a", [text("sunny"), text("warm")]), tools=[tool()]),
    "result empty": _with(user(), asked(call("a")), result("a", ""), tools=[tool()]),
    "result as JSON": _with(user(), asked(call("a")), result("a", '{"degrees": 21}'), tools=[tool()]),
    "result then user": _with(user(), asked(call("a")), result("a"), user("And in Rome?"), tools=[tool()]),
    "result then answer": _with(
        user(), asked(call("a")), result("a"), {"role": "assistant", "content": "Sunny."}, user("Rome?"), tools=[tool()]
    ),
    "two rounds": _with(
        user(),
        asked(call("a")),
        result("a"),
        asked(call("b", arguments='{"city": "Rome"}')),
        result("b"),
        tools=[tool()],
    ),
    "history with calls and no tools": _with(user(), asked(call("a")), result("a"), user("Thanks. And you?")),
    "call without arguments": _with(user(), asked(call("a", "now", "")), result("a"), tools=[tool("now")]),
    "call with null arguments": _with(user(), asked(call("a", "now", "null")), result("a"), tools=[tool("now")]),
    "call with broken arguments": _with(user(), asked(call("a", "now", '{"city": ')), result("a"), tools=[tool("now")]),
    "call with a list of arguments": _with(user(), asked(call("a", "now", "[1]")), result("a"), tools=[tool("now")]),
    "call with unicode": _with(user(), asked(call("a", arguments='{"city": "Köln 漢"}')), result("a"), tools=[tool()]),
    "long call id": _with(user(), asked(call(_LONG_ID)), result(_LONG_ID), tools=[tool()]),
    "odd call id": _with(user(), asked(call("fc:1/+=.|")), result("fc:1/+=.|"), tools=[tool()]),
    "call without a result": _with(user(), asked(call("a"), call("b")), result("a"), tools=[tool()]),
    "result without a call": _with(user(), result("zz"), tools=[tool()]),
    "short call id": _with(user(), asked(call("D681PevKs")), result("D681PevKs"), tools=[tool()]),
    "thinking blocks sent back": _with(
        user(),
        asked(
            call("toolu_1"),
            reasoning_content="Ask the tool.",
            thinking_blocks=[{"type": "thinking", "thinking": "Ask the tool.", "signature": "c2ln"}],
        ),
        result("toolu_1"),
        tools=[tool()],
        reasoning_effort="low",
    ),
    "thought signature sent back": _with(
        user(),
        asked({**call("call_1"), "extra_content": {"google": {"thought_signature": "c2ln"}}}),
        result("call_1"),
        tools=[tool()],
    ),
    "image in a result": _with(user(), asked(call("a")), result("a", [text("Here."), image()]), tools=[tool()]),
    "tools and JSON": _with(tools=[tool()], response_format=_json_schema(SCHEMA)),
}
_FORMATS: dict[str, dict[str, Any]] = {
    "format text": _with(response_format={"type": "text"}),
    "format JSON object": _with(user("Answer in JSON."), response_format={"type": "json_object"}),
    "format schema": _with(response_format=_json_schema(SCHEMA)),
    "format strict schema": _with(response_format=_json_schema(SCHEMA, strict=True)),
    "format lax schema": _with(response_format=_json_schema(SCHEMA, strict=False)),
    "format described schema": _with(response_format=_json_schema(SCHEMA, description="A person.")),
    "format rich schema": _with(response_format=_json_schema(RICH)),
    "format strict rich schema": _with(response_format=_json_schema(RICH, strict=True)),
    "format nested schema": _with(
        response_format=_json_schema({"type": "object", "properties": {"a": SCHEMA}, "required": ["a"]})
    ),
    "format list": _with(
        response_format=_json_schema({"type": "object", "properties": {"all": {"type": "array", "items": SCHEMA}}})
    ),
    "format enum": _with(
        response_format=_json_schema({"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}})
    ),
    "format streamed": _with(stream=True, response_format=_json_schema(SCHEMA, strict=True)),
}
_VALUES: dict[str, list[Any]] = {
    "temperature": [0, 0.3, 1, 1.7, 2],
    "top_p": [0, 0.5, 1],
    "max_tokens": [1, 100, 100_000],
    "max_completion_tokens": [1, 2000],
    "n": [1, 2],
    "stop": ["END", ["a"], ["a", "b", "c", "d"], ["a", "b", "c", "d", "e", "f"], [" "], []],
    "seed": [0, 42],
    "presence_penalty": [-2, 0.5, 2],
    "frequency_penalty": [-1, 0.5],
    "logit_bias": [{"50256": -100}],
    "logprobs": [True, False],
    "reasoning_effort": ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    "verbosity": ["low", "medium", "high"],
    "service_tier": ["auto", "default", "flex", "priority"],
    "user": ["user-1234", "ada@example.com"],
    "safety_identifier": ["hash-1234"],
    "metadata": [{"team": "blue"}],
    "store": [True, False],
    "prompt_cache_key": ["chapter-1"],
    "prompt_cache_retention": ["24h"],
    "prediction": [{"type": "content", "content": "def f(): ..."}],
    "modalities": [["text"]],
    "web_search_options": [
        {},
        {"search_context_size": "low"},
        {
            "search_context_size": "high",
            "user_location": {"type": "approximate", "approximate": {"country": "FR", "city": "Paris"}},
        },
    ],
}
_MIXED: dict[str, dict[str, Any]] = {
    "streamed": _with(stream=True),
    "streamed with usage": _with(stream=True, stream_options={"include_usage": True}),
    "streamed tools": _with(stream=True, tools=[tool()], tool_choice="required"),
    "top logprobs": _with(logprobs=True, top_logprobs=5),
    "both limits": _with(max_tokens=100, max_completion_tokens=50),
    "temperature and top_p": _with(temperature=0.5, top_p=0.9),
    "penalties": _with(presence_penalty=0.5, frequency_penalty=0.7),
    "predicted parts": _with(prediction={"type": "content", "content": [text("def f(): ...")]}),
    "effort with a small limit": _with(reasoning_effort="high", max_completion_tokens=500),
    "effort with a forced tool": _with(reasoning_effort="high", tools=[tool()], tool_choice="required"),
    "effort with temperature": _with(reasoning_effort="medium", temperature=0.2),
    "effort streamed with a schema": _with(
        reasoning_effort="low", stream=True, response_format=_json_schema(SCHEMA), max_completion_tokens=4000
    ),
    "search with tools": _with(web_search_options={}, tools=[tool()]),
    "everything ordinary": _with(
        _SYSTEM,
        user([text(), image()]),
        _HELLO,
        user(),
        temperature=0.7,
        max_completion_tokens=500,
        stop=["END"],
        seed=7,
        user="user-1234",
        tools=[tool(), tool("time")],
        tool_choice="auto",
        stream=True,
        stream_options={"include_usage": True},
    ),
    "nulls everywhere": _with(
        temperature=None, tools=None, stop=None, max_tokens=None, response_format=None, user=None, seed=None
    ),
}

CORPUS: dict[str, dict[str, Any]] = {
    **_CONVERSATIONS,
    **_MEDIA,
    **_TOOLS,
    **_FORMATS,
    **{f"{name} {value!r:.40}": _with(**{name: value}) for name, values in _VALUES.items() for value in values},
    **_MIXED,
}
PARAMETERS: tuple[str, ...] = (
    *_VALUES,
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "stream",
    "stream_options",
)
