"""docs/providers.md says what becomes of each parameter at each provider; the table is made by building requests."""

from __future__ import annotations

import json
import os
import typing
from pathlib import Path
from typing import Any

from openai.types.chat import completion_create_params as openai_types

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Built, Provider
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import PDF, SCHEMA, audio, call, file, image, result, text, tool, user
from tests.providers.corpus import asked as asked_for
from tests.providers.vendors import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
BEGIN, END = "<!-- {}: begin -->\n", "<!-- {}: end -->\n"
REWRITE = "WRITE_DOCS=1 scripts/test tests/providers/test_providers_document.py"

TOOLS = {"tools": [tool(), tool("time")]}
NAMED = {"type": "function", "function": {"name": "time"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}

# Row -> the fields that show it, and what is there already when they come.
PARAMETERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "audio": ({"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text", "audio"]}, {}),
    "frequency_penalty": ({"frequency_penalty": 0.5}, {}),
    "function_call": ({"function_call": "auto"}, {}),
    "functions": ({"functions": [{"name": "f", "parameters": {}}]}, {}),
    "logit_bias": ({"logit_bias": {"50256": -100}}, {}),
    "logprobs": ({"logprobs": True}, {}),
    "max_completion_tokens": ({"max_completion_tokens": 100}, {}),
    "max_tokens": ({"max_tokens": 100}, {}),
    "metadata": ({"metadata": {"team": "blue"}}, {}),
    "modalities": ({"modalities": ["text", "audio"]}, {}),
    "moderation": ({"moderation": {"model": "omni-moderation-latest"}}, {}),
    "n": ({"n": 2}, {}),
    "parallel_tool_calls": ({"parallel_tool_calls": False}, TOOLS),
    "prediction": ({"prediction": {"type": "content", "content": "x"}}, {}),
    "presence_penalty": ({"presence_penalty": 0.5}, {}),
    "prompt_cache_key": ({"prompt_cache_key": "a"}, {}),
    "prompt_cache_options": ({"prompt_cache_options": {"mode": "implicit"}}, {}),
    "prompt_cache_retention": ({"prompt_cache_retention": "24h"}, {}),
    "reasoning_effort": ({"reasoning_effort": "high"}, {}),
    "response_format: json_object": ({"response_format": {"type": "json_object"}}, {}),
    "response_format: json_schema": ({"response_format": FORMAT}, {}),
    "safety_identifier": ({"safety_identifier": "hash-1"}, {}),
    "seed": ({"seed": 42}, {}),
    "service_tier: flex": ({"service_tier": "flex"}, {}),
    "stop": ({"stop": ["a", "b"]}, {}),
    "stop, six of them": ({"stop": list("abcdef")}, {}),
    "store": ({"store": True}, {}),
    "temperature": ({"temperature": 0.5}, {}),
    "temperature above 1": ({"temperature": 1.7}, {}),
    "tool_choice: none": ({"tool_choice": "none"}, TOOLS),
    "tool_choice: required": ({"tool_choice": "required"}, TOOLS),
    "tool_choice: named": ({"tool_choice": NAMED}, TOOLS),
    "tool_choice: allowed_tools": ({"tool_choice": ALLOWED}, TOOLS),
    "tools": (TOOLS, {}),
    "top_logprobs": ({"top_logprobs": 3}, {"logprobs": True}),
    "top_p": ({"top_p": 0.5}, {}),
    "user": ({"user": "user-1234"}, {}),
    "verbosity": ({"verbosity": "low"}, {}),
    "web_search_options": ({"web_search_options": {"search_context_size": "low"}}, {}),
}
_LOCAL = ("messages", "model", "stream", "stream_options")  # of every request; said in the text of the page
_CALLED = (user(), asked_for(call("call_1")))

CONTENT: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "system": ([{"role": "system", "content": "Be brief."}, user()], {}),
    "developer": ([{"role": "developer", "content": "Be brief."}, user()], {}),
    "image, as data": ([user([text(), image()])], {}),
    "image, as a link": ([user([text(), image("https://example.com/a.png")])], {}),
    "PDF": ([user([text(), file(data=PDF)])], {}),
    "text file": ([user([text(), file("text/plain", "SGVsbG8u", "a.txt")])], {}),
    "audio": ([user([text(), audio()])], {}),
    "video": ([user([text(), {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}])], {}),
    "tool calls and results": ([*_CALLED, result("call_1")], TOOLS),
    "image in a tool result": ([*_CALLED, result("call_1", [text(), image()])], TOOLS),
    "`cache_control`": ([user([text("Long.", cache_control={"type": "ephemeral"}), text("Short.")])], {}),
    "`name` of a message": ([{**user(), "name": "Ada"}], {}),
}


