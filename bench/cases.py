"""Translates: the kinds of requests that are measured, and the body of each."""

from __future__ import annotations

import base64
import json
from typing import Any

from msgspec import Struct

_QUESTION = "one two three " * 20
_LONG = "Some of a long text. " * 4_900  # 100 kB
_PICTURE_BYTES = 5_000_000
NUMBER = b"0000000"  # in a question: the load puts another one into each request
_HINT_QUESTION = (
    "Write a function that adds two numbers and returns their sum. " * 4 + f"Call it add_{NUMBER.decode()}."
)


class Case(Struct, frozen=True):
    """One kind of request. `model`: its name at the upstream; `requests` make one round, on so many `connections`.

    `ours`: what only this product is asked for, in place of that model. `group`: cases whose trials take turns with
    each other, so that they can be compared. `content`: of the message. `paced`: streams in real time, begun one after
    the other over `spread_s`; `once`: in one round only.
    """

    name: str
    model: str
    stream: bool
    requests: int
    connections: int = 32
    ours: str = ""
    group: str = ""
    content: str = "question"
    paced: bool = False
    spread_s: float = 1.0
    once: bool = False

    def body(self, model: str) -> bytes:
        """A request for `model`."""
        fields: dict[str, Any] = {
            "model": model,
            "stream": self.stream,
            "messages": [{"role": "user", "content": _content(self)}],
        }
        if self.model == "claude":
            fields["max_tokens"] = 4096  # Anthropic wants it, and not every gateway knows a value
        return json.dumps(fields).encode()


WHOLE = Case("whole answer", "whole", False, 3000, group="whole")
HINT = Case("`auto` with a task hint", "whole", False, 1600, ours="auto:code", group="whole", content="task")
AUTO = Case("`auto` with the classifier", "whole", False, 1600, ours="auto", group="whole", content="task")
ENSEMBLE = Case("`ensemble:voting` of 3", "whole", False, 600, ours="ensemble:three", group="whole")
FEW = Case("stream of 200 events, in few writes", "few", True, 600)
EACH = Case("stream of 200 events, a write each", "each", True, 400)
TRANSLATED = Case("translated stream of 200 events", "claude", True, 400)
MANY = Case("256 connections", "whole", False, 3000, connections=256)
ONE = Case("one connection", "whole", False, 500, connections=1)
LONG = Case("prompt of 100 kB, one connection", "whole", False, 120, connections=1, content="long")
PICTURE = Case("image of 5 MB, one connection", "whole", False, 10, connections=1, content="picture")
PACED = Case("128 streams at 50 events/s", "paced", True, 128, 128, paced=True)
OPEN = Case("1,000 open streams", "slow", True, 1000, 1000, paced=True, spread_s=4.0, once=True)

CASES = (WHOLE, HINT, AUTO, ENSEMBLE, FEW, EACH, TRANSLATED, MANY, ONE, LONG, PICTURE, PACED, OPEN)


def _content(case: Case) -> str | list[dict[str, Any]]:
    match case.content:
        case "task":
            return _HINT_QUESTION
        case "long":
            return _LONG
        case "picture":
            data = base64.b64encode(bytes(range(256)) * (_PICTURE_BYTES * 3 // 4 // 256)).decode()
            picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
            return [{"type": "text", "text": "What is this?"}, picture]
        case _:
            return _QUESTION
