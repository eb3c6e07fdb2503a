"""Values: answers as no vendor documents them. Everything that some server does is done to one answer, at random."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from tests.providers.test_streams_property import NAMES, USAGE, WRITERS, framed
from tests.upstream.wire import Said

# --- what is said, whole ----------------------------------------------------------------------------------------------


def openai_whole(said: Said) -> dict[str, Any]:
    calls = [
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for place, (name, arguments) in enumerate(said.calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(said.tokens) or None}
    message |= {"reasoning_content": "".join(said.reasoning)} if said.reasoning else {}
    message |= {"tool_calls": calls} if calls else {}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **USED}


def anthropic_whole(said: Said) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if said.reasoning:
        content.append({"type": "thinking", "thinking": "".join(said.reasoning), "signature": "c2ln"})
    if said.tokens:
        content.append({"type": "text", "text": "".join(said.tokens)})
    content += [
        {"type": "tool_use", "id": f"{name}_id", "name": name, "input": json.loads(arguments)}
        for name, arguments in said.calls
    ]
    usage = {"input_tokens": 1, "output_tokens": 1}
    stop = "tool_use" if said.calls else "end_turn"
    return {"id": "msg_1", "type": "message", "model": "m", "content": content, "stop_reason": stop, "usage": usage}


def google_whole(said: Said) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"text": "".join(said.reasoning), "thought": True}] if said.reasoning else []
    parts += [{"text": "".join(said.tokens)}] if said.tokens else []
    parts += [{"functionCall": {"name": name, "args": json.loads(arguments)}} for name, arguments in said.calls]
    counts = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": "m", "responseId": "answer"}


def cohere_whole(said: Said) -> dict[str, Any]:
    content: list[dict[str, Any]] = (
        [{"type": "thinking", "thinking": "".join(said.reasoning)}] if said.reasoning else []
    )
    content += [{"type": "text", "text": "".join(said.tokens)}] if said.tokens else []
    calls = [
        {"id": f"{name}_id", "type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in said.calls
    ]
    finish = "TOOL_CALL" if calls else "COMPLETE"
    message = {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})}
    usage = {"tokens": {"input_tokens": 1, "output_tokens": 1}}
    return {"id": "answer", "message": message, "finish_reason": finish, "usage": usage}


def responses_whole(said: Said) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if said.reasoning:
        summary = [{"type": "summary_text", "text": "".join(said.reasoning)}]
        output.append({"type": "reasoning", "id": "rs", "summary": summary})
    content = [{"type": "output_text", "text": "".join(said.tokens)}]
    output.append({"type": "message", "id": "msg", "role": "assistant", "content": content})
    output += [
        {"type": "function_call", "id": name, "call_id": f"{name}_id", "name": name, "arguments": arguments}
        for name, arguments in said.calls
    ]
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m"}
    return {**head, "status": "completed", "output": output, "usage": usage}


USED = {"usage": dict(USAGE)}
HALF = "HALF"  # written as the escape of half a character, and read as U+FFFD
OPENAI = [kind for kind, writer in WRITERS.items() if writer is WRITERS["openai"]]
WHOLES: dict[str, Callable[[Said], dict[str, Any]]] = {
    **dict.fromkeys(OPENAI, openai_whole),
    "anthropic": anthropic_whole,
    "cohere": cohere_whole,
    "google": google_whole,
    "perplexity": responses_whole,
    "openai, responses": responses_whole,
}


def spoken(dice: random.Random, kind: str) -> Said:
    """A short answer in characters of one to four bytes. Perplexity has no reasoning in whole answers."""
    words = ["hello ", "\u20ac", "\U0001f600", 'a"b', "\n", "x", HALF, "42", '{"a":1}']
    values = ["Rome", "}", '{"', 1, None, [], {"b": "\u20ac"}]
    calls = [
        (name, json.dumps({"a": dice.choice(values)}, separators=(",", ":"), ensure_ascii=False))
        for name in NAMES[: dice.choice([0, 0, 1, 2])]
    ]
    return Said(
        tokens=[dice.choice(words) for _ in range(dice.randint(0 if calls else 1, 3))],
        reasoning=[] if kind == "perplexity" else [dice.choice(words) for _ in range(dice.choice([0, 0, 1, 2]))],
        calls=calls,
        finish="tool_calls" if calls else "stop",
    )


# --- oddities that change nothing -------------------------------------------------------------------------------------

PADDING = [b"null", b"[]", b'"ping"', b"ping", b"0", b"true", b"[null]", b"[[]]", b""]
UNREAD = [
    b"NaN",
    b"-Infinity",
    b"1e400",
    b'"\\ud83d x"',
    b"null",
    b"[[null]]",
    b'{"a":{}}',
    b"123456789" * 9,
]
EMPTY_ERRORS: list[Any] = [None, {}, "", {"message": "", "code": None}]


def frames(kind: str, said: Said) -> list[tuple[str, dict[str, Any] | None]]:
    """Name and value of each event; None is the end marker."""
    return [
        (each.name, None if each.data == b"[DONE]" else json.loads(each.data))
        for each in framed(WRITERS[kind](said, []), [])
        if each.data
    ]


def in_pieces_at_one_index(dice: random.Random, events: list[tuple[str, dict[str, Any] | None]]) -> None:
    """Calls of an OpenAI-shaped stream: all at index 0, names in pieces, no arguments as `null`."""
    for _, body in events:
        for choice in (body or {}).get("choices", []):
            for call in list(choice["delta"].get("tool_calls", [])):
                call["index"] = 0
                if "id" in call and dice.random() < 0.3:
                    call["function"]["arguments"] = None
                if "id" in call and dice.random() < 0.3:
                    name = call["function"]["name"]
                    call["function"]["name"] = name[:-1]
                    choice["delta"]["tool_calls"].append({"index": 0, "function": {"name": name[-1]}})


def usage_elsewhere(dice: random.Random, events: list[tuple[str, dict[str, Any] | None]]) -> None:
    """Of an OpenAI-shaped stream, from its own chunk to another place."""
    for _, body in events:
        if body and body.get("usage"):
            usage = body.pop("usage")
            place = dice.choice(["x_groq", "metadata", "top", "early"])
            if place == "early":
                next(each for _, each in events if each is not None)["usage"] = usage
            else:
                body |= {"usage": usage} if place == "top" else {place: {"usage": usage}}


def odd_finish(dice: random.Random, events: list[tuple[str, dict[str, Any] | None]]) -> None:
    """None that can be used, of an OpenAI-shaped stream. Its end marker says that it is complete."""
    word: Any = dice.choice([None, "", "null", 5, {}, "bored", "STOP", "stop"])
    for _, body in events:
        for choice in (body or {}).get("choices", []):
            if choice["finish_reason"] is not None:
                choice["finish_reason"] = word


def values_as_content(dice: random.Random, events: list[tuple[str, dict[str, Any] | None]]) -> None:
    """Texts of an OpenAI-shaped stream or answer that are JSON, as values."""
    for _, body in events:
        for choice in (body or {}).get("choices", []):
            part = choice.get("delta") or choice.get("message") or {}
            if part.get("content") in ("42", '{"a":1}') and dice.random() < 0.7:
                part["content"] = json.loads(part["content"])


SHAPED = [values_as_content, in_pieces_at_one_index, usage_elsewhere, odd_finish]


def text_of(dice: random.Random, body: dict[str, Any]) -> bytes:
    """The JSON of an event or a body, with fields that nobody reads, some of them in no strict JSON."""
    fields = {name: dice.choice(EMPTY_ERRORS) for name in ("error",) if dice.random() < 0.2}
    text = json.dumps({**body, **fields}, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    text = text.replace(HALF.encode(), b"\\udcaf")
    if dice.random() < 0.3:
        text = text[:-1] + b', "unread": ' + dice.choice(UNREAD) + b"}"
    return text


def written(dice: random.Random, events: list[tuple[str, dict[str, Any] | None]]) -> bytes:
    """The stream as bytes: padding and comments between, fields and blank lines left out, any line end."""
    has_fields, has_blanks = dice.random() < 0.8, dice.random() < 0.6
    data = b"\xef\xbb\xbf" if dice.random() < 0.3 else b""
    for name, body in events:
        if dice.random() < 0.15:
            data += dice.choice([b": hi\n\n", b"retry: 5\n", b"id: 7\n", b"\n\n", b"event: ping\ndata: {}\n\n"])
        if has_blanks and has_fields and dice.random() < 0.2:
            data += b"data: " + dice.choice(PADDING) + b"\n\n"
        if name and has_fields:
            data += b"event: " + name.encode() + b"\n"
        text = b"[DONE]" if body is None else text_of(dice, body)
        data += (b"data: " if body is None else dice.choice([b"data: ", b"data:"]) if has_fields else b"") + text
        data += b"\n\n" if has_blanks or body is None else b"\n"
    return data.replace(b"\n", dice.choice([b"\n", b"\n", b"\r\n", b"\r"]))


def odd_stream(dice: random.Random, kind: str, said: Said) -> bytes:
    events = frames(kind, said)
    if kind in OPENAI:
        for change in SHAPED:
            if dice.random() < 0.4:
                change(dice, events)
    return written(dice, events)


def odd_body(dice: random.Random, kind: str, said: Said) -> bytes:
    """The whole answer as bytes."""
    body = WHOLES[kind](said)
    if kind in OPENAI:
        values_as_content(dice, [("", body)])
    text = text_of(dice, body)
    return dice.choice([b"", b"\xef\xbb\xbf"]) + dice.choice([b"", b" \n"]) + text + dice.choice([b"", b"\n\n"])


# --- oddities that may change everything ------------------------------------------------------------------------------

ODD: list[Any] = [
    *(None, True, 5, -1, 0.5, 10**30, float("inf"), float("nan"), "", "x", "null", "\udcaf", "\ud83d", "stop"),
    *(
        {"a": "\ud83d"},
        [],
        {},
        [[]],
        [None],
        [{}],
        {"a": [1]},
        ["x"],
        {"error": {"message": "m"}},
        {"text": "x"},
        [{"type": "text"}],
    ),
]
ERRORS: list[Any] = [{"message": "busy", "code": 503}, "busy", [{"message": "busy"}], {"code": "x", "message": None}, 7]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container inside a value, with each of its keys."""
    found: list[tuple[Any, Any]] = []
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found += [(value, key), *places(value[key])]
    return found


