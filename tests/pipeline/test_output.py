"""The buffer between a call and its reader: bounded, ordered, and every wait on it ends."""

from __future__ import annotations

import asyncio
import random

import pytest

from proxy.pipeline.output import Output
from tests.pipeline.world import turns


class Broken(Exception):
    """An error of a test's own."""


async def rest(output: Output) -> bytes:
    """Everything that is still to come."""
    pieces = []
    while piece := await output.read():
        pieces.append(piece)
    return b"".join(pieces)


async def test_what_was_written_is_read_in_one_piece() -> None:
    """One send per read, however many frames there were."""
    output = Output()
    for frames in (b"a", b"b", b"c"):
        assert output.write(frames) is None
    assert await output.read() == b"abc"
    output.write(b"d")
    output.end(b"e")
    assert (await output.read(), await output.read(), await output.read()) == (b"de", b"", b"")


async def test_a_full_buffer_holds_its_writer_until_it_is_read() -> None:
    """All of it, not only until there is some room."""
    output = Output(limit=10)
    assert output.write(b"x" * 10) is None
    wait = output.write(b"y")
    assert wait is not None
    await turns()
    assert not wait.done()
    assert await output.read() == b"x" * 10 + b"y"
    await asyncio.wait_for(wait, 1)
    assert output.write(b"z" * 10) is None


async def test_no_more_is_kept_than_the_limit_and_one_write_of_each_writer() -> None:
    """Whatever the reader does, when writers wait as they are told to."""
    output, dice, size, most = Output(limit=1000), random.Random(1), 0, 0

    async def write(number: int) -> None:
        nonlocal size, most
        for _ in range(200):
            frames = bytes([number]) * dice.randrange(1, 300)
            size += len(frames)
            most = max(most, size)
            if (wait := output.write(frames)) is not None:
                await wait

    async def read() -> None:
        nonlocal size
        while frames := await output.read():
            size -= len(frames)
            await turns(dice.randrange(5))

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write(number) for number in range(3)))
    output.end()
    await asyncio.wait_for(reading, 5)
    assert size == 0
    assert 1000 < most <= 1000 + 3 * 300


async def test_the_order_of_frames_is_that_of_their_writes() -> None:
    """Nothing is lost or doubled, whenever the reader comes."""
    dice = random.Random(2)
    for _ in range(100):
        output = Output(limit=dice.randrange(20))
        frames = [bytes([dice.randrange(256)]) * dice.randrange(1, 9) for _ in range(30)]

        async def write(output: Output = output, frames: list[bytes] = frames) -> None:
            for piece in frames:
                if (wait := output.write(piece)) is not None:
                    await wait
                await turns(dice.randrange(3))
            output.end(b"end")

        writing = asyncio.create_task(write())
        await turns(dice.randrange(5))
        assert await asyncio.wait_for(rest(output), 5) == b"".join(frames) + b"end"
        await writing


async def test_one_writer_that_is_cancelled_leaves_the_others_waiting() -> None:
    """They are attempts of one call, one of which may be cancelled."""
    output = Output(limit=0)
    waits = [output.write(frames) for frames in (b"a", b"b")]
    tasks = [asyncio.create_task(asyncio.wait_for(wait, 5)) for wait in waits if wait is not None]
    await turns()
    tasks[0].cancel()
    await turns()
    assert (tasks[0].cancelled(), tasks[1].done()) == (True, False)
    assert await output.read() == b"ab"
    await tasks[1]


async def test_an_error_comes_after_what_was_written_before_it() -> None:
    """And again on each further read."""
    output = Output()
    output.write(b"a")
    output.end(error=Broken())
    assert await output.read() == b"a"
    for _ in range(2):
        with pytest.raises(Broken):
            await output.read()


async def test_the_first_end_stands() -> None:
    """Neither a later error nor later frames change it."""
    output = Output()
    output.end(b"a")
    output.end(b"b", Broken())
    assert await rest(output) == b"a"


@pytest.mark.parametrize("step", ["write", "end", "error", "discard"])
async def test_whatever_happens_wakes_the_reader(step: str) -> None:
    """Frames, the end, an error, and a discard by somebody else."""
    output = Output()
    reading = asyncio.create_task(output.read())
    await turns()
    assert not reading.done()
    if step == "write":
        output.write(b"a")
    elif step == "discard":
        output.discard(Broken())
    else:
        output.end(error=Broken() if step == "error" else None)
    if step in ("write", "end"):
        assert await asyncio.wait_for(reading, 1) == (b"a" if step == "write" else b"")
    else:
        with pytest.raises(Broken):
            await asyncio.wait_for(reading, 1)


