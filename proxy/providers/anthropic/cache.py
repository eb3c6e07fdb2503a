"""Translates: a `/v1/messages` body without cache marks into one that the vendor caches: `cache: auto`.

A prompt is a prefix: tools, then system, then messages. The vendor caches it up to each mark, four at most, and marks
for an hour come before those for five minutes. A write costs 1.25 times the input, or 2 times for an hour; a read costs
a tenth or less. So the head of the prompt, which conversations share, is marked for an hour, and the ends of the two
latest user turns for five minutes: the previous request wrote the older one, and this one reads it.

A mark is not part of the prefix, so moving it changes nothing. Source: the vendor's page on prompt caching,
checked in November 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.schema.json import encode
from proxy.schema.request import Request

MARK = "cache_control"
_HOUR = {"type": "ephemeral", "ttl": "1h"}
_MINUTES = {"type": "ephemeral"}
CHARACTERS_PER_TOKEN = 4  # the vendor's newer models use more tokens, so this undercounts
_MARKABLE = ("text", "image", "document", "search_result", "tool_use", "tool_result")
_ENDS = 2

Block = dict[str, Any]


def auto_marks(body: Mapping[str, Any], minimum: int | None, lead: int | None = None) -> dict[str, Any]:
    """The members of `body` to be marked, with their marks; {} if the body has a mark already, or the prompt is too
    short.

    `minimum`: tokens of the shortest prefix that the model caches; None: it caches nothing. `lead`: how many blocks of
    the system prompt will be the same in the next request (None: all of them).
    """
    if minimum is None or is_marked(body):
        return {}
    tools, turns = body.get("tools") or [], body.get("messages") or []
    goes_on = any(turn.get("role") == "assistant" for turn in turns)
    found: dict[str, Any] = {}
    mark = _HOUR if tools or goes_on else _MINUTES  # a lone question may never be followed up
    size, least = sum(len(encode(tool)) for tool in tools), minimum * CHARACTERS_PER_TOKEN
    # "Tools with defer_loading cannot use prompt caching"
    last = next((place for place in reversed(range(len(tools))) if not tools[place].get("defer_loading")), None)
    if last is not None and size >= least:
        found["tools"] = _with(tools, last, mark)
    system = _blocks(body.get("system"))
    stable = system if lead is None else system[:lead]
    size += sum(map(_size, stable))
    if stable and size >= least:
        found["system"] = _with(system, len(stable) - 1, mark)
    if tools or goes_on:
        size += sum(map(_size, system[len(stable) :]))
        found |= _ends(turns, least - size)
    return found


def is_too_short(request: Request, minimum: int | None) -> bool:
    """True if the whole request is shorter than the minimum that the model caches, without a look into the body."""
    return 0 < request.size < (minimum or 0) * CHARACTERS_PER_TOKEN


def is_marked(body: Mapping[str, Any]) -> bool:
    """True if the body has a mark of its own anywhere."""
    return body.get(MARK) is not None or any(block.get(MARK) is not None for block in markable(body))


def markable(body: Mapping[str, Any]) -> Iterator[Block]:
    """Everything that can carry a mark, in the order of the prompt."""
    yield from body.get("tools") or []
    for content in (body.get("system"), *(turn.get("content") for turn in body.get("messages") or [])):
        if isinstance(content, list):
            for block in content:
                yield block
                if isinstance(inner := block.get("content"), list):
                    yield from (each for each in inner if isinstance(each, dict))


def _ends(turns: Sequence[Block], missing: int) -> dict[str, Any]:
    """`messages` with a mark at the last turns that the model answered or will answer, if the prefix is long enough.
    `missing`: the characters that its head lacks for that.
    """
    is_end = [
        turn.get("role") != "assistant" and (place + 1 == len(turns) or turns[place + 1].get("role") == "assistant")
        for place, turn in enumerate(turns)
    ]
    ends = [place for place, is_one in enumerate(is_end) if is_one][-_ENDS:]
    marked, reached = list(turns), 0
    has_mark = False
    for end in ends:
        for turn in turns[reached : end + 1]:
            if missing <= 0:
                break
            missing -= sum(map(_size, _blocks(turn.get("content"))))
        reached = end + 1
        blocks = _blocks(turns[end].get("content"))
        last = next((each for each in reversed(range(len(blocks))) if blocks[each].get("type") in _MARKABLE), None)
        if missing <= 0 and last is not None:
            marked[end] = {**turns[end], "content": _with(blocks, last, _MINUTES)}
            has_mark = True
    return {"messages": marked} if has_mark else {}


def _with(blocks: Sequence[Block], place: int, mark: Mapping[str, str]) -> list[Block]:
    return [*blocks[:place], {**blocks[place], MARK: dict(mark)}, *blocks[place + 1 :]]


def _blocks(content: Any) -> list[Block]:
    """Content as blocks; to the vendor a plain text equals a single text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content if isinstance(content, list) else []


def _size(block: Block) -> int:
    """The characters of a block's texts. Images and documents are left out."""
    kind = block.get("type")
    if kind == "tool_use":
        return len(encode(block.get("input")))
    if kind == "tool_result":
        return sum(map(_size, _blocks(block.get("content"))))
    text = block.get("thinking" if kind == "thinking" else "text")
    return len(text) if isinstance(text, str) else 0
