"""Translates: Anthropic's errors into UpstreamError with OpenAI's status, type and code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from proxy.providers.base.answers import json_or_none
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.envelopes import error_inside, said_in_answer, says_something, status_of
from proxy.providers.base.errors import build, passed_headers, seconds_until
from proxy.providers.base.meanings import SURE
from proxy.schema.errors import UpstreamError

# The vendor's type -> the status it comes with. Inside a stream there is only the type.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# The vendor's type -> OpenAI's type and code; the other types are OpenAI's own words.
_MEANINGS = {
    "authentication_error": ("invalid_request_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "permission_error": ("permission_error", "permission_denied"),
    "not_found_error": ("invalid_request_error", "model_not_found"),
    "conflict_error": ("invalid_request_error", "conflict"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "api_error": ("server_error", "upstream_error"),
    "timeout_error": ("server_error", "upstream_timeout"),
    "overloaded_error": ("server_error", "overloaded"),
}
# For answers without a type, from servers in front of the API.
_BY_STATUS = {status: kind for kind, status in _STATUSES.items()}
_COUNTED = ("requests", "tokens")  # the vendor's limits that OpenAI has names for


def error_from(response: HTTPResponse, ids: tuple[str, ...]) -> UpstreamError:
    """The error of a non-2xx answer."""
    body = json_or_none(response.body)
    said = body.get("error") if isinstance(body, dict) else None
    if not isinstance(said, dict) or said.get("type") not in _STATUSES:  # from a cloud or a gateway, in its own words
        said = said_in_answer(response)
    error = _error(said, response.status, _headers(response, ids))
    again = response.headers.get("x-should-retry")
    if again in ("true", "false") and error.code != "insufficient_quota":
        error.retryable = again == "true"
    return error


def error_in(body: Mapping[str, Any]) -> UpstreamError | None:
    """The error inside a 200: `{"type": "error", "error": {...}}`; None when there is none."""
    said = body.get("error")
    if body.get("type") != "error" and not (isinstance(said, dict) and says_something(said)):
        found = error_inside(dict(body)) if "type" not in body else None
        return None if found is None else _error(found, status_of(found), {})
    said = said if isinstance(said, dict) else {"message": "The provider's answer is an error without a message."}
    return _error(said, _STATUSES.get(str(said.get("type")), status_of(said)), {})


def _error(said: Mapping[str, Any], status: int, headers: dict[str, str]) -> UpstreamError:
    message, kind = said.get("message"), said.get("type")
    told: dict[str, Any] = {"message": message}
    if not isinstance(kind, str) or kind not in _STATUSES:
        told |= {"type": kind, "code": said.get("code")}
        kind = _BY_STATUS.get(status)
    if kind in _MEANINGS:
        told["type"], told["code"] = _MEANINGS[kind][0], told.get("code") or _MEANINGS[kind][1]
    error = build(told, status, headers)
    if kind in _MEANINGS and error.code not in SURE:
        error.type, error.code = _MEANINGS[kind]
    return error


def _headers(response: HTTPResponse, ids: tuple[str, ...]) -> dict[str, str]:
    """Limits under OpenAI's names. The vendor sends the time of a reset, OpenAI the duration until then."""
    headers = passed_headers(response, ids)
    safe = {name: value for name, value in response.headers.items() if value.isascii() and value.isprintable()}
    for what in _COUNTED:
        for part in ("limit", "remaining"):
            value = safe.get(f"anthropic-ratelimit-{what}-{part}")
            if value is not None:
                headers[f"x-ratelimit-{part}-{what}"] = value
        reset = _moment(safe.get(f"anthropic-ratelimit-{what}-reset"))
        wait_s = seconds_until(reset, safe.get("date"))
        if wait_s is not None:
            headers[f"x-ratelimit-reset-{what}"] = _duration(wait_s)
    return headers


def _moment(text: str | None) -> datetime | None:
    """The time in RFC 3339; None for anything else."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _duration(seconds: int) -> str:
    """A duration as OpenAI writes it: `1s`, `6m0s`, `1h0m0s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
