"""Translates: the checks of a streamed answer."""

from __future__ import annotations

from proxy.client.conformance.base import (
    Steps,
    accept,
    at_limit,
    chat,
    checks,
    expect,
    finish_of,
    id_of,
    ok,
    prompt_of,
    text_of,
    usage_adds_up,
)
from proxy.client.conformance.events import read, stream


def role_first(model: str) -> Steps:
    """The role comes once, and before everything else."""
    deltas = read((yield stream(model))).deltas()
    roles = [delta["role"] for delta in deltas if delta.get("role") is not None]
    expect(bool(deltas) and deltas[0].get("role") == "assistant", "the first delta has no role")
    expect(len(roles) == 1, f"{len(roles)} deltas have a role")
    return "assistant"


def one_finish(model: str) -> Steps:
    """The finish reason ends its choice: no content follows it."""
    answer = read((yield stream(model)))
    if len(answer.finishes()) == 1:
        at_limit(answer.finish(), answer.usage())
    expect(answer.finishes() == ["stop"], f"the finish reasons are {answer.finishes()}")
    expect(answer.choices()[-1].get("finish_reason") == "stop", "something follows the finish reason")
    return "stop"


def usage_at_end(model: str) -> Steps:
    """Usage is alone in the last chunk, which has no choices."""
    answer = read((yield stream(model)))
    expect(len(answer.usages()) == 1, f"{len(answer.usages())} chunks have usage")
    last = answer.chunks[-1]
    expect(last.get("usage") is not None and last["choices"] == [], "usage is not alone in the last chunk")
    return usage_adds_up(last["usage"])


def usage_unasked(model: str) -> Steps:
    """Without `include_usage` there is no usage, and no chunk without choices: older clients read the first choice of
    every chunk.
    """
    answer = read((yield stream(model, stream_options=None)))
    expect(not answer.usages(), "a chunk has usage")
    expect(all(chunk["choices"] for chunk in answer.chunks), "a chunk has no choices")
    return "none"


def done_last(model: str) -> Steps:
    answer = read((yield stream(model)))
    expect(answer.ended, "the last event is not [DONE]")
    return "[DONE]"


def one_id(model: str) -> Steps:
    """The id, the model and the time are the same in all chunks."""
    chunks = read((yield stream(model))).chunks
    for name in ("id", "model", "created"):
        found = {repr(chunk.get(name)) for chunk in chunks}
        expect(len(found) == 1 and found != {"None"}, f"{name} is {', '.join(sorted(found)[:3])}")
    return str(chunks[0]["id"])


def chunk_object(model: str) -> Steps:
    found = {str(chunk.get("object")) for chunk in read((yield stream(model))).chunks}
    expect(found == {"chat.completion.chunk"}, f"object is {', '.join(sorted(found))}")
    return "chat.completion.chunk"


def nameless_events(model: str) -> Steps:
    """No event has a name. OpenAI's API has none, and some clients break on them."""
    names = read((yield stream(model))).names
    expect(not names, f"events are named {', '.join(sorted(set(names)))}")
    return "no event has a name"


def line_ends(model: str) -> Steps:
    """Lines end with LF, as OpenAI's do: some clients split at nothing else."""
    reply = yield stream(model)
    accept(reply)
    expect(b"\r" not in reply.body, "lines end with CR")
    expect(reply.body.endswith(b"\n\n"), "the last event does not end with an empty line")
    return "LF"


def as_whole(model: str) -> Steps:
    """Stream and whole answer agree on the finish reason and the prompt tokens. Their texts may differ, because models
    vary.
    """
    whole = ok((yield chat(model)))
    parts = read((yield stream(model)))
    text_of(whole), parts.checked_text()
    at_limit(finish_of(whole), whole.get("usage"))
    at_limit(parts.finish(), parts.usage())
    same_finish = parts.finishes() == [finish_of(whole)]
    expect(same_finish, f"{parts.finishes()} in the stream, {finish_of(whole)!r} in the whole answer")
    read_whole = prompt_of(whole)
    counts = [usage.get("prompt_tokens") for usage in parts.usages()]
    expect(counts == [read_whole], f"{counts} prompt tokens in the stream, {read_whole} in the whole answer")
    return "the same"


def stream_request_id(model: str) -> Steps:
    reply = yield stream(model)
    accept(reply)
    return id_of(reply)


STREAM = checks(
    "stream",
    role_first,
    one_finish,
    usage_at_end,
    usage_unasked,
    done_last,
    one_id,
    chunk_object,
    nameless_events,
    line_ends,
    as_whole,
    stream_request_id,
)