def spoil(dice: random.Random, body: dict[str, Any]) -> None:
    """One value becomes another, or is lost, or is moved; or there is an error beside it."""
    if dice.random() < 0.1:
        body["error"] = deepcopy(dice.choice(ERRORS))
        return
    if found := places(body):
        inside, key = dice.choice(found)
        if dice.random() < 0.2:
            del inside[key]
        elif dice.random() < 0.2:
            inside[key] = [inside[key]]
        else:
            inside[key] = deepcopy(dice.choice(ODD))


def spoiled_stream(dice: random.Random, kind: str, said: Said) -> bytes:
    events = frames(kind, said)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(events))
        name, body = events[at]
        act = dice.random()
        if act < 0.7 and body is not None:
            spoil(dice, body)
        elif act < 0.8:
            events.insert(dice.randrange(len(events)), (name, json.loads(json.dumps(body))))
        elif act < 0.9 and len(events) > 1:
            events.pop(at)
        elif act < 0.95:
            events.insert(at, ("error", {"error": dice.choice(ERRORS)}))
        else:
            other = dice.randrange(len(events))
            events[at], events[other] = events[other], events[at]
    return written(dice, events)


def spoiled_body(dice: random.Random, kind: str, said: Said) -> bytes:
    body = WHOLES[kind](said)
    for _ in range(dice.randint(1, 3)):
        spoil(dice, body)
    return text_of(dice, body)
