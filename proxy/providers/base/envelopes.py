"""Translates: servers' error envelopes. Finds message, type, param and code in all their places.

    {"error": {...}}  {"error": "..."}  {"error": [...]}  [{"error": {...}}]  {"errors": [...]}  {"detail": ...}
    {"code", "message"}  {"code": 401, "msg"}  {"error_code", "error_msg"}  {"title", "status", "detail"}
    {"base_resp": {"status_code", "status_msg"}}  {"Response": {"Error": {...}}}  {"choices": [{"error": {...}}]}

Gateways put the error of the server behind them inside their own: in `metadata.raw`, or as JSON in the message.
"""

from __future__ import annotations

from typing import Any

from proxy.providers.base.answers import json_or_none, mapping, objects
from proxy.providers.base.contract import HTTPResponse

_MESSAGES = ("message", "msg", "error_msg", "errmsg", "error_message", "status_msg", "error_description", "Message")
_CODES = ("code", "error_code", "errcode", "Code", "status_code", "statusCode")
_TYPES = ("type", "error_type", "__type")
_STATUSES = ("status_code", "raw_status_code", "status", "http_code", "http_status", "statusCode", "code")
_DEEP = 4  # the maximum nesting of envelopes
_MAX_INNER = 64 * 1024
_MAX_PLAIN = 500  # characters of a message without JSON
_FINE = (None, "", 0, "0", 200, "200", "success", "Success", "ok", "OK")
# Fields of answers; an error inside a 200 has none of them.
_ANSWERS = frozenset({"choices", "data", "results", "output", "embeddings", "content", "candidates", "usage", "delta"})
_EMPTY_NAMES = ("provider returned error", "upstream error", "error", "bad_response_status_code")
_TYPE_HEADERS = ("x-amzn-errortype", "x-ms-error-code")


def said_in_answer(response: HTTPResponse) -> dict[str, Any]:
    """The error in the body of a non-2xx answer, with at least a message."""
    said = said_by(json_or_none(response.body))
    if not said.get("message"):
        text = _plain_text(response)
        said["message"] = (
            text or f"The provider answered {response.status} ({_kind(response)}) without an error message."
        )
    for name in _TYPE_HEADERS:
        if (kind := response.headers.get(name)) and not (said.get("type") and said.get("code")):
            said.setdefault("code" if said.get("type") else "type", kind.split(":")[0])
    return said


def said_by(value: object, depth: int = _DEEP) -> dict[str, Any]:
    """Message, type, param and code of the error in `value`, with its other fields; {} if there is none."""
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, dict | str)), None)
    if isinstance(value, str):
        return _unwrapped({"message": value}, depth)
    if not isinstance(value, dict) or not depth:
        return {}
    inner = _inside(value)
    if inner is not None:
        found = said_by(inner, depth - 1)
        rest = {name: each for name, each in value.items() if name not in ("error", "message") and each != "error"}
        return {**_named(rest), **{name: each for name, each in found.items() if each is not None}}
    return _unwrapped(_named(value), depth)


def error_inside(body: dict[str, Any]) -> dict[str, Any] | None:
    """The error inside a 200; None if the body is an answer, or a piece of one."""
    choices, error, groq = objects(body.get("choices")), body.get("error"), body.get("x_groq")
    failed = next((choice["error"] for choice in choices if choice.get("error")), None)
    if choices and not error and not groq and not failed:
        return None
    for each in (error, groq.get("error") if isinstance(groq, dict) else None, failed):
        if each and says_something(each):
            return said_by(body if each is error else {"error": each})
    if body.get("object") == "error" or body.get("type") == "error":
        return said_by(body)
    told = body.get("base_resp")
    if isinstance(told, dict) and told.get("status_code") not in _FINE and not choices:
        return said_by(body)
    if not body.keys().isdisjoint(_ANSWERS) and any(body.get(name) for name in _ANSWERS):
        return None
    return said_by(body) if _is_refusal(body) else None


def status_of(said: dict[str, Any]) -> int:
    """The HTTP status that an error names; 0 if none."""
    for name in _STATUSES:
        value = said.get(name)
        if isinstance(value, str) and len(value) == 3 and value.isdecimal():
            value = int(value)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return 0


