"""Translates: Cohere's errors into UpstreamError with OpenAI's status, type and code.

A body is `{"id", "message"}`, in 2026 sometimes with an `error_type`. If neither that nor the status is specific,
the message decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.providers.base.answers import decode, json_or_none, mapping
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.envelopes import error_inside, said_in_answer, status_of
from proxy.providers.base.errors import ErrorRules, build, passed_headers
from proxy.providers.base.meanings import meaning_of
from proxy.schema.errors import UpstreamError
from proxy.schema.json_writing import text_of

_KEY = re.compile(r"\b[A-Za-z0-9]{40}\b")  # the form of the vendor's keys
_RULES = ErrorRules(
    headers={
        "x-trial-endpoint-call-limit": "x-ratelimit-limit-requests",
        "x-trial-endpoint-call-remaining": "x-ratelimit-remaining-requests",
        "x-trial-endpoint-remaining": "x-ratelimit-remaining-requests",
    }
)
_RETRYABLE = (408, 409, 429, 499, 500, 502, 503, 504)  # 501 is "not implemented", 498 a token or a blocked answer
# Values of `error_type` for mistakes of the model, for which a retry may help -> our status and code.
_AGAIN = {
    "INVALID_TOOL_GENERATION": (400, "tool_use_failed"),
    "HALLUCINATED_ALL_TOOL_CALLS": (400, "tool_use_failed"),
    "NO_VALID_RESPONSE_GENERATED": (502, "upstream_error"),
}
# In messages of a 429, the status of both a limit per month and one per minute.
_SPENT = ("/ month", "per month", "monthly")


def error_from(response: HTTPResponse, ids: tuple[str, ...]) -> UpstreamError:
    """The error of a non-2xx answer."""
    body = mapping(json_or_none(response.body))
    message = _message(body) or said_in_answer(response)["message"]
    message = message if isinstance(message, str) else text_of(message)
    return error_said(message, response.status, passed_headers(response, ids, _RULES), body.get("error_type"))


def body_of(response: HTTPResponse) -> dict[str, Any]:
    """The body of a 2xx answer. Raises UpstreamError if it is not an object, or an error."""
    body = decode(response.body)
    error = error_in(body)
    if error is None and (said := error_inside(body)) is not None:  # from a gateway, in its own words
        error = build(said, status_of(said), {})
    if error is not None:
        raise error
    return body


def error_in(body: Mapping[str, Any], status: int = 502) -> UpstreamError | None:
    """The error inside a 200: an error body, or an event of the type `error`; None when there is none."""
    kind = body.get("type")
    if kind in ("error", "stream-error") or (kind is None and isinstance(body.get("message"), str)):
        said = body.get("status_code")
        said = said if isinstance(said, int) and 400 <= said < 600 else status
        message = _message(body) or "The provider's answer is an error without a message."
        return error_said(message, said, {}, body.get("error_type"))
    return None


def error_said(message: str, upstream_status: int, headers: dict[str, str], error_type: object = None) -> UpstreamError:
    """The table: the vendor's status, type and words -> status, type, code, retryable."""
    lowered = message.lower()
    said: dict[str, Any] = {"message": _KEY.sub("[redacted]", message)}
    status = upstream_status
    again = isinstance(error_type, str) and error_type in _AGAIN
    if again:
        status, said["code"] = _AGAIN[str(error_type)]
    elif upstream_status in (400, 413, 422):
        status = 413 if upstream_status == 413 else 400  # 422 is the vendor's status for an invalid field
        said |= _wrong(lowered, error_type)
    elif upstream_status == 402 or (upstream_status == 429 and any(word in lowered for word in _SPENT)):
        status, said["code"] = 429, "insufficient_quota"
    elif upstream_status == 498:
        blocked = "block" in lowered
        status, said["code"] = (400, "content_filter") if blocked else (401, "invalid_api_key")
    elif upstream_status == 403:
        said["code"] = "permission_denied"
    elif upstream_status in (499, 501):
        status = 502
    error = build(said, status, headers)
    error.upstream_status = upstream_status
    error.retryable = again or (upstream_status in _RETRYABLE and error.code != "insufficient_quota")
    return error


def _wrong(lowered: str, error_type: object) -> dict[str, Any]:
    """The mistake in a request, according to the message: it may also ask for too many tokens."""
    if "max tokens must be" in lowered:
        return {"code": "invalid_value", "param": "max_tokens"}
    if "too many tokens" in lowered or error_type == "TOO_MANY_TOKENS":
        return {"code": "context_length_exceeded"}
    meaning = meaning_of(400, None, None, lowered)
    return {"code": "invalid_value" if meaning is None else meaning.code}


def _message(body: Mapping[str, Any]) -> str | None:
    for name in ("message", "error", "detail"):
        value = body.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return None
