"""A body is let go once its upstream request is built, and that one once its answer begins: the rest may take minutes.

Until then a connection that turns out to be stale may have to be replaced.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Built, Provider
from proxy.providers.openai import OpenAI
from proxy.schema.chat import ChatRequest
from proxy.server.formats import FORMATS, EndpointFormat
from proxy.server.formats.chat import ChatFormat
from tests.server.api.raw import chat, post
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream
from tests.waiting import eventually


class Watched(ChatFormat):
    """Keeps the bodies that it decodes."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def decode(self, body: bytes) -> ChatRequest:
        self.seen.append(body)
        return super().decode(body)


class WatchedOpenAI(OpenAI, frozen=True, kw_only=True):
    """Keeps the bodies that it builds."""

    seen: ClassVar[list[bytes]] = []

    def build_request(self, request: ChatRequest, model: str) -> Built:
        built = super().build_request(request, model)
        self.seen.append(built.http.body)
        return built


def holders(seen: Sequence[bytes]) -> int:
    """How many references there are beside that of the list."""
    return sys.getrefcount(seen[0]) - 2


@pytest.mark.parametrize("size", [100_000, 3_000_000])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.sampled(3)
async def test_nobody_holds_a_body_longer_than_it_takes(tmp_path: Path, stream: bool, size: int) -> None:
    """Small or large, whole or streamed."""
    WatchedOpenAI.seen.clear()
    format = Watched()
    formats: list[EndpointFormat] = [format, *FORMATS[1:]]
    types: dict[str, type[Provider]] = {**PROVIDERS, "openai": WatchedOpenAI}
    timeouts = "{connect: 30, first_token: 30, idle: 30, total: 30}"
    async with FakeUpstream() as upstream:
        routing = write_files(tmp_path, upstream.url, timeouts=timeouts)
        async with serving(routing, formats=formats, types=types) as server:
            body = chat("fake/stall_after(k=1)" if stream else "fake/delay_whole(s=20)", stream=stream, x="x" * size)
            asking = asyncio.create_task(post(server.port, body))
            await eventually(lambda: upstream.open == 1, timeout_s=10)
            await eventually(lambda: holders(format.seen) == 0, timeout_s=10)
            if stream:
                await eventually(lambda: holders(WatchedOpenAI.seen) == 0, timeout_s=10)
            assert not asking.done()
            asking.cancel()
            await asyncio.wait({asking})
