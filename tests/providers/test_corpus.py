"""Requests as the vendors' own SDKs would make them: the corpus of OpenAI requests, built for every provider."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Built
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import CORPUS
from tests.providers.vendors import CHECKS, MODELS

LEAST = 150  # valid requests for each model; the rest is content that it cannot take

# What a vendor's types do not list and its API takes, or lets through (facts of November 2026).
EXTENSIONS = {
    "anthropic": ("block_binding",),  # in the SDK's beta types; its beta header goes with it
    "groq": ("stream_options",),
    "openai": ("cache_control", "video_url", "thinking_blocks", "extra_content", "reasoning_content", "annotations"),
}
CASES = [(kind, model) for kind in CHECKS if kind in PROVIDERS for model in MODELS[kind]]


def built(kind: str, model: str, body: dict[str, Any]) -> Built | BadRequest:
    try:
        return PROVIDERS[kind]().build_request(decode_chat(encode(body)), model)
    except BadRequest as error:
        return error


@pytest.mark.parametrize(("kind", "model"), CASES)
@pytest.mark.slow
def test_every_request_is_one_that_the_vendors_own_sdk_could_have_made(kind: str, model: str):
    """No unknown field, no wrong type, no missing one; or a refusal that names the field."""
    complaints: dict[str, list[str]] = {}
    right = 0
    for name, body in CORPUS.items():
        found = built(kind, model, body)
        if isinstance(found, BadRequest):
            assert found.param, f"{name}: {found.message}"
            continue
        errors = CHECKS[kind](json.loads(found.http.body))
        errors = [error for error in errors if not any(word in error for word in EXTENSIONS.get(kind, ()))]
        if errors:
            complaints[name] = errors[:3]
        else:
            right += 1
    assert complaints == {}
    assert right >= LEAST


@pytest.mark.parametrize(("kind", "model"), [(kind, models[0]) for kind, models in MODELS.items() if kind in PROVIDERS])
def test_the_same_request_gives_the_same_bytes(kind: str, model: str):
    """Prompt caches hit on prefixes of bytes; and one message more changes nothing before it."""
    for name, body in CORPUS.items():
        first, second = built(kind, model, body), built(kind, model, json.loads(json.dumps(body)))
        if isinstance(first, Built) and isinstance(second, Built):
            assert first.http.body == second.http.body, name
        else:
            assert str(first) == str(second), name


@pytest.mark.parametrize(("kind", "model"), [(kind, models[0]) for kind, models in MODELS.items() if kind in PROVIDERS])
def test_no_secret_and_no_other_host_gets_into_the_path(kind: str, model: str):
    """A model id with slashes, dots and question marks stays one id."""
    for odd in (f"{model}/../../admin", f"{model}?key=1", f"{model}#x", f"{model}%2e%2e", f"{model}\r\nx: y"):
        found = built(kind, odd, CORPUS["one user message"])
        if isinstance(found, Built):
            path = found.http.path.removesuffix("?alt=sse")
            assert ".." not in path
            assert not set(path) & set("?#\r\n ")
