"""One event of a stream with a text of a megabyte: it leaves in turns, and clients get all of it."""

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
    if path == "/v1/messages":
        return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
