"""The first bytes of an answer decide how it is read, not its content type, nor what was asked for."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.books import rows
from tests.providers.test_streams_property import WRITERS
from tests.server.api.raw import chat, post
from tests.server.api.test_odd_answers import SAID, answer, before
from tests.upstream.wire import Said

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = ["openai", "anthropic", "google", "cohere", "perplexity", "groq"]
SPOKEN = Said(tokens=["hello ", "there"])


def http(body: bytes, kind: str | None, status: int = 200, **headers: str) -> bytes:
    named = {"content-type": kind, "content-length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""]).encode() + body


async def both(folder: Path, kind: str, answers: list[bytes]) -> None:
    """Each answer to either request: the same text, bought once and metered."""
    served = answers[:1]
    async with before(folder, kind, lambda: served[0]) as server:
        for served[0] in answers:
            whole = await post(server.port, chat("odd/m"))
            streamed = await post(server.port, chat("odd/m", stream=True, stream_options={"include_usage": True}))
            assert whole.status == streamed.status == 200, (whole.body, streamed.body)
            choice = whole.json["choices"][0]
            assert (choice["message"]["content"], choice["finish_reason"]) == (SAID, "stop")
            *events, usage, done = streamed.events
            said = "".join(each["choices"][0]["delta"].get("content") or "" for each in events)
            assert (said, events[-1]["choices"][0]["finish_reason"], done) == (SAID, "stop", "[DONE]")
            assert usage["usage"]["completion_tokens"] == whole.json["usage"]["completion_tokens"] > 0
    assert [row["attempts"] for row in rows(folder, "calls")] == [1, 1] * len(answers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(3)
async def test_a_stream_is_read_for_either_request(tmp_path: Path, kind: str):
    """Under any content type, or none."""
    kinds = ("text/event-stream", "application/json", "text/plain; charset=utf-8", "text/html", None)
    await both(tmp_path, kind, [http(WRITERS[kind](SPOKEN, []), each) for each in kinds])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(3)
async def test_a_whole_answer_is_read_for_either_request(tmp_path: Path, kind: str):
    """Printed on several lines, after a byte order mark, or as an event stream without events."""
    body = json.dumps(answer(kind, 2), indent=1).encode()
    answers = [http(body, "application/json"), http(b"\xef\xbb\xbf" + body, "text/plain")]
    await both(tmp_path, kind, [*answers, http(b" \n" + body, "text/event-stream")])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(3)
async def test_gzip_that_no_header_names_is_read_for_either_request(tmp_path: Path, kind: str):
    """Its first bytes show it. An error keeps its meaning; a bomb and a broken answer are errors."""
    stream, body = gzip.compress(WRITERS[kind](SPOKEN, [])), gzip.compress(json.dumps(answer(kind, 2)).encode())
    await both(tmp_path, kind, [http(stream, "text/event-stream"), http(body, "application/json")])
    served = [b""]
    async with before(tmp_path, kind, lambda: served[0]) as server:
        for sent, status, said in (
            (
                http(gzip.compress(b'{"error":{"message":"bad key","code":"x"}}'), "application/json", 401),
                401,
                "bad key",
            ),
            (http(gzip.compress(bytes(20_000_000)), "application/json"), 502, "compressed answer of more than"),
            (http(body[:9] + b"\xff\xff\xff" + body[12:], None), 502, "compressed answer that is broken"),
        ):
            served[0] = sent
            for has_stream in (False, True):
                got = await post(server.port, chat("odd/m", stream=has_stream))
                assert (got.status, said in got.error()["message"]) == (status, True), got.body


OWN = [  # a vendor's own dialect at its own vendor, where bytes pass as they came; the writer of its streams
    ("anthropic", "anthropic", "/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}),
    ("openai, api: by_model", "perplexity", "/v1/responses", {"input": "hi"}),
]


def told(answer: Any) -> str:
    """The text of a message or a response."""
    blocks = answer["content"] if "content" in answer else answer["output"][-1]["content"]
    return "".join(block["text"] for block in blocks)


def streamed(body: bytes) -> tuple[str, str]:
    """The text of a stream of named events, and the name of the last one."""
    events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
    deltas = [each["delta"] for each in events if each["type"].endswith("delta") and "stop_reason" not in str(each)]
    return "".join(delta if isinstance(delta, str) else delta["text"] for delta in deltas), events[-1]["type"]


@pytest.mark.parametrize(("kind", "wire", "path", "asked"), OWN, ids=[path for _, _, path, _ in OWN])
async def test_bytes_pass_only_in_the_form_that_was_asked_for(
    tmp_path: Path, kind: str, wire: str, path: str, asked: dict[str, Any]
):
    """A stream for a whole request, and a whole answer for a stream, are translated like those of other vendors."""
    stream, body = WRITERS[wire](SPOKEN, []), json.dumps(answer(wire, 2)).encode()
    end = "message_stop" if wire == "anthropic" else "response.completed"
    served = [b""]
    async with before(tmp_path, kind, lambda: served[0]) as server:
        for sent in (stream, body, b"\xef\xbb\xbf" + body):
            served[0] = http(sent, "application/json")
            one = await post(server.port, json.dumps({**asked, "model": "odd/m"}).encode(), path)
            other = await post(server.port, json.dumps({**asked, "model": "odd/m", "stream": True}).encode(), path)
            assert one.status == other.status == 200, (one.body, other.body)
            assert (told(one.json), streamed(other.body)) == (SAID, (SAID, end))
    assert [row["attempts"] for row in rows(tmp_path, "calls")] == [1] * 6


@pytest.mark.parametrize(("kind", "wire", "path", "asked"), OWN, ids=[path for _, _, path, _ in OWN])
@pytest.mark.slow
async def test_a_stream_that_breaks_off_after_its_finish_is_ended(
    tmp_path: Path, kind: str, wire: str, path: str, asked: dict[str, Any]
):
    """Wherever that is in its last event: the client reads the whole answer, or an error, and no half of an event."""
    stream = WRITERS[wire](SPOKEN, [])
    end = b"message_stop" if wire == "anthropic" else b"response.completed"
    ends, served = set(), [b""]
    async with before(tmp_path, kind, lambda: served[0]) as server:
        for cut in range(stream.rindex(b"\n\n", 0, stream.rindex(end)), len(stream)):
            served[0] = http(stream[:cut], "text/event-stream")
            got = await post(server.port, json.dumps({**asked, "model": "odd/m", "stream": True}).encode(), path)
            assert got.body.endswith(b"\n\n")
            ends.add(streamed(got.body)[1])
    assert ends == ({"message_stop"} if wire == "anthropic" else {"response.completed", "error"})


async def test_lines_of_json_are_events(tmp_path: Path):
    """Without `data:` and without blank lines."""
    deltas: list[dict[str, Any]] = [{"content": "hello "}, {"content": "there"}, {}]
    lines = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]} for delta in deltas
    ]
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    async with before(tmp_path, "openai", lambda: http(body, "application/x-ndjson")) as server:
        streamed = await post(server.port, chat("odd/m", stream=True))
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in streamed.events[:-1]) == SAID


def bare(data: bytes) -> bytes:
    press = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return press.compress(data) + press.flush()


@pytest.mark.parametrize(
    ("encoding", "press"),
    [
        *((encoding, bytes) for encoding in ("gzip", "deflate", "utf-8", "none", "aws-chunked", "identity, gzip")),
        ("deflate", bare),
        ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
        ("gzip, gzip", gzip.compress),
        ("identity, GZIP", gzip.compress),
        ("deflate", gzip.compress),
        ("gzip", zlib.compress),
    ],
)
@pytest.mark.slow
async def test_the_first_bytes_tell_how_an_answer_is_compressed(
    tmp_path: Path, encoding: str, press: Callable[[bytes], bytes]
):
    """Not its header: some servers compress without a header of zlib, not at all, or twice."""
    body = press(json.dumps(answer("openai", 2)).encode())
    await both(tmp_path, "openai", [http(body, "application/json", content_encoding=encoding)])
    stream = b"data: " + json.dumps({"choices": [{"delta": {"content": SAID}, "finish_reason": "stop"}]}).encode()
    folder = tmp_path / "streamed"
    folder.mkdir()
    data = http(press(stream + b"\n\ndata: [DONE]\n\n"), "text/event-stream", content_encoding=encoding)
    async with before(folder, "openai", lambda: data) as server:
        got = await post(server.port, chat("odd/m", stream=True))
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in got.events[:-1]) == SAID


@pytest.mark.parametrize("kind", ["openai", "google"])
async def test_a_list_of_events_is_a_stream(tmp_path: Path, kind: str):
    """Indented or not, in both forms of the answer."""
    events: list[dict[str, Any]]
    if kind == "google":
        events = [{"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in ("hello ", "there")]
        events[-1]["candidates"][0]["finishReason"] = "STOP"
    else:
        events = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("hello ", "there")]
        events[-1]["choices"][0]["finish_reason"] = "stop"
    body = json.dumps(events, indent=1).encode()
    async with before(tmp_path, kind, lambda: http(body, "application/json")) as server:
        got = await post(server.port, chat("odd/m"))
        assert got.json["choices"][0]["message"]["content"] == SAID
        got = await post(server.port, chat("odd/m", stream=True))
        assert "".join(each["choices"][0]["delta"].get("content") or "" for each in got.events[:-1]) == SAID
        assert got.events[-2]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
@pytest.mark.slow
async def test_a_compressed_answer_is_read_though_none_was_asked_for(tmp_path: Path, encoding: str):
    """The words of an error too."""
    pressed = gzip.compress if "gzip" in encoding else zlib.compress
    body = json.dumps(answer("openai", 2)).encode()
    await both(tmp_path, "openai", [http(pressed(body), "application/json", content_encoding=encoding)])
    refusal = pressed(json.dumps({"error": {"message": "too large: 9", "code": "x", "param": "max_tokens"}}).encode())
    folder = tmp_path / "refused"
    folder.mkdir()
    async with before(
        folder, "openai", lambda: http(refusal, "application/json", 400, content_encoding=encoding)
    ) as it:
        for stream in (False, True):
            refused = await post(it.port, chat("odd/m", stream=stream))
            assert (refused.status, refused.error()["message"], refused.error()["param"]) == (
                400,
                "too large: 9",
                "max_tokens",
            )


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [
        (b"<html>busy</html>", None, "upstream_error"),
        (b"", None, "upstream_truncated"),
        (b'{"choices": [', None, "upstream_truncated"),
        (b'{"error": {"message": "busy", "code": 503}}', None, None),
        (b"not gzip", "gzip", "upstream_error"),
        (gzip.compress(json.dumps(answer("openai", 2)).encode(), mtime=0)[:60], "gzip", "upstream_truncated"),
        (gzip.compress(b" " * 20_000_000, mtime=0), "gzip", "upstream_error"),
        (b"x", "br", "upstream_error"),
    ],
)
@pytest.mark.sampled(4)
async def test_what_is_neither_is_an_honest_error(tmp_path: Path, body: bytes, encoding: str | None, code: str | None):
    """One try, one row, nothing of a page in it."""
    headers: Any = {} if encoding is None else {"content_encoding": encoding}
    async with before(tmp_path, "openai", lambda: http(body, "text/plain", **headers)) as server:
        for stream in (False, True):
            answered = await post(server.port, chat("odd/m", stream=stream))
            assert answered.status in (502, 503)
            assert code is None or answered.error()["code"] == code
            assert "html" not in answered.error()["message"]
    assert len(rows(tmp_path, "attempts")) == 2
