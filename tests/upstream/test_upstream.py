"""Rules of the upstream that no fault of a socket is needed for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse, Provider
from proxy.providers.base.errors import request_id
from proxy.providers.openai import OpenAI
from proxy.schema.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamUnavailable
from proxy.schema.records import Endpoint, Outcome, Secret, Timeouts
from proxy.server.formats.chat import decode_chat
from proxy.upstream.pools import Pool, Pools
from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.transports.base import Resolve, Transport
from proxy.upstream.transports.httpx import HttpxTransport
from proxy.upstream.upstream import Upstream
from tests.slowness import own_time
from tests.upstream import FakeUpstream, key_hash, spawn
from tests.upstream.transports.peer import Turn, chunk
from tests.upstream.transports.peer import serving as peer_serving


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


async def until_cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


REQUEST = decode_chat(b'{"model": "x", "messages": [{"role": "user", "content": "hi"}]}')
STREAM = decode_chat(b'{"model": "x", "stream": true, "messages": [{"role": "user", "content": "hi"}]}')
KINDS = pytest.mark.parametrize("kind", [AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx"])


@asynccontextmanager
async def upstream_at(
    url: str, kind: Callable[..., Transport] = AiohttpTransport, resolve: Resolve | None = None, **settings: Any
) -> AsyncIterator[Upstream]:
    transport = kind(resolve=resolve)
    provider = OpenAI(**settings)
    endpoint = Endpoint(url, Secret("sk-secret-of-the-provider"))

    async def origin() -> Endpoint:
        return endpoint

    try:
        yield Upstream("fake", provider, origin, Pool(transport, provider.max_concurrent))
        assert transport.active == 0
    finally:
        await transport.close()


async def ask(upstream: Upstream, mode: str, on_sent: Callable[[], None] = lambda: None) -> HTTPResponse:
    built = upstream.provider.build_request(REQUEST, mode)
    async with upstream.exchange(built, "a-1", stream=False, on_sent=on_sent) as exchange:
        return await exchange.body()


async def test_a_place_is_given_back_whatever_becomes_of_its_request() -> None:
    """Cancelled while it waits, or just as it gets its place, timed out, refused, answered: the next one gets it."""
    async with FakeUpstream() as fake, upstream_at(fake.url, max_concurrent=1) as upstream:
        for turns in range(12):
            holding = asyncio.create_task(ask(upstream, "blackhole"))
            await fake.until(lambda: fake.open == 1)
            waiting = [asyncio.create_task(ask(upstream, "ok")) for _ in range(3)]
            await asyncio.sleep(0)
            holding.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait({holding, *waiting})
            with pytest.raises(UpstreamError):
                await ask(upstream, "e500")
            assert (await ask(upstream, "ok")).status == 200
            places = upstream.pool.places
            assert places is not None
            assert not places.locked()


async def test_a_request_counts_as_sent_when_it_leaves_and_not_before() -> None:
    """One that queues for `max_concurrent`, or for a connection, has cost nothing."""
    sent: list[str] = []
    async with FakeUpstream() as fake, upstream_at(fake.url, max_concurrent=1) as upstream:
        holding = asyncio.create_task(ask(upstream, "blackhole", lambda: sent.append("holding")))
        await fake.until(lambda: fake.open == 1)
        waiting = asyncio.create_task(ask(upstream, "ok", lambda: sent.append("waiting")))
        await asyncio.sleep(0.01)
        await until_cancelled(waiting)
        assert sent == ["holding"]
        await until_cancelled(holding)
        await ask(upstream, "ok", lambda: sent.append("last"))
        assert sent == ["holding", "last"]
        assert len(fake.ledger) == 2


@KINDS
async def test_a_stale_connection_is_replaced_inside_the_exchange(kind: Callable[..., Transport]) -> None:
    """It is no failure, whatever `retries` says, and the request counts as sent once."""
    sent: list[int] = []
    async with FakeUpstream() as fake, upstream_at(fake.url, kind, retries=0) as upstream:
        for _ in range(5):
            assert (await ask(upstream, "stale_keepalive", lambda: sent.append(1))).status == 200
        assert len(sent) == 5
        assert len({seen.connection for seen in fake.ledger}) > 1


@KINDS
@pytest.mark.parametrize("stream", [True, False])
async def test_a_name_that_is_not_found_in_time_is_a_connect_time_out(
    kind: Callable[..., Transport], stream: bool
) -> None:
    """Nothing was sent, so nothing is billed; the phases after it have not begun."""

    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    timeouts = Timeouts(connect=0.1, first_token=60, total=60)
    sent: list[int] = []
    async with upstream_at("http://models.example/v1", kind, resolve, timeout_s=timeouts) as upstream:
        built = upstream.provider.build_request(REQUEST, "ok")
        with pytest.raises(UpstreamTimeout) as caught:
            async with asyncio.timeout(20), upstream.exchange(built, "a-1", stream, lambda: sent.append(1)):
                raise AssertionError
        assert (caught.value.outcome, caught.value.nothing_sent, sent) == (Outcome.TIMEOUT_CONNECT, True, [])


@KINDS
@pytest.mark.parametrize("end", ["fin", "rst", "never"])
async def test_complete_json_is_a_whole_answer(kind: Callable[..., Transport], end: str) -> None:
    """The connection breaks or stalls behind it, before HTTP's own end of it."""

    async def handle(turn: Turn) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        await turn.write(head + chunk(b'{"choices": ') + chunk(b"[]}\n"))
        await asyncio.sleep(0.02)
        if end == "rst":
            turn.reset()
        elif end == "fin":
            turn.close()
        else:
            await turn.until_gone()

    async with (
        peer_serving(handle) as peer,
        upstream_at(peer.url, kind, timeout_s=Timeouts(idle=0.2, total=5)) as upstream,
    ):
        assert (await ask(upstream, "ok")).body == b'{"choices": []}\n'


