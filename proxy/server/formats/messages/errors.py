"""Translates: errors into Anthropic's shape, as its SDKs and Claude Code read them."""

from __future__ import annotations

from proxy.schema.errors import ProxyError, UpstreamError
from proxy.schema.json import encode

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_BY_CODE = {"insufficient_quota": "billing_error", "overloaded": "overloaded_error"}
_BESIDE = ("message", "type")  # members of OpenAI's error; the others become details here


class AnthropicError(ProxyError):
    """An error whose body has Anthropic's shape."""

    def __init__(self, error: ProxyError, request_id: str | None = None) -> None:
        headers = error.headers if request_id is None else {**error.headers, "request-id": request_id}
        super().__init__(error.message, status=error.status, code=error.code, param=error.param, headers=headers)
        self._body = shown(error, request_id)

    def body(self) -> dict[str, object]:
        return self._body


def error_body(error: ProxyError, request_id: str) -> bytes:
    """The body of an error: the vendor's own bytes if it refused the client's own body."""
    if isinstance(error, UpstreamError) and error.received is not None:
        return error.received.body
    return encode(shown(error, request_id))


def shown(error: ProxyError, request_id: str | None) -> dict[str, object]:
    said = error.body()["error"]
    found = {name: value for name, value in said.items() if name not in _BESIDE} if isinstance(said, dict) else {}
    details = {name: value for name, value in found.items() if value is not None}
    if error.param == "thread":  # SDKs of November 2026 then send the whole conversation
        details |= {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    told = {"type": error_type(error), "message": _message(error), **({"details": details} if details else {})}
    return {"type": "error", "error": told, "request_id": request_id}


def error_type(error: ProxyError) -> str:
    """Anthropic's word for the kind of an error."""
    kind = _BY_CODE.get(error.code or "") or _TYPES.get(error.status)
    return kind or ("invalid_request_error" if error.status < 500 else "api_error")


def _message(error: ProxyError) -> str:
    """The message. Anthropic's begin with the path of the field, which has no place of its own."""
    if error.status != 400 or not error.param or error.message.startswith((error.param, f"`{error.param}")):
        return error.message
    return f"{error.param}: {error.message}"
