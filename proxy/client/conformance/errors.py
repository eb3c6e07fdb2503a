"""Translates: the checks of error answers."""

from __future__ import annotations

from typing import Any

from proxy.client.conformance.base import (
    CHAT,
    MAX_TOKENS,
    SAY_OK,
    Probe,
    Reply,
    Steps,
    chat,
    checks,
    expect,
    fail,
    json_object,
)
from proxy.client.conformance.events import stream
from proxy.client.conformance.tools import ASK, WEATHER
from proxy.schema.json import encode

_KEYS = ("message", "type", "param", "code")


def unknown_model(model: str) -> Steps:
    return _expect_not_found((yield chat(f"{model}-that-does-not-exist")))


def unknown_model_streamed(model: str) -> Steps:
    """The error has its own status and is not inside a stream."""
    return _expect_not_found((yield stream(f"{model}-that-does-not-exist")))


def _expect_not_found(reply: Reply) -> str:
    error = _error(reply, 404)
    expect(error.get("code") == "model_not_found", f"404 with the code {error.get('code')!r}")
    return "404 model_not_found"


def error_shape(model: str) -> Steps:
    """The error has all four keys: clients read them unconditionally."""
    error = _error((yield chat(f"{model}-that-does-not-exist")), 404)
    missing = [key for key in _KEYS if key not in error]
    expect(not missing, f"the error has no {', '.join(missing)}")
    return ", ".join(_KEYS)


def bad_role(model: str) -> Steps:
    return _expect_refusal((yield chat(model, [{"role": "emperor", "content": SAY_OK}])))


def no_messages(model: str) -> Steps:
    """The list of messages is empty."""
    return _expect_refusal((yield _body({"model": model, "messages": [], "max_completion_tokens": MAX_TOKENS})))


def missing_messages(model: str) -> Steps:
    return _expect_refusal((yield _body({"model": model, "max_completion_tokens": MAX_TOKENS})))


def not_json(model: str) -> Steps:
    """The body is truncated."""
    return _expect_refusal((yield Probe(CHAT, (chat(model).body or b"")[:-1])))


def wrong_type(model: str) -> Steps:
    """A text stands where a list is required."""
    return _expect_refusal((yield _body({"model": model, "messages": SAY_OK, "max_completion_tokens": MAX_TOKENS})))


def unknown_tool_choice(model: str) -> Steps:
    """`tool_choice` names a tool that was not offered."""
    choice = {"type": "function", "function": {"name": "get_nothing"}}
    return _expect_refusal((yield chat(model, ASK, tools=[WEATHER], tool_choice=choice)))


def orphan_result(model: str) -> Steps:
    """A tool result without a preceding call is refused or answered; it is never a server error."""
    history = [{"role": "user", "content": SAY_OK}, {"role": "tool", "tool_call_id": "call_none", "content": "7"}]
    reply = yield chat(model, history, tools=[WEATHER])
    if reply.status == 200:
        json_object(reply)
        return "answered"
    return _expect_refusal(reply)


def _body(body: dict[str, Any]) -> Probe:
    return Probe(CHAT, encode(body))


def _expect_refusal(reply: Reply) -> str:
    """Expects 400, or 422 from servers that use it for well-formed but invalid requests."""
    if reply.status not in (400, 422):
        fail(f"status {reply.status}")
    return f"{reply.status} {_error(reply, reply.status).get('code')}"


def _error(reply: Reply, status: int) -> dict[str, Any]:
    expect(reply.status == status, f"status {reply.status}")
    error = json_object(reply).get("error")
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"]:
        fail(f"error is {error!r}")
    return error


ERRORS = checks(
    "errors",
    unknown_model,
    unknown_model_streamed,
    error_shape,
    bad_role,
    no_messages,
    missing_messages,
    not_json,
    wrong_type,
    unknown_tool_choice,
    orphan_result,
)
