"""Values: every error of the Python client.

    MultiModelError             status, type, code, param, retry_after (seconds), request_id, body
    ├── SettingsError           the settings or their file cannot be used (also a ValueError); nothing was called
    ├── ConnectionFailed        the server cannot be reached, so nothing was called
    ├── RequestTimeout          no answer within timeout_s; the call may have cost something
    ├── ConnectionBroken        the connection broke in the middle of an answer; the call may have cost something
    ├── UnexpectedAnswer        not an answer of this product: a web page, another server, another version
    └── AnswerError             the proxy's own error, with its HTTP status
        ├── BadRequest          400, 405, 413, 415, 422: the request cannot be served as it is
        ├── AuthenticationFailed 401
        ├── PermissionDenied    403
        ├── NotFound            404: of the model, or of what an id names
        ├── RateLimited         429, with retry_after
        ├── BudgetSpent         402 and 429: a budget or max_cost_usd allows no more; waiting does not help
        └── ServerFailed        5xx: no model could answer, or the proxy cannot serve now

A wrong argument is a ValueError that names it, and an unknown one a TypeError, both before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.providers.base.errors import http_date, retry_after_s, seconds_until

_SPENT = ("insufficient_quota", "price_unknown")


class MultiModelError(Exception):
    """Base of all errors of this client; `str()` says what to do. Fields that do not apply are None.

    `status`: the HTTP status; None in a stream that has begun. `code`: the proxy's code, such as `model_not_found`.
    `param`: the field at fault. `retry_after`: seconds to wait. `request_id`: names the call in the log and in
    `GET /v1/requests/{id}`. `body`: the unchanged error, with all its fields.
    """

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.status: int | None = fields.get("status")
        self.type: str | None = fields.get("type")
        self.code: str | None = fields.get("code")
        self.param: str | None = fields.get("param")
        self.retry_after: float | None = fields.get("retry_after")
        self.request_id: str | None = fields.get("request_id")
        self.body: dict[str, Any] = fields.get("body") or {}
        self.is_retryable = False

    def __repr__(self) -> str:
        known = {name: getattr(self, name) for name in ("status", "code", "param", "retry_after", "request_id")}
        shown = "".join(f", {name}={value!r}" for name, value in known.items() if value is not None)
        return f"{type(self).__name__}({self.message!r}{shown})"


class SettingsError(MultiModelError, ValueError):
    """The settings cannot be used; the text has every mistake."""


class ConnectionFailed(MultiModelError):
    """Nothing answers at the address."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.is_retryable = True


class RequestTimeout(MultiModelError):
    """The answer did not come within `timeout_s`."""


class ConnectionBroken(MultiModelError):
    """The connection ended before the answer did."""


class UnexpectedAnswer(MultiModelError):
    """The server is not this product, or another version of it."""


class AnswerError(MultiModelError):
    """The proxy answered with an error. `is_retryable`: the same request may succeed later."""


class BadRequest(AnswerError):
    """The request cannot be served as it is; `param` names the field."""


class AuthenticationFailed(AnswerError):
    """The proxy does not know the API key."""


class PermissionDenied(AnswerError):
    """The key may not do this."""


class NotFound(AnswerError):
    """There is no such model, call or ensemble."""


class RateLimited(AnswerError):
    """Too many requests; `retry_after` says when the next one may come."""


class BudgetSpent(AnswerError):
    """A budget, or the request's own limit, has no room for the call."""


class ServerFailed(AnswerError):
    """No model could answer, or the proxy itself has a problem. The text says which."""


_KINDS = {401: AuthenticationFailed, 402: BudgetSpent, 403: PermissionDenied, 404: NotFound, 429: RateLimited}
# A stream that has begun has no status: the error's type replaces it.
_OF_TYPES = {
    "authentication_error": 401,
    "insufficient_quota": 402,
    "permission_error": 403,
    "rate_limit_error": 429,
    "invalid_request_error": 400,
}


def error_of(status: int | None, error: Mapping[str, Any], headers: Mapping[str, str]) -> AnswerError:
    """The error in an answer; `error` is the object under that name, `headers` those of the answer. `status` None: it
    is an event of a stream.
    """
    code = error.get("code")
    known = _OF_TYPES.get(str(error.get("type")), 502) if status is None else status
    kind = BudgetSpent if code in _SPENT else _KINDS.get(known, ServerFailed if known >= 500 else BadRequest)
    found = kind(
        str(error.get("message") or f"The proxy answered with status {known}."),
        status=status,
        type=error.get("type"),
        code=code,
        param=error.get("param"),
        retry_after=wait_of(headers),
        request_id=headers.get("x-request-id"),
        body=dict(error),
    )
    wish = headers.get("x-should-retry")
    found.is_retryable = wish == "true" or (wish != "false" and (known in (408, 409, 429) or known >= 500))
    return found


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds until the request may be retried, from `retry-after-ms` or `retry-after`; None: not given."""
    found = retry_after_s(headers)
    return seconds_until(http_date(headers.get("retry-after")), headers.get("date")) if found is None else found
