"""The tolerant reader: odd frames and odd values of upstream answers, at every dialect: read, or an honest error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.providers.openai import OpenAI
from proxy.providers.vllm import VLLM
from proxy.schema.errors import UpstreamError
from proxy.schema.sse import Event
from tests.providers.asking import answered, event, folded
from tests.providers.test_streams_property import WRITERS, decoded, framed
from tests.upstream.wire import Said

SAID = Said(tokens=["hel", "lo"], reasoning=["hm"], calls=[("tool_0", "{}")], finish="tool_calls")
VLLM_SERVER = VLLM()


def chunk(finish: str | None = None, **delta: Any) -> Event:
    return event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def message(content: Any, provider: Provider = VLLM_SERVER, **choice: Any) -> Any:
    whole = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}
    body = {"id": "c", "object": "chat.completion", "model": "m", "choices": [whole]}
    return provider.parse_response(answered(200, body))["choices"][0]


@pytest.mark.parametrize("padding", [b"null", b"[]", b'"ping"', b"ping", b"0", b"[null]", b"true"])
@pytest.mark.parametrize("kind", WRITERS)
def test_frames_that_are_no_objects_are_padding(kind: str, padding: bytes):
    """First, last and between all others: the answer goes on after them."""
    events = framed(WRITERS[kind](SAID, []), [])
    padded = [Event("", padding), *(each for one in events for each in (one, Event("", padding)))]
    assert decoded(kind, padded)[0] == decoded(kind, events)[0]


@pytest.mark.parametrize("kind", ["openai", "vllm", "google"])
def test_an_error_in_a_list_or_as_text_is_no_padding(kind: str):
    """With the server's own words."""
    said = json.dumps([{"error": {"message": "too busy", "code": 503}}]).encode()
    for each in (Event("", said), Event("error", b"too busy")):
        with pytest.raises(UpstreamError, match="too busy"):
            decoded(kind, [each])


@pytest.mark.parametrize(
    ("content", "expected"),
    [({"name": "Ann", "age": 3}, '{"name":"Ann","age":3}'), (42, "42"), ("x", "x"), (None, ""), (0.5, "0.5")],
)
def test_content_that_is_no_text_becomes_its_json(content: Any, expected: str):
    """Whole and streamed."""
    assert message(content)["message"]["content"] == expected
    streamed = folded(OpenAI(base_url="https://a.example/v1"), [chunk(content=content), chunk("stop")])
    assert streamed["choices"][0]["message"]["content"] == expected


def test_the_providers_are_all_there():
    """Each dialect has a writer here."""
    assert {kind.partition(",")[0] for kind in WRITERS} == set(PROVIDERS)
