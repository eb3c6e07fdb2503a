"""What the books say of answers that came in part, unreadable, or without a count: the tokens of a row explain its
cost, which is what was counted, or else the hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.api.raw import chat, post
from tests.server.api.test_odd_answers import HUGE, SAID, answer, before, streamed, whole
from tests.storage.samples import rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

INPUT_NANO, OUTPUT_NANO, MOST = 2_000, 10_000, 50
PAGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>Please log in</html>"
EMPTY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"
SILENT = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: thinking\n\n"
BEGUN: dict[str, bytes] = {
    "openai": streamed({"choices": [{"index": 0, "delta": {"content": SAID}, "finish_reason": None}]}),
    "anthropic": streamed(
        {
            "type": "message_start",
            "message": {"id": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": SAID}},
    ),
    "google": streamed({"candidates": [{"content": {"parts": [{"text": SAID}]}}]}),
    "cohere": streamed({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": SAID}}}}),
}


def told(kind: str) -> dict[str, tuple[bytes, str]]:
    """What the upstream sends, and where the tokens of the row come from."""
    counted = whole(answer(kind, 7))
    begun = BEGUN[kind]
    return {
        "counted": (counted, "provider"),
        "absent": (whole({**answer(kind, 7), "usage": None, "usageMetadata": None}), "estimated"),
        "zero": (whole(answer(kind, 0)), "estimated"),
        "absurd": (whole(answer(kind, HUGE)), "estimated"),
        "cut": (counted[: -len(json.dumps(answer(kind, 7))) // 2], "unknown"),
        "a page": (PAGE, "unknown"),
        "nothing": (EMPTY, "unknown"),
        "before the first token": (SILENT, "unknown"),
        "after some text": (begun, "estimated"),
        "before the text": (begun[: begun.index(SAID.encode())], "unknown"),
    }


def checked(attempt: dict[str, Any], source: str, is_chat: bool = True) -> None:
    assert attempt["usage_source"] == source
    tokens_nano = attempt["input"] * INPUT_NANO + attempt["output"] * OUTPUT_NANO
    if source == "unknown":
        assert attempt["output"] == (MOST if is_chat else 0)
        assert tokens_nano <= attempt["cost_nano"] == attempt["hold_nano"]
    else:
        assert 0 < attempt["output"] <= 7
        assert attempt["cost_nano"] == tokens_nano


@pytest.mark.parametrize("kind", BEGUN)
@pytest.mark.sampled(3)
async def test_the_tokens_of_a_row_explain_its_cost(tmp_path: Path, kind: str) -> None:
    """For whole and for streamed requests."""
    served = [b""]
    async with before(tmp_path, kind, lambda: served[0]) as server:
        for name, (data, source) in told(kind).items():
            served[0] = data
            for stream in (False, True):
                got = await post(server.port, chat("odd/m", stream=stream, max_tokens=MOST))
                attempt = rows(tmp_path / "usage.db", "SELECT * FROM attempts")[-1]
                is_read_whole = not stream and name == "after some text"
                checked(attempt, "unknown" if is_read_whole else source)
                call = rows(tmp_path / "usage.db", "SELECT * FROM calls")[-1]
                assert (call["input_tokens"], call["output_tokens"]) == (attempt["input"], attempt["output"])
                assert call["cost_nano"] == attempt["cost_nano"]
                assert bool(call["estimated"]) is (source != "provider")
                assert (call["outcome"] == "ok") is (source != "unknown" and name != "after some text"), got.bytes


async def test_a_lost_embedding_has_no_output(tmp_path: Path) -> None:
    """Its hold is for what the model reads."""
    async with before(tmp_path, "openai", lambda: PAGE) as server:
        await post(server.port, json.dumps({"model": "odd/m", "input": "one two"}).encode(), "/v1/embeddings")
        (attempt,) = rows(tmp_path / "usage.db", "SELECT * FROM attempts")
        assert attempt["input"] > 0
        checked(attempt, "unknown", is_chat=False)
