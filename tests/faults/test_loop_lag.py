"""No single step holds the event loop for long, whatever a client sends or a provider answers.

The server runs in its own thread and event loop, which measures the CPU time of every callback: what others
do on the machine does not count.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Server, serving
from tests.slowness import slowness_of_serving

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")

BOUND_MS = 20.0  # on the usual machine
DIALECTS = ("openai", "anthropic", "google", "cohere", "mistral", "groq", "perplexity")
USER: Any = {"role": "user", "content": "one two three"}


class WatchedLoop(asyncio.SelectorEventLoop):
    """Notes the CPU time of the longest callback since `reset`."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self.longest = ""
        super().__init__()

    def reset(self) -> None:
        self.longest_ms, self.longest = 0.0, ""

    def timed(self, callback: Callable[..., object], *args: Any) -> None:
        began = time.thread_time()
        try:
            callback(*args)
        finally:
            spent_ms = (time.thread_time() - began) * 1000
            if spent_ms > self.longest_ms:
                self.longest_ms, self.longest = spent_ms, str(getattr(callback, "__self__", callback))[:500]

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return super().call_soon(self.timed, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        return super().call_at(when, self.timed, callback, *args, context=context)

    def _add_reader(self, fd: Any, callback: Any, *args: Any) -> Any:
        return super()._add_reader(fd, self.timed, callback, *args)  # type: ignore[misc]

    def _add_writer(self, fd: Any, callback: Any, *args: Any) -> Any:
        return super()._add_writer(fd, self.timed, callback, *args)  # type: ignore[misc]


@contextmanager
def watched(routing_file: Path, environ: Mapping[str, str] | None = None) -> Iterator[tuple[Server, WatchedLoop]]:
    """A server in a thread with a loop that is watched."""
    loop = WatchedLoop()
    started: list[Server] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with serving(routing_file, environ) as server:
            started.append(server)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield started[0], loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@asynccontextmanager
async def answering(streams: dict[str, list[bytes]]) -> AsyncIterator[str]:
    """An upstream whose models answer with the given pieces; any other request is a 400."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        body = await reader.readexactly(length)
        name = next((name for name in streams if f'"{name}"'.encode() in body), None)
        if name is None:
            writer.write(
                b'HTTP/1.1 400 Bad\r\ncontent-length: 27\r\nconnection: close\r\n\r\n{"error":{"message":"none"}}'[:-1]
            )
        else:
            kind = b"text/event-stream" if streams[name][0].startswith(b"data") else b"application/json"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\nconnection: close\r\n\r\n")
            for piece in streams[name]:
                writer.write(piece)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def configured(folder: Path, upstream: str) -> Path:
    """One provider of each dialect, all at one address."""
    timeouts = {"connect": 5, "first_token": 60, "idle": 60, "total": 60}
    provider = {"base_url": upstream, "allow_private": True, "retries": 0, "timeout_s": timeouts}
    routing = {
        "version": 1,
        "storage": {"url": f"sqlite:///{folder / 'usage.db'}"},
        "providers": {
            dialect: {**provider, "type": dialect, **({"price": None} if dialect == "groq" else {})}
            for dialect in DIALECTS
        },
        "router": {"default_model": "openai/ok"},
    }
    path = folder / "routing_rules.yaml"
    path.write_text(json.dumps(routing))
    (folder / "pricing.yaml").write_text(json.dumps({"version": 1, "models": {}}))
    return path


# --- what clients send ------------------------------------------------------------------------------------------------


def chat(model: str = "openai/ok", **fields: Any) -> bytes:
    return json.dumps({"model": model, "messages": [USER], **fields}).encode()


def with_text(text: str) -> bytes:
    """A good request with one more field, as text."""
    return chat()[:-1] + b', "x": ' + text.encode() + b"}"


def twice(keys: int) -> bytes:
    return with_text("{" + ",".join(f'"k{number}": 1' for number in range(keys)) + ', "k0": 2}')


def tool(number: int) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"tool_{number}", "parameters": {"type": "object"}}}


def results(count: int) -> list[dict[str, Any]]:
    """Calls and their results, in reverse order."""
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        for number in range(count)
    ]
    told = [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in reversed(calls)]
    return [USER, {"role": "assistant", "content": None, "tool_calls": calls}, *told, USER]


def checked(schema: dict[str, Any] | None, model: str = "groq/ok") -> bytes:
    """A request whose answer the proxy itself checks: this vendor takes no schema beside tools."""
    json_schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return chat(model, tools=[tool(1)], response_format=json_schema if schema else {"type": "json_object"})


BODIES: dict[str, Callable[[], bytes]] = {
    "10,000 keys and one of them twice": partial(twice, 10_000),
    "60,000 keys and one of them twice": partial(twice, 60_000),
    "400,000 keys": partial(twice, 400_000),
    "2.8 million arrays": lambda: with_text("[" + "[]," * 2_800_000 + "1]"),
    "2.8 million objects": lambda: with_text("[" + "{}," * 2_800_000 + "1]"),
    "4 million numbers": lambda: with_text("[" + "1," * 4_000_000 + "1]"),
    "arrays without end": lambda: b"[" * 4_000_000,
    "100,000 arrays deep": lambda: with_text("[" * 100_000 + "]" * 100_000),
    "300,000 messages": lambda: chat(messages=[USER] * 300_000),
    "large exponents": lambda: with_text("[" + "1e300," * 20_000 + "1]"),
    "a long key": lambda: chat()[:-1] + b', "' + b"k" * 1_000_000 + b'": 1}',
    "a text of 5 MB": lambda: chat(x="a text, with: marks [and] {more}. " * 150_000),
    "an unknown name": lambda: chat("gpt-without-end" * 17),
    "too many stops": lambda: chat(stop=["x" * 900 + str(number) for number in range(64)]),
    "a schema of 100,000 nodes": lambda: checked({"anyOf": [{"const": number} for number in range(20_000)]}),
    "a schema of many patterns": lambda: checked({"allOf": [{"pattern": r"^(\w{1,99}){1,99}$"}] * 100}),
    "a schema that doubles": lambda: checked(
        {"$ref": "#/$defs/d0", "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}}
    ),
    "headers of other proxies": chat,
}
# Work in the request builders of each vendor, which must not be quadratic.
BUILT: dict[str, Callable[[str], bytes]] = {
    "20,000 unknown fields": lambda model: chat(model, **{f"field_{number}": 1 for number in range(20_000)}),
    "3,000 tools": lambda model: chat(model, tools=[tool(number) for number in range(3_000)]),
    "2,000 results in reverse": lambda model: chat(model, messages=results(2_000)),
}


# --- what providers answer --------------------------------------------------------------------------------------------


def frames(deltas: list[dict[str, Any]]) -> list[bytes]:
    """A stream in writes of about 64 kB."""
    events = [{"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({"id": "a", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    return [data[at : at + 65_536] for at in range(0, len(data), 65_536)]


def whole(text: str) -> list[bytes]:
    message = {"role": "assistant", "content": text}
    return [json.dumps({"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()]


STREAMS: dict[str, Callable[[], list[bytes]]] = {
    "audio": lambda: frames([{"audio": {"id": "a", "data": "A" * 8_000}}] * 1_000),
    "details": lambda: frames([{"reasoning_details": [{"type": "t", "index": 0, "text": "x" * 40}]}] * 10_000),
    "own-details": lambda: frames([{"reasoning_details": [{"text": "x"}]}] * 10_000),
    "call-pieces": lambda: frames(
        [
            {"tool_calls": [{"index": n % 200, "id": f"c{n % 200}", "function": {"name": "f", "arguments": "1"}}]}
            for n in range(10_000)
        ]
    ),
    "short-lines": lambda: [b"data: x\n" + b":\n" * 30_000] * 20,
    "blank-lines": lambda: [b"data: {}\n" + b"\n" * 60_000] * 20,
    "one-line": lambda: [b"data: "] + [b"x" * 60_000] * 50,
    "deep-event": lambda: [b"data: " + b"[" * 100_000 + b"]" * 100_000 + b"\n\n"],
}


# Whole answers, each with the schema that it is checked against.
ANSWERS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "blanks": ("```json\n" + " \n" * 100_000, None),
    "exponents": (json.dumps([1e300] * 8_000), {"items": {"multipleOf": 1e-300}}),
    "branches": (json.dumps([-1] * 1_000), {"items": {"anyOf": [{"const": number} for number in range(2_000)]}}),
    "choices": (json.dumps([{"a": 1}] * 4_000), {"items": {"enum": [{"a": number} for number in range(3_000)]}}),
    "lookahead": (json.dumps("a" * 40_000), {"pattern": "(?=a)a*a*a*a*a*b$"}),
    "unique": (json.dumps([*range(8_000), 0]), {"uniqueItems": True}),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, WatchedLoop]]:
    """One server for all cases, and its upstream on a loop of its own."""
    folder = tmp_path_factory.mktemp("lag")
    loop = asyncio.new_event_loop()
    urls: list[str] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with answering(
            {name: stream() for name, stream in STREAMS.items()}
            | {name: whole(text) for name, (text, _) in ANSWERS.items()}
        ) as url:
            urls.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait()
    with watched(configured(folder, urls[0])) as found:
        yield found
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


async def posted(port: int, body: bytes, extra: str = "") -> int:
    """The status of the answer to `body`, read to its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024 * 1024)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n{extra}"
    writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read(-1)
    writer.close()
    return int(answer.split(b" ")[1])