@KINDS
@pytest.mark.parametrize("mode", ["cut_fin(k=1)", "cut_rst(k=1)", "truncated_json(k=3)"])
async def test_half_an_answer_is_never_a_whole_one(kind: Callable[..., Transport], mode: str) -> None:
    """Half of the JSON is an error."""
    async with FakeUpstream() as fake, upstream_at(fake.url, kind) as upstream:
        with pytest.raises(UpstreamTruncated):
            await ask(upstream, mode)


@KINDS
async def test_a_flood_leaves_the_loop_to_others(kind: Callable[..., Transport]) -> None:
    """Eight providers that are always ready: another task has its turn all the time."""

    async def drink(upstream: Upstream) -> None:
        built = upstream.provider.build_request(STREAM, "flood")
        async with upstream.exchange(built, "a-1", stream=True) as exchange:
            while await exchange.read(loop.time() + 5, Outcome.TIMEOUT_IDLE):
                continue

    loop = asyncio.get_running_loop()
    with spawn() as flooding:
        async with upstream_at(flooding.url, kind) as upstream:
            tasks = [asyncio.create_task(drink(upstream)) for _ in range(8)]
            await asyncio.sleep(0.3)
            lags = []
            for _ in range(200):
                begun = loop.time()
                await asyncio.sleep(0)
                lags.append(loop.time() - begun)
            assert not any(task.done() for task in tasks)
            begun = own_time()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            while await asyncio.to_thread(flooding.open):
                assert own_time() - begun < 0.5
            lags.sort()
            print(f"{kind.__name__}: a turn of the loop under 8 floods takes {lags[100] * 1e3:.1f} ms, ", end="")
            print(f"at most {lags[-1] * 1e3:.1f} ms; closed after {(loop.time() - begun) * 1e3:.0f} ms")
            assert lags[190] < 0.05


