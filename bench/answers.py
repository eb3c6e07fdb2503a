"""Translates: the canned answers of the bench's upstream, and whether a client received all of one."""

from __future__ import annotations

import json
from typing import Any

EVENTS = 200
_WRITE_BYTES = 16384
_TOKENS = 80  # of a whole answer, which then has 1 kB
_WHOLE_TEXT = " ".join(f"token-{number:03}" for number in range(_TOKENS))
_TEXTS = [f"tok{number} " for number in range(EVENTS)]
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%s\r\n\r\n"
STREAM_HEAD = _HEAD % (b"text/event-stream; charset=utf-8", b"transfer-encoding: chunked")
LAST_CHUNK = b"0\r\n\r\n"
_STREAMED_TEXT = "".join(_TEXTS)
_CONTENT = b'"content":"tok'
DONE = b"data: [DONE]\n\n"


class WrongAnswer(Exception):
    """An answer that is not a complete 200: a figure made of it would be worth nothing."""


def writes(model: str) -> list[bytes]:
    """The bytes of an answer, one item for each write: `whole`, `few` (16 KiB each), `each` (one event each) or
    `claude` (Anthropic's events, 16 KiB each).

    The last chunk of a stream leaves on its own, as real servers send it. Raises KeyError for another name.
    """
    return {"whole": _whole, "few": _few, "each": _each, "claude": _claude}[model]()


def check_whole(body: bytes) -> None:
    """Raises WrongAnswer unless `body` is the whole answer."""
    try:
        choice = json.loads(body)["choices"][0]
        said = choice["message"]["content"], choice["finish_reason"]
    except (ValueError, LookupError, TypeError):
        raise WrongAnswer(_start(body)) from None
    if said != (_WHOLE_TEXT, "stop"):
        raise WrongAnswer(_start(body))


def looks_whole(body: bytes) -> bool:
    """A cheap check of an answer like one that `check_whole` has seen."""
    return b'"finish_reason":"stop"' in body and b"token-079" in body


def check_stream(body: bytes) -> None:
    """Raises WrongAnswer unless `body`, chunked as it came, holds every event of the stream."""
    try:
        text = dechunked(body)
        said, finish = "", None
        events = [line.removeprefix(b"data: ") for line in text.splitlines() if line.startswith(b"data: ")]
        for event in events[:-1]:
            for choice in json.loads(event)["choices"]:
                said += choice["delta"].get("content") or ""
                finish = choice.get("finish_reason") or finish
    except (ValueError, LookupError, TypeError, AttributeError):
        raise WrongAnswer(_start(body)) from None
    if (said, finish, events[-1:]) != (_STREAMED_TEXT, "stop", [b"[DONE]"]):
        raise WrongAnswer(f"{len(events)} events, {_start(body)}")


def looks_streamed(body: bytes) -> bool:
    """A cheap check of an answer like one that `check_stream` has seen. May be false for a complete answer."""
    return body.count(_CONTENT) == EVENTS and DONE in body[-200:]


def dechunked(body: bytes) -> bytes:
    """The content of a chunked body. Raises ValueError if it breaks off."""
    found: list[bytes] = []
    start = 0
    while True:
        end = body.index(b"\r\n", start)
        size = int(body[start:end], 16)
        if size == 0:
            return b"".join(found)
        found.append(body[end + 2 : end + 2 + size])
        start = end + 2 + size + 2


def chunk(piece: bytes) -> bytes:
    """`piece` as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %s\n\n" % _encode(_common("chat.completion.chunk", choices=[choice]))


def usage_event(tokens: int) -> bytes:
    """The event of a stream that tells its tokens."""
    usage = {"prompt_tokens": 60, "completion_tokens": tokens, "total_tokens": 60 + tokens}
    return b"data: %s\n\n" % _encode({**_common("chat.completion.chunk", choices=[]), "usage": usage})


def _whole() -> list[bytes]:
    message = {"role": "assistant", "content": _WHOLE_TEXT, "refusal": None}
    usage = {"prompt_tokens": 60, "completion_tokens": _TOKENS, "total_tokens": 60 + _TOKENS}
    answer = _common("chat.completion", choices=[{"index": 0, "message": message, "finish_reason": "stop"}])
    body = _encode({**answer, "usage": usage})
    return [_HEAD % (b"application/json", b"content-length: %d" % len(body)) + body]


def _few() -> list[bytes]:
    return _in_pieces(b"".join(_events()))


def _in_pieces(body: bytes) -> list[bytes]:
    pieces = [body[start : start + _WRITE_BYTES] for start in range(0, len(body), _WRITE_BYTES)]
    return _chunked(pieces)


def _each() -> list[bytes]:
    return _chunked(_events())


def _claude() -> list[bytes]:
    """The same text in Anthropic's events, with a finish and usage."""
    usage = {"input_tokens": 60, "output_tokens": 1}
    message = {"id": "msg_bench", "type": "message", "role": "assistant", "model": "claude", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    ]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in _TEXTS
    ]
    finish = {"stop_reason": "end_turn", "stop_sequence": None}
    events += [
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": finish, "usage": {"output_tokens": EVENTS}},
        {"type": "message_stop"},
    ]
    return _in_pieces(
        b"".join(b"event: %s\ndata: %s\n\n" % (event["type"].encode(), _encode(event)) for event in events)
    )


def _chunked(pieces: list[bytes]) -> list[bytes]:
    return [STREAM_HEAD, *map(chunk, pieces), LAST_CHUNK]


def _events() -> list[bytes]:
    """A role, 200 tokens, the finish, usage, which both gateways ask for, and the end marker."""
    said = [event({"role": "assistant", "content": ""}), *(event({"content": text}) for text in _TEXTS)]
    return [*said, event({}, "stop"), usage_event(EVENTS), DONE]


def _common(kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1, "model": "bench", "choices": choices}


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _start(body: bytes) -> str:
    return body[:500].decode(errors="replace")
