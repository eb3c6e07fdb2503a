"""I/O: one request as bytes on a socket, its answer as bytes: for rules that clients' libraries hide."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.waiting import PATIENCE_S

CHAT = "/v1/chat/completions"
HELLO: list[Any] = [{"role": "user", "content": "one two three"}]  # three prompt tokens at the fake upstream


def chat(model: str = "fake/ok", **fields: Any) -> bytes:
    """The body of a chat request."""
    return json.dumps({"model": model, "messages": HELLO, **fields}).encode()


def request(
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = CHAT,
    headers: Mapping[str, str] | None = None,
    host: str = "localhost",
) -> bytes:
    """One HTTP/1.1 request that closes its connection; `headers` replace those of the same name, "" leaves one out."""
    usual = {"host": host, "connection": "close"}
    if body or method == "POST":
        usual |= {"content-type": "application/json", "content-length": str(len(body))}
    full = {name: value for name, value in {**usual, **(headers or {})}.items() if value}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in full.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Answer:
    """What came back on one connection until it closed."""

    def __init__(self, data: bytes) -> None:
        self.bytes = data
        self.head, _, self._rest = data.partition(b"\r\n\r\n")

    @property
    def status(self) -> int:
        return int(self.head.split(b" ")[1])

    def headers(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        pairs = [line.partition(": ") for line in self.head.decode("latin-1").split("\r\n")[1:]]
        return [value for key, _, value in pairs if key.lower() == name]

    @property
    def body(self) -> bytes:
        if "chunked" not in self.headers("transfer-encoding"):
            return self._rest
        rest, whole = self._rest, b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            whole, rest = whole + rest[:length], rest[length + 2 :]
        return whole

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of a stream, the end marker as text; asserts that each is one `data:` line that ends in two LF."""
        assert self.body.endswith(b"\n\n")
        lines = self.body.decode().removesuffix("\n\n").split("\n\n")
        assert all(line.startswith("data: ") and "\n" not in line for line in lines)
        texts = [line.removeprefix("data: ") for line in lines]
        return [text if text == "[DONE]" else json.loads(text) for text in texts]

    def error(self) -> dict[str, Any]:
        """The error, after asserting that it has OpenAI's shape and the headers that come with it."""
        assert self.status >= 400, self.bytes[:300]
        assert self.headers("content-type") == ["application/json"], self.bytes[:300]
        assert len(self.headers("x-request-id")) == 1, self.bytes[:300]
        error = self.json["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        assert isinstance(error["message"], str)
        assert error["message"]
        assert isinstance(error["type"], str)
        return dict(error)


async def send(port: int, data: bytes | AsyncIterable[bytes], timeout_s: float = PATIENCE_S) -> Answer:
    """Sends everything, or as much as the server takes before it hangs up, and reads until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def write() -> None:
        if isinstance(data, bytes):
            writer.write(data)
            await writer.drain()
            return
        async for piece in data:
            writer.write(piece)
            await writer.drain()

    writing = asyncio.ensure_future(write())
    received = b""
    try:
        async with asyncio.timeout(timeout_s):
            try:
                while piece := await reader.read(65536):
                    received += piece
            except ConnectionResetError:
                pass  # the server closed with some of our bytes unread; its answer came before
            return Answer(received)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        writer.transport.abort()


async def post(port: int, body: bytes, path: str = CHAT, **headers: str) -> Answer:
    """One POST with JSON; underscores in header names are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await send(port, request(body, path=path, headers=named))


async def get(port: int, path: str, **headers: str) -> Answer:
    """One GET; underscores in header names are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await send(port, request(method="GET", path=path, headers=named))


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An upstream that answers each request's head with the bytes of `answer` and hangs up.

    Yields its base URL and the heads it saw: for answers that no well-behaved server would give.
    """
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(head)
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(answer(head))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever connected left without a request
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1", seen
