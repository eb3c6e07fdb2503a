"""Answers that are odd, not broken: what they say is handed on, what they claim is not believed, nothing crashes."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from tests.server.api.raw import Answer, answering, chat, post
from tests.server.api.rows import row_of
from tests.serving import Server, serving, write_files
from tests.storage.samples import rows

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  odd: {{type: KIND, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
"""
PRICING = """
version: 1
models:
  odd/*: {input: 2.00, output: 10.00, max_output: 4096}
"""
SAID = "hello there"
HUGE = 10**30


@asynccontextmanager
async def before(folder: Path, kind: str, data: Callable[[], bytes]) -> AsyncIterator[Server]:
    """A proxy before an upstream of a kind that answers everything with `data`."""
    async with (
        answering(lambda _: data()) as (url, _),
        serving(write_files(folder, url, ROUTING.replace("KIND", kind), PRICING)) as server,
    ):
        yield server


def whole(body: Any) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data) + data


def answer(kind: str, count: Any) -> Any:
    """One vendor's whole answer that counts `count` of everything."""
    if kind == "anthropic":
        said = {"type": "message", "content": [{"type": "text", "text": SAID}], "stop_reason": "end_turn"}
        return {**said, "usage": {"input_tokens": count, "output_tokens": count}}
    if kind == "google":
        candidate = {"content": {"parts": [{"text": SAID}]}, "finishReason": "STOP"}
        counts = dict.fromkeys(("promptTokenCount", "candidatesTokenCount", "totalTokenCount"), count)
        return {"candidates": [candidate], "usageMetadata": counts}
    if kind == "cohere":
        counts = {"input_tokens": count, "output_tokens": count}
        message = {"content": [{"type": "text", "text": SAID}]}
        return {"message": message, "finish_reason": "COMPLETE", "usage": {"billed_units": counts, "tokens": counts}}
    if kind == "perplexity":
        output = [{"type": "message", "content": [{"type": "output_text", "text": SAID}]}]
        counts = {"input_tokens": count, "output_tokens": count}
        return {"status": "completed", "output": output, "usage": counts}
    choice = {"index": 0, "message": {"content": SAID}, "finish_reason": "stop"}
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), count)
    return {"choices": [choice], "usage": counts}


@pytest.mark.parametrize("kind", ["openai", "anthropic", "google", "cohere", "perplexity"])
@pytest.mark.sampled(3)
async def test_a_usage_that_nobody_can_believe_is_estimated(tmp_path: Path, kind: str) -> None:
    """The answer is paid and arrives; its row can be written, and is not of zero."""
    counts: list[Any] = [HUGE, 2**53, -5, True, "x", [1], None, 0, 0.0, "0"]
    async with before(tmp_path, kind, lambda: whole(answer(kind, counts[0]))) as server:
        while counts:
            got = await post(server.port, chat("odd/m"))
            assert got.json["choices"][0]["message"]["content"] == SAID
            usage = got.json["usage"]
            assert usage["estimated"] is True, counts[0]
            assert type(usage["prompt_tokens"]) is int
            row = await row_of(tmp_path / "usage.db", got)
            assert (row["outcome"], row["success"], row["estimated"]) == ("ok", 1, 1)
            assert (row["input_tokens"], row["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
            assert 0 < row["output_tokens"] < 10
            counts.pop(0)


async def test_a_streamed_usage_that_nobody_can_believe_is_estimated(tmp_path: Path) -> None:
    """As in a whole answer."""
    chunk = {"choices": [{"index": 0, "delta": {"content": SAID}, "finish_reason": "stop"}]}
    last = {"choices": [], "usage": {"prompt_tokens": HUGE, "completion_tokens": HUGE}}
    events = "".join(f"data: {json.dumps(each)}\n\n" for each in (chunk, last)) + "data: [DONE]\n\n"
    data = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + events.encode()
    async with before(tmp_path, "openai", lambda: data) as server:
        body = chat("odd/m", stream=True, stream_options={"include_usage": True})
        got = await post(server.port, body)
        assert got.events[-2]["usage"]["estimated"] is True
        assert (await row_of(tmp_path / "usage.db", got))["outcome"] == "ok"


WORDS = "word " * 200  # 250 tokens by our estimate
GOOD = {"prompt_tokens": 120, "completion_tokens": 7, "total_tokens": 127}
ZERO = dict.fromkeys(GOOD, 0)


def streamed(*events: Any) -> bytes:
    said = "".join(f"data: {json.dumps(each)}\n\n" for each in events)
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + said.encode()


def openai_stream(*usages: Any) -> bytes:
    """One text, its finish, and a chunk for each usage."""
    text = {"choices": [{"index": 0, "delta": {"content": WORDS}, "finish_reason": None}]}
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return streamed(text, end, *({"choices": [], "usage": usage} for usage in usages)) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b""])
async def test_a_finish_that_nobody_knows_is_read_from_the_content(tmp_path: Path, end: bytes) -> None:
    """Its usage comes after it and says that the limit was reached: in both forms of the answer, bought once."""
    text = {"choices": [{"index": 0, "delta": {"content": SAID}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "bored"}]}
    data = streamed(text, last, {"choices": [], "usage": GOOD}) + end
    expected = {"finish_reason": "length", "native_finish_reason": "bored", "finish_reason_adapted": True}
    async with before(tmp_path, "openai", lambda: data) as server:
        got = await post(server.port, chat("odd/m", stream=True, max_tokens=7))
        assert got.events[-1] == "[DONE]"
        choices = [choice for event in got.events[:-1] for choice in event["choices"]]
        assert [each["finish_reason"] for each in choices if each["finish_reason"]] == ["length"]
        assert expected.items() <= choices[-1].items()
        row = await row_of(tmp_path / "usage.db", got)
        assert (row["outcome"], row["output_tokens"]) == ("ok", 7)
        got = await post(server.port, chat("odd/m", max_tokens=7))
        assert expected.items() <= got.json["choices"][0].items()
        assert got.headers("x-proxy-adapted-params") == ["finish_reason"]
        assert len(rows(tmp_path / "usage.db", "SELECT * FROM attempts")) == 2


