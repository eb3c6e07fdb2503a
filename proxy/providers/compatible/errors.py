"""Translates: the error bodies of OpenAI-shaped servers."""

from __future__ import annotations

from typing import Any

from proxy.providers.base.answers import decode, json_or_none
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.errors import PLAIN, ErrorRules, build, is_status, passed_headers, unexplained
from proxy.schema.errors import UpstreamError

_STATUS_OF = {  # of errors inside a 200, by what they say of themselves
    "invalid_request_error": 400,
    "invalid_request": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 503,
    "content_filter": 400,
}
_NAMED = tuple(_STATUS_OF)


def error_from(response: HTTPResponse, ids: tuple[str, ...], rules: ErrorRules = PLAIN) -> UpstreamError:
    """The error of a non-2xx answer. A client's mistake keeps its status; a provider's own failure is a 502 or 503."""
    body = json_or_none(response.body)
    said = _fields(body) if isinstance(body, dict) else unexplained(response)
    return build(said, response.status, passed_headers(response, ids, rules), rules)


def body_of(response: HTTPResponse, rules: ErrorRules) -> dict[str, Any]:
    """The body of a 2xx answer. Raises UpstreamError if it is no object, or an error."""
    body = decode(response.body)
    error = error_in(body, rules)
    if error is not None:
        raise error
    return body


def error_in(event: dict[str, Any], rules: ErrorRules = PLAIN) -> UpstreamError | None:
    """The error inside a 200: `{"error": ...}` or `{"object": "error", ...}`; None when there is none."""
    groq = event.get("x_groq")
    if not event.get("error") and isinstance(groq, dict) and groq.get("error"):
        event = {"error": groq["error"]}
    if not event.get("error") and event.get("object") != "error":
        return None
    said = _fields(event)
    told = (said.get("status_code"), said.get("raw_status_code"), said.get("status"), said.get("code"))
    named = [_STATUS_OF[name] for name in (said.get("code"), said.get("type")) if name in _NAMED]
    return build(said, next((int(code) for code in told if code and is_status(code)), [*named, 502][0]), {}, rules)


def _fields(value: dict[str, Any]) -> dict[str, Any]:
    error = value.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {**value, "message": error}
    return {**value, "message": value.get("message") or value.get("detail")}
