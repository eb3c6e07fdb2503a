"""Translates: Google's errors into UpstreamError with OpenAI's status and code.

Its body is `{"error": {"code", "message", "status", "details"}}`, inside a list if a stream was requested without
framing. A wrong key is a 400, and a limit states in its details when to retry; there are no rate-limit headers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from proxy.providers.base.answers import json_or_none
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.envelopes import said_in_answer
from proxy.providers.base.errors import build, passed_headers, retry_after_s, scrub
from proxy.providers.base.meanings import meaning_of
from proxy.schema.errors import UpstreamError

# The vendor's status word: our status, our code, whether the same request may succeed later.
_MEANINGS: dict[str, tuple[int, str, bool]] = {
    "INVALID_ARGUMENT": (400, "invalid_value", False),
    "OUT_OF_RANGE": (400, "invalid_value", False),
    "FAILED_PRECONDITION": (403, "failed_precondition", False),  # the caller's region, or no billing
    "UNAUTHENTICATED": (401, "invalid_api_key", False),
    "PERMISSION_DENIED": (403, "permission_denied", False),
    "NOT_FOUND": (404, "model_not_found", False),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_exceeded", True),
    "ABORTED": (502, "upstream_error", True),
    "CANCELLED": (502, "upstream_error", False),
    "UNIMPLEMENTED": (502, "upstream_error", False),
    "UNAVAILABLE": (503, "upstream_unavailable", True),
    "DEADLINE_EXCEEDED": (504, "upstream_timeout", True),
}
_WORDS = {  # by HTTP status, if the body has none
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FAILED = (502, "upstream_error", True)
_CONTEXT = re.compile(r"exceeds the maximum number of tokens allowed|input token count is \d+ but")  # has no code
_BAD_KEY = ("api key not valid", "api key expired", "unregistered callers")
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,12})?)s")
_AGAIN_IN = re.compile(r"retry in (\d{1,9}(?:\.\d{1,12})?)s")
_SPENT = ("prepayment credits are depleted", "spending cap")  # have no code of their own
_NO_LIMIT = re.compile(r"\blimit: 0\b(?!\.)")  # a model that the account's plan does not have


def error_from(response: HTTPResponse, ids: tuple[str, ...]) -> UpstreamError:
    """The error of a non-2xx answer. The status decides: errors of streams are labelled as event streams."""
    body = json_or_none(response.body)
    if isinstance(body, list) and body:
        body = body[0]
    said = body.get("error") if isinstance(body, dict) else None
    headers = passed_headers(response, ids)  # the API sends none of them, but servers in front of it do
    if not isinstance(said, dict):  # from a gateway, in its own words
        return build(said_in_answer(response), response.status, headers)
    error = error_said(said, response.status)
    error.headers = headers | error.headers
    if error.retryable and error.retry_after_s is None:
        error.retry_after_s = retry_after_s(headers)
    return error


def error_in(said: object) -> UpstreamError:
    """The error inside a 200: the value of `error` in the answer or the event."""
    code = said.get("code") if isinstance(said, Mapping) else None
    return error_said(said, code if isinstance(code, int) and 400 <= code < 600 else 502)


def error_said(said: object, status: int) -> UpstreamError:
    """`said`: the value of `error` from the vendor; `status`: the HTTP status, or its substitute."""
    fields: Mapping[str, Any] = said if isinstance(said, Mapping) else {"message": said}
    text = fields.get("message")
    message = scrub(text if isinstance(text, str) and text else f"The provider answered {status}.")
    details = _details(fields)
    word = fields.get("status")
    if not isinstance(word, str) or word not in _MEANINGS:
        word = _WORDS.get(status, "")
    ours, code, retryable = _MEANINGS.get(word, _FAILED if status >= 500 else (status, "invalid_value", False))
    if _is_bad_key(details, message):
        ours, code = 401, "invalid_api_key"
    elif ours == 400 and _CONTEXT.search(message):
        code = "context_length_exceeded"
    elif ours == 402 or (ours == 429 and _is_spent(details, message)):
        ours, code, retryable = 429, "insufficient_quota", False
    elif ours == 404 and isinstance(text, str) and "model" not in text:
        code = "not_found"
    elif code in ("invalid_value", "upstream_error") and (meaning := meaning_of(ours, None, None, message)):
        ours, code, retryable = meaning.status, meaning.code, False
    error = UpstreamError(message, status=ours, code=code, retryable=retryable, upstream_status=status)
    if code == "insufficient_quota":
        error.type = code
    elif retryable:
        error.retry_after_s = _delay_s(details, message)
        if error.retry_after_s is not None:
            error.headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return error


def _details(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = fields.get("details")
    return [each for each in details if isinstance(each, Mapping)] if isinstance(details, list) else []


def _is_bad_key(details: list[Mapping[str, Any]], message: str) -> bool:
    if any(each.get("reason") == "API_KEY_INVALID" for each in details):
        return True
    lowered = message.lower()
    return any(phrase in lowered for phrase in _BAD_KEY)


def _is_spent(details: list[Mapping[str, Any]], message: str) -> bool:
    """True if waiting does not help: a limit per day, a limit of zero, or no credit left."""
    violations = [one for each in details if isinstance(each.get("violations"), list) for one in each["violations"]]
    limits = [one.get("quotaId") for one in violations if isinstance(one, Mapping)]
    limits += [each["metadata"].get("quota_limit") for each in details if isinstance(each.get("metadata"), Mapping)]
    if any("PerDay" in str(limit) for limit in limits):
        return True
    lowered = message.lower()
    return any(phrase in lowered for phrase in _SPENT) or _NO_LIMIT.search(message) is not None


def _delay_s(details: list[Mapping[str, Any]], message: str) -> float | None:
    for each in details:
        found = _DELAY.fullmatch(str(each.get("retryDelay")))
        if found is not None:
            return float(found[1])
    found = _AGAIN_IN.search(message)
    return float(found[1]) if found else None
