"""The look-up of names: in threads of its own, so that a resolver that hangs stops nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.transports.base import ConnectTimedOut, HeaderBlock, Outgoing, Transport
from proxy.upstream.transports.httpx import HttpxTransport
from proxy.upstream.transports.names import MOST, Look, NameLookups, system_addresses
from tests.upstream.transports.peer import Turn, serving

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n" + b'{"a":1}'
KINDS = pytest.mark.parametrize("kind", [AiohttpTransport, HttpxTransport])


class Resolver:
    """Knows `good` names; for all others it hangs until the test ends."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.fifty = threading.Event()  # names were asked for
        self.may_end = threading.Event()

    def look(self, host: str, port: int) -> list[str]:
        self.asked[host] += 1
        if len(self.asked) == 50:
            self.fifty.set()
        if not host.startswith("good"):
            self.may_end.wait(60)
        return ["127.0.0.1"]


@asynccontextmanager
async def hanging() -> AsyncIterator[Resolver]:
    resolver = Resolver()
    try:
        yield resolver
    finally:
        resolver.may_end.set()


@KINDS
async def test_fifty_look_ups_that_hang_stop_nothing_else(kind: Callable[..., Transport]) -> None:
    """Neither requests to other names, nor other work in threads."""

    async def handle(turn: Turn) -> None:
        await turn.write(WHOLE)

    async with hanging() as resolver, serving(handle) as peer:
        transport = kind(resolve=NameLookups(resolver.look))

        async def send(host: str, timeout_s: float) -> int:
            request = Outgoing("POST", f"http://{host}:{peer.port}/v1", HeaderBlock({"host": host}), {}, b"{}")
            answer = await transport.send(request, timeout_s, lambda: None)
            while await answer.read():
                pass
            answer.close()
            return answer.status

        stuck = [asyncio.create_task(send(f"stuck-{number}.example", 60)) for number in range(50)]
        assert await asyncio.to_thread(resolver.fifty.wait, 30)
        async with asyncio.timeout(30):
            assert await send("good.example", 30) == 200
            assert await asyncio.to_thread(lambda: 1) == 1
            found = await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
            assert found[0][4][0] == "127.0.0.1"
        assert not any(task.done() for task in stuck)
        for task in stuck:
            task.cancel()
        await asyncio.wait(stuck)
        await transport.close()


@KINDS
async def test_a_name_that_hangs_occupies_one_thread(kind: Callable[..., Transport]) -> None:
    """However often it is asked for, and each request gives up in its own time."""
    async with hanging() as resolver:
        transport = kind(resolve=NameLookups(resolver.look))
        request = Outgoing("POST", "http://stuck.example/v1", HeaderBlock({}))
        for _ in range(3):
            with pytest.raises(ConnectTimedOut):
                await transport.send(request, 0.05, lambda: None)
        assert resolver.asked == {"stuck.example": 1}
        await transport.close()


async def test_each_wait_has_an_end() -> None:
    """Whatever the caller allows."""
    async with hanging() as resolver:
        names = NameLookups(resolver.look, limit_s=0.05)
        with pytest.raises(TimeoutError):
            await names("stuck.example", 80)
        assert await names("good.example", 80) == ["127.0.0.1"]


async def test_more_names_than_threads_are_refused_at_once() -> None:
    """Until one of them ends."""
    async with hanging() as resolver:
        names = NameLookups(resolver.look)
        waiting = [asyncio.create_task(names(f"stuck-{number}.example", 80)) for number in range(MOST)]
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="too many"):
            await names("good.example", 80)
        resolver.may_end.set()
        assert await asyncio.gather(*waiting) == [["127.0.0.1"]] * MOST
        assert await names("good.example", 80) == ["127.0.0.1"]


async def test_a_caller_that_leaves_takes_no_answer_from_others() -> None:
    """They wait for the same look-up."""
    async with hanging() as resolver:
        names = NameLookups(resolver.look)
        leaving, staying = (asyncio.create_task(names("stuck.example", 80)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        resolver.may_end.set()
        assert await staying == ["127.0.0.1"]


def failing(error: Exception) -> Look:
    def look(host: str, port: int) -> list[str]:
        raise error

    return look


@pytest.mark.parametrize(
    "look", [failing(OSError("no such name")), failing(UnicodeError("label too long")), lambda host, port: []]
)
async def test_a_look_up_that_fails_is_an_os_error_and_is_not_kept(look: Look) -> None:
    """Each request asks again."""
    names = NameLookups(look)
    for _ in range(2):
        with pytest.raises(OSError):
            await names("none.example", 80)


def test_the_system_knows_its_own_addresses() -> None:
    """As text, each once."""
    assert system_addresses("127.0.0.1", 80) == ["127.0.0.1"]
    assert "127.0.0.1" in system_addresses("localhost", 80)


@KINDS
async def test_an_address_that_refuses_is_followed_by_the_next(kind: Callable[..., Transport]) -> None:
    """A name may have several."""

    async def handle(turn: Turn) -> None:
        await turn.write(WHOLE)

    async with serving(handle) as peer:
        transport = kind(resolve=NameLookups(lambda host, port: ["127.0.0.2", "::1", "127.0.0.1"]))
        request = Outgoing("POST", f"http://good.example:{peer.port}/v1", HeaderBlock({}), {}, b"{}")
        answer = await transport.send(request, 10, lambda: None)
        assert answer.status == 200
        answer.close()
        await transport.close()
