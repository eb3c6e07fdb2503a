"""Rules of servers people run themselves: Ollama, vLLM, LM Studio, LocalAI, llama.cpp (facts of November 2026)."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.lmstudio import LMStudio
from proxy.providers.localai import LocalAI
from proxy.providers.ollama import Ollama
from proxy.providers.openai import OpenAI
from proxy.providers.vllm import VLLM
from proxy.schema.errors import BadRequest
from tests.providers.asking import USER, answered, built, event, folded, messages, sent
from tests.providers.corpus import audio, file, image, text, tool

OLLAMA, VLLM_, STUDIO, LOCALAI = Ollama(), VLLM(), LMStudio(), LocalAI()
LLAMA_CPP = OpenAI(base_url="http://127.0.0.1:8080/v1")
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
THOUGHT = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "thought", "refusal": None}
NAMED = {"type": "function", "function": {"name": "b"}}
TOOLS = [tool("a"), tool("b")]


@pytest.mark.parametrize("kind", ["ollama", "vllm", "lmstudio", "localai"])
def test_nothing_is_sent_that_the_client_did_not_say(kind: str) -> None:
    """No limits and no temperatures of our own: the server has its model's."""
    assert set(sent(PROVIDERS[kind]())) == {"model", "messages"}


def test_vllm_gets_its_own_parameters() -> None:
    """It knows dozens that OpenAI does not."""
    extra: dict[str, Any] = {
        "top_k": 3,
        "min_p": 0.1,
        "structured_outputs": {"choice": ["a"]},
        "chat_template_kwargs": {"x": True},
    }
    body = sent(VLLM_, **extra, n=3, stop=list("abcdef"), user="ada")
    assert body == {"model": "m", "messages": [USER], **extra, "n": 3, "stop": list("abcdef"), "user": "ada"}
    assert built(VLLM_, **extra).dropped == []


@pytest.mark.parametrize(
    ("provider", "kept"),
    [
        (VLLM_, {"reasoning_content": "thought"}),
        (OLLAMA, {"reasoning": "thought"}),
        (STUDIO, {}),
        (LOCALAI, {}),
        (LLAMA_CPP, {"reasoning_content": "thought"}),
    ],
)
def test_thoughts_go_back_to_servers_that_read_them(provider: OpenAI, kept: dict[str, str]) -> None:
    """Under the name that each reads."""
    [_, said] = messages(provider, USER, THOUGHT)
    assert {name: said[name] for name in said if name.startswith("reasoning")} == kept


# --- Ollama -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"1": 1}},
        {"user": "ada"},
        {"parallel_tool_calls": False},
        {"options": {"num_ctx": 8192}},
        {"store": True},
        {"metadata": {"a": "b"}},
        {"service_tier": "flex"},
    ],
)
def test_what_ollama_ignores_is_dropped_and_told(fields: dict[str, Any]) -> None:
    """It answers 200 as if all were well."""
    assert set(sent(OLLAMA, **fields)) == {"model", "messages"}
    assert built(OLLAMA, **fields).dropped == list(fields)


def test_ollama_gets_what_it_reads() -> None:
    """The list of its endpoint's own source."""
    fields: dict[str, Any] = {
        "max_completion_tokens": 5,
        "seed": 1,
        "stop": list("abcdef"),
        "temperature": 0.5,
        "top_p": 0.5,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "response_format": {"type": "json_object"},
        "reasoning_effort": "none",
        "logprobs": True,
        "top_logprobs": 2,
        "tools": TOOLS,
    }
    body = sent(OLLAMA, **fields)
    expected = {name: value for name, value in fields.items() if name != "max_completion_tokens"} | {"max_tokens": 5}
    assert {name: body[name] for name in expected} == expected
    result = built(OLLAMA, **fields)
    assert (result.dropped, result.adapted, result.stops) == ([], [], [])


