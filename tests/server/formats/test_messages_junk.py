"""A rich `/v1/messages` body with junk at each of its places: refused by name or built for every vendor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.metering import tokens
from proxy.providers import PROVIDERS
from proxy.providers.base.building import build
from proxy.schema.errors import ProxyError
from proxy.server.formats.messages.errors import error_body
from proxy.server.formats.messages.request import decode_messages

MARK = {"type": "ephemeral", "ttl": "1h"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
TEXT = {"type": "text", "text": "see", "cache_control": MARK, "citations": []}
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"x": [1, {"y": "z"}]}, "cache_control": MARK}
RESULT = {
    "type": "tool_result",
    "tool_use_id": "t1",
    "is_error": True,
    "content": [TEXT, {"type": "image", "source": PNG}],
    "cache_control": MARK,
}
BODY: dict[str, Any] = {
    "model": "m",
    "max_tokens": 3000,
    "system": [TEXT],
    "messages": [
        {
            "role": "user",
            "content": [
                TEXT,
                {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}},
                {"type": "document", "title": "T", "context": "C", "citations": {"enabled": True}, "source": PDF},
                {
                    "type": "document",
                    "source": {"type": "content", "content": [TEXT, {"type": "image", "source": PNG}]},
                },
                {"type": "search_result", "title": "T", "source": "S", "content": [TEXT]},
            ],
        },
        {"role": "system", "content": [TEXT]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "server_tool_use", "id": "s", "name": "n", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                TEXT,
                USE,
            ],
        },
        {"role": "user", "content": [RESULT, TEXT]},
    ],
    "tools": [
        {
            "name": "look",
            "description": "Looks.",
            "strict": True,
            "input_schema": {"type": "object", "properties": {"x": {"type": "array", "items": {}}}, "required": ["x"]},
            "cache_control": MARK,
        },
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 2, "user_location": {"city": "Paris"}},
    ],
    "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024, "display": "summarized"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 4,
    "service_tier": "auto",
    "stream": True,
}
JUNK: list[Any] = [None, True, 0, -1, 1.5, 10**17, "", "x", "\u0000", [], [[]], [None], {}, {"": {}}, {"type": {}}]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Each place in a value."""
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, each in inside:
        yield (*path, name)
        yield from places(each, (*path, name))


def put(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return value
    made = dict(node) if isinstance(node, dict) else list(node)
    made[path[0]] = put(node[path[0]], path[1:], value)
    return made


PLACES = list(places(BODY))


@pytest.mark.sampled(8)
@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_junk_anywhere_is_refused_or_built(provider: str, path: tuple[Any, ...]):
    """Also by Anthropic's own translation, which ensembles use; a refusal can be written."""
    vendor = PROVIDERS[provider]()
    for junk in JUNK:
        try:
            request = decode_messages(json.dumps(put(BODY, path, junk)).encode(), {}, "/messages").request
            tokens.estimate_prompt(request)
            build(vendor, replace(request, native=None), "claude-haiku-4-5")
            build(vendor, request, "m")
        except ProxyError as error:
            assert error.status in (400, 413)
            assert json.loads(error_body(error, "id"))["error"]["message"]
