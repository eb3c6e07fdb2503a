"""A call that has ended leaves nothing to the garbage collector: its request may be large, and a collection is slow."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from tests.faults.books import files
from tests.server.api.raw import chat, request
from tests.serving import serving
from tests.upstream import FakeUpstream

CALLS = 5


@pytest.mark.parametrize(("model", "stream"), [("fake/ok", False), ("fake/ok", True), ("fake/tools", True)])
@pytest.mark.slow
async def test_a_call_that_has_ended_is_freed_at_once(tmp_path: Path, model: str, stream: bool) -> None:
    """No object of ours waits for the collector, on a connection that is kept."""
    async with FakeUpstream() as upstream, serving(files(tmp_path, upstream.url)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def ask() -> None:
            writer.write(request(chat(model, stream=stream), headers={"connection": "keep-alive"}))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            if stream:
                await reader.readuntil(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            else:
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))

        await ask()
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(CALLS):
                await ask()
            await asyncio.sleep(0)
            gc.collect()
            left = sorted(
                {type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("proxy.")}
            )
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            writer.close()
    assert left == []
