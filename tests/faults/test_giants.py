"""No single step holds the event loop for long while a body or an answer near the size limit is served.

The work is done in threads, but a thread that keeps the GIL stops the loop too. So the server runs in a process of its
own, and its loop has a heartbeat.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.schema.json import encode
from tests.faults.test_loop_lag import BOUND_MS, answering, checked, configured
from tests.slowness import slowness_of_serving

MB = 1_000_000
TRIES = 8  # the heartbeat counts what other threads do while the machine lets the loop's thread wait
PROSE = "Plain text, with: marks [and] {more}. "
OTHER = "Größe 漢字 и русский "
EMOJI = OTHER + "😀 "
ESCAPED = 'a "quoted" line\nand\tnext '
USAGE = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def text(unit: str, size: int) -> str:
    return unit * (size // len(unit.encode()))


def image(size: int) -> dict[str, Any]:
    data = base64.b64encode(random.Random(size).randbytes(size * 3 // 4)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def chat(model: str, messages: Any = "hi", **fields: Any) -> bytes:
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": messages}]
    return encode({"model": model, "messages": messages, **fields})


def called(arguments: str, result: str) -> list[dict[str, Any]]:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    return [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": result},
    ]


def with_literal(model: str, unit: bytes) -> bytes:
    """A text of 26 MB as a client may write it."""
    return chat(model, "here").replace(b'"here"', b'"%b"' % (unit * (26 * MB // len(unit))))


def around(levels: int, value: bytes) -> bytes:
    return b"[" * levels + value + b"]" * levels


BODIES: dict[str, Callable[[str], bytes]] = {
    "an image of 24 MB": lambda model: chat(model, [{"role": "user", "content": [image(24 * MB)]}]),
    "ten images of 3 MB": lambda model: chat(model, [{"role": "user", "content": [image(3 * MB)] * 10}]),
    "an image with escapes": lambda model: chat(model, [{"role": "user", "content": [image(24 * MB)]}]).replace(
        b"/", b"\\/"
    ),
    "a text of 30 MB": lambda model: chat(model, text(PROSE, 30 * MB)),
    "a text with escapes": lambda model: chat(model, text(ESCAPED, 22 * MB)),
    "a text in other scripts": lambda model: chat(model, text(OTHER, 26 * MB)),
    "a text with emoji": lambda model: chat(model, text(EMOJI, 26 * MB)),
    "28,000 messages": lambda model: chat(model, [{"role": "user", "content": text(PROSE, 1_000)}] * 28_000),
    "a result of 30 MB": lambda model: chat(model, called("{}", text(PROSE, 30 * MB)), tools=[TOOL]),
    "a text of emoji": lambda model: chat(model, text("😀", 26 * MB)),
    "one emoji behind a long text": lambda model: chat(model, "a" * 30 * MB + "😀"),
    "a text of escapes": lambda model: with_literal(model, b"\\u6f22"),
    "a text of surrogate pairs": lambda model: with_literal(model, b"\\ud83d\\ude00"),
    "a text of backslashes": lambda model: with_literal(model, b"\\\\"),
    "a key of escapes": lambda model: chat(model)[:-1] + b',"x":{"' + b"\\u6f22" * (26 * MB // 6) + b'":1}}',
    "blanks": lambda model: chat(model)[:-1] + b',"x":[' + b" " * 26 * MB + b"]}",
    "arrays around a text": lambda model: (
        chat(model)[:-1] + b',"x":' + around(400, b'"' + b"x" * 26 * MB + b'"') + b"}"
    ),
    "twenty texts of 1 MB": lambda model: chat(model, [{"role": "user", "content": text(PROSE, MB)}] * 20),
    "arguments of 25 MB": lambda model: chat(model, called(json.dumps({"x": text(PROSE, 25 * MB)}), "x")),
}
DIALECTS = ("openai", "anthropic", "google", "cohere", "mistral")
INPUTS: dict[str, Callable[[], Any]] = {
    "an input of 30 MB": lambda: [text(PROSE, 30 * MB)],
    "1,000 inputs": lambda: [text(PROSE, 28_000)] * 1_000,
    "200,000 tokens": lambda: [list(range(1_000))] * 200,
}


def whole(content: Any, **fields: Any) -> list[bytes]:
    message = {"role": "assistant", "content": content, **fields}
    return [encode({"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})]


def stream(delta: dict[str, Any]) -> list[bytes]:
    """One event of 8 MB between two short ones."""
    choices = [
        {"index": 0, "delta": {"content": "a"}, "finish_reason": None},
        {"index": 0, "delta": delta, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop"},
    ]
    events = [b"data: " + encode({"id": "a", "choices": [choice]}) + b"\n\n" for choice in choices]
    data = b"".join(events) + b"data: [DONE]\n\n"
    return [data[at : at + 262_144] for at in range(0, len(data), 262_144)]


def arguments(piece: Any) -> dict[str, Any]:
    function = {"name": "look", "arguments": piece}
    return {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}


def with_logprobs(tokens: int) -> list[bytes]:
    top = [{"token": "b", "logprob": -2.5, "bytes": [98]}] * 20
    logprobs = {"content": [{"token": "a", "logprob": -1.5, "bytes": [97], "top_logprobs": top}] * tokens}
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    return [encode({"id": "a", "usage": USAGE, "choices": [{**choice, "logprobs": logprobs}]})]


def vectors(count: int, dimensions: int = 1536) -> list[bytes]:
    data = [{"index": index, "embedding": [0.12345678 + index / 1e6] * dimensions} for index in range(count)]
    return [encode({"data": data, "usage": USAGE})]


ANSWERS: dict[str, Callable[[], list[bytes]]] = {
    "whole-30mb": lambda: whole(text(PROSE, 30 * MB)),
    "whole-scripts": lambda: whole(text(OTHER, 26 * MB)),
    "whole-emoji": lambda: whole(text(EMOJI, 26 * MB)),
    "whole-escapes": lambda: whole(text(ESCAPED, 22 * MB)),
    "whole-logprobs": lambda: with_logprobs(4_000),
    "whole-60mb": lambda: whole(text(PROSE, 60 * MB)),
    "whole-32mb-emoji": lambda: whole(text("😀", 32 * MB)),
    "whole-written-as-escapes": lambda: [json.dumps(json.loads(whole(text("漢", 28 * MB))[0])).encode()],
    "whole-reasoning": lambda: whole("fine", reasoning_content=text(PROSE, 60 * MB)),
    "whole-arguments": lambda: whole("", tool_calls=arguments(json.dumps(text(PROSE, 60 * MB)))["tool_calls"]),
    "whole-arguments-as-object": lambda: whole("", tool_calls=arguments({"x": text(PROSE, 30 * MB)})["tool_calls"]),
    "whole-parts": lambda: whole([{"type": "text", "text": text(PROSE, 1_000)}] * 50_000),
    "whole-170,000-dicts": lambda: with_logprobs(8_100),
    "whole-error": lambda: [encode({"error": {"message": text(PROSE, 60 * MB)}})],
    "stream-text": lambda: stream({"content": text(PROSE, 7_900_000)}),
    "stream-scripts": lambda: stream({"content": text(OTHER, 7_900_000)}),
    "stream-image": lambda: stream({"content": "b", "images": [image(7_900_000)]}),
    "stream-arguments": lambda: stream(arguments(text(PROSE, 7_900_000))),
}


class Beating:
    """A server with a heartbeat."""

    def __init__(self, routing: Path) -> None:
        command = [sys.executable, "-m", "tests.faults.heartbeat", str(routing)]
        with (routing.parent / "server.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.port = int(self._read())

    def stop(self) -> None:
        self._process.communicate()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def longest_ms(self) -> float:
        """The longest gap between two beats since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return float(self._read())


