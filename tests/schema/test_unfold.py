"""A whole answer as a stream: `fold(chunks_of(response)) == response`."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.schema.chat import ChatResponse
from proxy.schema.fold import Fold
from proxy.schema.unfold import PIECE, chunks_of

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
MESSAGES: list[dict[str, Any]] = [
    {"content": "Hello"},
    {"content": ""},
    {"content": "ä" * (3 * PIECE + 1)},
    {"content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
    {"content": "x", "reasoning_content": "hm " * 9},
    {"content": None, "refusal": "No."},
    {"content": "x", "annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.com"}}]},
    {"content": "x", "vendor_field": {"a": [1, 2]}},
]


@pytest.mark.parametrize("message", MESSAGES)
def test_the_chunks_of_an_answer_fold_to_the_answer(message: dict[str, Any]) -> None:
    """Texts, tool calls, reasoning, refusals and what a vendor adds."""
    whole = {"role": "assistant", "refusal": None, "annotations": [], **message}
    choice = {"index": 0, "message": whole, "logprobs": None, "finish_reason": "length"}
    response = cast(ChatResponse, {"object": "chat.completion", "choices": [choice], "system_fingerprint": "fp"})
    fold = Fold()
    for batch in chunks_of(response):
        for chunk in batch:
            fold.add(chunk)
    assert fold.response() == response


def test_probabilities_come_along() -> None:
    """Once, before the finish."""
    logprobs = {"content": [{"token": "x", "logprob": -0.1}]}
    choice = {"index": 0, "message": {"content": "x"}, "logprobs": logprobs, "finish_reason": "stop"}
    fold = Fold()
    for batch in chunks_of(cast(ChatResponse, {"choices": [choice]})):
        for chunk in batch:
            fold.add(chunk)
    assert fold.response()["choices"][0]["logprobs"] == logprobs
