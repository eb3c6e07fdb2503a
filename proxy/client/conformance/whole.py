"""Translates: the checks of a whole (not streamed) answer."""

from __future__ import annotations

from proxy.client.conformance.base import (
    Steps,
    at_limit,
    chat,
    checks,
    choices_of,
    expect,
    finish_of,
    id_of,
    message_of,
    ok,
    shorten,
    text_of,
    usage_adds_up,
)


def answer_id(model: str) -> Steps:
    """The id is a text, and different for each answer."""
    first = ok((yield chat(model)))
    other = ok((yield chat(model, "Answer with one word: yes")))
    found = first.get("id")
    expect(isinstance(found, str) and found != "", f"id is {found!r}")
    expect(found != other.get("id"), f"two answers have the id {found}")
    return str(found)


def object_name(model: str) -> Steps:
    found = ok((yield chat(model))).get("object")
    expect(found == "chat.completion", f"object is {found!r}")
    return str(found)


def created(model: str) -> Steps:
    """The time is in whole seconds, not milliseconds."""
    found = ok((yield chat(model))).get("created")
    expect(type(found) is int and 10**9 < found < 10**11, f"created is {found!r}")
    return str(found)


def model_name(model: str) -> Steps:
    found = ok((yield chat(model))).get("model")
    expect(isinstance(found, str) and found != "", f"model is {found!r}")
    return str(found)


def one_choice(model: str) -> Steps:
    rows = choices_of(ok((yield chat(model))))
    found = [row.get("index") for row in rows]
    expect(found == [0], f"the indexes are {found}")
    return "index 0"


def message_text(model: str) -> Steps:
    answer = ok((yield chat(model)))
    role = message_of(answer).get("role")
    expect(role == "assistant", f"role is {role!r}")
    return shorten(text_of(answer))


def refusal_null(model: str) -> Steps:
    """`refusal` is present and null: clients read it unconditionally."""
    message = message_of(ok((yield chat(model))))
    expect("refusal" in message, "no refusal")
    expect(message["refusal"] is None, f"refusal is {message['refusal']!r}")
    return "null"


def annotations_list(model: str) -> Steps:
    message = message_of(ok((yield chat(model))))
    found = message.get("annotations")
    expect(isinstance(found, list), f"annotations is {found!r}")
    return f"a list of {len(found or [])}"


def finish_stop(model: str) -> Steps:
    answer = ok((yield chat(model)))
    found = finish_of(answer)
    at_limit(found, answer.get("usage"))
    expect(found == "stop", f"finish_reason is {found!r}")
    return "stop"


def no_calls_unasked(model: str) -> Steps:
    """There is no `tool_calls`, not even an empty list: clients take the key for a call."""
    message = message_of(ok((yield chat(model))))
    found = message.get("tool_calls")
    expect(found is None, f"tool_calls is {found!r}")
    return "none"


def usage(model: str) -> Steps:
    return usage_adds_up(ok((yield chat(model))).get("usage"))


def request_id(model: str) -> Steps:
    reply = yield chat(model)
    ok(reply)
    return id_of(reply)


WHOLE = checks(
    "whole",
    answer_id,
    object_name,
    created,
    model_name,
    one_choice,
    message_text,
    refusal_null,
    annotations_list,
    finish_stop,
    no_calls_unasked,
    usage,
    request_id,
)