@asynccontextmanager
async def beating(folder: Path, answers: dict[str, list[bytes]]) -> AsyncIterator[Beating]:
    async with answering(answers) as url:
        routing = configured(folder, url)
        written = json.loads(routing.read_text())
        routing.write_text(json.dumps({**written, "server": {"max_body_mb": 32}}))
        server = await asyncio.to_thread(Beating, routing)
        try:
            yield server
        finally:
            await asyncio.to_thread(server.stop)


async def posted(port: int, path: str, body: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=128 * 1024 * 1024)
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read(-1)
    writer.close()
    return int(answer.split(b" ", 2)[1])


async def longest_ms(server: Beating, path: str, body: bytes, below: float) -> float:
    """The longest gap on the usual machine, in the best of TRIES, or the first that is below the bound."""
    found: list[float] = []
    before = slowness_of_serving()
    while not found or (min(found) >= below and len(found) < TRIES):
        await asyncio.to_thread(server.longest_ms)
        status = await posted(server.port, path, body)
        assert status in (200, 400, 502)  # the upstream speaks one dialect only
        longest, after = await asyncio.to_thread(server.longest_ms), slowness_of_serving()
        found.append(longest / max(before, after))
        before = after
    print(f"{len(body) / MB:.1f} MB, status {status}: {found} ms")
    return min(found)


