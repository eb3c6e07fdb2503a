"""The fake upstream does on the wire what its modes say, and its ledger tells what happened."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests import upstream as package
from tests.slowness import waited_s
from tests.upstream import FakeUpstream, key_hash, prompt_tokens, refusing, spawn
from tests.upstream.http1 import RequestParser
from tests.upstream.modes import MODES, UnknownMode, parse

PATH = "/v1/chat/completions"
# Never end by themselves, or only after minutes.
ENDLESS = ("blackhole", "stall_after", "pinging_stall", "flood", "no_last_chunk", "slow_headers", "slow_body")


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "one two three"}], **fields}


def request(body: dict[str, Any], *headers: str, path: str = PATH, close: bool = True) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""] if close else [*lines, "", ""]).encode() + data


class Answer:
    """What came back on one connection until it closed; `reset`: by a RST."""

    def __init__(self, raw: bytes, reset: bool) -> None:
        self.raw, self.reset = raw, reset
        self.head, _, self.body = raw.partition(b"\r\n\r\n")

    @property
    def status(self) -> int:
        return int(self.head.split(b" ")[1])

    def headers(self, name: str) -> list[str]:
        pairs = [line.partition(": ") for line in self.head.decode().split("\r\n")[1:]]
        return [value for key, _, value in pairs if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def chunks(self) -> list[bytes]:
        """The HTTP chunks; the last is empty if the body ended properly."""
        rest, found = self.body, []
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            found.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
        return found

    @property
    def stream(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def ended_properly(self) -> bool:
        return self.body.endswith(b"0\r\n\r\n")

    @property
    def events(self) -> list[Any]:
        """The decoded events of a well-formed stream; the end marker is a string."""
        lines = [line.removeprefix(b"data: ") for line in self.stream.split(b"\n\n") if line]
        return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        deltas = [choice["delta"] for event in self.events if "choices" in event for choice in event["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)


async def read_to_end(reader: asyncio.StreamReader) -> Answer:
    raw = b""
    try:
        while piece := await reader.read(65536):
            raw += piece
    except ConnectionResetError:
        return Answer(raw, reset=True)
    return Answer(raw, reset=False)


async def send(upstream: FakeUpstream, data: bytes) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(data)
    try:
        return await asyncio.wait_for(read_to_end(reader), 10)
    finally:
        writer.transport.abort()


async def whole(upstream: FakeUpstream, model: str, **fields: Any) -> Answer:
    return await send(upstream, request(chat(model, **fields)))


async def streamed(upstream: FakeUpstream, model: str, **fields: Any) -> Answer:
    return await send(upstream, request(chat(model, stream=True, **fields)))


WITH_USAGE = {"stream_options": {"include_usage": True}}


class TestCorrectAnswers:
    async def test_a_whole_answer_has_openais_shape_and_exact_usage(self, upstream):
        answer = (await whole(upstream, "ok(n_tokens=3)")).json
        assert answer["choices"] == [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "tok0 tok1 tok2", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ]
        assert (answer["object"], answer["model"]) == ("chat.completion", "ok(n_tokens=3)")
        usage = answer["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 3, 6)
        seen = upstream.ledger[0]
        assert (seen.usage, seen.tokens_sent, seen.complete, seen.status) == (usage, 3, True, 200)

    async def test_a_stream_has_openais_events_in_openais_order(self, upstream):
        answer = await streamed(upstream, "ok(n_tokens=2)")
        *chunks, done = answer.events
        assert [chunk["choices"][0] for chunk in chunks] == [
            {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            for delta, reason in [
                ({"role": "assistant", "content": "", "refusal": None}, None),
                ({"content": "tok0"}, None),
                ({"content": " tok1"}, None),
                ({}, "stop"),
            ]
        ]
        assert done == "[DONE]"
        assert answer.ended_properly
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
        assert not any("usage" in chunk for chunk in chunks)
        assert answer.headers("content-type") == ["text/event-stream; charset=utf-8"]

    async def test_usage_comes_in_a_chunk_of_its_own_if_asked(self, upstream):
        *chunks, usage, _ = (await streamed(upstream, "ok(n_tokens=2)", **WITH_USAGE)).events
        assert usage["choices"] == []
        assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (3, 2)
        assert all(chunk["usage"] is None for chunk in chunks)
        assert upstream.ledger[0].usage == usage["usage"]

    async def test_prompt_tokens_are_the_words_of_all_text(self):
        parts = [{"type": "text", "text": "a b"}, {"type": "image_url", "image_url": {"url": "data:"}}]
        messages = [
            {"role": "system", "content": "be\nbrief"},
            {"role": "user", "content": parts},
            {"role": "assistant"},
        ]
        assert prompt_tokens({"messages": messages}) == 4

    async def test_max_tokens_cuts_and_says_length(self, upstream):
        answer = (await whole(upstream, "reasoning(n=2,n_tokens=5)", max_completion_tokens=3)).json
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["choices"][0]["message"]["content"] == "tok0"
        assert answer["usage"]["completion_tokens"] == 3
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2

    @pytest.mark.parametrize("model, fields", [("ok(n_tokens=2)", {"n": 3}), ("two_choices(n=3,n_tokens=2)", {})])
    async def test_several_choices_take_turns_and_all_are_billed(self, upstream, model, fields):
        answer = (await whole(upstream, model, **fields)).json
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
        assert answer["usage"]["completion_tokens"] == 6
        chunks = (await streamed(upstream, model, **fields)).events[:-1]
        assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 2] * 4
        assert upstream.ledger[1].tokens_sent == 6

    async def test_echo_returns_the_body_byte_for_byte(self, upstream):
        body = chat("echo", stream=True, odd=" é\u2028", **WITH_USAGE)
        assert (await send(upstream, request(body))).text == json.dumps(body)

    async def test_fast_says_the_same_as_ok(self, upstream):
        fast, ok = await streamed(upstream, "fast"), await streamed(upstream, "ok(n_tokens=200)")
        assert fast.text == ok.text
        assert len(fast.chunks) < 10 < len(ok.chunks)
        assert upstream.ledger[0].tokens_sent == upstream.ledger[1].tokens_sent == 200

    async def test_a_name_that_is_no_mode_can_be_given_one(self, upstream):
        assert (await whole(upstream, "gpt-4o")).status == 404
        upstream.modes["gpt-4o"] = "e503"
        assert (await whole(upstream, "gpt-4o")).status == 503
        upstream.modes["gpt-4o"] = "ok"
        assert (await whole(upstream, "gpt-4o")).json["model"] == "gpt-4o"


class TestKindsOfContent:
    async def test_cached_tokens_are_part_of_the_prompt(self, upstream):
        usage = (await whole(upstream, "cached(n=2)")).json["usage"]
        assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (3, 2)

    async def test_reasoning_comes_first_and_counts(self, upstream):
        model = "reasoning(n=2,n_tokens=1,field=reasoning)"
        chunks = (await streamed(upstream, model, **WITH_USAGE)).events
        assert [c["choices"][0]["delta"] for c in chunks[1:4]] == [
            {"reasoning": "think0 "},
            {"reasoning": "think1 "},
            {"content": "tok0"},
        ]
        assert chunks[-2]["usage"]["completion_tokens"] == 3
        assert (await whole(upstream, model)).json["choices"][0]["message"]["reasoning"] == "think0 think1 "

    async def test_a_refusal_has_no_content(self, upstream):
        message = (await whole(upstream, "refusal(n_tokens=2)")).json["choices"][0]["message"]
        assert (message["content"], message["refusal"]) == (None, "tok0 tok1")

    async def test_parallel_tool_calls_stream_in_fragments_that_take_turns(self, upstream):
        chunks = (await streamed(upstream, "tools(n=2,n_tokens=4)")).events[:-1]
        calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks[1:-1]]
        assert [call["index"] for call in calls] == [0, 1, 0, 1, 0, 1]
        assert [set(call) for call in calls[:2]] == [{"index", "id", "type", "function"}] * 2
        assert [set(call["function"]) for call in calls[2:]] == [{"arguments"}] * 4
        joined = "".join(call["function"]["arguments"] for call in calls if call["index"] == 1)
        assert json.loads(joined) == {"text": " tok1 tok3"}
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        assert upstream.ledger[0].tokens_sent == 4

    @pytest.mark.parametrize("mode", ["tools", "tools_bad_deltas"])
    async def test_streamed_tool_calls_equal_the_whole_ones(self, upstream, mode):
        tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
        calls = (await whole(upstream, f"{mode}(n=3)", tools=tools)).json["choices"][0]["message"]["tool_calls"]
        chunks = (await streamed(upstream, f"{mode}(n=3)", tools=tools)).events[1:-2]
        deltas = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
        key = "index" if mode == "tools" else "id"
        joined: dict[Any, str] = {}
        for delta in deltas:
            joined[delta[key]] = joined.get(delta[key], "") + delta["function"]["arguments"]
        assert list(joined.values()) == [call["function"]["arguments"] for call in calls]
        assert {call["function"]["name"] for call in calls} == {"look_up"}

    async def test_bad_tool_deltas_repeat_everything_and_lack_the_index(self, upstream):
        chunks = (await streamed(upstream, "tools_bad_deltas(n_tokens=4)")).events[1:-2]
        calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
        assert all({"id", "type", "function"} == set(call) for call in calls)
        assert [call["function"]["name"] for call in calls] == ["tool0", "", "tool0", ""]

    async def test_each_chunk_may_carry_the_role(self, upstream):
        chunks = (await streamed(upstream, "role_each_chunk(n_tokens=2)")).events[:3]
        assert [chunk["choices"][0]["delta"]["role"] for chunk in chunks] == ["assistant"] * 3

    async def test_ids_repeat_only_when_told(self, upstream):
        for mode, different in (("ok", 2), ("dup_ids", 1)):
            answers = [await whole(upstream, mode), await whole(upstream, mode)]
            assert len({answer.json["id"] for answer in answers}) == different
            assert len({answer.headers("x-request-id")[0] for answer in answers}) == different

    async def test_another_finish_reason(self, upstream):
        model = "finish(reason=content_filter)"
        assert (await streamed(upstream, model)).events[-2]["choices"][0]["finish_reason"] == "content_filter"


class TestUsage:
    @pytest.mark.parametrize(
        "mode, expected",
        [("no_usage", "absent"), ("usage_null", None), ("usage_partial", {"prompt_tokens": 3})],
    )
    async def test_whole_and_streamed_usage_is_absent_null_or_partial(self, upstream, mode, expected):
        answer = (await whole(upstream, mode)).json
        assert answer.get("usage", "absent") == expected
        chunks = (await streamed(upstream, mode, **WITH_USAGE)).events[:-1]
        assert chunks[-1].get("usage", "absent") == expected
        assert [seen.usage for seen in upstream.ledger] == [None if expected == "absent" else expected] * 2

    @pytest.mark.parametrize("options", [{}, WITH_USAGE])
    async def test_usage_may_sit_in_the_finish_chunk(self, upstream, options):
        finish, done = (await streamed(upstream, "usage_in_last", **options)).events[-2:]
        assert finish["choices"][0]["finish_reason"] == "stop"
        assert finish["usage"]["completion_tokens"] == 10
        assert done == "[DONE]"

    async def test_usage_may_come_late(self, upstream):
        await streamed(upstream, "slow_usage(s=0.1)", **WITH_USAGE)
        seen = upstream.ledger[0]
        assert seen.t_finish_sent is not None
        assert seen.t_end is not None
        assert seen.t_end - seen.t_finish_sent > 0.09


class TestCuts:
    @pytest.mark.parametrize("k", [-1, 0, 1, 20])
    @pytest.mark.parametrize("mode", ["cut_clean", "cut_fin", "cut_rst", "truncated_json"])
    async def test_a_stream_is_cut_after_the_kth_token(self, upstream, mode, k):
        answer = await streamed(upstream, f"{mode}(k={k},s=0.02)" if mode != "truncated_json" else f"{mode}(k={k})")
        events = answer.events if mode != "truncated_json" else []
        assert answer.ended_properly == (mode == "cut_clean")
        assert answer.reset == (mode == "cut_rst")
        if mode == "truncated_json":
            assert not answer.stream.endswith(b"\n\n")
        else:
            assert len(events) == k + 1
            assert answer.text == " ".join(f"tok{index}" for index in range(k))
        seen = upstream.ledger[0]
        assert (seen.tokens_sent, seen.complete, seen.t_finish_sent) == (max(k, 0), False, None)
        assert not seen.peer_closed_early

    @pytest.mark.parametrize("k", [0, 1])
    @pytest.mark.parametrize("mode", ["cut_clean", "cut_fin", "cut_rst", "truncated_json"])
    async def test_a_whole_answer_is_cut_in_its_middle_or_before(self, upstream, mode, k):
        answer = await whole(upstream, f"{mode}(k={k})")
        promised = int(answer.headers("content-length")[0])
        assert (promised == len(answer.body)) == (mode == "cut_clean")
        assert bool(answer.body) == bool(k)
        assert answer.reset == (mode == "cut_rst")
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            assert answer.json
        assert not upstream.ledger[0].complete

    @pytest.mark.parametrize("k", [-1, 0, 3])
    async def test_an_error_event_ends_the_stream(self, upstream, k):
        answer = await streamed(upstream, f"sse_error(k={k},status=503)")
        assert answer.events[-1]["error"]["type"] == "service_unavailable"
        assert len(answer.events) == k + 2
        assert answer.ended_properly
        assert not upstream.ledger[0].complete
        assert (await whole(upstream, f"sse_error(k={k},status=503)")).status == 503

    async def test_finish_and_end_marker_may_be_missing(self, upstream):
        no_finish = (await streamed(upstream, "no_finish")).events
        assert no_finish[-1] == "[DONE]"
        assert no_finish[-2]["choices"][0]["delta"] == {"content": " tok9"}
        assert (await whole(upstream, "no_finish")).json["choices"][0]["finish_reason"] is None
        no_done = await send(upstream, request(chat("no_done", stream=True), close=False))
        assert no_done.events[-1]["choices"][0]["finish_reason"] == "stop"
        assert no_done.ended_properly

    async def test_a_client_that_hangs_up_on_the_last_byte_had_everything(self, upstream):
        for model in ("ok", "fast", "no_done"):
            reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
            writer.write(request(chat(model, stream=True), close=False))
            await reader.readuntil(b"\r\n0\r\n\r\n")
            writer.transport.abort()
            await upstream.until(lambda: upstream.open == 0)
        assert [(seen.complete, seen.peer_closed_early) for seen in upstream.ledger] == [(True, False)] * 3

    async def test_modes_join(self, upstream):
        answer = await streamed(upstream, "tools(n=2)-comment_pings-cut_clean(k=3)")
        assert answer.stream.count(b": ping\n\n") == 6
        assert answer.stream.count(b"tok") == 3
        assert (await streamed(upstream, "fast-cut_clean(k=3)")).text == "tok0 tok1 tok2"
        no_done = await streamed(upstream, "fast(n_tokens=2)-no_done")
        assert (no_done.text, no_done.ended_properly, b"[DONE]" in no_done.stream) == ("tok0 tok1", True, False)


async def first_bytes(upstream: FakeUpstream, model: str, until: int) -> bytes:
    """That many bytes of a stream that does not end by itself; then the client hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(request(chat(model, stream=True)))
    raw = b""
    try:
        async with asyncio.timeout(5):
            while len(raw) < until:
                raw += await reader.read(65536)
    finally:
        writer.transport.abort()
    await upstream.until(lambda: upstream.open == 0)
    return raw


