"""Translates: Cohere's errors into UpstreamError with OpenAI's status, type and code.

Their body is `{"id", "message"}`, without type or code: what the status does not tell apart, the prose must.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.errors import UpstreamError
from proxy.providers.base import HTTPResponse
from proxy.providers.openai.errors import build

_KEY = re.compile(r"\b[A-Za-z0-9]{40}\b")  # the form of the vendor's keys
_LIMITS = {  # the vendor's names -> OpenAI's
    "x-trial-endpoint-call-limit": "x-ratelimit-limit-requests",
    "x-trial-endpoint-call-remaining": "x-ratelimit-remaining-requests",
    "x-trial-endpoint-remaining": "x-ratelimit-remaining-requests",
}
_PASSED = ("x-ratelimit-", "retry-after")
_RETRYABLE = (408, 409, 429, 499, 500, 502, 503, 504)  # 501 is "not implemented", 498 a token or a blocked answer
# Said of 429, where a limit of a month and one of a minute share the status.
_SPENT = ("/ month", "per month", "monthly")


def error_from(response: HTTPResponse) -> UpstreamError:
    """The error a non-2xx answer tells of."""
    try:
        body = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        body = None
    message = _message(body) if isinstance(body, dict) else None
    if message is None:
        kind = response.headers.get("content-type", "no content type").split(";")[0]
        message = f"The provider answered {response.status} ({kind}) without an error message."
    return error_said(message, response.status, _headers(response.headers))


def error_in(body: Mapping[str, Any], status: int = 502) -> UpstreamError | None:
    """The error inside a 200: an error body, or an event of the type `error`; None when there is none."""
    kind = body.get("type")
    if kind in ("error", "stream-error") or (kind is None and isinstance(body.get("message"), str)):
        said = body.get("status_code")
        said = said if isinstance(said, int) and 400 <= said < 600 else status
        return error_said(_message(body) or "The provider's answer is an error without a message.", said, {})
    return None


def error_said(message: str, upstream_status: int, headers: dict[str, str]) -> UpstreamError:
    """The table: the vendor's status and words -> status, type, code, retryable."""
    lowered = message.lower()
    said: dict[str, Any] = {"message": _KEY.sub("[redacted]", message)}
    status = upstream_status
    if upstream_status in (400, 413, 422):
        status = 413 if upstream_status == 413 else 400  # 422 is the vendor's word for a field that is wrong
        said |= _wrong(lowered)
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
    error.retryable = upstream_status in _RETRYABLE and error.code != "insufficient_quota"
    return error


def _wrong(lowered: str) -> dict[str, Any]:
    """What is wrong with a request, as far as its message says."""
    if "too many tokens" in lowered and "max tokens must be" not in lowered:
        return {"code": "context_length_exceeded"}
    if "max tokens must be" in lowered:
        return {"code": "invalid_value", "param": "max_tokens"}
    return {"code": "invalid_value"}


def _message(body: Mapping[str, Any]) -> str | None:
    for name in ("message", "error", "detail"):
        value = body.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return None


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in given.items():
        ours = _LIMITS.get(name, name if name.startswith(_PASSED) else None)
        if ours is not None and value.isascii() and value.isprintable():
            headers[ours] = value
    identity = given.get("x-debug-trace-id", "")
    if identity and identity.isascii() and identity.isprintable():
        headers["x-upstream-request-id"] = identity[:128]
    return headers
