"""The output that several clients read: all of it for each, whenever they come, in bounded memory."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.pipeline.output import MAX_BUFFERED_BYTES
from proxy.pipeline.recording import NOT_KEPT, KeptAnswer, Memory, Reader, Recording, at_no_cost
from proxy.pipeline.running import ClientLeft
from proxy.pipeline.sharing import Share
from proxy.schema.json import encode
from proxy.schema.usage import Usage
from proxy.storage.kept_answers import Place
from tests.pipeline.world import turns

KEY = Share("key", Place("", b"name", b"request"), 60.0)
CACHE = Share("cache", Place("", b"name", b"request"), 60.0)


class Broken(Exception):
    """An error of a test's own."""


def recording(most: int = 1_000_000, share: Share = KEY) -> Recording:
    return Recording("call", share, Memory(most, 10 * most))


async def everything(reader: Reader) -> bytes:
    pieces = []
    while piece := await reader.read():
        pieces.append(piece)
    return b"".join(pieces)


async def test_every_reader_gets_all_of_it_whenever_it_comes() -> None:
    """Random paces, readers that come late, and one after the end."""
    dice = random.Random(1)
    for _ in range(30):
        made, written = recording(), b""
        readers: list[asyncio.Task[bytes]] = []
        for step in range(40):
            if dice.random() < 0.2:
                reader = made.reader(is_repeat=bool(readers))
                readers.append(asyncio.create_task(everything(reader)))
            piece = bytes([step]) * dice.randrange(1, 300)
            written += piece
            assert made.write(piece) is None
            await turns(dice.randrange(3))
        made.end(b"end")
        readers.append(asyncio.create_task(everything(made.reader(is_repeat=True))))
        assert set(await asyncio.gather(*readers)) == {written + b"end"}


async def test_a_slow_reader_holds_nobody_up_until_it_is_too_large() -> None:
    """Then the slowest holds the writer, and what all have read is dropped."""
    made = recording(most=1000)
    fast, slow = made.reader(is_repeat=False), made.reader(is_repeat=True)
    assert made.write(b"a" * 1000) is None
    assert not made.is_too_large
    assert made.write(b"b" * MAX_BUFFERED_BYTES) is not None
    assert made.is_too_large
    waiter = made.write(b"c")
    assert waiter is not None
    assert len(await fast.read()) == 1000 + MAX_BUFFERED_BYTES + 1
    await turns()
    assert waiter.done()  # woken to look again: the slow one still has to read
    again = made.write(b"d")
    assert again is not None
    slow.leave()
    await turns()
    assert again.done()
    assert made.write(b"e") is None
    made.end(b"f")
    assert await everything(fast) == b"def"


async def test_without_readers_what_is_too_large_is_dropped() -> None:
    """The call goes on: it is paid for, and its row says how it ended."""
    made = recording(most=100)
    made.reader(is_repeat=False).leave()
    for _ in range(100):
        assert made.write(b"x" * 1000) is None
    assert (made.is_too_large, made.is_discarded, made.is_abandoned) == (True, True, False)


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_stream_that_is_too_large_says_so_to_those_who_read(leaves: bool) -> None:
    """Before its last piece. Where nobody reads any more it just ends."""
    call = SimpleNamespace(request=SimpleNamespace(stream=True), usage=lambda: {"cost": None})
    running: Any = SimpleNamespace(call=call)
    made = recording(most=100)
    reader = made.reader(is_repeat=False)
    made.begin(running, "v1")
    if leaves:
        reader.leave()
    made.write(b"x" * 101)
    made.end(b"end")
    assert made.is_ended
    if not leaves:
        assert await everything(reader) == b"x" * 101 + NOT_KEPT + b"end"


async def test_a_kept_answer_without_room_in_memory_is_read_as_it_is() -> None:
    """It is kept, whatever this process has room for."""
    made = recording(most=10)
    reader = made.reader(is_repeat=False)
    made.replay(KeptAnswer("first", "m", "p", "m", True, {}, b"data: [DONE]\n\n"))
    assert await everything(reader) == b"data: [DONE]\n\n"


async def test_memory_is_given_back_after_the_last_reader() -> None:
    """Not before: it reads from there."""
    memory = Memory(1000, 1500)
    one, two = Recording("1", KEY, memory), Recording("2", KEY, memory)
    reader = one.reader(is_repeat=False)
    one.write(b"x" * 900)
    one.end(b"end")
    one.release()
    two.write(b"y" * 900)
    assert (memory.used, two.is_too_large) == (903, True)  # of all together
    assert await everything(reader) == b"x" * 900 + b"end"
    reader.leave()
    two.release()
    assert memory.used == 0


async def test_readers_hear_of_an_error_after_what_was_written() -> None:
    """All of them, also one that comes afterwards."""
    made = recording()
    first = made.reader(is_repeat=False)
    made.write(b"a")
    made.end(error=Broken())
    for reader in (first, made.reader(is_repeat=True)):
        assert await reader.read() == b"a"
        with pytest.raises(Broken):
            await reader.read()


async def test_a_call_that_never_begins_has_an_error_for_its_readers() -> None:
    """Before anything is known of the answer."""
    made = recording()
    waiting = asyncio.create_task(made.reader(is_repeat=False).begun())
    await turns()
    made.end(error=Broken())
    with pytest.raises(Broken):
        await waiting


@pytest.mark.parametrize("how", ["begun", "read"])
async def test_a_reader_that_leaves_waits_no_longer(how: str) -> None:
    """Whatever it waited for."""
    made = recording()
    reader = made.reader(is_repeat=False)
    waiting = asyncio.create_task(getattr(reader, how)())
    await turns()
    reader.leave()
    with pytest.raises(ClientLeft):
        await waiting


async def test_a_wait_ends_after_its_time() -> None:
    """So that a keep-alive can be sent; what is there is there at once."""
    made = recording()
    reader = made.reader(is_repeat=False)
    assert await reader.wait(0.01) is False
    made.write(b"a")
    assert await reader.wait(60) is True


def test_only_a_call_whose_repeat_may_come_goes_on_alone() -> None:
    """A cached one is abandoned with its last reader."""
    for share, abandoned in ((KEY, False), (CACHE, True)):
        made = recording(share=share)
        one, two = made.reader(is_repeat=False), made.reader(is_repeat=True)
        one.leave()
        assert (made.is_abandoned, made.is_discarded) == (False, False)
        two.leave()
        assert (made.is_abandoned, made.is_discarded) == (abandoned, True)


async def test_a_kept_answer_is_read_like_any_other() -> None:
    """At once, and to its end."""
    made = recording()
    reader = made.reader(is_repeat=False)
    made.replay(KeptAnswer("first", "m", "p", "m", True, {}, b"data: [DONE]\n\n"))
    await reader.begun()
    assert (made.is_stream, await everything(reader)) == (True, b"data: [DONE]\n\n")


def test_the_cost_of_a_repeat_is_zero_and_nothing_else_changes() -> None:
    """Also where the text of the answer looks like the cost."""
    usage: Usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.25}
    usage["cost_details"] = {"input": 0.05, "output": 0.2}
    text = encode(usage).decode()
    body = encode({"choices": [{"message": {"content": text}}], "usage": usage})
    nothing = {**usage, "cost": 0.0, "cost_details": {"input": 0.0, "output": 0.0}}
    assert at_no_cost(body, usage) == encode({"choices": [{"message": {"content": text}}], "usage": nothing})
    unknown: Usage = {**usage, "cost": None}
    assert at_no_cost(body, unknown) is body