def _is_refusal(body: dict[str, Any]) -> bool:
    """True for a body that reports in one of the usual ways that there is no answer."""
    kind = body.get("type")
    if isinstance(kind, str) and "." in kind:
        return False  # an event of another dialect
    if body.get("errors") or mapping(body.get("Response")).get("Error") or body.get("fault"):
        return True
    if body.get("success") is False or body.get("status") in ("error", "failed", "failure"):
        return True
    has_text = any(isinstance(body.get(name), str) and body[name] for name in (*_MESSAGES, "detail"))
    has_text = has_text or any("msg" in each for each in objects(body.get("detail")))
    if any(body.get(name) not in _FINE for name in _CODES):
        return has_text
    return has_text and not any(body.get(name) in _FINE[2:] for name in _CODES) and "object" not in body


def says_something(error: object) -> bool:
    """False for the empty error objects that some gateways add to every answer."""
    return any(each not in _FINE for each in error.values()) if isinstance(error, dict) else True


def _inside(value: dict[str, Any]) -> Any:
    """The error object inside an envelope; None if the fields of `value` itself are the error."""
    error = value.get("error")
    if error and isinstance(error, dict | list):
        return error
    if isinstance(error, str) and error and error.strip()[:1] in ("{", "["):
        return error
    for inner in (value.get("errors"), value.get("base_resp"), value.get("fault"), value.get("Error")):
        if inner and isinstance(inner, dict | list):
            return inner
    return mapping(value.get("Response")).get("Error") or next(
        (each["error"] for each in objects(value.get("choices")) if each.get("error")), None
    )


def _named(value: dict[str, Any]) -> dict[str, Any]:
    """The fields under OpenAI's names. An `error` beside them is a text: the message, or a short name of the error."""
    said = {name: each for name, each in value.items() if each is not None}
    message = next((said[name] for name in _MESSAGES if said.get(name)), None)
    error, detail = said.pop("error", None), said.get("detail") or said.get("title")
    if message is None and error and detail and isinstance(error, str):
        said.setdefault("type", error)  # {"error": "Unauthorized", "detail": "..."}
        message = detail
    elif message is not None and isinstance(error, str) and error:
        said.setdefault("code", error)
    said["message"] = message or error or said.get("faultstring") or detail or said.get("reason")
    for ours, names in (("code", _CODES), ("type", _TYPES)):
        if (found := next((said[name] for name in names if said.get(name) not in _FINE), None)) is not None:
            said[ours] = found
    inner = said.get("innererror")
    if isinstance(inner, dict) and isinstance(inner.get("code"), str):
        said["inner_code"] = inner["code"]
    return said


def _unwrapped(said: dict[str, Any], depth: int) -> dict[str, Any]:
    """The error of the server behind a gateway, in place of the gateway's own."""
    metadata = mapping(said.get("metadata"))
    raw, provider = metadata.get("raw"), metadata.get("provider_name")
    inner = said_by(_json(raw), depth - 1) or _text_of(raw)
    if not inner and isinstance(message := said.get("message"), str) and "{" in message[:_MAX_INNER]:
        start = message.index("{")
        inner = said_by(_json(message[start:]), depth - 1) if message.rstrip().endswith("}") else {}
        said = {**said, "message": message[:start].strip(" :-\n")} if inner else said
    words = inner.get("message")
    if isinstance(words, str) and words:
        own = said.get("message")
        if isinstance(own, str) and own and own.lower().strip(" .:") not in _EMPTY_NAMES and own not in words:
            words = f"{own}: {words}"
        if isinstance(provider, str) and provider and provider.lower() not in words.lower():
            words = f"{provider}: {words}"
        more = {name: inner[name] for name in ("param", "type", "code", "inner_code") if inner.get(name) is not None}
        status = status_of(said)
        said = {**said, **more, "message": words, **({"status_code": status} if status else {})}
    if "flagged_input" in metadata:
        said = {**said, "code": "content_filter"}  # OpenRouter's moderation, with the status 403
    return said


def _json(value: object) -> Any:
    if isinstance(value, str):
        return json_or_none(value) if len(value) <= _MAX_INNER and value.strip()[:1] in ("{", "[") else None
    return value


def _text_of(value: object) -> dict[str, Any]:
    """The error in a text that is not JSON, unless it is a web page."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("", "<", "{", "["):
        return {}
    return {"message": value}


def _plain_text(response: HTTPResponse) -> str | None:
    """The body, if it is plain text: many servers label every body JSON."""
    if len(response.body) > _MAX_PLAIN:
        return None
    text = bytes(response.body).decode("utf-8", "replace").strip()
    is_text = bool(text) and "\ufffd" not in text and not text.startswith(("<", "{", "[", '"'))
    return text if is_text else None


def _kind(response: HTTPResponse) -> str:
    return response.headers.get("content-type", "no content type").split(";")[0].strip().lower() or "no content type"
