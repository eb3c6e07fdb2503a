"""Rules of Together's dialect: every row of its fact page (November 2026)."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.providers.together import Together
from proxy.schema.errors import BadRequest
from proxy.schema.records import Tokens
from proxy.schema.usage import UsageReport
from tests.providers.asking import USER, answered, built, event, folded, messages, sent
from tests.providers.corpus import audio, file, image, text

TOGETHER = Together()
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"stop": "a"}, {"stop": ["a"]}),
        ({"logprobs": True}, {"logprobs": 1}),
        ({"logprobs": True, "top_logprobs": 5}, {"logprobs": 5}),
        ({"logprobs": True, "top_logprobs": 0}, {"logprobs": 1}),
        ({"logprobs": False}, {}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, {"reasoning": {"enabled": False}}),
        ({"n": 3, "seed": 1, "logit_bias": {"1": 1}}, {"n": 3, "seed": 1, "logit_bias": {"1": 1}}),
        ({"min_p": 0.1, "repetition_penalty": 1.1}, {"min_p": 0.1, "repetition_penalty": 1.1}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    ],
)
def test_names_that_mean_the_same_are_no_loss(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """What only Together knows goes along."""
    body = sent(TOGETHER, **fields)
    assert {name: body[name] for name in body if name not in ("model", "messages")} == expected
    result = built(TOGETHER, **fields)
    assert (result.dropped, result.adapted) == ([], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": "flex"},
        {"store": True},
        {"metadata": {"a": "b"}},
        {"user": "ada"},
        {"prediction": {"type": "content", "content": "x"}},
        {"verbosity": "low"},
        {"parallel_tool_calls": False},
        {"web_search_options": {}},
        {"safety_identifier": "x"},
        {"prompt_cache_key": "x"},
    ],
)
def test_what_is_ignored_there_is_dropped_and_told(fields: dict[str, Any]) -> None:
    """Some of it is even refused."""
    assert set(sent(TOGETHER, **fields)) == {"model", "messages"}
    assert built(TOGETHER, **fields).dropped == list(fields)


@pytest.mark.parametrize(
    ("effort", "expected"), [("minimal", "low"), ("xhigh", "high"), ("max", "high"), ("none", "low")]
)
def test_levels_it_lacks_become_the_nearest(effort: str, expected: str) -> None:
    """A model that cannot be kept from thinking thinks as little as it can."""
    model = "openai/gpt-oss-120b"
    assert sent(TOGETHER, model, reasoning_effort=effort)["reasoning_effort"] == expected
    assert built(TOGETHER, model, reasoning_effort=effort).adapted == ["reasoning_effort"]


def test_texts_are_flat_and_media_stay_with_the_user() -> None:
    """Only models that see take lists; a tool's result is a text."""
    said: list[dict[str, Any]] = [
        {"role": "developer", "content": [text("Be"), text("brief.")]},
        {"role": "user", "content": [text("?"), image()]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": [text("sunny")]},
    ]
    assert messages(TOGETHER, *said) == [
        {"role": "system", "content": "Be\nbrief."},
        said[1],
        said[2],
        {**said[3], "content": "sunny"},
    ]


@pytest.mark.parametrize(
    ("role", "part"),
    [
        ("user", file()),
        ("user", {"type": "document_url", "document_url": "https://example.com/a.pdf"}),
        ("assistant", image()),
        ("system", audio()),
    ],
)
def test_content_it_cannot_carry_is_refused(role: str, part: dict[str, Any]) -> None:
    """With its place."""
    with pytest.raises(BadRequest) as caught:
        built(TOGETHER, messages=[{"role": role, "tool_call_id": "call_1", "content": [part]}])
    assert (caught.value.code, caught.value.param) == ("unsupported_content", f"messages.0.content.0.{part['type']}")


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("deepseek-ai/DeepSeek-V4-Pro-0813", {"reasoning": "thought"}),
        ("moonshotai/Kimi-K3", {"reasoning": "thought"}),
        ("meta-models/Muse-Glimmer-30B", {}),
    ],
)
def test_thoughts_go_back_to_models_that_want_them(model: str, kept: dict[str, str]) -> None:
    """Under the vendor's name; others get none."""
    said = {"role": "assistant", "content": "a", "reasoning_content": "thought"}
    assert messages(TOGETHER, USER, said, USER, model=model)[1] == {"role": "assistant", "content": "a"} | kept


