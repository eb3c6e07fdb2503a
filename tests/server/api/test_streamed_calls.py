"""Odd tool calls of an OpenAI-shaped server, from its socket to the `openai` package's own stream helper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.faults.books import rows
from tests.providers.test_streamed_calls import LATE, NAMES, OSLO, PIECES, ROME, Said, entry, stream
from tests.server.api.test_odd_answers import before

pytestmark = pytest.mark.asyncio(loop_scope="module")

CASES: list[tuple[list[list[dict[str, Any]]], Said]] = [
    (LATE["empty"], [("get_weather", ROME)]),
    (PIECES["letters"], [("get_weather", ROME)]),
    ([[entry("get_weather", ROME)], [entry("get_time", OSLO)]], [("get_weather", ROME), ("get_time", OSLO)]),
    ([[entry("get_time", ROME, id="a"), entry("get_time", OSLO, id="a")]], [("get_time", ROME), ("get_time", OSLO)]),
    ([[entry("note", None, id="a")]], [("note", "{}")]),
]


def chunked(deltas: list[list[dict[str, Any]]]) -> bytes:
    """The bytes of a stream that finishes with `stop`, each in an HTTP chunk of its own."""
    events = stream([{"tool_calls": each} for each in deltas], "stop")
    data = b"".join(b"data: " + each.data + b"\n\n" for each in events)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"


@pytest.mark.parametrize("kind", ["openai", "vllm", "mistral", "ollama"])
@pytest.mark.sampled(3)
async def test_odd_calls_reach_the_clients_library(tmp_path: Path, kind: str) -> None:
    """Whole names, ids of their own, arguments that are JSON; bought once, one row each."""
    served = [b""]
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in NAMES]
    async with (
        before(tmp_path, kind, lambda: served[0]) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client,
    ):
        for deltas, said in CASES:
            served[0] = chunked(deltas)
            async with client.chat.completions.stream(
                model="odd/m", messages=[{"role": "user", "content": "hi"}], tools=tools
            ) as events:
                choice = (await events.get_final_completion()).choices[0]
            calls: Any = choice.message.tool_calls
            found = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
            assert found == [(name, json.loads(text)) for name, text in said]
            assert len({call.id for call in calls}) == len(calls)
            assert choice.finish_reason == "tool_calls"
    assert [row["attempts"] for row in rows(tmp_path, "calls")] == [1] * len(CASES)
