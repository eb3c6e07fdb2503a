"""What is replaced is closed once, when nobody uses it any more."""

from __future__ import annotations

import asyncio

import pytest

from proxy.server.swap import Swap


class Closings:
    """The names of what was closed, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def put(self, swap: Swap[str], name: str) -> None:
        async def close() -> None:
            self.names.append(name)

        swap.put(name, close)


async def turn() -> None:
    """Lets what is ready run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_is_used_outlives_its_successors() -> None:
    """Who began with a value ends with it; the one in the middle goes at once, since nobody used it."""
    closed, swap = Closings(), Swap[str]()
    closed.put(swap, "first")
    with swap.using() as first:
        closed.put(swap, "second")
        closed.put(swap, "third")
        await turn()
        assert (first, swap.current, closed.names) == ("first", "third", ["second"])
        with swap.using() as third:
            assert third == "third"
    await turn()
    assert closed.names == ["second", "first"]
    await swap.close()
    assert closed.names == ["second", "first", "third"]


async def test_the_last_of_several_users_closes() -> None:
    """Also one that failed."""
    closed, swap = Closings(), Swap[str]()
    closed.put(swap, "first")
    with pytest.raises(ValueError, match="mine"), swap.using():
        with swap.using():
            closed.put(swap, "second")
        await turn()
        assert closed.names == []
        raise ValueError("mine")
    await turn()
    assert closed.names == ["first"]
    await swap.close()


async def test_closing_waits_for_nobody() -> None:
    """A server that stops closes what calls still hold, the newest first, and nothing twice."""
    closed, swap = Closings(), Swap[str]()
    closed.put(swap, "first")
    with swap.using():
        closed.put(swap, "second")
        with swap.using():
            await swap.close()
            assert closed.names == ["second", "first"]
            with pytest.raises(RuntimeError, match="not running"):
                _ = swap.current
    await turn()
    assert closed.names == ["second", "first"]


async def test_nothing_runs_before_the_first() -> None:
    """An error of the program, said as one."""
    with pytest.raises(RuntimeError, match="not running"), Swap[str]().using():
        raise AssertionError("nothing to use")