ANSWER: dict[str, Any] = {
    "id": "ovCayG8-6Ng1vN",
    "object": "chat.completion",
    "created": 1786077875,
    "model": "m",
    "prompt": [],
    "choices": [
        {
            "finish_reason": "eos",
            "seed": 12479678939117453000,
            "index": 0,
            "text": "Hi",
            "logprobs": {
                "token_ids": [1, 2],
                "tokens": ["H", "i"],
                "token_logprobs": [-0.1, None],
                "top_logprobs": [{"H": -0.1, "J": -2.5}],
            },
            "message": {"role": "assistant", "content": "Hi", "tool_calls": [], "reasoning": "thought"},
        }
    ],
    "usage": {"prompt_tokens": 198, "completion_tokens": 24, "total_tokens": 222, "cached_tokens": 8},
}


def test_an_answer_is_openais_without_leftovers() -> None:
    """`prompt`, `text` and seeds above 2**53 go; finish, cached tokens and logprobs get OpenAI's shape."""
    found = TOGETHER.parse_response(answered(200, ANSWER))
    assert found == {
        "id": "ovCayG8-6Ng1vN",
        "object": "chat.completion",
        "created": 1786077875,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "refusal": None,
                    "annotations": [],
                    "reasoning_content": "thought",
                },
                "logprobs": {
                    "content": [
                        {
                            "token": "H",
                            "logprob": -0.1,
                            "bytes": [72],
                            "top_logprobs": [
                                {"token": "H", "logprob": -0.1, "bytes": [72]},
                                {"token": "J", "logprob": -2.5, "bytes": [74]},
                            ],
                        },
                        {"token": "i", "logprob": -9999.0, "bytes": [105], "top_logprobs": []},
                    ]
                },
                "finish_reason": "stop",
                "native_finish_reason": "eos",
            }
        ],
        "usage": UsageReport(
            {
                "prompt_tokens": 198,
                "completion_tokens": 24,
                "total_tokens": 222,
                "prompt_tokens_details": {"cached_tokens": 8},
            },
            Tokens(input=190, cache_read=8, output=24),
        ),
    }


def test_a_stream_is_the_same_answer() -> None:
    """The text twice, the role each time, a bare number for a token's likelihood, usage beside the finish."""
    head = {"id": "x", "object": "chat.completion.chunk", "model": "m", "created": 1}

    def piece(words: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
        delta = {"token_id": 16, "role": "assistant", "content": words}
        choice = {"index": 0, "text": words, "seed": 1395002666759424000, "delta": delta, "finish_reason": finish}
        return {**head, "choices": [{**choice, **more}], "usage": ANSWER["usage"] if finish else None}

    found = folded(
        TOGETHER, [event(piece("H", logprobs=-0.1)), event(piece("i", logprobs=-0.2)), event(piece("", "eos"))]
    )
    choice: Any = found["choices"][0]
    assert choice["message"]["content"] == "Hi"
    assert [(each["token"], each["logprob"]) for each in choice["logprobs"]["content"]] == [("H", -0.1), ("i", -0.2)]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("stop", "eos")
    assert set(choice) == {"index", "message", "logprobs", "finish_reason", "native_finish_reason"}
    assert found["usage"].shown["prompt_tokens_details"] == {"cached_tokens": 8}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            422,
            {"error": {"message": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096."}},
            (400, "context_length_exceeded", False),
        ),
        (401, {"id": "x", "error": {"message": "no", "code": "invalid_api_key"}}, (401, "invalid_api_key", False)),
        (402, {"error": {"message": "Credit limit exceeded"}}, (429, "insufficient_quota", False)),
        (403, {"error": {"message": "input tokens + max_tokens is too much"}}, (400, "context_length_exceeded", False)),
        (403, {"error": {"message": "Forbidden"}}, (403, None, False)),
        (404, {"error": {"message": "gone", "code": "model_not_available"}}, (404, "model_not_found", False)),
        (422, {"error": {"message": "bad"}}, (400, "invalid_value", False)),
        (429, {"error": "slow down"}, (429, "rate_limit_exceeded", True)),
        (503, {"error": {"message": "busy", "type": "overloaded_error"}}, (503, "upstream_unavailable", True)),
        (524, b"<html>cloud</html>", (504, "upstream_timeout", True)),
        (529, {"message": "overloaded"}, (503, "upstream_unavailable", True)),
    ],
)
def test_errors_have_openais_status_and_code(status: int, body: object, expected: tuple[int, str | None, bool]) -> None:
    """Three shapes of body, and pages of the edge's."""
    error = TOGETHER.parse_error(answered(status, body))
    assert (error.status, error.code, error.retryable) == expected
    assert error.upstream_status == status


def test_rate_limits_have_openais_names() -> None:
    """Requests per second under names without a unit."""
    headers = {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}
    assert TOGETHER.parse_error(answered(429, {"error": "slow"}, **headers)).headers == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
    }
