"""A client that is pointed at the wrong thing is told what to do; one that is told to wait, waits."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from proxy import MultiModelAPI, __version__
from proxy.client.errors import (
    AnswerError,
    ConnectionBroken,
    ConnectionFailed,
    MultiModelError,
    RequestTimeout,
    UnexpectedAnswer,
)
from tests.upstream import refusing

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "model": "a/b",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
BUSY: dict[str, Any] = {"error": {"message": "Busy.", "type": "server_error", "param": None, "code": "overloaded"}}
QUICK: dict[str, Any] = {"retry_delay_seconds": 0.001}
OLD = json.dumps({"version": "0.0.9", "config": {"version": "1"}, "database": None})


def http(status: int, body: str | dict[str, Any], kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP answer."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = {"content-type": kind, "content-length": str(len(content)), "connection": "close"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + content


class Raw:
    """A server that gives each request the next answer, the last one for ever; `health` to `GET /health`."""

    def __init__(self, answers: list[bytes], health: bytes) -> None:
        self.answers = answers
        self.health = health
        self.seen: list[str] = []
        self.times: list[float] = []
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            sizes = [int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")]
            await reader.readexactly(sum(sizes))
            if head.startswith("GET /health"):
                answer = self.health
            else:
                self.seen.append(head.splitlines()[0])
                self.times.append(time.monotonic())
                answer = self.answers[min(len(self.seen), len(self.answers)) - 1]
            writer.write(answer)
            await writer.drain()
            if not answer:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def raw(*answers: bytes, health: bytes = http(404, "nothing here", "text/plain")) -> AsyncIterator[Raw]:
    served = Raw([*answers], health)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    async with server:
        served.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield served


async def error_at(base_url: str, call: Callable[[MultiModelAPI], object] | None = None, **options) -> MultiModelError:
    async with MultiModelAPI(base_url=base_url, **{**QUICK, "max_retries": 0, **options}) as api:
        with pytest.raises(MultiModelError) as raised:
            await (api.generate("Hi") if call is None else call(api))  # type: ignore[misc]
    return raised.value


async def test_a_server_that_is_down_is_named_with_the_remedy() -> None:
    """Nothing was sent, so it is tried again."""
    with refusing() as url:
        error = await error_at(url, max_retries=2)
    assert type(error) is ConnectionFailed
    assert url in str(error) and "`proxy serve`" in str(error) and "settings=APISettings()" in str(error)


@pytest.mark.parametrize("status", [200, 404, 502])
@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream"])
async def test_a_web_page_is_recognised(status: int, kind: str) -> None:
    """Whatever it calls itself."""
    async with raw(http(status, "<!DOCTYPE html><title>Sign in</title>", kind)) as served:
        error = await error_at(served.base_url)
    assert (type(error), error.status) == (UnexpectedAnswer, status)
    assert "a web page (HTML)" in str(error) and "base_url" in str(error)


@pytest.mark.parametrize("body", ["", "{", "[]", '"text"', "{}", '{"choices": []}', '{"choices": [{"message": 1}]}'])
async def test_an_answer_of_no_use_is_not_this_product(body: str) -> None:
    async with raw(http(200, body)) as served:
        error = await error_at(served.base_url)
    assert type(error) is UnexpectedAnswer
    assert "not this product" in str(error) or "not as this product does" in str(error)


@pytest.mark.parametrize(
    "call",
    [
        lambda api: api.explain("Hi"),
        lambda api: api.usage(),
        lambda api: api.feedback("chatcmpl-1", success=True),
        lambda api: api.generate_ensemble("Hi"),
    ],
)
@pytest.mark.parametrize(
    "answer", [http(404, {"error": {"message": "no", "code": "not_found"}}), http(200, {"data": 1})]
)
async def test_another_version_is_named(answer: bytes, call: Callable[[MultiModelAPI], object]) -> None:
    """With both versions."""
    async with raw(answer, health=http(200, OLD)) as served:
        error = await error_at(served.base_url, call)
    assert type(error) is UnexpectedAnswer
    assert "0.0.9" in str(error) and __version__ in str(error) and "Install the same version" in str(error)


async def test_a_stream_from_another_server_is_not_read_as_one() -> None:
    async def stream(api: MultiModelAPI) -> None:
        async for _ in api.generate_stream("Hi"):
            pass

    async with raw(http(200, "<html>", "text/html")) as served:
        assert type(await error_at(served.base_url, stream)) is UnexpectedAnswer
    async with raw(http(200, "data: <html>\n\n", "text/event-stream")) as served:
        assert type(await error_at(served.base_url, stream)) is UnexpectedAnswer
    async with raw(http(200, 'data: {"choices": []}\n\n', "text/event-stream")) as served:
        assert type(await error_at(served.base_url, stream)) is ConnectionBroken


async def test_an_openai_server_answers_too() -> None:
    """What only the proxy knows is None."""
    async with raw(http(200, ANSWER)) as served, MultiModelAPI(base_url=served.base_url + "/v1/") as api:
        answer = await api.generate("Hi")
    assert (answer.text, answer.cost, answer.routing.model) == ("Hi", None, None)
    assert served.seen == ["POST /v1/chat/completions HTTP/1.1"]


async def test_a_silent_server_is_not_waited_for_longer_than_told() -> None:
    """And not asked again: it may be at work."""
    async with raw(b"") as served:
        error = await error_at(served.base_url, timeout_s=1.0, max_retries=3)
    assert type(error) is RequestTimeout and "1 s (timeout_s)" in str(error)
    assert len(served.seen) == 1


async def test_a_broken_connection_is_not_tried_again() -> None:
    async with raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{") as served:
        error = await error_at(served.base_url, max_retries=3)
    assert type(error) is ConnectionBroken and len(served.seen) == 1


async def test_a_server_without_tls_is_told_from_one_with() -> None:
    """It answers to the handshake in plain text."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400, BUSY))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        error = await error_at(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", max_retries=2)
    assert type(error) is ConnectionFailed and "reached with http://" in str(error)


