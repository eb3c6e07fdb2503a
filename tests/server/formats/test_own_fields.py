"""An error that a vendor's translation finds names the field as the client of each endpoint wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.building import build
from proxy.routing.content import content_needs
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.server.formats.chat import CHAT
from proxy.server.formats.completions import CompletionsFormat
from proxy.server.formats.messages import MessagesFormat
from proxy.server.formats.responses import RESPONSES

TEXT = {"type": "input_text", "text": "a"}
NO_LINK = {"type": "input_image", "image_url": "no link"}
PNG = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
BLOCK = {"type": "text", "text": "a"}
BAD_BLOCK = {"type": "image", "source": {"type": "url", "url": "no link"}}
USE = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}


def responses(*items: Any, **fields: Any) -> AnyRequest:
    return RESPONSES.decode(json.dumps({"model": "m", "input": [*items], **fields}).encode())


def messages(*turns: Any, **fields: Any) -> AnyRequest:
    said = {"model": "m", "max_tokens": 9, "messages": [*turns], **fields}
    return MessagesFormat().decode(json.dumps(said).encode())


def chat(*turns: Any) -> AnyRequest:
    return CHAT.decode(json.dumps({"model": "m", "messages": [*turns]}).encode())


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


def result(*parts: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": "c1", "output": [*parts]}


def told(*blocks: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "c1", "content": [*blocks]}


CASES = [
    (responses(user(TEXT, NO_LINK)), "input.0.content.1"),
    (responses(user(TEXT), user(NO_LINK), instructions="Be short."), "input.1.content.0"),
    (responses(user(TEXT), CALL, result(TEXT, NO_LINK)), "input.2.output.1"),
    (messages({"role": "user", "content": [BLOCK, BAD_BLOCK]}, system="s"), "messages.0.content.1"),
    (
        messages(
            {"role": "user", "content": "a"}, {"role": "assistant", "content": [BLOCK, USE]}, user(told(BAD_BLOCK))
        ),
        "messages.2.content.0.content.0",
    ),
    (
        messages(
            {"role": "user", "content": "a"}, {"role": "assistant", "content": [USE]}, user(told(BLOCK), BAD_BLOCK)
        ),
        "messages.2.content.1",
    ),
]


@pytest.mark.parametrize("vendor", ["google", "mistral", "cohere", "perplexity"])
@pytest.mark.parametrize(("request_", "path"), CASES, ids=[path for _, path in CASES])
def test_a_part_that_no_vendor_can_read_is_named_as_it_was_sent(request_: AnyRequest, path: str, vendor: str) -> None:
    """Whatever became of the messages before it, and in the message of the error too."""
    if vendor in ("cohere", "perplexity") and ("output" in path or path.count("content") > 1):
        pytest.skip("tool results are text here: what else they hold goes to the user's turn behind them")
    with pytest.raises(BadRequest) as raised:
        build(PROVIDERS[vendor](), request_, "m")
    assert raised.value.param is not None and raised.value.param.startswith(path)


def test_a_call_and_a_tool_are_named_as_they_were_sent() -> None:
    """Calls are items of their own; tools that others see grouped or not at all have their own places."""
    group = {"type": "namespace", "name": "g", "tools": [{"type": "function", "name": "f"}]}
    request = responses(user(TEXT), CALL, {**CALL, "call_id": "c2"}, tools=[{"type": "web_search"}, group])
    assert request.own_path("messages.1.tool_calls.1.function.arguments") == "input.2"
    assert request.own_path("tools.0.function.name") == "tools.1.tools.0"
    deferred: list[dict[str, Any]] = [
        {"name": name, "input_schema": {}, "defer_loading": name == "a"} for name in ("a", "b")
    ]
    calls = {"role": "assistant", "content": [BLOCK, USE, {**USE, "id": "c2"}]}
    request = messages({"role": "user", "content": "a"}, calls, tools=deferred)
    assert request.own_path("messages.1.tool_calls.1") == "messages.1.content.2"
    assert request.own_path("tools.0.function.parameters") == "tools.1"


@pytest.mark.parametrize(
    ("request_", "param", "own"),
    [
        (responses(user(TEXT), instructions="i"), "messages.0.content", "instructions"),
        (responses(user(TEXT), instructions="i"), "messages[1].content", "input.0.content"),
        (responses(user(TEXT)), "response_format.json_schema", "text.format"),
        (responses(user(TEXT)), "max_completion_tokens", "max_output_tokens"),
        (responses(user(TEXT)), "messages", "input"),
        (responses(user(TEXT)), "temperature", "temperature"),
        (responses(user(TEXT)), "messages.7.content", "input"),
        (messages(user(BLOCK), system=[BLOCK, BLOCK]), "messages.0.content.1.text", "system.1"),
        (messages(user(BLOCK)), "stop", "stop_sequences"),
        (messages(user(BLOCK)), "messages.0.role", "messages.0.role"),
        (CompletionsFormat().decode(b'{"model": "m", "prompt": "a"}'), "messages.0.content", "prompt"),
        (chat(user(BLOCK)), "messages.0.content.0", "messages.0.content.0"),
    ],
)
def test_each_endpoint_has_its_own_words(request_: AnyRequest, param: str, own: str) -> None:
    """What is no field of the chat stays as it is."""
    assert request_.own_path(param) == own


def test_a_result_that_moved_beside_its_call_is_named_where_it_stood() -> None:
    """Vendors insist on an order; the client's own counts."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    bad = {"type": "image_url", "image_url": {"url": "no link"}}
    request = chat(
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "user", "content": [bad]},
        {"role": "tool", "tool_call_id": "c1", "content": "b"},
    )
    with pytest.raises(BadRequest) as raised:
        build(PROVIDERS["google"](), request, "m")
    assert raised.value.param is not None and raised.value.param.startswith("messages.2.content.0")


def test_what_a_model_cannot_see_is_named_as_it_was_sent() -> None:
    """The router says where the picture is."""
    request = responses(user(TEXT), user(TEXT, PNG), instructions="i")
    assert [need.where for need in content_needs(request)] == ["input.1.content.1"]


def test_an_error_names_the_field_in_its_message_too() -> None:
    """Only where that path stands by itself."""
    error = UpstreamError("messages.1.content: too long; see messages.1.content.0")
    error.param = "messages.1.content"
    error.rename("input.0.content")
    assert (error.param, error.message) == ("input.0.content", "input.0.content: too long; see input.0.content.0")
