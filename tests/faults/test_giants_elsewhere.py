"""The same as in test_giants.py for large answers of every vendor's API, at each endpoint for chats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from proxy.schema.json import encode
from tests.faults.test_giants import ESCAPED, MB, OTHER, PROSE, TOOL, Beating, arguments, longest_ms, text
from tests.faults.test_giants import stream as chat_stream
from tests.faults.test_giants import whole as chat_whole
from tests.faults.test_loop_lag import BOUND_MS

pytestmark = pytest.mark.slow
SHORT, LONG = 7_800_000, 50 * MB  # bytes of one event, and of a whole answer
USAGE = {"input_tokens": 5, "output_tokens": 5}
ENDPOINTS = ("/v1/chat/completions", "/v1/messages", "/v1/responses")


def called() -> dict[str, Any]:
    return {"x": text(PROSE, 30 * MB)}


def medium(kind: str, size: int) -> dict[str, Any]:
    return {"inlineData": {"mimeType": kind, "data": "A" * size}}


def anthropic(*blocks: dict[str, Any]) -> list[bytes]:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": blocks, "usage": USAGE}
    return [encode({**message, "stop_reason": "end_turn"})]


def anthropic_stream(said: str) -> list[bytes]:
    at = {"type": "content_block_delta", "index": 0}
    return events(
        {"type": "message_start", "message": json.loads(anthropic()[0]) | {"stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({**at, "delta": {"type": "text_delta", "text": each}} for each in ("a", said)),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE},
        {"type": "message_stop"},
    )


def google(*parts: dict[str, Any], end: str | None = "STOP") -> dict[str, Any]:
    candidate = {"content": {"parts": parts, "role": "model"}, "index": 0} | ({"finishReason": end} if end else {})
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 5}}


def cohere(**message: Any) -> list[bytes]:
    return [encode({"id": "a", "message": {"role": "assistant", **message}, "finish_reason": "COMPLETE"})]


def responses(*output: dict[str, Any]) -> dict[str, Any]:
    return {"id": "r", "object": "response", "status": "completed", "model": "m", "output": output, "usage": USAGE}


def said_item(said: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": said, "annotations": []}
    return {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": [part]}


def responses_stream(said: str) -> list[bytes]:
    at = {"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0}
    return events(
        {"type": "response.created", "response": {**responses(), "status": "in_progress"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**said_item(""), "content": []}},
        *({**at, "delta": each} for each in ("a", said)),
        {"type": "response.completed", "response": responses()},
    )


def events(*bodies: dict[str, Any]) -> list[bytes]:
    data = b"".join(
        b"".join((b"event: %b\n" % body["type"].encode() if "type" in body else b"", b"data: ", encode(body), b"\n\n"))
        for body in bodies
    )
    return [data[at : at + 262_144] for at in range(0, len(data), 262_144)]


ANSWERS: dict[str, tuple[Callable[[], list[bytes]], ...]] = {
    "anthropic": (
        *(lambda unit=unit: anthropic({"type": "text", "text": text(unit, LONG // 2)}) for unit in (OTHER, ESCAPED)),
        lambda: anthropic({"type": "text", "text": text(PROSE, LONG)}),
        lambda: anthropic({"type": "thinking", "thinking": text(PROSE, LONG), "signature": "s"}),
        lambda: anthropic({"type": "tool_use", "id": "t", "name": "look", "input": called()}),
        *(lambda unit=unit: anthropic_stream(text(unit, SHORT)) for unit in (PROSE, OTHER)),
    ),
    "google": (
        *(lambda unit=unit: [encode(google({"text": text(unit, LONG // 2)}))] for unit in (OTHER, ESCAPED)),
        lambda: [encode(google({"text": text(PROSE, LONG)}))],
        lambda: [encode(google({"text": text(PROSE, LONG), "thought": True}, {"text": "x"}))],
        lambda: [encode(google({"functionCall": {"name": "look", "args": called()}}))],
        lambda: [encode(google(medium("image/png", 40 * MB)))],
        lambda: [encode(google(*[medium("audio/wav", 20 * MB)] * 2))],
        *(
            lambda unit=unit: events(google({"text": "a"}, end=None), google({"text": text(unit, SHORT)}))
            for unit in (PROSE, OTHER)
        ),
    ),
    "cohere": (
        lambda: cohere(content=[{"type": "text", "text": text(PROSE, LONG)}]),
        lambda: cohere(tool_calls=arguments(json.dumps(called()))["tool_calls"]),
    ),
    "openai": (
        lambda: chat_whole(text(PROSE, LONG)),
        lambda: chat_whole("", tool_calls=arguments(json.dumps(called()))["tool_calls"]),
        *(lambda unit=unit: chat_stream({"content": text(unit, SHORT)}) for unit in (PROSE, OTHER)),
        lambda: chat_stream({"reasoning_content": text(PROSE, SHORT)}),
    ),
    "responses": (
        lambda: [encode(responses(said_item(text(PROSE, LONG))))],
        *(lambda unit=unit: responses_stream(text(unit, SHORT)) for unit in (PROSE, OTHER)),
    ),
}


def asked(path: str, model: str, is_stream: bool) -> bytes:
    fields: dict[str, Any] = {"model": model, "stream": is_stream}
    function: Any = TOOL["function"]
    if path == "/v1/messages":
        tool = {"name": "look", "input_schema": {"type": "object"}}
        fields |= {"max_tokens": 4_000, "messages": [{"role": "user", "content": "hi"}], "tools": [tool]}
    elif path == "/v1/completions":
        fields |= {"prompt": "hi"}
    elif path == "/v1/responses":
        fields |= {"input": "hi", "tools": [{"type": "function", **function}]}
    else:
        fields |= {"messages": [{"role": "user", "content": "hi"}], "tools": [TOOL]}
    return encode(fields)


@asynccontextmanager
async def answering(answers: list[list[bytes]]) -> AsyncIterator[str]:
    """An upstream that gives the last of `answers` to everybody."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0))  # models are listed
        pieces = answers[-1]
        kind = b"application/json" if pieces[0].startswith(b"{") else b"text/event-stream"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\nconnection: close\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def configured(folder: Path, url: str) -> Path:
    timeouts = {"connect": 5, "first_token": 60, "idle": 60, "total": 60}
    usual = {"base_url": url, "allow_private": True, "retries": 0, "price": None, "timeout_s": timeouts}
    own: dict[str, dict[str, Any]] = {"responses": {"type": "openai", "api": "responses"}}
    providers = {name: {**usual, "type": name, **own.get(name, {})} for name in ANSWERS}
    path = folder / "routing_rules.yaml"
    storage = {"url": f"sqlite:///{folder / 'usage.db'}"}
    path.write_text(json.dumps({"version": 1, "storage": storage, "providers": providers}))
    (folder / "pricing.yaml").write_text(json.dumps({"version": 1, "models": {}}))
    return path


@pytest.mark.parametrize(("vendor", "path"), [*product(ANSWERS, ENDPOINTS)])
async def test_no_large_answer_of_any_vendor_stops_the_loop(tmp_path: Path, vendor: str, path: str) -> None:
    """Texts of several scripts, thoughts, calls, pictures, sounds: whole, and as one large event of a stream."""
    answers: list[list[bytes]] = []
    async with answering(answers) as url:
        server = await asyncio.to_thread(Beating, configured(tmp_path, url))
        try:
            for made in ANSWERS[vendor]:
                answers.append(made())
                is_stream = not answers[-1][0].startswith(b"{")
                body = asked(path, f"{vendor}/ok", is_stream)
                assert await longest_ms(server, path, body, BOUND_MS) < BOUND_MS
                answers.clear()
        finally:
            await asyncio.to_thread(server.stop)
