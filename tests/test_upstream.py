"""Rules of the upstream that no fault of a socket is needed for."""

from __future__ import annotations

import asyncio

import pytest

from proxy.codec import decode_chat
from proxy.errors import UpstreamUnavailable
from proxy.providers.openai import OpenAI
from proxy.records import Endpoint, Timeouts
from proxy.transports.aiohttp import AiohttpTransport
from proxy.upstream import Pool, Upstream
from tests.upstream import FakeUpstream


async def test_max_concurrent_lets_that_many_requests_out_and_no_more() -> None:
    """The next one waits as long as for a connection, then says so; a place that is given back is used."""
    async with FakeUpstream() as fake:
        transport = AiohttpTransport()
        provider = OpenAI(max_concurrent=1, timeout_s=Timeouts(connect=0.2))

        async def origin() -> Endpoint:
            return Endpoint(fake.url)

        upstream = Upstream("fake", provider, origin, Pool(transport, provider.max_concurrent))
        request = decode_chat(b'{"model": "x", "messages": [{"role": "user", "content": "hi"}]}')
        slow = provider.build_request(request, "delay_whole(s=5)")
        quick = provider.build_request(request, "ok")

        async def whole(built: object, attempt_id: str) -> int:
            async with upstream.exchange(built, attempt_id, stream=False) as exchange:  # type: ignore[arg-type]
                return (await exchange.body()).status

        first = asyncio.create_task(whole(slow, "a"))
        await fake.until(lambda: len(fake.ledger) == 1)
        with pytest.raises(UpstreamUnavailable, match="max_concurrent") as caught:
            await whole(quick, "b")
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
        first.cancel()
        await asyncio.wait({first})
        assert await whole(quick, "c") == 200
        assert [seen.id for seen in fake.ledger] == ["a", "c"]
        await transport.close()