class TestEnds:
    """Between the end marker and the end of the body there is a gap, and what happens in it differs."""

    @pytest.mark.parametrize("mode", ["ok", "late_end(s=0.02)", "fast", "chunked_whole"])
    async def test_the_end_of_the_body_comes_apart(self, upstream, mode):
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(request(chat(mode, stream=mode != "chunked_whole"), close=False))
        raw, packets = b"", []
        async with asyncio.timeout(5):
            while not raw.endswith(b"\r\n0\r\n\r\n"):
                packets.append(await reader.read(1 << 20))
                raw += packets[-1]
        writer.transport.abort()
        assert packets[-1] == b"0\r\n\r\n"
        assert upstream.ledger[0].complete

    async def test_the_end_of_the_body_may_never_come(self, upstream):
        whole_size = len((await streamed(upstream, "ok(tag=no_last_chunk)")).raw) - len(b"0\r\n\r\n")
        raw = await first_bytes(upstream, "no_last_chunk(tag=ok)", whole_size)
        assert raw.endswith(b"data: [DONE]\n\n\r\n")
        assert (upstream.ledger[1].complete, upstream.ledger[1].peer_closed_early) == (True, False)

    async def test_the_connection_may_break_behind_a_complete_answer(self, upstream):
        answer = await streamed(upstream, "rst_after")
        assert (answer.reset, answer.ended_properly) == (True, False)
        assert answer.events[-1] == "[DONE]"
        assert upstream.ledger[0].complete

    async def test_a_chunked_whole_answer_is_the_same_answer(self, upstream):
        answer = await whole(upstream, "chunked_whole")
        assert answer.headers("transfer-encoding") == ["chunked"]
        assert json.loads(answer.stream)["choices"][0]["message"]["content"].startswith("tok0 tok1")
        assert len(answer.chunks) == 3