def request(messages: list[dict[str, Any]], fields: dict[str, Any]) -> ChatRequest:
    return decode_chat(encode({"model": "m", "messages": messages, **fields}))


def outcome(provider: Provider, model: str, row: str, asked: ChatRequest, before: ChatRequest) -> str:
    """sent, adapted, dropped or refused. Fails for what disappears without a word."""
    try:
        built = provider.build_request(asked, model)
    except BadRequest as error:
        assert error.param, row
        return "refused"
    name = row.partition(":")[0].partition(",")[0].partition(" above ")[0]
    is_content = row in CONTENT
    if name == "n" and provider.max_choices(model) is not None:
        return "adapted"  # by parallel calls, each of which asks for what the provider takes
    if name in built.dropped or (is_content and _inside("messages", built.dropped)):
        return "dropped"
    if name in built.adapted or built.stops or _inside(name, [*built.dropped, *built.adapted]):
        return "adapted"
    if is_content and _inside("messages", built.adapted):
        return "adapted"
    without = provider.build_request(before, model)
    assert json.loads(built.http.body) != json.loads(without.http.body), f"{row} disappears without a word"
    return "sent"


def _inside(name: str, reported: list[str]) -> bool:
    """A part of it is reported: `web_search_options.search_context_size`, `messages.name`."""
    return any(each.startswith(f"{name}.") for each in reported)


def cell(kind: str, row: str, asked: ChatRequest, before: ChatRequest) -> str:
    provider = PROVIDERS[kind]()
    found = dict.fromkeys(outcome(provider, model, row, asked, before) for model in MODELS[kind])
    return " / ".join(found)


def table(rows: dict[str, tuple[ChatRequest, ChatRequest]]) -> str:
    lines = [f"| | {' | '.join(PROVIDERS)} |", f"|---|{'---|' * len(PROVIDERS)}"]
    for row, (asked, before) in rows.items():
        cells = " | ".join(cell(kind, row, asked, before) for kind in PROVIDERS)
        lines.append(f"| {row} | {cells} |")
    return "\n".join(lines) + "\n"


def tables() -> dict[str, str]:
    plain = [user()]
    return {
        "parameters": table(
            {row: (request(plain, {**base, **new}), request(plain, base)) for row, (new, base) in PARAMETERS.items()}
        ),
        "content": table(
            {row: (request(said, base), request([user("?")], base)) for row, (said, base) in CONTENT.items()}
        ),
    }


def test_the_tables_say_what_happens():
    """Sent, adapted, dropped or refused, for every parameter and provider; nothing disappears without a word."""
    page = PAGE.read_text()
    for name, expected in tables().items():
        begin, end = BEGIN.format(name), END.format(name)
        head, _, rest = page.partition(begin)
        written, _, tail = rest.partition(end)
        if os.environ.get("WRITE_DOCS"):
            page = head + begin + expected + end + tail
            PAGE.write_text(page)
        else:
            assert written == expected, f"the table {name} of docs/providers.md is stale; run {REWRITE}"


def test_every_parameter_of_openai_has_a_row():
    """A parameter that OpenAI adds fails here until somebody decides what becomes of it."""
    known = typing.get_type_hints(openai_types.CompletionCreateParamsStreaming)
    rows = {row.partition(":")[0].partition(",")[0] for row in PARAMETERS} | {
        row.removesuffix(" above 1") for row in PARAMETERS
    }
    assert set(known) - rows - set(_LOCAL) == set()


def test_every_provider_has_models_that_stand_for_it():
    """A provider without models would have an empty column."""
    assert set(PROVIDERS) == set(MODELS)


def test_built_requests_are_reported_once():
    """A name stands at most once in a header."""
    for kind, models in MODELS.items():
        for fields, base in PARAMETERS.values():
            try:
                built = PROVIDERS[kind]().build_request(request([user()], {**base, **fields}), models[0])
            except BadRequest:
                continue
            assert isinstance(built, Built)
            assert len(set(built.dropped)) == len(built.dropped)
            assert len(set(built.adapted)) == len(built.adapted)
            assert not set(built.dropped) & set(built.adapted)
