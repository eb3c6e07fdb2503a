"""What a request holds, against what its model takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.metering.pricing import ModelPrice
from proxy.providers.openai import OpenAI
from proxy.routing.capabilities import needs, refusal
from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatRequest
from proxy.server.formats.chat import decode_chat

PARTS = {
    "images": {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
    "audio": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    "video": {"type": "video_url", "video_url": {"url": "https://a.example/b.mp4"}},
    "files": {"type": "file", "file": {"file_id": "f"}},
}


def request(*parts: dict[str, Any]) -> ChatRequest:
    content = [{"type": "text", "text": "hi"}, *parts]
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": content}]
    return decode_chat(json.dumps({"model": "m", "messages": messages}).encode())


def deployment(supports: list[str] | None) -> Deployment:
    return Deployment("a", OpenAI(), "m", ModelPrice(supports=supports))


@pytest.mark.parametrize("capability", PARTS)
def test_a_part_that_the_model_lacks_is_named(capability: str) -> None:
    """With the model, and where it stands."""
    others = [name for name in PARTS if name != capability]
    error = refusal(needs(request(PARTS[capability])), deployment(others))
    assert error is not None
    assert (error.status, error.code, error.param) == (400, "unsupported_content", "messages.1.content.1")
    assert error.message.startswith("a/m cannot take ")
    assert refusal(needs(request(PARTS[capability])), deployment([capability])) is None


def test_the_first_part_of_each_kind_counts() -> None:
    """In the order of the request."""
    image, audio = PARTS["images"], PARTS["audio"]
    found = needs(request(image, audio, image))
    assert [(part.where, part.kind) for part in found] == [
        ("messages.1.content.1", "image"),
        ("messages.1.content.2", "audio"),
    ]


def test_what_is_not_known_is_let_through() -> None:
    """No row, a row that does not say, a part nobody knows, a request of text."""
    assert refusal(needs(request(PARTS["images"])), Deployment("a", OpenAI(), "m", None)) is None
    assert refusal(needs(request(PARTS["images"])), deployment(None)) is None
    assert needs(request({"type": "hologram"})) == []
    assert refusal(needs(request()), deployment([])) is None