class TestErrors:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 529])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_an_error_has_its_status_and_openais_body(self, upstream, status, stream):
        answer = await send(upstream, request(chat(f"e{status}", stream=stream)))
        assert answer.status == status
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}
        assert upstream.ledger[0].status == status
        assert upstream.ledger[0].complete

    async def test_retry_after_and_code_are_as_told(self, upstream):
        answer = await whole(upstream, "e429(retry_after=1.5,code=insufficient_quota)")
        assert answer.headers("retry-after") == ["1.5"]
        assert answer.json["error"]["code"] == answer.json["error"]["type"] == "insufficient_quota"
        assert (await whole(upstream, "e429")).headers("retry-after") == []

    async def test_errors_that_lie_about_themselves(self, upstream):
        context = await whole(upstream, "context_length")
        assert (context.status, context.json["error"]["code"]) == (400, "context_length_exceeded")
        in_200 = await whole(upstream, "json_in_200_error")
        assert (in_200.status, list(in_200.json)) == (200, ["error"])
        html = await whole(upstream, "html_502")
        assert (html.status, html.headers("content-type")) == (502, ["text/html"])
        empty = await streamed(upstream, "empty_200")
        assert (empty.status, empty.body) == (200, b"")
        broken = await whole(upstream, "bad_json_error")
        assert broken.headers("content-type") == ["application/json"]
        with pytest.raises(ValueError, match="Unterminated"):
            assert broken.json

    async def test_the_first_n_fail_counted_by_name_until_reset(self, upstream):
        for _ in range(2):
            statuses = [(await whole(upstream, "fail_first(n=2,status=503)")).status for _ in range(4)]
            assert statuses == [503, 503, 200, 200]
            upstream.reset()
        assert (await whole(upstream, "fail_first(n=1,tag=other)")).status == 500

    async def test_flapping_follows_its_seed(self, upstream):
        async def run(model: str) -> list[int]:
            upstream.reset()
            return [(await whole(upstream, model)).status for _ in range(20)]

        first = await run("flap(p=0.5,seed=1)")
        assert set(first) == {200, 500}
        assert await run("flap(p=0.5,seed=1)") == first
        assert await run("flap(p=0.5,seed=2)") != first
        assert set(await run("flap(p=1)")) == {200}
        assert set(await run("flap(p=0)")) == {500}

    def test_latencies_follow_their_percentiles(self):
        script = parse("latency(p50=0.1,p99=1)")
        delays = sorted(script.for_attempt(attempt).delay_s for attempt in range(1, 2001))
        assert 0.09 < delays[1000] < 0.11
        assert 0.7 < delays[1980] < 1.4

    @pytest.mark.parametrize("name", ["okay", "ok(x=1)", "ok(n_tokens=x)", "ok-", "", "ok(n_tokens=1", "ok()ok"])
    async def test_a_name_that_is_no_mode_is_404_and_says_so(self, upstream, name):
        with pytest.raises(UnknownMode):
            parse(name)
        assert (await whole(upstream, name)).status == 404

    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b"[]",
            b'{"model":"ok"}',
            b'{"model":"ok","messages":[1]}',
            b'{"model":"ok","messages":[{"content":1}]}',
        ],
    )
    async def test_a_body_that_openai_refuses_is_400(self, upstream, body):
        answer = await send(upstream, request({}).replace(b"Length: 2", b"Length: %d" % len(body))[:-2] + body)
        assert answer.status == 400

    async def test_stream_options_without_stream_are_400(self, upstream):
        assert (await whole(upstream, "ok", **WITH_USAGE)).status == 400


