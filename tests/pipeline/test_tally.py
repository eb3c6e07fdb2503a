"""A stream is counted as its whole answer would be, and what only a client reads is not kept."""

from __future__ import annotations

import tracemalloc
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.tokens import estimate
from proxy.pipeline.tally import MAX_THOUGHT, StreamTally
from proxy.providers.base.usage import read
from proxy.schema.chat import ChatChunk
from proxy.schema.fold import Fold
from proxy.schema.records import Tokens


def chunk(index: int = 0, usage: Any = None, **delta: Any) -> ChatChunk:
    return cast(ChatChunk, {"choices": [{"index": index, "delta": delta, "finish_reason": None}], "usage": usage})


def call(index: int, name: str | None = None, arguments: str = "", **extra: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"index": index, "function": function, **({"id": f"call_{index}"} if name else {}), **extra}


def bare(messages: Any) -> list[str]:
    return sorted(repr({**message, "content": None, "refusal": None}) for message in messages)


TEXTS = st.sampled_from(["", "a", "four", "漢字", "é", "🙂", "long text " * 9])
DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, TEXTS),
    st.builds(lambda text: {"reasoning_content": text}, TEXTS),
    st.builds(lambda text: {"refusal": text, "content": None}, TEXTS),
    st.builds(lambda at, text: {"tool_calls": [call(at, "look", text)]}, st.integers(0, 2), TEXTS),
    st.builds(lambda at, text: {"tool_calls": [call(at, arguments=text)]}, st.integers(0, 2), TEXTS),
    st.builds(lambda text: {"reasoning_details": [{"index": 0, "type": "t", "text": text}]}, TEXTS),
    st.just({"role": "assistant"}),
    st.just({"thinking_blocks": [{"signature": "x"}]}),
)


@given(st.lists(st.tuples(st.integers(0, 2), DELTAS)))
def test_a_tally_says_what_the_fold_says(deltas: list[tuple[int, dict[str, Any]]]) -> None:
    """The same count, and the same calls with what belongs to them, less their texts."""
    tally, fold = StreamTally(), Fold()
    for index, delta in deltas:
        tally.add(chunk(index, **delta))
        fold.add(chunk(index, **delta))
    assert tally.output_tokens == estimate(fold.text())
    assert bare(tally.tool_messages()) == bare(fold.tool_messages())


def test_the_last_usage_that_counts_something_stands() -> None:
    """Some servers send it with every chunk, others null or zeros after it."""
    tally = StreamTally()
    for tokens in (1, 2, 0):
        tally.add(chunk(usage=read({"prompt_tokens": 3, "completion_tokens": tokens})))
    tally.add(chunk(usage=None))
    assert tally.usage is not None
    assert tally.usage.billed == Tokens(input=3, output=2)


@pytest.mark.parametrize("has_tools", [True, False])
def test_what_only_the_client_reads_is_not_kept(has_tools: bool) -> None:
    """Texts, log probabilities, audio: 38 MB of them were 245 MB of memory."""
    tally = StreamTally(has_tools)
    tracemalloc.start()
    for number in range(5_000):
        one = chunk(content=f"text {number} " * 20, audio={"data": f"{number}" * 100})
        one["choices"][0]["logprobs"] = {"content": [{"token": str(number)}] * 20}
        tally.add(one)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tally.output_tokens > 200_000
    assert kept < 50_000


def test_reasoning_is_kept_for_calls_only_and_not_without_end() -> None:
    """Without tools there is no call that it could belong to."""
    with_tools, without = StreamTally(), StreamTally(has_tools=False)
    for tally in (with_tools, without):
        for _ in range(3):
            tally.add(chunk(reasoning_content="x" * (MAX_THOUGHT // 2)))
        tally.add(chunk(tool_calls=[call(0, "look", "{}")]))
    assert without.tool_messages() == []
    assert [len(message["reasoning_content"] or "") for message in with_tools.tool_messages()] == [MAX_THOUGHT]