def longest_ms(running: tuple[Server, WatchedLoop], body: bytes, extra: str = "") -> float:
    """The longest step, in the best of three tries, on the usual machine."""
    server, loop = running
    found, before = [], slowness_of_serving()
    for _ in range(3):
        gc.collect()
        gc.freeze()  # what the tests hold is not the server's garbage
        loop.reset()
        status = asyncio.run(posted(server.port, body, extra))
        assert 200 <= status < 600
        after = slowness_of_serving()
        found.append(loop.longest_ms / max(before, after))
        before = after
        if loop.longest_ms > 10 * BOUND_MS:
            break
        print(f"{loop.longest_ms:.1f} ms, status {status}, {loop.longest}")
    return min(found)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", BODIES)
def test_no_body_holds_up_the_event_loop(running: tuple[Server, WatchedLoop], name: str) -> None:
    """Large, deep, wide, or hard to compare: each step of serving it is short."""
    extra = "".join(f"x-proxy-z{number}q: 1\r\n" for number in range(90)) if "headers" in name else ""
    assert longest_ms(running, BODIES[name](), extra) < BOUND_MS


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", BUILT)
def test_no_request_takes_long_to_build(running: tuple[Server, WatchedLoop], name: str, dialect: str) -> None:
    """What a vendor does not take is noted once for each name, and results find their calls by a look-up."""
    assert longest_ms(running, BUILT[name](f"{dialect}/ok")) < BOUND_MS


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.slow
def test_no_stream_holds_up_the_event_loop(running: tuple[Server, WatchedLoop], name: str) -> None:
    """Pieces, lines and events in any number: the work for one read does not grow with what came before."""
    assert longest_ms(running, chat(f"openai/{name}", stream=True, tools=[tool(1)])) < BOUND_MS


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_is_checked_for_long(running: tuple[Server, WatchedLoop], name: str) -> None:
    """Schemas come from clients, answers from models; both may be hostile."""
    assert longest_ms(running, checked(ANSWERS[name][1], f"groq/{name}")) < BOUND_MS
