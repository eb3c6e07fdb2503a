"""Answers with several oddities at once, at every dialect and cut anywhere: the answer, or an honest error."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any, cast

import pytest

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.stream_reader import StreamReader
from proxy.pipeline.timing import Clock
from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.reading import parse
from proxy.routing.deployment import Deployment
from proxy.schema.chat import FINISH_REASONS, ChatChunk
from proxy.schema.errors import UpstreamError
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.records import Caller, Outcome, Timeouts
from proxy.server.formats.chat_answer import ChunkWriter
from proxy.upstream.upstream import Exchange
from tests.providers.mixed_oddities import HALF, odd_body, odd_stream, spoiled_body, spoiled_stream, spoken
from tests.providers.test_streams_property import KINDS, REQUEST, as_the_sdk_has_it, framed
from tests.slowness import assert_growth
from tests.upstream.wire import Said

TYPES = ["text/event-stream", "application/json", "text/plain; charset=utf-8", "application/x-ndjson", ""]


class Bytes:
    """Stands in for an Exchange: hands out pieces, then the end."""

    status = 200

    def __init__(self, pieces: list[bytes], kind: str) -> None:
        self.headers = {"content-type": kind}
        self._pieces = iter(pieces)

    async def read(self, by: float, outcome: Outcome) -> bytes:
        return next(self._pieces, b"")

    def no_stream(self) -> UpstreamError:
        return UpstreamError("no stream")


async def _chunks(kind: str, pieces: list[bytes], content_type: str) -> list[ChatChunk]:
    provider = PROVIDERS[kind.partition(",")[0]]()
    call = Call("call", Caller(), REQUEST, Clock(lambda: 0, lambda: 0.0))
    attempt = Attempt(call, Deployment("vendor", provider, "m", None), REQUEST)
    attempt.note_granted()
    attempt.note_accepted(200, None)
    exchange = cast(Exchange, Bytes(pieces, content_type))
    reader = StreamReader(attempt, provider.stream_decoder(REQUEST), Timeouts(), exchange, OffLoop())
    chunks: list[ChatChunk] = []
    while (more := await reader.next()) is not None:
        chunks += more
    return chunks


def heard(kind: str, pieces: list[bytes], content_type: str = "") -> list[ChatChunk] | None:
    """The chunks of an answer that a streamed request got; None if it is an error."""
    try:
        return asyncio.run(_chunks(kind, pieces, content_type))
    except UpstreamError as error:
        assert error.message
        assert 400 <= error.status < 600
        return None


def read(kind: str, body: bytes, content_type: str = "") -> Any:
    """The answer that a request for a whole one got; None if it is an error."""
    try:
        return parse(
            PROVIDERS[kind.partition(",")[0]](), REQUEST, HTTPResponse(200, {"content-type": content_type}, body)
        )
    except UpstreamError as error:
        assert error.message
        assert 400 <= error.status < 600
        return None


def folded(chunks: list[ChatChunk]) -> Any:
    fold = Fold()
    for chunk in chunks:
        fold.add(chunk)
    return fold.response()


def sense(answer: Any) -> Any:
    """What an answer says, after asserting that a client can read it and send it back."""
    encode(answer["choices"])
    assert "error" not in answer
    found = []
    for choice in answer["choices"]:
        message, reason = choice["message"], choice["finish_reason"]
        assert reason in FINISH_REASONS, choice
        for name in ("content", "refusal", "reasoning_content"):
            assert message.get(name) is None or isinstance(message[name], str)
        calls = message.get("tool_calls") or []
        assert len({call["id"] for call in calls}) == len(calls)
        assert all(isinstance(call["id"], str) and call["function"]["name"] for call in calls)
        said = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        assert all(isinstance(part, str) for call in said for part in call)
        found.append((message.get("content") or "", message.get("reasoning_content") or "", said, reason))
    return found


def expected(said: Said) -> Any:
    texts = ["".join(pieces).replace(HALF, "\ufffd") for pieces in (said.tokens, said.reasoning)]
    return [(*texts, said.calls, said.finish)]


def same(one: Any, other: Any) -> bool:
    """Arguments may be spelled otherwise."""

    def loose(found: Any) -> Any:
        return [(*each[:2], [(name, json.loads(text)) for name, text in each[2]], each[3]) for each in found]

    return one == other or bool(loose(one) == loose(other))


def pieces_of(dice: random.Random, data: bytes, most: int = 6) -> list[bytes]:
    cuts = sorted(dice.sample(range(1, len(data)), min(len(data) - 1, dice.randint(0, most))))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# --- the rules --------------------------------------------------------------------------------------------------------


def check_odd(kind: str, seed: int) -> None:
    """What was said arrives, however it is asked for and cut."""
    dice = random.Random(f"odd {kind} {seed}")
    said = spoken(dice, kind)
    for data in (odd_stream(dice, kind, said), odd_body(dice, kind, said)):
        content_type = dice.choice(TYPES)
        chunks = heard(kind, pieces_of(dice, data), content_type)
        assert chunks is not None, data
        assert same(sense(folded(chunks)), expected(said)), data
        assert same(sense(json.loads(as_the_sdk_has_it(chunks).model_dump_json())), expected(said)), data
        whole = read(kind, data, content_type)
        assert whole is not None, data
        assert same(sense(whole), expected(said)), data


def check_spoiled(kind: str, seed: int) -> None:
    """Nothing but our own errors; where both ways have an answer it is the same."""
    dice = random.Random(f"spoiled {kind} {seed}")
    said = spoken(dice, kind)
    for data in (spoiled_stream(dice, kind, said), spoiled_body(dice, kind, said)):
        content_type = dice.choice(TYPES)
        chunks, whole = heard(kind, pieces_of(dice, data), content_type), read(kind, data, content_type)
        once = heard(kind, [data], content_type)
        assert (once is None) == (chunks is None) == (whole is None), data
        if chunks is not None and once is not None:
            assert sense(folded(chunks)) == sense(folded(once)) == sense(whole), data
            ChunkWriter("id", 1, lambda: "m", include_usage=True).write(chunks)


def check_broken(kind: str, seed: int, most: int | None) -> None:
    """A stream that ends at any byte: an error, or what was said as far as it came, with its finish."""
    dice = random.Random(f"broken {kind} {seed}")
    said = spoken(dice, kind)
    data = odd_stream(dice, kind, said)
    whole = framed(data, [])
    assert framed(data, list(range(1, len(data)))) == whole
    ends = range(len(data)) if most is None else sorted(dice.sample(range(len(data)), min(most, len(data))))
    for end in ends:
        chunks = heard(kind, [data[:end]])
        if chunks is None:
            continue
        for content, reasoning, calls, _ in sense(folded(chunks)):
            (text, thought, called, _), *_ = expected(said)
            assert (content, reasoning) == (text, thought), data[:end]
            assert [name for name, _ in calls] == [name for name, _ in called], data[:end]


@pytest.mark.parametrize("kind", KINDS)
def test_oddities_that_change_nothing_change_nothing_together(kind: str):
    """Padding, byte order marks, odd numbers, empty errors, missing blank lines and fields, calls at one index, usage
    anywhere, no finish before the end marker, under any content type, whole for a stream and a stream for a whole.
    """
    for seed in range(6):
        check_odd(kind, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_spoiled_is_an_answer_or_an_error_of_ours(kind: str):
    """Any value of any other type, frames lost, doubled and swapped, errors between."""
    for seed in range(12):
        check_spoiled(kind, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_an_odd_stream_that_breaks_off_is_no_shorter_answer(kind: str):
    """At any byte."""
    check_broken(kind, 0, most=12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mixtures_at_every_byte(kind: str):
    """The same three rules."""
    for seed in range(100):
        check_odd(kind, seed)
    for seed in range(500):
        check_spoiled(kind, seed)
    for seed in range(2):
        check_broken(kind, seed, most=None)


@pytest.mark.parametrize("kind", ["openai", "google", "openai, responses"])
def test_twice_the_oddities_take_twice_the_time(kind: str):
    """As CPU time; quadratic work would take four times as long."""
    dice = random.Random(kind)

    def taken(tokens: int) -> float:
        data = odd_stream(dice, kind, Said(tokens=["\u20ac "] * tokens))
        pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
        begun = time.process_time()
        heard(kind, pieces)
        return time.process_time() - begun

    assert_growth(lambda: max(0.12 / 3.5, taken(1000)), lambda: taken(2000), 3.5)