QUICK = {("openai", "an image of 24 MB")}
SERVED = [
    pytest.param(dialect, name, marks=() if (dialect, name) in QUICK else pytest.mark.slow)
    for dialect in DIALECTS
    for name in BODIES
]


@pytest.mark.parametrize(("dialect", "name"), SERVED)
@pytest.mark.slow
async def test_no_large_body_stops_the_loop(tmp_path: Path, dialect: str, name: str) -> None:
    """Reading, checking, translating and sending it takes many steps, all of them short."""
    async with beating(tmp_path, {"ok": whole("fine")}) as server:
        body = BODIES[name](f"{dialect}/ok")
        assert await longest_ms(server, "/v1/chat/completions", body, BOUND_MS) < BOUND_MS


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
async def test_no_large_input_of_embeddings_stops_the_loop(tmp_path: Path, name: str) -> None:
    """Texts and lists of tokens."""
    inputs = INPUTS[name]()
    async with beating(tmp_path, {"ok": vectors(len(inputs))}) as server:
        body = encode({"model": "openai/ok", "input": inputs})
        assert await longest_ms(server, "/v1/embeddings", body, BOUND_MS) < BOUND_MS


@pytest.mark.slow
@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.parametrize(("count", "dimensions"), [(1_228, 1_536), (2_048, 256), (1, 1_500_000)])
async def test_no_vectors_stop_the_loop(tmp_path: Path, count: int, dimensions: int, form: str) -> None:
    """Many of them, long ones, in either form."""
    async with beating(tmp_path, {"ok": vectors(count, dimensions)}) as server:
        body = encode({"model": "openai/ok", "input": ["x"] * count, "encoding_format": form})
        assert await longest_ms(server, "/v1/embeddings", body, BOUND_MS) < BOUND_MS


@pytest.mark.slow
async def test_no_documents_stop_the_loop(tmp_path: Path) -> None:
    """To rank."""
    async with beating(tmp_path, {"ok": whole("fine")}) as server:
        body = encode({"model": "cohere/ok", "query": "x", "documents": [text(PROSE, 3_000)] * 10_000})
        assert await longest_ms(server, "/v1/rerank", body, BOUND_MS) < BOUND_MS


@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
async def test_no_large_answer_stops_the_loop(tmp_path: Path, name: str) -> None:
    """Whole, or one large event of a stream."""
    async with beating(tmp_path, {"ok": ANSWERS[name]()}) as server:
        body = chat("openai/ok", stream=name.startswith("stream"), tools=[TOOL])
        assert await longest_ms(server, "/v1/chat/completions", body, BOUND_MS) < BOUND_MS


@pytest.mark.slow
async def test_no_large_json_is_checked_in_one_step(tmp_path: Path) -> None:
    """Where the vendor does not promise JSON."""
    answer = json.dumps({"x": text(PROSE, 30 * MB)})
    async with beating(tmp_path, {"ok": whole(answer)}) as server:
        assert await longest_ms(server, "/v1/chat/completions", checked(None), BOUND_MS) < BOUND_MS


@pytest.mark.parametrize(("model", "prompt"), [("ok", 2 * MB), pytest.param("large", 100, marks=pytest.mark.slow)])
@pytest.mark.slow
async def test_a_stream_beside_large_bodies_hardly_waits(tmp_path: Path, model: str, prompt: int) -> None:
    """A prompt of 2 MB, an answer of 10 MB: 5 ms at most, though a thread may keep the interpreter for as long."""
    async with beating(tmp_path, {"ok": whole("fine"), "large": whole(text(PROSE, 10 * MB))}) as server:
        body = chat(f"openai/{model}", text(PROSE, prompt))
        assert await longest_ms(server, "/v1/chat/completions", body, BOUND_MS / 4) < BOUND_MS / 4
