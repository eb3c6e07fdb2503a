"""What a version, values and a request become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.prompts.checked import checked_version
from proxy.prompts.presets import MAX_MESSAGES, applied, preset_of, rendered, values_of
from proxy.prompts.templates import MAX_BYTES, MAX_VARIABLES
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.prompts import PromptUse, Variant
from proxy.server.formats.chat import decode_chat

PLENTY = 10_000_000


def version(**fields: Any) -> Any:
    return checked_version(fields if "messages" in fields else {"template": "Hi {x}", **fields})


def asked(**fields: Any) -> ChatRequest:
    return decode_chat(json.dumps({"model": "m", "prompt": {"id": "p", "variables": {"x": "1"}}, **fields}).encode())


def applied_to(request: ChatRequest, variant: Variant | None = None, **fields: Any) -> ChatRequest:
    return applied(request, request.stored, preset_of(version(**fields)), variant, PLENTY)


def test_the_messages_of_the_template_come_first() -> None:
    """Then the request's own, both in the typed view and in the fields that vendors get."""
    own = {"role": "user", "content": "own"}
    found = applied_to(asked(messages=[own]), messages=[{"role": "system", "content": "{x}{x}"}])
    assert found.fields["messages"] == [{"role": "system", "content": "11"}, own]
    assert [(each.role, each.content) for each in found.messages] == [("system", "11"), ("user", "own")]
    assert (found.stored, found.model) == (None, "m")


