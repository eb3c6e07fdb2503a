"""`max_tokens: -1`, no limit to some servers: sent, left out or refused, and never a number to count with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.building import build
from proxy.providers.base.contract import Provider
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.server.formats.chat import decode_chat

FIELDS: list[dict[str, Any]] = [
    {"max_tokens": -1},
    {"max_completion_tokens": -1},
    {"max_tokens": -1, "max_completion_tokens": -1},
    {"max_tokens": -1, "max_completion_tokens": None, "stream": True},
]
LOCAL: dict[str, Any] = {"base_url": "http://10.1.1.1:8080/v1", "allow_private": True, "parameters": {"max_tokens": 64}}


def asked(**fields: Any) -> ChatRequest:
    return decode_chat(json.dumps({"model": "x", "messages": [{"role": "user", "content": "hi"}], **fields}).encode())


def limits(provider: Provider, request: ChatRequest) -> dict[str, Any]:
    """The output limits in what is sent."""
    body = json.loads(build(provider, request, "some-model").http.body)
    return {name: value for name, value in body.items() if "max" in name}


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("name", ["ollama", "lmstudio", "localai", "openai"])
def test_a_server_that_knows_no_limit_is_sent_it(name: str, fields: dict[str, Any]) -> None:
    """Under the name that all of them read, over the provider's default."""
    assert limits(PROVIDERS[name](**LOCAL), asked(**fields)) == {"max_tokens": -1}


def test_the_embedded_model_is_one_of_them() -> None:
    """It is served by llama.cpp."""
    assert limits(PROVIDERS["embedded"](), asked(max_tokens=-1))["max_tokens"] == -1


@pytest.mark.parametrize("fields", FIELDS)
def test_where_it_goes_without_saying_it_is_left_out(fields: dict[str, Any]) -> None:
    """vLLM fills its context unless told otherwise."""
    assert limits(PROVIDERS["vllm"](**LOCAL), asked(**fields)) == {}


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize(
    "name", [name for name in PROVIDERS if name not in ("ollama", "lmstudio", "localai", "vllm", "embedded")]
)
def test_everybody_else_refuses_it_in_words(name: str, fields: dict[str, Any]) -> None:
    """OpenAI and all vendors; OpenAI's regional hosts too."""
    regional: dict[str, Any] = {"base_url": "https://eu.api.openai.com/v1"} if name == "openai" else {}
    for provider in (PROVIDERS[name](), PROVIDERS[name](**regional)):
        with pytest.raises(BadRequest, match=r"^max_tokens: expected at least 1: .*Leave it out") as refused:
            build(provider, asked(**fields), "some-model")
        assert refused.value.param == "max_tokens"


def test_a_limit_under_the_other_name_counts() -> None:
    """Then there is one, and everybody takes it."""
    for fields in ({"max_tokens": -1, "max_completion_tokens": 9}, {"max_tokens": 9, "max_completion_tokens": -1}):
        request = asked(**fields)
        assert (request.max_tokens, request.unlimited) == (9, False)
        assert 9 in limits(PROVIDERS["groq"](), request).values()
        assert -1 not in limits(PROVIDERS["openai"](), request).values()


def test_a_cap_of_ours_replaces_it() -> None:
    """Of a key or a budget."""
    capped, names = asked(max_tokens=-1).capped(20)
    assert (capped.max_tokens, capped.unlimited, names) == (20, False, ["max_completion_tokens"])
    assert set(limits(PROVIDERS["ollama"](**LOCAL), capped).values()) == {20}
    assert set(limits(PROVIDERS["groq"](), capped).values()) == {20}


@pytest.mark.parametrize("value", [0, -2, -100])
def test_other_numbers_below_one_are_refused_by_ourselves(value: int) -> None:
    """No server means one thing by them."""
    for name in ("max_tokens", "max_completion_tokens"):
        with pytest.raises(BadRequest, match=f"^{name}: expected at least 1"):
            asked(**{name: value})
