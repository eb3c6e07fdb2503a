"""Answers with several oddities at once, over sockets: compressed or not, broken off or not. One row each."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.books import assert_sums, rows
from tests.providers.mixed_oddities import HALF, odd_body, odd_stream, spoiled_body, spoiled_stream, spoken
from tests.providers.test_streams_property import NAMES
from tests.server.api.raw import Answer, chat, post
from tests.server.api.test_either_form import http
from tests.server.api.test_odd_answers import before
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TYPES = ["text/event-stream", "application/json", "text/plain; charset=utf-8", None]
TOOLS = [{"type": "function", "function": {"name": name}} for name in NAMES]
WRITERS = [odd_stream, odd_body, spoiled_stream, spoiled_body]


def sent(dice: random.Random, body: bytes, is_cut: bool) -> bytes:
    """The bytes of one HTTP answer; of a cut one the beginning."""
    headers: Any = {}
    if dice.random() < 0.4:
        body, headers = gzip.compress(body), {"content_encoding": "gzip"}
    data = http(body, dice.choice(TYPES), **headers)
    return data[: dice.randrange(len(data) - len(body), len(data))] if is_cut else data


def text(answer: Answer) -> str | None:
    """What the answer says; None if it is an error, in OpenAI's shape."""
    if answer.status != 200:
        assert answer.error()["message"]
        return None
    if answer.headers("content-type") == ["application/json"]:
        return str(answer.json["choices"][0]["message"]["content"] or "")
    *events, last = answer.events
    if last != "[DONE]":
        assert last["error"]["message"]
        return None
    assert any(each["finish_reason"] for event in events for each in event["choices"])
    return "".join(each["delta"].get("content") or "" for event in events for each in event["choices"])


@pytest.mark.parametrize("kind", ["openai", "anthropic", "google", "cohere", "perplexity", "vllm"])
@pytest.mark.sampled(3)
async def test_each_is_an_answer_or_an_error_and_leaves_one_row(tmp_path: Path, kind: str) -> None:
    """Nothing of the upstream stays open."""
    dice, served, count = random.Random(kind), [b""], 0
    async with before(tmp_path, kind, lambda: served[0]) as server:
        for write in WRITERS * 4:
            said, is_cut = spoken(dice, kind), dice.random() < 0.4
            served[0] = sent(dice, write(dice, kind, said), is_cut)
            for stream in (False, True):
                got = text(await post(server.port, chat("odd/m", stream=stream, tools=TOOLS)))
                count += 1
                if write in (odd_stream, odd_body):
                    whole = "".join(said.tokens).replace(HALF, "\ufffd")
                    assert got == whole or (is_cut and got is None), served[0]
        await eventually(lambda: all(each.active == 0 for each in server.runtime.upstreams.values()))
    calls, attempts = rows(tmp_path, "calls"), rows(tmp_path, "attempts")
    assert len(calls) == len(attempts) == count
    assert [each["attempts"] for each in calls] == [1] * count
    assert all(each["closed_ns"] for each in calls)
    assert {each["outcome"] for each in calls} <= {"ok", "upstream_error", "upstream_truncated"}
    assert_sums(tmp_path)