@pytest.mark.parametrize(
    ("choice", "names", "dropped", "adapted"),
    [
        ("auto", ["a", "b"], [], []),
        ("none", None, [], []),
        ("required", ["a", "b"], ["tool_choice"], []),
        (NAMED, ["b"], [], ["tool_choice"]),
    ],
)
def test_ollama_has_no_tool_choice(
    choice: Any, names: list[str] | None, dropped: list[str], adapted: list[str]
) -> None:
    """What can be said by the tools themselves is said so."""
    body = sent(OLLAMA, tools=TOOLS, tool_choice=choice)
    assert "tool_choice" not in body
    assert [each["function"]["name"] for each in body["tools"]] == names if names else "tools" not in body
    result = built(OLLAMA, tools=TOOLS, tool_choice=choice)
    assert (result.dropped, result.adapted) == (dropped, adapted)


def test_ollama_gets_texts_as_texts() -> None:
    """It splits lists into messages, and loses the id of a tool's result in one."""
    said: list[dict[str, Any]] = [
        {"role": "user", "content": [text("a"), text("b")]},
        {"role": "assistant", "content": None},
        {"role": "tool", "tool_call_id": "call_1", "content": [text("sunny")]},
        {"role": "user", "content": [text("?"), image()]},
    ]
    found = messages(OLLAMA, *said)
    assert [message["content"] for message in found[:3]] == ["a\nb", "", "sunny"]
    assert found[3] == said[3]


@pytest.mark.parametrize("part", [image("https://a.example/b.png"), file()])
def test_ollama_takes_pictures_as_data_only(part: dict[str, Any]) -> None:
    """It loads nothing from the network."""
    with pytest.raises(BadRequest) as caught:
        built(OLLAMA, messages=[{"role": "user", "content": [part]}])
    assert caught.value.code == "unsupported_content"
    assert messages(OLLAMA, {"role": "user", "content": [audio()]})


# --- LM Studio --------------------------------------------------------------------------------------------------------


def test_lm_studio_gets_a_tool_choice_in_words() -> None:
    """An object is a 400: the named tool alone, and it must be called."""
    body = sent(STUDIO, tools=TOOLS, tool_choice=NAMED)
    assert ([each["function"]["name"] for each in body["tools"]], body["tool_choice"]) == (["b"], "required")
    assert built(STUDIO, tools=TOOLS, tool_choice=NAMED).adapted == []
    with pytest.raises(BadRequest):
        built(STUDIO, tools=[tool("a")], tool_choice=NAMED)


def test_lm_studio_gets_json_as_a_schema() -> None:
    """`json_object` is a 400 there."""
    wanted = {"type": "json_schema", "json_schema": {"name": "object", "schema": {"type": "object"}}}
    assert sent(STUDIO, response_format={"type": "json_object"})["response_format"] == wanted
    assert built(STUDIO, response_format={"type": "json_object"}).adapted == ["response_format"]