@pytest.mark.parametrize("own", [{}, {"X-Own": "of the provider", "Accept": "of the provider"}])
async def test_headers_of_the_origin_are_joined_with_those_of_the_request(own: dict[str, str]) -> None:
    """The key goes before the request, the request before the configuration, whatever the case of a name."""
    async with FakeUpstream() as fake, upstream_at(fake.url, headers=own) as upstream:
        built = upstream.provider.build_request(REQUEST, "ok")
        headers = {**built.http.headers, "authorization": "of the request", "accept-encoding": "identity;q=1"}
        async with upstream.exchange(replace(built, http=replace(built.http, headers=headers)), "a-1", False) as sent:
            await sent.body()
        await ask(upstream, "ok")
        first, second = fake.ledger
        assert first.authorization == second.authorization == key_hash("sk-secret-of-the-provider")
        assert first.headers["accept-encoding"] == "identity;q=1"
        assert second.headers["accept-encoding"] == "identity"
        assert {seen.headers["accept"] for seen in fake.ledger} == {"application/json"}
        assert {seen.headers.get("x-own") for seen in fake.ledger} == {own.get("X-Own")}


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
    pools = Pools(lambda provider, context, proxy: CountedTransport())
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
    pools = Pools(lambda provider, context, proxy: CountedTransport())
    assert pools.take(*other) is not pools.take("fake", OpenAI())


async def test_places_are_counted_across_configurations() -> None:
    """A request that began before a reload still holds its place."""
    pools = Pools(lambda provider, context, proxy: CountedTransport())
    before, after = (pools.take("fake", OpenAI(max_concurrent=1, retries=n)) for n in (0, 1))
    assert before.places is not None
    async with before.places:
        assert after.places is not None
        assert after.places.locked()


async def test_an_exchanged_ca_file_gets_new_connections(tmp_path: Path) -> None:
    """By what it holds, not by its name or its time."""
    contexts: list[Any] = []

    def connect(provider: Provider, context: Any, proxy: Any) -> Any:
        contexts.append(context)
        return CountedTransport()

    pools, path = Pools(connect), tmp_path / "ca.pem"
    one = certificate(1)
    path.write_text(one)
    provider = OpenAI(ca_file=str(path))
    first = pools.take("fake", provider)
    assert pools.take("fake", provider) is first
    path.write_text(certificate(2))
    second = pools.take("fake", provider)
    path.write_text(one)
    assert (second is first, pools.take("fake", provider) is first) == (False, True)
    assert [len(context.get_ca_certs()) for context in contexts[:1]] != [0]
    with pytest.raises(OSError):
        pools.take("fake", OpenAI(ca_file=str(tmp_path / "missing.pem")))
    path.write_bytes(b"\xff no certificate")
    with pytest.raises(OSError):
        pools.take("fake", provider)


def test_a_ca_file_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    """The loop takes pools; what the thread found counts until it reads again."""
    pools, path = Pools(lambda provider, context, proxy: CountedTransport()), tmp_path / "ca.pem"
    provider = OpenAI(ca_file=str(path))
    pools.read([provider, OpenAI()])
    path.write_text(certificate(1))
    with pytest.raises(FileNotFoundError):
        pools.take("fake", provider)
    pools.read([provider, OpenAI()])
    path.unlink()
    first = pools.take("fake", provider)
    assert pools.take("fake", provider) is first
    path.write_text(certificate(2))
    pools.read([provider])
    assert pools.take("fake", provider) is not first


def test_providers_without_a_ca_file_share_one_tls_context() -> None:
    """Making one takes some 40 ms of the loop."""
    contexts: list[Any] = []

    def connect(provider: Provider, context: Any, proxy: Any) -> Any:
        contexts.append(context)
        return CountedTransport()

    pools = Pools(connect)
    for name in ("a", "b", "c"):
        pools.take(name, OpenAI())
    assert len(contexts) == 3
    assert len({id(context) for context in contexts}) == 1


def certificate(serial: int) -> str:
    """A self-signed one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"authority {serial}")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), serial, now, now + timedelta(days=1))
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        key, hashes.SHA256()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()
