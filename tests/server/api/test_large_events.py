"""Streams whose events come in odd sizes: one with a text of a megabyte leaves in turns, and clients get all of it;
many that come in one piece stay apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.test_giants import OTHER, stream
from tests.faults.test_giants_elsewhere import (
    ENDPOINTS,
    answering,
    anthropic_stream,
    asked,
    configured,
    events,
    google,
    responses_stream,
)
from tests.serving import Server, serving

TEXT = "".join(f"{number} {OTHER}😀" for number in range(30_000))
STREAMS: dict[str, Callable[[], list[bytes]]] = {
    "openai": lambda: stream({"content": TEXT}),
    "anthropic": lambda: anthropic_stream(TEXT),
    "google": lambda: events(google({"text": "a"}, end=None), google({"text": TEXT})),
    "responses": lambda: responses_stream(TEXT),
}


@pytest.mark.parametrize(("vendor", "path"), [*product(STREAMS, ENDPOINTS)])
async def test_a_large_event_arrives_whole(tmp_path: Path, vendor: str, path: str) -> None:
    """From each vendor, at each endpoint, also where the end repeats what was said."""
    async with answering([STREAMS[vendor]()]) as url, serving(configured(tmp_path, url)) as server:
        told = await heard(server, path, f"{vendor}/ok")
    assert "".join(said(each, path) for each in told) == "a" + TEXT
    if path == "/v1/responses" and vendor != "responses":  # that one's bytes are the vendor's own
        (item,) = told[-1]["response"]["output"]
        assert item["content"][0]["text"] == "a" + TEXT


PIECES = ("one", " two", " three", ' "four"', " \x7f five")


def in_one_write(vendor: str, first: dict[str, Any]) -> list[bytes]:
    """A stream whose events come all at once. `first`: what comes with the first text."""
    if vendor == "openai":
        deltas = [{**(first if place == 0 else {}), "content": each} for place, each in enumerate(PIECES)]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        bodies = [{"id": "a", "choices": [choice]} for choice in choices]
        if not first:
            bodies.insert(0, {"id": "a", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        return [b"".join([*events(*bodies), b"data: [DONE]\n\n"])]
    whole = anthropic_stream("x")
    head, delta, rest = b"".join(whole).partition(b"event: content_block_delta\n")
    _, _, rest = (delta + rest).rpartition(b"event: content_block_stop\n")
    texts = [{"type": "text_delta", "text": each} for each in PIECES]
    told = events(*({"type": "content_block_delta", "index": 0, "delta": each} for each in texts))
    return [b"".join([head, *told, b"event: content_block_stop\n", rest])]


@pytest.mark.parametrize(("vendor", "path"), [*product(("openai", "anthropic"), (*ENDPOINTS, "/v1/completions"))])
@pytest.mark.parametrize("first", [{}, {"role": "assistant"}])
async def test_events_of_one_read_stay_apart(tmp_path: Path, vendor: str, path: str, first: dict[str, str]) -> None:
    """Clients get as many as the provider sent: they show each as it comes, and count them."""
    async with answering([in_one_write(vendor, first)]) as url, serving(configured(tmp_path, url)) as server:
        told = await heard(server, path, f"{vendor}/ok")
    assert [text for each in told if (text := said(each, path))] == list(PIECES)


async def test_long_thoughts_arrive_whole(tmp_path: Path) -> None:
    """Their item ends with copies of them, and nothing of the answer is lost behind them."""
    async with answering([stream({"reasoning_content": TEXT})]) as url, serving(configured(tmp_path, url)) as server:
        told = await heard(server, "/v1/responses", "openai/ok")
    assert [each["sequence_number"] for each in told] == list(range(len(told)))
    summaries = [item["summary"] for item in told[-1]["response"]["output"] if item["type"] == "reasoning"]
    assert summaries == [[{"type": "summary_text", "text": TEXT}]]


async def heard(server: Server, path: str, model: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=server.base_url.removesuffix("/v1"), trust_env=False) as client:
        answer = await client.post(path, content=asked(path, model, True), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    return [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]


def said(event: dict[str, Any], path: str) -> str:
    """The text that an event adds."""
    if path == "/v1/responses":
        return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""
    if path == "/v1/completions":
        return "".join(choice["text"] for choice in event.get("choices", ()))
    if path == "/v1/messages":
        return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