async def test_a_discard_wakes_every_writer_and_drops_what_they_write() -> None:
    """From then on nothing is kept, and nobody waits."""
    output = Output(limit=0)
    waits = [wait for wait in (output.write(b"a"), output.write(b"b")) if wait is not None]
    output.discard(Broken())
    assert output.is_discarded
    async with asyncio.timeout(1):
        for wait in waits:
            await wait
    assert output.write(b"x" * 10_000) is None
    output.end(b"end")
    with pytest.raises(Broken):
        await output.read()


async def test_a_discard_after_the_end_changes_only_what_was_not_read() -> None:
    """Nobody reads it, so nothing has to be kept for them."""
    output = Output()
    output.write(b"a")
    output.end(b"b")
    output.discard(Broken())
    assert await output.read() == b""


async def test_a_reader_that_is_cancelled_takes_nothing_with_it() -> None:
    """The next one finds everything."""
    output = Output(limit=0)
    reading = asyncio.create_task(output.read())
    await turns()
    reading.cancel()
    await asyncio.wait([reading])
    wait = output.write(b"a")
    assert await output.read() == b"a"
    assert wait is not None
    await asyncio.wait_for(wait, 1)


async def test_a_reader_that_is_cancelled_as_its_frames_come_takes_nothing_with_it() -> None:
    """Cancelled in the very loop turn in which it was woken."""
    output = Output()
    reading = asyncio.create_task(output.read())
    await turns()
    output.write(b"a")
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    output.end()
    assert await rest(output) == b"a"


async def test_a_wait_ends_with_the_first_frames_the_end_or_its_time_out() -> None:
    """And takes nothing."""
    output = Output()
    assert await output.wait(0.01) is False
    asyncio.get_running_loop().call_later(0.01, output.write, b"a")
    assert await output.wait(5) is True
    assert await output.wait(0) is True
    assert await output.read() == b"a"
    assert await output.wait(0) is False
    asyncio.get_running_loop().call_later(0.01, output.end)
    assert await output.wait(5) is True
    failed = Output()
    failed.end(error=Broken())
    assert await failed.wait(0) is True  # what it ended with is told by `read`


async def test_a_wait_that_timed_out_leaves_no_timer_for_the_next_reader() -> None:
    """A later read waits without a time-out."""
    output = Output()
    assert await output.wait(0.01) is False
    waiting = asyncio.create_task(output.wait(0.02))
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    reading = asyncio.create_task(output.read())
    await asyncio.sleep(0.05)
    assert not reading.done()
    output.write(b"a")
    assert await reading == b"a"


async def test_pushed_and_buffered_frames_arrive_in_the_order_they_were_written() -> None:
    """Whatever is pushed, refused or read later."""
    output, dice, sent, written = Output(limit=100), random.Random(2), [], []
    pushed = 0

    def push(frames: bytes) -> bool:
        nonlocal pushed
        if dice.random() < 0.3:
            return False
        pushed += 1
        sent.append(frames)
        return True

    async def read() -> None:
        while await output.wait(5) and (frames := await output.read()):
            await turns(dice.randrange(3))  # as a client that is slow to take them
            sent.append(frames)

    output.push = push
    reading = asyncio.create_task(read())
    for number in range(500):
        written.append(b"%d " % number)
        if (wait := output.write(written[-1])) is not None:
            await wait
        await turns(dice.randrange(4))
    output.end(b"end")
    await asyncio.wait_for(reading, 5)
    assert b"".join(sent) == b"".join([*written, b"end"])
    assert pushed > 50


async def test_a_wait_times_out_only_when_nothing_was_pushed_for_as_long() -> None:
    """Pings are for silence."""
    output, loop = Output(), asyncio.get_running_loop()
    output.push = lambda frames: True
    waiting, last = asyncio.create_task(output.wait(0.04)), loop.time()
    for _ in range(20):
        await asyncio.sleep(0.005)
        if waiting.done():  # on a machine that slept for so long
            break
        assert output.write(b"a") is None
        last = loop.time()
    assert await waiting is False
    assert loop.time() - last >= 0.04 - 0.002
