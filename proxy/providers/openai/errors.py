"""Translates: the error bodies of OpenAI-shaped servers into UpstreamError with OpenAI's status, type and code."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from proxy.errors import UpstreamError
from proxy.providers.base import HTTPResponse

_MAX_MESSAGE = 2000
_SECRETS = re.compile(r"\b(sk|gsk|pplx|org|xai|AIza)[-_A-Za-z0-9*.]{6,}")
_CONTEXT = (  # vendors without a code say it in prose; collected from their servers' sources and traffic
    "maximum context length is",
    "exceed context limit",
    "prompt is too long",
    "input is too long",
    "longer than the model's context length",
    "exceeds the available context size",
    "model's context length is only",
    "maximum number of tokens allowed",
    "`inputs` tokens + `max_new_tokens` must be",
    "input tokens exceed the configured limit",
    "maximum input length is",
)
_CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")
_MISSING_CODES = ("model_not_found", "model_decommissioned", "model_not_available")
_PASSED_HEADERS = ("x-ratelimit-", "retry-after")
_CODES = {
    401: "invalid_api_key",
    429: "rate_limit_exceeded",
    502: "upstream_error",
    503: "upstream_unavailable",
    504: "upstream_timeout",
}
_OVERLOADED = (498, 503, 529)  # Groq's capacity_exceeded, everyone's, Anthropic-style


def scrub(text: str) -> str:
    """A vendor's words without what looks like a key or an account's id, one line, capped."""
    return " ".join(_SECRETS.sub("[redacted]", text).split())[:_MAX_MESSAGE]


def error_from(response: HTTPResponse) -> UpstreamError:
    """The error a non-2xx answer tells of. A client's mistake keeps its status; a provider's own failure is a 502 or
    503.
    """
    said = _said(response.body)
    if said is None:
        kind = response.headers.get("content-type", "no content type").split(";")[0]
        said = {"message": f"The provider answered {response.status} ({kind}) without an error message."}
    headers = {
        name: value
        for name, value in response.headers.items()
        if name.startswith(_PASSED_HEADERS) and value.isprintable() and value.isascii()
    }
    identity = response.headers.get("x-request-id", "")
    if identity.isascii() and identity.isprintable() and identity:
        headers["x-upstream-request-id"] = identity[:128]
    return build(said, response.status, headers)


def error_in(event: dict[str, Any]) -> UpstreamError | None:
    """The error inside a 200: `{"error": ...}` or `{"object": "error", ...}`; None when there is none."""
    if not event.get("error") and event.get("object") != "error":
        return None
    said = _fields(event)
    status = next((int(code) for code in (said.get("status_code"), said.get("code")) if code and _is_status(code)), 502)
    return build(said, status, {})


def build(said: dict[str, Any], status: int, headers: dict[str, str]) -> UpstreamError:
    """`said`: message, type, param, code as the vendor sent them, any of them missing."""
    message = scrub(_text(said.get("message")) or f"The provider answered {status}.")
    kind, code = _text(said.get("type")), _text(said.get("code"))
    if _is_status(said.get("code")):
        code = None
    if code in _CONTEXT_CODES or kind in _CONTEXT_CODES or (status in (400, 413, 422) and _speaks_of_context(message)):
        status, code = 400, "context_length_exceeded"
    elif code in _MISSING_CODES or (status == 404 and code is None):
        status, code = 404, "model_not_found"
    out_of_money = code == "insufficient_quota" or status == 402
    ours = 429 if out_of_money else _status(status)
    code = "insufficient_quota" if out_of_money else code or _CODES.get(ours)
    error = UpstreamError(
        message,
        status=ours,
        code=code,
        retryable=(status in (408, 409, 429) or status >= 498) and not out_of_money,
        upstream_status=status,
    )
    error.param = _text(said.get("param"))
    error.type = (kind if ours < 500 else None) or error.type
    error.headers |= headers
    error.retry_after_s = _seconds(headers)
    return error


def _status(status: int) -> int:
    if status in _OVERLOADED:
        return 503
    if status in (504, 524):
        return 504
    return status if 400 <= status < 498 else 502


def _said(body: bytes) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return _fields(value) if isinstance(value, dict) else None


def _fields(value: dict[str, Any]) -> dict[str, Any]:
    error = value.get("error")
    if isinstance(error, dict):
        return error
    if isinstance(error, str):
        return {**value, "message": error}
    return {**value, "message": value.get("message") or value.get("detail")}


def _text(value: object) -> str | None:
    """A vendor's field as text; some send objects where OpenAI sends strings."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _is_status(value: object) -> bool:
    return (isinstance(value, int) and 400 <= value < 600) or (
        isinstance(value, str) and re.fullmatch(r"[45]\d\d", value) is not None
    )


def _speaks_of_context(message: str) -> bool:
    lowered = message.lower()
    return any(phrase in lowered for phrase in _CONTEXT)


def _seconds(headers: dict[str, str]) -> float | None:
    """retry-after-ms or retry-after in seconds; an HTTP date is left to the client, who knows its own clock."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if re.fullmatch(r"\d{1,9}(\.\d+)?", headers.get(name, "")):
            return float(headers[name]) / scale
    return None
