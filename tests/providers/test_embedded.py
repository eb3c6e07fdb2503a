"""The model that comes with the product: what it is asked beside what the client says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers.base.contract import Built
from proxy.providers.embedded import DEFAULT_LIMIT, JSON_PENALTY, SAMPLING, Embedded
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import SCHEMA, image, text, user

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def built(adapter: Embedded, **fields: Any) -> Built:
    request = decode_chat(encode({"model": "m", "messages": [user()], **fields}))
    return adapter.build_request(request, "smollm2-135m")


def sent(**fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(built(Embedded(), **fields).http.body)
    return body


def test_json_is_asked_for_with_a_penalty_on_repetition():
    """Without it a small model fills an answer with white space until its context ends."""
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    assert sent(response_format=schema)["frequency_penalty"] == JSON_PENALTY
    assert sent(response_format={"type": "json_object"})["frequency_penalty"] == JSON_PENALTY


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": {"type": "text"}}, {"response_format": {"type": "json_object"}, "seed": 1}]
)
def test_what_the_client_set_stands(fields: dict[str, Any]):
    """Its own penalty is not touched, and text is asked for as it is."""
    assert sent(**fields, frequency_penalty=0)["frequency_penalty"] == 0
    if fields.get("response_format", {}).get("type") != "json_object":
        assert "frequency_penalty" not in sent(**fields)


def test_it_reads_text_only():
    """A picture is refused by its message."""
    with pytest.raises(BadRequest) as caught:
        sent(messages=[user("Hi."), user([text(), image()])])
    assert (caught.value.param, caught.value.code) == ("messages.1.content", "unsupported_content")


def test_a_role_that_nobody_has_is_refused():
    """The server under it would take any word for one."""
    with pytest.raises(BadRequest) as caught:
        sent(messages=[{"role": "emperor", "content": "Hi."}])
    assert caught.value.param == "messages.0.role"


def test_the_default_model_is_asked_to_answer_sensibly():
    """At llama.cpp's own settings it rambles in loops up to the end of its context."""
    body = sent()
    assert {name: body[name] for name in SAMPLING} == SAMPLING
    assert body["max_tokens"] == DEFAULT_LIMIT == 256


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"temperature": 1}, "temperature", 1),
        ({"temperature": 0}, "temperature", 0),
        ({"top_p": 1}, "top_p", 1),
        ({"max_tokens": 1000}, "max_tokens", 1000),
        ({"max_completion_tokens": 7}, "max_tokens", 7),
        ({"dry_multiplier": 0}, "dry_multiplier", 0),
        ({"logit_bias": {"5": 1}}, "logit_bias", {"5": 1}),
        ({"temperature": None}, "temperature", 0.2),
        ({"max_tokens": None}, "max_tokens", 256),
    ],
)
def test_a_setting_of_the_client_stands_and_null_is_none(given: dict[str, Any], name: str, value: object):
    """Zero is a value; null means that the client set nothing."""
    assert sent(**given)[name] == value


def test_settings_of_the_file_stand():
    """`parameters` come before the defaults."""
    body = json.loads(built(Embedded(parameters={"temperature": 0.7, "max_tokens": 99})).http.body)
    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.7, 99, 0.9)


def test_json_is_asked_for_without_the_control_of_loops():
    """The keys of a list of objects do repeat."""
    body = sent(response_format={"type": "json_object"})
    assert (body["temperature"], body["top_p"]) == (0.2, 0.9)
    assert body.keys().isdisjoint({"dry_multiplier", "logit_bias"})


def test_a_file_of_ones_own_keeps_its_settings():
    """They are in the file or belong to the operator."""
    body = json.loads(built(Embedded(model_path="other.gguf")).http.body)
    assert body.keys() == {"model", "messages"}


def test_what_the_default_model_does_without_is_named():
    """Its template has no place for tools and it does not think; llama.cpp would leave both out without a word."""
    lacking = {"tools": TOOLS, "parallel_tool_calls": False, "reasoning_effort": "high"}
    request = built(Embedded(), **lacking)
    assert sorted(request.dropped) == sorted(lacking)
    assert json.loads(request.http.body).keys() == {"model", "messages", "max_tokens", *SAMPLING}


def test_what_says_nothing_is_not_told_as_lost():
    """No tools, and no thought."""
    request = built(Embedded(), tools=[], reasoning_effort="none", tool_choice=None)
    assert request.dropped == []
    assert json.loads(request.http.body).keys() == {"model", "messages", "max_tokens", *SAMPLING}


def test_a_penalty_of_the_file_stands():
    """`parameters` of the provider are the operator's word."""
    adapter = Embedded(parameters={"frequency_penalty": 0.1})
    assert json.loads(built(adapter, response_format={"type": "json_object"}).http.body)["frequency_penalty"] == 0.1


def test_a_file_of_ones_own_is_asked_for_everything_that_llama_cpp_reads():
    """What it can do depends on its template; what llama.cpp ignores is named for it too."""
    request = built(Embedded(model_path="other.gguf"), tools=TOOLS, reasoning_effort="high", user="ada", seed=7)
    assert request.dropped == ["user"]
    assert json.loads(request.http.body).keys() == {"model", "messages", "tools", "reasoning_effort", "seed"}