class TestHTTPFaults:
    async def test_no_answer_but_a_fin(self, upstream):
        assert (await whole(upstream, "close_before_request")).raw == b""
        assert (upstream.ledger[0].bytes_sent, upstream.ledger[0].complete) == (0, False)

    async def test_a_stale_connection_answers_once(self, upstream):
        data = request(chat("stale_keepalive"), close=False)
        answer = await send(upstream, data + data)
        assert answer.raw.count(b"HTTP/1.1 200") == 1
        assert [seen.complete for seen in upstream.ledger] == [True, False]

    async def test_half_of_the_head(self, upstream):
        answer = await whole(upstream, "half_headers")
        assert answer.raw.startswith(b"HTTP/1.1 200")
        assert b"\r\n\r\n" not in answer.raw

    async def test_slow_bytes_take_their_time(self, upstream):
        await whole(upstream, "slow_headers(s=0.001)")
        await whole(upstream, "slow_body(s=0.001)")
        head_slow, body_slow = upstream.ledger
        assert head_slow.bytes_sent == pytest.approx(body_slow.bytes_sent, abs=20)
        assert head_slow.t_end is not None
        assert head_slow.t_end - head_slow.t_recv > 0.2

    async def test_headers_may_be_huge_or_come_twice(self, upstream):
        huge = await whole(upstream, "huge_headers(kb=64,lines=4)")
        assert sum(len(huge.headers(f"x-padding-{line}")[0]) for line in range(4)) == 65536
        twice = await whole(upstream, "dup_headers")
        assert twice.headers("x-dup") == ["1", "2"]
        assert len(twice.headers("x-request-id")) == 2

    async def test_a_content_type_may_be_wrong(self, upstream):
        assert (await streamed(upstream, "wrong_ctype")).headers("content-type") == ["text/html"]
        answer = await whole(upstream, "wrong_ctype")
        assert (answer.headers("content-type"), answer.json["object"]) == (["text/html"], "chat.completion")

    async def test_interim_answers_come_first(self, upstream):
        answer = await whole(upstream, "100_continue(hints=1)")
        assert re.findall(rb"HTTP/1.1 (\d+)", answer.raw) == [b"100", b"103", b"200"]

    async def test_a_redirect_names_its_target_and_the_ledger_tells_who_followed(self, upstream):
        answer = await whole(upstream, "redirect")
        assert (answer.status, answer.headers("location")) == (302, ["http://here/v1/redirected/chat/completions"])
        assert (await whole(upstream, "redirect(to=metadata,status=307)")).headers("location") == [
            "http://169.254.169.254/latest/meta-data/"
        ]
        await send(upstream, b"GET /v1/redirected/chat/completions HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert [seen.path for seen in upstream.ledger] == [PATH, PATH, "/v1/redirected/chat/completions"]

    async def test_a_gzip_bomb_is_small_and_grows_into_a_valid_answer(self, upstream):
        answer = await whole(upstream, "gzip_bomb(mb=8)")
        assert answer.headers("content-encoding") == ["gzip"]
        assert len(answer.body) < 2**18
        plain = gzip.decompress(answer.body)
        assert len(plain) > 2**23
        assert json.loads(plain)["object"] == "chat.completion"
        events = gzip.decompress((await streamed(upstream, "gzip_bomb(mb=0)")).stream)
        assert events.endswith(b"\n\ndata: [DONE]\n\n")


class TestStreamsAsBytes:
    async def ok(self, upstream: FakeUpstream, mode: str) -> bytes:
        """The stream of `ok`, as if it were the answer of the request before and its model had been `mode`."""
        stream = (await streamed(upstream, "ok")).stream
        last = upstream.ledger[-1].seq
        return stream.replace(b"%08d" % last, b"%08d" % (last - 1)).replace(b'"ok"', b'"%b"' % mode.encode())

    async def test_every_byte_alone_makes_the_same_stream(self, upstream):
        answer = await streamed(upstream, "chunk_split")
        assert answer.stream == await self.ok(upstream, "chunk_split")
        assert upstream.ledger[0].bytes_sent == len(answer.raw)

    async def test_characters_are_cut_by_chunks(self, upstream):
        answer = await streamed(upstream, "utf8_split(n_tokens=2)")
        assert answer.text == "tok0é漢😀 tok1é漢😀"
        cut = [piece for piece in answer.chunks if piece and piece[-1] >= 0xC0]
        assert len(cut) == 6

    async def test_line_ends_may_be_crlf(self, upstream):
        answer = await streamed(upstream, "crlf_sse")
        assert answer.stream.replace(b"\r\n", b"\n") == await self.ok(upstream, "crlf_sse")
        assert answer.stream.count(b"\r\n") == answer.stream.count(b"\n")

    async def test_comments_stand_between_events(self, upstream):
        answer = await streamed(upstream, "comment_pings")
        assert answer.stream.replace(b": ping\n\n", b"") == await self.ok(upstream, "comment_pings")

    async def test_pings_may_be_events_with_a_name(self, upstream):
        answer = await streamed(upstream, "named_pings")
        ping = b'event: ping\ndata: {"type": "ping"}\n\n'
        assert answer.stream.count(ping) == answer.stream.count(b"data: ") / 2
        assert answer.stream.replace(ping, b"") == await self.ok(upstream, "named_pings")

    @pytest.mark.parametrize(("more", "ping"), [("", b": ping\n\n"), ("-named_pings", b"event: ping\n")])
    async def test_a_stalled_stream_may_go_on_pinging(self, upstream, more, ping):
        stalled = len((await streamed(upstream, f"cut_fin(k=2){more}")).raw)
        raw = await first_bytes(upstream, f"pinging_stall(k=2,s=0.01){more}", stalled + 200)
        assert raw[stalled - 50 :].count(ping) >= 3
        assert raw.count(b"tok") == 2

    async def test_a_flood_is_one_token_without_end(self, upstream):
        raw = await first_bytes(upstream, "flood", 5_000_000)
        assert raw.count(b"tok0") > 10_000
        assert b"tok1" not in raw
        assert upstream.ledger[0].peer_closed_early

    async def test_an_event_may_have_many_data_lines(self, upstream):
        answer = await streamed(upstream, "multi_data_lines")
        events = [
            json.loads(b"\n".join(line.removeprefix(b"data: ") for line in event.splitlines()))
            for event in answer.stream.split(b"\n\n")[:-2]
        ]
        assert answer.stream.split(b"\n\n")[0].count(b"data: ") > 5
        plain = await self.ok(upstream, "multi_data_lines")
        assert events == [json.loads(event[6:]) for event in plain.split(b"\n\n")[:-2]]

    async def test_a_byte_order_mark_comes_once(self, upstream):
        answer = await streamed(upstream, "bom")
        assert answer.stream == b"\xef\xbb\xbf" + await self.ok(upstream, "bom")
        assert (await whole(upstream, "bom")).body.startswith(b"\xef\xbb\xbf{")

    async def test_a_giant_line_does_not_end(self, upstream):
        answer = await streamed(upstream, "giant_line(mb=1)")
        assert answer.ended_properly
        giant = answer.stream.split(b"\n")[-1]
        assert len(giant) > 2**20
        assert len((await whole(upstream, "giant_line(mb=1)")).json["choices"][0]["message"]["content"]) == 2**20


HANGING = [
    ("blackhole", False),
    ("ok(delay=60)", True),
    ("slow_ttft(s=60)", True),
    ("slow_ttft(s=60)", False),
    ("delay_whole(s=60)", False),
    ("stall_after(k=-1)", True),
    ("stall_after(k=3)", True),
    ("stall_after(k=3)", False),
    ("ok(pace=60)", True),
    ("slow_usage(s=60)", True),
    ("slow_headers(s=60)", True),
    ("slow_body(s=60)", False),
    ("fast(n_tokens=200000)", True),  # the client does not read
]


class TestLedger:
    @pytest.mark.parametrize("abort", [True, False])
    @pytest.mark.parametrize("model, stream", HANGING)
    async def test_a_peer_that_hangs_up_is_seen_at_once_in_every_phase(self, upstream, model, stream, abort):
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(request(chat(model, stream=stream)))
        silent = model.startswith(("blackhole", "delay", "ok(delay")) or (model.startswith("slow_ttft") and not stream)
        await upstream.until(lambda: upstream.open == 1 and (silent or upstream.ledger[0].bytes_sent > 0))
        closed, waited = time.monotonic(), waited_s()
        if abort:
            writer.transport.abort()
        else:
            reader.feed_eof()
            writer.close()
        await upstream.until(lambda: upstream.open == 0)
        seen = upstream.ledger[0]
        assert seen.t_peer_close is not None
        assert seen.t_peer_close - closed - (waited_s() - waited) < 0.1
        assert seen.peer_closed_early
        assert not seen.complete
        await upstream.until(lambda: not upstream.connections)

    async def test_it_keeps_ids_and_headers_but_no_key(self, upstream):
        key = "sk-very-secret"
        headers = ("X-Client-Request-Id: att_1", f"Authorization: Bearer {key}", "X-Odd: a", "x-odd: b")
        await send(upstream, request(chat("ok", stream=True), *headers))
        await send(upstream, request(chat("ok"), f"api-key: {key}"))
        first, second = upstream.ledger
        assert (first.id, first.model, first.stream, first.attempt, first.path) == ("att_1", "ok", True, 1, PATH)
        assert (second.id, second.stream, second.attempt) == (None, False, 2)
        assert first.authorization == second.authorization == key_hash(key)
        assert first.headers["x-odd"] == "a, b"
        report = await send(upstream, b"GET /__ledger?id=att_1 HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert [seen["id"] for seen in report.json["attempts"]] == ["att_1"]
        assert key.encode() not in report.raw

    async def test_its_times_are_in_order_and_its_bytes_exact(self, upstream):
        answer = await streamed(upstream, "ok(pace=0.005)")
        seen = upstream.ledger[0]
        times = [seen.t_recv, seen.t_first_byte, seen.t_finish_sent, seen.t_end]
        assert times == sorted(times, key=lambda t: t or 0.0)
        assert seen.t_peer_close is None
        assert seen.bytes_sent == len(answer.raw)

    async def test_a_slow_reader_holds_the_stream_back(self, upstream):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", upstream.port))
            client.send(request(chat("fast(n_tokens=100000)", stream=True)))
            await upstream.until(lambda: bool(upstream.ledger) and upstream.ledger[0].bytes_sent > 100_000)
            connection = next(iter(upstream.connections))
            await upstream.until(lambda: connection.held_back)
            assert upstream.ledger[0].bytes_sent < 15_000_000
            assert upstream.ledger[0].tokens_sent < 100_000

    async def test_unknown_paths_are_attempts_and_lists_of_models_are_not(self, upstream):
        assert (await send(upstream, request({}, path="/v1/nothing"))).status == 404
        models = await send(upstream, b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert "stall_after" in [model["id"] for model in models.json["data"]]
        assert (await send(upstream, b"GET /v1/models/x HTTP/1.1\r\nConnection: close\r\n\r\n")).status == 404
        assert [seen.path for seen in upstream.ledger] == ["/v1/nothing"]


class TestConnections:
    async def test_requests_share_a_connection_one_after_the_other(self, upstream):
        data = request(chat("ok(n_tokens=1)"), close=False)
        answer = await send(upstream, data * 2 + request(chat("ok", stream=True)))
        assert answer.raw.count(b"HTTP/1.1 200") == 3
        assert [seen.connection for seen in upstream.ledger] == [1, 1, 1]
        assert all(seen.complete for seen in upstream.ledger)

    async def test_bodies_may_come_in_chunks_and_any_pieces(self):
        sized = request(chat("ok"))
        body = sized.partition(b"\r\n\r\n")[2]
        chunked = b"POST /x?id=a%20b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunked += b"5;ext=1\r\n" + body[:5] + b"\r\n%x\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n"
        for size in (1, 7, 10_000):
            parser, found = RequestParser(), []
            data = sized + chunked + b"GET / HTTP/1.1\r\n\r\n"
            for start in range(0, len(data), size):
                parser.feed(data[start : start + size])
                while (each := parser.next()) is not None:
                    found.append(each)
            assert [(each.method, each.path, each.body) for each in found] == [
                ("POST", PATH, body),
                ("POST", "/x", body),
                ("GET", "/", b""),
            ]
            assert found[1].query == {"id": "a b"}

    async def test_a_client_that_waits_for_continue_gets_it(self, upstream):
        head, _, body = request(chat("ok"), "Expect: 100-continue").partition(b"\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await read_to_end(reader)).status == 200
        writer.close()

    async def test_what_is_not_http_is_refused(self, upstream):
        assert (await send(upstream, b"hello\r\n\r\n")).status == 400

    async def test_a_refusing_port_refuses(self):
        with refusing() as url, pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))


class TestUnmodifiedSDK:
    @pytest.fixture
    async def sdk(self, upstream: FakeUpstream) -> AsyncIterator[openai.AsyncOpenAI]:
        async with openai.AsyncOpenAI(base_url=upstream.url, api_key="sk-test", max_retries=0) as client:
            yield client

    async def test_whole_and_streamed_answers(self, sdk):
        messages = [{"role": "user", "content": "one two"}]
        answer = await sdk.chat.completions.create(model="reasoning(n=2)", messages=messages)
        assert answer.choices[0].message.content == " ".join(f"tok{index}" for index in range(10))
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 12)
        async with sdk.chat.completions.stream(model="reasoning(n=2)", messages=messages) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == answer.choices[0].message.content

    async def test_tool_calls_accumulate(self, sdk):
        messages = [{"role": "user", "content": "hi"}]
        async with sdk.chat.completions.stream(model="tools(n=2)", messages=messages) as stream:
            final = await stream.get_final_completion()
        calls = final.choices[0].message.tool_calls
        assert [json.loads(call.function.arguments) for call in calls] == [
            {"text": "tok0 tok2 tok4 tok6 tok8"},
            {"text": " tok1 tok3 tok5 tok7 tok9"},
        ]

    async def test_errors_are_raised_before_and_inside_a_stream(self, sdk):
        messages = [{"role": "user", "content": "hi"}]
        with pytest.raises(openai.RateLimitError) as limited:
            await sdk.chat.completions.create(model="e429(retry_after=1)", messages=messages)
        assert limited.value.code == "rate_limit_exceeded"
        chunks = []
        with pytest.raises(openai.APIError):
            async for chunk in await sdk.chat.completions.create(
                model="sse_error(k=2)", messages=messages, stream=True
            ):
                chunks.append(chunk)
        assert len(chunks) == 3

    @pytest.mark.parametrize("mode", ["crlf_sse", "comment_pings", "multi_data_lines", "chunk_split", "utf8_split"])
    async def test_legal_oddities_read_well(self, sdk, mode):
        messages = [{"role": "user", "content": "hi"}]
        stream = await sdk.chat.completions.create(model=f"{mode}(n_tokens=3)", messages=messages, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert re.fullmatch(r"tok0[^ ]* tok1[^ ]* tok2[^ ]*", text)

    async def test_it_lists_models(self, sdk):
        assert {model.id async for model in sdk.models.list()} == set(MODES)
        assert (await sdk.models.retrieve("ok(n_tokens=3)")).id == "ok(n_tokens=3)"


class TestOwnProcess:
    def test_it_serves_resets_and_ends_with_sigterm(self):
        with spawn() as upstream:
            sdk = openai.OpenAI(base_url=upstream.url, api_key="sk-test", max_retries=0)
            with sdk:
                sdk.chat.completions.create(model="ok", messages=[{"role": "user", "content": "hi"}])
                upstream.set_modes({"gpt-4o": "e503"})
                with pytest.raises(openai.InternalServerError):
                    sdk.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
            first, second = upstream.ledger()
            assert (first.model, first.complete, second.status) == ("ok", True, 503)
            assert upstream.open() == 0
            upstream.reset()
            assert upstream.ledger() == []
            upstream.process.send_signal(signal.SIGTERM)
            assert upstream.process.wait(5) == 0

    def test_it_ends_when_its_stdin_closes(self):
        with spawn() as upstream:
            assert upstream.process.stdin is not None
            upstream.process.stdin.close()
            assert upstream.process.wait(5) == 0

    def test_it_cuts_and_sees_cuts_there_too(self):
        with spawn() as upstream:
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", upstream.port)) as client:
                    client.sendall(request(chat("ok", stream=True), close=False))
                    received = b""
                    while not received.endswith(b"\r\n0\r\n\r\n"):
                        received += client.recv(65536)
            assert all(seen.complete for seen in upstream.ledger())
            upstream.reset()
            for model, error in (("cut_rst(k=2)", ConnectionResetError), ("stall_after(k=2)", TimeoutError)):
                with socket.create_connection(("127.0.0.1", upstream.port), timeout=0.3) as client:
                    client.sendall(request(chat(model, stream=True)))
                    with pytest.raises(error):
                        while client.recv(65536):
                            pass
            closed = time.monotonic()
            while upstream.open():
                assert time.monotonic() - closed < 1
            cut, stalled = upstream.ledger()
            assert (cut.tokens_sent, cut.t_peer_close, cut.peer_closed_early) == (2, None, False)
            assert (stalled.tokens_sent, stalled.peer_closed_early) == (2, True)
            assert stalled.t_peer_close is not None
            assert abs(stalled.t_peer_close - closed) < 0.1


class TestTable:
    """The table of modes in the package's docstring is what there is."""

    def test_it_names_every_mode_with_its_arguments(self):
        table = (package.__doc__ or "").split("What is said:")[1]
        rows = re.findall(r"^    ([a-z0-9_]+)(?:\(([^)]*)\))?(?:\s|$)", table, re.MULTILINE)
        listed = {name for name, _ in rows} | {f"e{status}" for status in re.findall(r"\b([45]\d\d)\b", table)}
        assert listed == set(MODES)
        for name, arguments in rows:
            assert parse(f"{name}({arguments})" if name != "e429" else name) == parse(name)

    @pytest.mark.sampled(4)
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("mode", sorted(set(MODES) - set(ENDLESS)))
    async def test_every_mode_ends_without_a_failure_of_the_fake_itself(self, upstream, mode, stream):
        quick = {"slow_ttft": "s=0", "delay_whole": "s=0", "slow_usage": "s=0", "latency": "p50=0.001,p99=0.002"}
        quick |= {"giant_line": "mb=0.1", "gzip_bomb": "mb=1"}
        options = WITH_USAGE if stream else {}
        answer = await send(upstream, request(chat(f"{mode}({quick.get(mode, '')})", stream=stream, **options)))
        assert (answer.raw == b"") == (mode == "close_before_request")
        await upstream.until(lambda: upstream.open == 0)
        assert not upstream.ledger[0].peer_closed_early