def test_what_lm_studio_does_not_know_is_dropped_and_told() -> None:
    """What it knows of its own goes along."""
    result = built(STUDIO, user="ada", logprobs=True, repeat_penalty=1.1, top_k=3)
    assert result.dropped == ["logprobs", "user"]
    assert sent(STUDIO, repeat_penalty=1.1, top_k=3) == {
        "model": "m",
        "messages": [USER],
        "repeat_penalty": 1.1,
        "top_k": 3,
    }


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_have_one_name(field: str) -> None:
    """Servers changed theirs from one version to the next."""
    body = {"choices": [{"message": {"content": "a", field: "thought"}, "finish_reason": "stop"}]}
    assert VLLM_.parse_response(answered(200, body))["choices"][0]["message"]["reasoning_content"] == "thought"
    pieces = [
        event({"choices": [{"index": 0, "delta": {field: "thought"}}]}),
        event({"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}),
    ]
    assert folded(VLLM_, pieces)["choices"][0]["message"]["reasoning_content"] == "thought"


def test_calls_are_completed_whatever_the_server_left_out() -> None:
    """Arguments as an object or empty, no id, `stop` or `function_call` as the finish."""
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g", "arguments": ""}}]
    for finish in ("stop", "function_call", "tool_calls"):
        body = {"choices": [{"message": {"content": "", "tool_calls": calls}, "finish_reason": finish}]}
        choice = LOCALAI.parse_response(answered(200, body))["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert [call["function"]["arguments"] for call in choice["message"]["tool_calls"]] == ['{"a":1}', "{}"]
        assert [call["id"] for call in choice["message"]["tool_calls"]] == ["call_0_0", "call_0_1"]


def test_what_servers_add_for_themselves_is_left_out() -> None:
    """Token ids and the like; timings stay."""
    body = {
        "choices": [{"message": {"content": "a"}, "finish_reason": "stop", "token_ids": [1], "stop_reason": None}],
        "timings": {"prompt_n": 3},
    }
    found: Any = LLAMA_CPP.parse_response(answered(200, body))
    assert "token_ids" not in found["choices"][0]
    assert found["timings"] == {"prompt_n": 3}


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "status", "body", "expected"),
    [
        (OLLAMA, 404, {"error": "model 'x:latest' not found"}, (404, "model_not_found", False)),
        (OLLAMA, 404, {"error": {"message": "no", "type": "not_found_error"}}, (404, "model_not_found", False)),
        (OLLAMA, 400, {"error": "invalid message content type"}, (400, "invalid_value", False)),
        (OLLAMA, 503, {"error": "server busy, please try again."}, (503, "upstream_unavailable", True)),
        (OLLAMA, 500, {"error": "model runner has unexpectedly stopped"}, (502, "upstream_error", True)),
        (
            VLLM_,
            400,
            {"object": "error", "message": "This model's maximum context length is 8192 tokens.", "code": 400},
            (400, "context_length_exceeded", False),
        ),
        (
            VLLM_,
            400,
            {"error": {"message": "However, the model's context length is only 1024 tokens", "code": 400}},
            (400, "context_length_exceeded", False),
        ),
        (
            VLLM_,
            404,
            {"error": {"message": "no", "type": "NotFoundError", "code": 404}},
            (404, "model_not_found", False),
        ),
        (VLLM_, 401, {"error": "Unauthorized"}, (401, "invalid_api_key", False)),
        (VLLM_, 422, {"detail": [{"loc": ["body", "n"], "msg": "bad"}]}, (400, "invalid_value", False)),
        (VLLM_, 500, {"error": {"message": "EngineDeadError", "code": 500}}, (502, "upstream_error", True)),
        (
            LLAMA_CPP,
            400,
            {"error": {"code": 400, "message": "the request exceeds", "type": "exceed_context_size_error"}},
            (400, "context_length_exceeded", False),
        ),
        (
            LLAMA_CPP,
            503,
            {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
            (503, "upstream_unavailable", True),
        ),
        (
            LLAMA_CPP,
            501,
            {"error": {"code": 501, "message": "This server does not", "type": "not_supported_error"}},
            (400, "unsupported_parameter", False),
        ),
        (STUDIO, 400, {"error": "'response_format.type' must be 'json_schema'"}, (400, "invalid_value", False)),
        (STUDIO, 404, {"error": {"message": "x", "code": "model_not_found"}}, (404, "model_not_found", False)),
        (LOCALAI, 500, {"error": {"code": 500, "message": "could not load model: x"}}, (404, "model_not_found", False)),
        (LOCALAI, 500, {"error": {"code": "500", "message": "other", "type": ""}}, (502, "upstream_error", True)),
    ],
)
def test_errors_have_openais_status_and_code(
    provider: OpenAI, status: int, body: object, expected: tuple[int, str | None, bool]
) -> None:
    """Whatever shape the server gives them."""
    error = provider.parse_error(answered(status, body))
    assert (error.status, error.code, error.retryable) == expected
    assert error.upstream_status == status


def test_names_of_pythons_classes_are_no_types() -> None:
    """vLLM sends `BadRequestError`."""
    error = VLLM_.parse_error(answered(400, {"error": {"message": "x", "type": "BadRequestError", "code": 400}}))
    assert error.type == "invalid_request_error"