@pytest.mark.parametrize(
    ("preset", "said", "expected"),
    [
        ({"parameters": {"temperature": 0.1}}, {}, {"temperature": 0.1}),
        ({"parameters": {"temperature": 0.1}}, {"temperature": 0.9}, {"temperature": 0.9}),
        ({"parameters": {"temperature": 0.1}}, {"temperature": None}, {"temperature": 0.1}),
        ({"parameters": {"max_tokens": 5}}, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        ({"parameters": {"max_completion_tokens": 5}}, {"max_tokens": 9}, {"max_tokens": 9}),
        ({"parameters": {"max_tokens": 5}}, {"max_tokens": -1}, {}),
        ({"response_format": {"type": "json_object"}}, {}, {"response_format": {"type": "json_object"}}),
        ({"tools": [{"type": "function"}]}, {}, {"tools": [{"type": "function"}]}),
        (
            {"tools": [{"type": "function"}], "parameters": {"tool_choice": "required"}},
            {"tools": [{"type": "own"}]},
            {"tools": [{"type": "own"}]},
        ),
        ({"parameters": {"top_k": 4}}, {"top_p": 0.5}, {"top_p": 0.5, "top_k": 4}),
    ],
)
def test_what_the_request_says_itself_wins(preset: Any, said: Any, expected: Any) -> None:
    """Fields that mean the same, or belong together, count as one."""
    fields = applied_to(asked(**said), **preset).fields
    assert {name: value for name, value in fields.items() if name not in ("model", "messages")} == expected


def test_the_limit_of_a_preset_limits_the_answer() -> None:
    """It is what the plan and the key's cap look at."""
    assert applied_to(asked(), parameters={"max_tokens": 7}).output_limit(None) == 7
    assert applied_to(asked(max_tokens=3), parameters={"max_tokens": 7}).output_limit(None) == 3


def test_the_model_of_a_preset_serves_requests_that_name_none() -> None:
    """A prompt without a model goes to the router."""
    without = replace(asked(), stored=PromptUse("p", variables={"x": "1"}, leaves_model=True))
    assert applied_to(without, model="auto:extraction").model == "auto:extraction"
    assert applied_to(without).model == "auto"
    assert applied_to(asked(), model="auto:extraction").model == "m"


def test_what_an_experiment_varies_stands_above_both() -> None:
    """And only that."""
    variant = Variant("e", "b", model="other", parameters={"max_tokens": 4}, ensemble={"strategy": "voting"})
    found = applied_to(asked(max_completion_tokens=9, seed=1), variant, parameters={"temperature": 0})
    assert {
        name: found.fields.get(name) for name in ("max_tokens", "max_completion_tokens", "seed", "temperature")
    } == {
        "max_tokens": 4,
        "max_completion_tokens": None,
        "seed": 1,
        "temperature": 0,
    }
    assert (found.model, found.max_tokens, found.hints.ensemble) == ("other", 4, {"strategy": "voting"})


def test_every_text_of_a_message_is_a_template() -> None:
    """The address of an image too; other values stay as they are."""
    parts = [{"type": "text", "text": "Look: {x}"}, {"type": "image_url", "image_url": {"url": "{x}", "detail": "low"}}]
    found = rendered(preset_of(version(messages=[{"role": "user", "content": parts}])), {"x": "u"}, PLENTY, "v")
    assert found[0]["content"] == [
        {"type": "text", "text": "Look: u"},
        {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("{x}", "{x}"),
        (1, "1"),
        (2.5, "2.5"),
        (True, "true"),
        (["a", "é"], '["a","é"]'),
        ({"a": 1}, '{"a":1}'),
    ],
)
def test_values_that_are_no_text_are_written_as_json(value: Any, text: str) -> None:
    """A list of fields is a usual one."""
    assert values_of({"x": value}, ("x",), "v") == {"x": text}


@pytest.mark.parametrize(
    ("given", "says", "param"),
    [
        ({}, "missing: html_content, fields.", "v.html_content"),
        ({"html_content": "a", "fields": None}, "missing: fields.", "v.fields"),
        ({"html_contnet": "a", "fields": ""}, "unknown: 'html_contnet' (did you mean html_content?)", "v.html_content"),
        ({"html_content": "a", "fields": "b", "zz": 1}, "unknown: 'zz'.", "v.zz"),
        ({f"v{n}": 1 for n in range(10_000)}, "and 9997 more", "v.html_content"),
    ],
)
def test_wrong_variables_are_named(given: Any, says: str, param: str) -> None:
    """With what they may mean, however many there are."""
    with pytest.raises(BadRequest) as refused:
        values_of(given, ("html_content", "fields"), "v")
    assert says in refused.value.message
    assert refused.value.param == param
    assert len(refused.value.message) < 400


def test_a_long_result_is_refused_before_it_is_made() -> None:
    """A value may stand in many places."""
    preset = preset_of(version(template="{x}" * 80_000))
    with pytest.raises(ProxyError, match="8000000000 characters") as refused:
        rendered(preset, {"x": "y" * 100_000}, PLENTY, "v")
    assert (refused.value.status, refused.value.code) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"template": "x" * (MAX_BYTES + 1)}, "template"),
        ({"template": "é" * (MAX_BYTES // 2 + 1)}, "template"),
        ({"template": "".join(f"{{v{n}}}" for n in range(MAX_VARIABLES + 1))}, "template"),
        ({"template": "a\0"}, "template"),
        ({"template": "a\ud800"}, "template"),
        ({"template": "  "}, "template"),
        ({"template": 5}, "template"),
        ({}, "template"),
        ({"template": "a", "messages": []}, "template"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * (MAX_MESSAGES + 1)}, "messages"),
        ({"messages": [{"role": "user", "content": "{0}"}]}, "messages.0.content"),
        ({"messages": ["a"]}, "messages.0"),
        ({"template": "{x}", "variables": ["y"]}, "variables"),
        ({"template": "{x}", "variables": ["x", "y"]}, "variables"),
        ({"template": "{x}", "variables": "x"}, "variables"),
        ({"template": "a", "model": "prompt:other"}, "model"),
        ({"template": "a", "model": " "}, "model"),
        ({"template": "a", "parameters": {"stream": True}}, "parameters.stream"),
        ({"template": "a", "parameters": {"messages": []}}, "parameters.messages"),
        ({"template": "a", "parameters": {"x": "y" * 70_000}}, "parameters"),
        ({"template": "a", "tools": {}}, "tools"),
        ({"template": "a", "response_format": []}, "response_format"),
        ({"template": "a", "notes": "x" * 5_000}, "notes"),
    ],
)
def test_a_version_that_cannot_be_used_is_not_saved(fields: Any, param: str) -> None:
    """The error names the field."""
    with pytest.raises(BadRequest) as refused:
        checked_version(fields)
    assert refused.value.param == param


def test_variables_are_found_when_a_version_is_saved() -> None:
    """In the order of their first use; who declares them may use any order."""
    found = checked_version({"template": "{b}{a}{b}", "variables": ["a", "b"]})
    assert found.variables == ("b", "a")


def test_the_size_bounds_the_bytes_of_the_prompt() -> None:
    """A hold follows from it. The values left the body, and stand in the messages."""
    text = "ü" * 1_000
    request = asked(prompt={"id": "p", "variables": {"x": text}}, messages=[{"role": "user", "content": "own"}])
    found = applied_to(request, template="{x}{x}")
    sent = sum(len(str(each.content).encode()) for each in found.messages)
    assert sent <= found.size <= sent + request.size