ANTHROPIC_STREAM = streamed(
    {
        "type": "message_start",
        "message": {"id": "m", "content": [], "usage": {"input_tokens": 500, "output_tokens": 1}},
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORDS}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
)
CANDIDATE = {"content": {"parts": [{"text": WORDS}]}, "finishReason": "STOP"}
THOUGHT = {"candidatesTokenCount": 366, "thoughtsTokenCount": 1109}  # and no count of the prompt


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("openai", openai_stream(GOOD, ZERO), (120, 7, None)),
        ("openai", openai_stream({"input_tokens": "120", "output_tokens": 7.0}), (120, 7, None)),
        ("openai", openai_stream(ZERO), (0, 250, True)),
        ("openai", openai_stream({**GOOD, "completion_tokens": 0, "total_tokens": 120}), (120, 250, True)),
        ("openai", openai_stream(), (0, 250, True)),
        ("anthropic", ANTHROPIC_STREAM, (500, 250, True)),
        ("google", streamed({"candidates": [CANDIDATE], "usageMetadata": THOUGHT}), (0, 1475, True)),
    ],
)
@pytest.mark.sampled(3)
async def test_what_a_stream_counted_is_kept_and_the_rest_estimated(
    tmp_path: Path, kind: str, data: bytes, expected: tuple[int, int, bool | None]
) -> None:
    """In the answer and in the row; a prompt of 0 stands here for one that is estimated."""
    async with before(tmp_path, kind, lambda: data) as server:
        got = await post(server.port, chat("odd/m", stream=True, stream_options={"include_usage": True}))
        usage = got.events[-2]["usage"]
        assert usage["prompt_tokens"] > 0
        if expected[0]:
            assert usage["prompt_tokens"] == expected[0]
        assert (usage["completion_tokens"], usage.get("estimated")) == expected[1:]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["cost"] == pytest.approx(usage["prompt_tokens"] * 2e-6 + usage["completion_tokens"] * 10e-6)
        row = await row_of(tmp_path / "usage.db", got)
        assert (row["input_tokens"], row["output_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
        assert bool(row["estimated"]) is bool(expected[2])


async def test_a_lost_answer_costs_its_hold(tmp_path: Path) -> None:
    """However much of something came before it broke off: the vendor may have written, and will bill, all of it."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4000000\r\n\r\n"
    async with before(tmp_path, "openai", lambda: head + b"x" * 1_000_000) as server:
        got = await post(server.port, chat("odd/m", max_tokens=50))
        assert got.error()["code"] == "upstream_truncated"
        (attempt,) = rows(tmp_path / "usage.db", "SELECT * FROM attempts")
        assert attempt["usage_source"] == "unknown"
        assert attempt["cost_nano"] == attempt["hold_nano"] > 0


MANY = {f"parameter_{number}": 1 for number in range(10_000)}


async def asked(server: Server, fields: dict[str, Any]) -> Answer:
    return await post(server.port, chat("odd/m", **fields))


async def test_names_of_parameters_fit_into_headers(tmp_path: Path) -> None:
    """However many there are, however long, and whatever they hold: clients read the answer, and it says of each."""
    async with before(tmp_path, "anthropic", lambda: whole(answer("anthropic", 5))) as server:
        got = await server.client.chat.completions.create(
            model="odd/m", messages=[{"role": "user", "content": "x"}], extra_body=MANY
        )
        assert got.choices[0].message.content == SAID
        (told,) = (await asked(server, MANY)).headers("x-proxy-dropped-params")
        assert told.startswith("parameter_0,parameter_1,")
        assert told.endswith(",...")
        assert len(told) < 4096
        (told,) = (await asked(server, {"a\r\nset-cookie: b": 1, "c,d": 1, "e" * 100_000: 1})).headers(
            "x-proxy-dropped-params"
        )
        assert told == f"a??set-cookie: b,c?d,{'e' * 64}"
        refused = await asked(server, {**MANY, "routing": {"strict": True}})
        assert refused.error()["param"] == "parameter_0"
        assert len(refused.bytes) < 4096


@pytest.mark.parametrize("vector", [[10**400], [True], base64.b64encode(pack("<2f", float("nan"), 1)).decode()])
async def test_numbers_that_no_vector_has_are_an_error(tmp_path: Path, vector: Any) -> None:
    """Before the call is settled as a success."""
    async with before(tmp_path, "openai", lambda: whole({"data": [{"index": 0, "embedding": vector}]})) as server:
        for encoding in ("float", "base64"):
            body = json.dumps({"model": "odd/m", "input": "x", "encoding_format": encoding}).encode()
            got = await post(server.port, body, "/v1/embeddings")
            assert (got.status, got.error()["code"]) == (502, "upstream_error")
            assert (await row_of(tmp_path / "usage.db", got))["outcome"] == "upstream_error"


async def test_json_that_is_given_twice_counts_once(tmp_path: Path) -> None:
    """By a model that calls the tool for it twice."""
    calls = [{"type": "tool_use", "id": f"t{place}", "name": "json_tool_call", "input": {"a": 1}} for place in (1, 2)]
    body = {"type": "message", "content": calls, "stop_reason": "tool_use"}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    async with before(tmp_path, "anthropic", lambda: whole(body)) as server:
        got = await post(server.port, chat("odd/claude-3-5-haiku-20241022", response_format=wanted))
        assert json.loads(got.json["choices"][0]["message"]["content"]) == {"a": 1}
        assert got.headers("x-proxy-attempts") == ["1"]


@pytest.mark.parametrize("word", ["a\r\nb\x00", "x" * 50_000], ids=["unprintable", "long"])
async def test_the_words_of_an_error_fit_into_rows_and_logs(tmp_path: Path, word: str) -> None:
    """Whatever a vendor calls its error."""
    told = {"error": {"message": "no", "type": word, "code": word, "param": word}}
    head = b"x-ratelimit-limit-requests: 5\r\nx-ratelimit-odd: " + b"y" * 50_000
    data = whole(told).replace(b"200 OK", b"400 No\r\n" + head, 1)
    async with before(tmp_path, "openai", lambda: data) as server:
        got = await post(server.port, chat("odd/m"))
        error = got.error()
        assert (got.status, len(got.bytes) < 4096) == (400, True)
        assert all(error[name].isprintable() and len(error[name]) <= 128 for name in ("type", "code", "param"))
        assert got.headers("x-ratelimit-limit-requests") == ["5"]
        assert (await row_of(tmp_path / "usage.db", got))["error_code"] == error["code"]


async def test_an_index_that_is_no_number_is_no_crash(tmp_path: Path) -> None:
    """The call has a place all the same."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    started = {"type": "tool-call-start", "index": [], "delta": {"message": {"tool_calls": call}}}
    end = {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}
    events = "".join(f"data: {json.dumps(each)}\n\n" for each in (started, end))
    data = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + events.encode()
    async with before(tmp_path, "cohere", lambda: data) as server:
        answer = await post(server.port, chat("odd/m", stream=True))
        calls = [each for event in answer.events[:-1] for each in event["choices"][0]["delta"].get("tool_calls", [])]
        assert [each["id"] for each in calls if "id" in each] == ["c"]


async def test_values_of_another_type_are_no_crash(tmp_path: Path) -> None:
    """They are dropped, and told."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": [None]}}
    async with before(tmp_path, "google", lambda: whole(answer("google", 5))) as server:
        body = chat("odd/gemini-3-pro-preview", service_tier=[], messages=[{"role": "user", "content": [image]}])
        got = await post(server.port, body)
        assert got.headers("x-proxy-dropped-params") == ["messages.image_url.detail,service_tier"]
