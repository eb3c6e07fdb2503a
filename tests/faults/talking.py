"""A byte-level client: records the frames, whether the answer ended properly, and when it hung up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from functools import cached_property
from typing import Any

MESSAGES = [{"role": "user", "content": "one two three"}]
DONE = "[DONE]"


class Heard:
    """One answer as it came. `frames`: the data of its events, or its body as the only one; `whole`: HTTP ended it."""

    def __init__(self, status: int, headers: dict[str, str], frames: list[str], whole: bool) -> None:
        self.status = status
        self.headers = headers
        self.frames = frames
        self.whole = whole

    @cached_property
    def objects(self) -> list[dict[str, Any]]:
        """Every frame but `[DONE]`, parsed."""
        return [json.loads(frame) for frame in self.frames if frame != DONE]

    @property
    def body(self) -> dict[str, Any]:
        """The body of an answer that is not a stream."""
        return self.objects[0]

    @property
    def error(self) -> dict[str, Any]:
        """The error of an error answer, or of the last frame. Raises KeyError when it is none."""
        return dict(self.objects[-1]["error"])

    @property
    def done(self) -> bool:
        return bool(self.frames) and self.frames[-1] == DONE

    @property
    def call_id(self) -> str:
        return self.headers["x-request-id"]

    @property
    def finish_reasons(self) -> list[str]:
        """Those that are not null, in the order they came."""
        choices = [choice for each in self.objects for choice in each.get("choices", [])]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"] is not None]

    @property
    def content(self) -> str:
        """The text of the answer, joined over its frames."""
        choices = [choice for each in self.objects for choice in each.get("choices", [])]
        said = [choice.get("delta") or choice.get("message") or {} for choice in choices]
        return "".join(part.get("content") or "" for part in said)

    @property
    def usage(self) -> dict[str, Any] | None:
        """The last usage that came."""
        found = [each["usage"] for each in self.objects if each.get("usage")]
        return found[-1] if found else None


class Talk:
    """One chat request on a connection of its own, nothing of its answer read yet. Close it, or read it to the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._reader = reader
        self._writer = writer

    async def head(self) -> int:
        """Waits for status and headers. Raises IncompleteReadError when the server hangs up."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return self.status

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece. Raises IncompleteReadError when it breaks off."""
        if self.headers.get("transfer-encoding") != "chunked":
            yield await self._reader.readexactly(int(self.headers["content-length"]))
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)

    async def frames(self) -> AsyncGenerator[str, None]:
        """The data of each event; comments are left out."""
        rest = b""
        async for piece in self.pieces():
            *events, rest = (rest + piece).split(b"\n\n")
            for event in events:
                if event.startswith(b"data: "):
                    yield event.removeprefix(b"data: ").decode()
        assert rest == b"", f"half an event at the end: {rest[-80:]!r}"

    async def rest(self) -> Heard:
        """Everything that is still to come, then closes."""
        frames: list[str] = []
        try:
            if not self.status:
                await self.head()
            if "event-stream" in self.headers["content-type"]:
                async for frame in self.frames():
                    frames.append(frame)
            else:
                frames = [b"".join([piece async for piece in self.pieces()]).decode()]
        except (asyncio.IncompleteReadError, ConnectionError):
            return Heard(self.status, self.headers, frames, whole=False)
        finally:
            self.close()
        return Heard(self.status, self.headers, frames, whole=True)

    def close(self) -> float:
        """Hangs up; the moment on the machine's monotonic clock."""
        now = time.monotonic()
        self._writer.close()
        return now


async def talk(port: int, model: str, *, stream: bool = True, **fields: Any) -> Talk:
    """Connects and sends one request. Raises OSError when nobody listens."""
    body = json.dumps({"model": model, "messages": MESSAGES, "stream": stream, **fields}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
    writer.write("\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body)
    return Talk(reader, writer)


async def ask(port: int, model: str, *, stream: bool = True, **fields: Any) -> Heard:
    """One request and its whole answer."""
    return await (await talk(port, model, stream=stream, **fields)).rest()
