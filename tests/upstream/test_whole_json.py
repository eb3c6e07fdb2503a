"""Whether what has arrived of an answer is whole JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.schema.json_structure import STEP_BYTES
from proxy.upstream.whole_json import is_whole_json
from tests.faults.test_loop_lag import BOUND_MS, WatchedLoop
from tests.slowness import slowness_of_serving

SIZE = 3 * STEP_BYTES
VALUES: list[Any] = [{"a": []}, [1], {"a": "x" * SIZE}, [[n, {"b": "]}"}] for n in range(300_000)], {"\\" * SIZE: '"'}]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:20])
async def test_only_the_whole_is_whole(value: Any) -> None:
    """Small or large; blanks behind it do not count."""
    data = json.dumps(value).encode()
    assert await is_whole_json(bytearray(data + b" \n"))
    for cut in (1, 2, len(data) // 2, len(data) - 1):
        assert not await is_whole_json(bytearray(data[:-cut]))


@pytest.mark.slow
def test_a_large_answer_is_looked_through_in_short_steps() -> None:
    """It has broken off, and the loop has other things to do."""
    answers = [bytearray(b'{"a": "' + b"x" * 60_000_000 + b"}"), bytearray(b"[" + b"[1]," * 8_000_000 + b"2]")]
    longest, before = [], slowness_of_serving()
    for _ in range(3):
        loop = WatchedLoop()
        assert [loop.run_until_complete(is_whole_json(answer)) for answer in answers] == [False, True]
        after = slowness_of_serving()
        longest.append(loop.longest_ms / max(before, after))
        before = after
        loop.close()
    print(longest)
    assert min(longest) < BOUND_MS