# --- retries ----------------------------------------------------------------------------------------------------------

GOOD = http(200, ANSWER)


@pytest.mark.parametrize(
    ("refusal", "sends"),
    [
        (http(503, BUSY), 3),
        (http(503, BUSY, retry_after="0"), 3),
        (http(429, BUSY, retry_after_ms="1"), 3),
        (http(408, BUSY), 3),
        (http(409, BUSY), 3),
        (http(502, "<html>", "text/html"), 3),
        (http(503, BUSY, x_should_retry="false"), 1),
        (http(400, BUSY), 1),
        (http(400, BUSY, x_should_retry="true"), 3),
        (http(503, BUSY, retry_after="61"), 1),
        (http(501, BUSY), 3),
    ],
)
async def test_it_repeats_what_the_server_lets_it_repeat(refusal: bytes, sends: int) -> None:
    """Two refusals, then an answer."""
    async with raw(refusal, refusal, GOOD) as served, MultiModelAPI(base_url=served.base_url, **QUICK) as api:
        if sends == 3:
            assert (await api.generate("Hi")).text == "Hi"
        else:
            with pytest.raises(AnswerError):
                await api.generate("Hi")
    assert len(served.seen) == sends


async def test_it_gives_up_after_max_retries() -> None:
    """With the last error."""
    async with raw(http(503, BUSY)) as served:
        error = await error_at(served.base_url, max_retries=2)
    assert (len(served.seen), error.status, error.code) == (3, 503, "overloaded")


async def test_it_waits_as_long_as_the_server_asks() -> None:
    """Not its own delay."""
    async with (
        raw(http(503, BUSY, retry_after="1"), GOOD) as served,
        MultiModelAPI(base_url=served.base_url, **QUICK) as api,
    ):
        await api.generate("Hi")
    assert served.times[1] - served.times[0] >= 0.99


async def test_a_longer_wait_is_left_to_the_caller() -> None:
    async with raw(http(429, BUSY, retry_after="3600")) as served:
        error = await error_at(served.base_url, max_retries=3)
    assert (error.retry_after, len(served.seen)) == (3600, 1)


async def test_a_stream_is_repeated_before_it_begins() -> None:
    events = f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': 'Hi'}, 'finish_reason': 'stop'}]})}\n\n"
    good = http(200, events + "data: [DONE]\n\n", "text/event-stream")
    async with raw(http(503, BUSY), good) as served, MultiModelAPI(base_url=served.base_url, **QUICK) as api:
        assert [chunk.text async for chunk in api.generate_stream("Hi")] == ["Hi"]
    assert len(served.seen) == 2
