"""Rules of the upstream that no fault of a socket is needed for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.errors import request_id
from proxy.providers.openai import OpenAI
from proxy.schema.errors import UpstreamUnavailable
from proxy.schema.records import Endpoint, Timeouts
from proxy.server.formats.chat import decode_chat
from proxy.upstream.pools import Pool, Pools
from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.upstream import Upstream
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


@pytest.mark.parametrize(
    ("kind", "headers", "expected"),
    [
        ("openai", {"x-request-id": "a", "cf-ray": "z"}, "a"),
        ("anthropic", {"request-id": "b", "x-request-id": "z"}, "b"),
        ("mistral", {"mistral-correlation-id": "c"}, "c"),
        ("cohere", {"x-debug-trace-id": "d"}, "d"),
        ("together", {"x-request-id": "", "cf-ray": "e"}, "e"),
        ("google", {"server-timing": "f", "request-id": "f"}, None),
        ("openai", {"x-request-id": "g\x01"}, None),
        ("openai", {"x-request-id": "h" * 300}, "h" * 128),
    ],
)
def test_the_vendors_id_of_a_request_is_found_by_each_of_its_names(
    kind: str, headers: dict[str, str], expected: str | None
) -> None:
    """The most telling first. An id that cannot be printed is none."""
    assert request_id(headers, PROVIDERS[kind].id_headers) == expected


class CountedTransport:
    """Connects to nobody; counts how often it was closed."""

    active = 0

    def __init__(self) -> None:
        self.closed = 0

    async def send(self, *_: object) -> Any:
        raise AssertionError("nobody sends")

    async def close(self) -> None:
        self.closed += 1


async def test_a_pool_is_shared_by_those_who_mean_the_same_and_closed_by_the_last() -> None:
    """What a provider says of names and time-outs does not matter to its connections."""
    pools = Pools(lambda provider, context: CountedTransport())
    first = pools.take("fake", OpenAI(max_concurrent=2))
    again = pools.take("fake", OpenAI(max_concurrent=2, retries=0, models={"default": "x"}))
    assert again is first
    pools.give_back(first)
    await pools.close()
    assert cast(CountedTransport, first.transport).closed == 0
    pools.give_back(again)
    await pools.close()
    assert cast(CountedTransport, first.transport).closed == 1
    assert pools.take("fake", OpenAI(max_concurrent=2)) is not first


@pytest.mark.parametrize(
    "other",
    [
        ("else", OpenAI()),
        ("fake", OpenAI(base_url="https://models.example/v1")),
        ("fake", OpenAI(max_concurrent=2)),
        ("fake", OpenAI(transport="httpx")),
    ],
)
async def test_another_origin_has_connections_of_its_own(other: tuple[str, OpenAI]) -> None:
    """By name, address, limit of places, transport and authorities."""
    pools = Pools(lambda provider, context: CountedTransport())
    assert pools.take(*other) is not pools.take("fake", OpenAI())


async def test_places_are_counted_across_configurations() -> None:
    """A request that began before a reload still holds its place."""
    pools = Pools(lambda provider, context: CountedTransport())
    before, after = (pools.take("fake", OpenAI(max_concurrent=1, retries=n)) for n in (0, 1))
    assert before.places is not None
    async with before.places:
        assert after.places is not None
        assert after.places.locked()
