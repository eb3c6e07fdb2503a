"""Translates: `/v1/completions` of OpenAI-shaped servers (shapes: the `openai` package 3.57, and vLLM's).

The text is that of the mode. `echo` puts the prompt before it, `suffix` behind it; `logprobs` gives each token -0.5,
and the first token of a repeated prompt none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tests.upstream.http1 import Request
from tests.upstream.modes import Script
from tests.upstream.openai_wire import OpenAIWire
from tests.upstream.spoken import words
from tests.upstream.wire import Ask, Frame, Refused

_encode = msgspec.json.Encoder().encode


class CompletionsWire(OpenAIWire):
    """Errors and headers are OpenAI's."""

    def claims(self, path: str) -> bool:
        return path.endswith("/completions") and not path.endswith("/chat/completions")

    def lookup(self, request: Request) -> tuple[int, bytes] | None:
        return None

    def ask(self, request: Request, seq: int) -> Ask:
        body: dict[str, Any] = msgspec.json.decode(request.body)
        if "messages" in body or not body.get("prompt"):
            raise Refused(400, self.error(400, "invalid_value", ""))
        return Ask(body["model"], body.get("stream") is True, body, request.body, seq)

    def frames(self, ask: Ask, script: Script) -> Iterator[Frame]:
        pieces, usage = _said(ask, script), _usage(ask, script)
        for index in range(ask.body.get("n") or 1):
            for place, piece in enumerate(pieces):
                yield Frame(_event(ask, index, piece, None, _logprobs(ask, [piece], place == 0)), 1)
            yield Frame(_event(ask, index, "", "stop"), finish=True)
        if (ask.body.get("stream_options") or {}).get("include_usage"):
            yield Frame(b"data: " + _encode({**_head(ask), "choices": [], "usage": usage}) + b"\n\n", usage=usage)
        if not script.no_end:
            yield Frame(b"data: [DONE]\n\n", end=True)

    def whole(self, ask: Ask, script: Script) -> Frame:
        pieces, usage = _said(ask, script), _usage(ask, script)
        choices = [
            {
                "index": index,
                "text": "".join(pieces),
                "logprobs": _logprobs(ask, pieces, True),
                "finish_reason": "stop",
            }
            for index in range(ask.body.get("n") or 1)
        ]
        return Frame(_encode({**_head(ask), "choices": choices, "usage": usage}), 1, True, True, usage)


def _said(ask: Ask, script: Script) -> list[str]:
    prompt, suffix = ask.body["prompt"], ask.body.get("suffix")
    told = prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    before = [told + " "] if ask.body.get("echo") else []
    return [*before, *words(ask.raw, script, ask.body.get("max_tokens")).tokens, *([suffix] if suffix else [])]


def _usage(ask: Ask, script: Script) -> dict[str, Any]:
    prompt = ask.body["prompt"]
    read = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
    written = len(words(ask.raw, script, ask.body.get("max_tokens")).tokens) * (ask.body.get("n") or 1)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _logprobs(ask: Ask, pieces: list[str], is_first: bool) -> dict[str, Any] | None:
    if ask.body.get("logprobs") is None:
        return None
    numbers = [None if ask.body.get("echo") and is_first and not place else -0.5 for place in range(len(pieces))]
    tops = [None if number is None else {piece: number} for piece, number in zip(pieces, numbers, strict=True)]
    return {"tokens": pieces, "token_logprobs": numbers, "top_logprobs": tops, "text_offset": [0] * len(pieces)}


def _event(ask: Ask, index: int, text: str, reason: str | None, logprobs: dict[str, Any] | None = None) -> bytes:
    choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
    return b"data: " + _encode({**_head(ask), "choices": [choice]}) + b"\n\n"


def _head(ask: Ask) -> dict[str, Any]:
    return {"id": f"cmpl-{ask.seq:08d}", "object": "text_completion", "created": 1_700_000_000, "model": ask.model}
