"""Translates: vendors' error messages into UpstreamError with OpenAI's status, type and code.

Each vendor's own module finds message, type and code in the body; this one interprets them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from msgspec import Struct

from proxy.providers.base.answers import listed
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.meanings import is_vague, meaning_of
from proxy.schema.errors import UpstreamError
from proxy.schema.json_writing import text_of

_MAX_MESSAGE = 2000
_MAX_LOOKED_AT = 64 * 1024  # characters of a text; an answer may be one error of 60 MB
_MAX_PLACES = 64
_MAX_WORD = 128
_MAX_HEADER = 256
# Keys and account ids, but not words such as "organization". Anthropic writes `(org: <uuid>, ...)`.
_SECRETS = re.compile(r"\b(?:(?:sk|gsk|pplx|org|xai)[-_*]|AIza)[-_A-Za-z0-9*.]{6,}|(?<=\borg: )[-0-9a-f]{36}")
_UNSUPPORTED = ("not_supported_error",)  # llama.cpp, with status 501
_PASSED_HEADERS = ("x-ratelimit-", "retry-after")
_CODES = {
    400: "invalid_value",
    401: "invalid_api_key",
    429: "rate_limit_exceeded",
    502: "upstream_error",
    503: "upstream_unavailable",
    504: "upstream_timeout",
}
_OVERLOADED = (498, 503, 529)  # Groq's capacity_exceeded, the standard one, Anthropic's
_NAME = re.compile(r"[\w./-]+", re.ASCII)  # the characters of a code or a type; never a sentence
_CLASS_NAME = re.compile(r"[A-Z]\w*Error")  # vLLM sends the names of its Python classes as types
_NUMBER = re.compile(r"\d+")
_SECONDS = re.compile(r"\d{1,9}(\.\d+)?")
_AGAIN_IN = re.compile(r"(?i:try again|retry) (?:in|after) (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+) ?(ms|s))?")


class ErrorRules(Struct, frozen=True):
    """How one vendor's errors differ from OpenAI's.

    `codes`: its code or type -> our status and code. `statuses`: its status -> ours. `again`: codes for mistakes of the
    model, for which a retry may help. `phrases`: its status and a part of its message -> our status and code, for
    errors without a code. `headers`: its rate-limit headers -> OpenAI's names; a value of `-reset` is in seconds.
    """

    codes: Mapping[str, tuple[int, str]] = {}
    statuses: Mapping[int, int] = {}
    again: frozenset[str] = frozenset()
    phrases: tuple[tuple[int, str, int, str], ...] = ()
    headers: Mapping[str, str] = {}


PLAIN = ErrorRules()


def scrub(text: str) -> str:
    """A vendor's text on one printable line, capped, with keys and account ids redacted."""
    line = " ".join(_SECRETS.sub("[redacted]", text[:_MAX_LOOKED_AT]).split())[:_MAX_MESSAGE]
    return line if line.isprintable() else "".join(letter for letter in line if letter.isprintable())


# --- headers ----------------------------------------------------------------------------------------------------------


def request_id(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The vendor's own id of a request, for its support desk: the first of `names` that is set."""
    value = next((value for name in names if (value := headers.get(name))), None)
    return value[:_MAX_WORD] if value and value.isascii() and value.isprintable() else None


def passed_headers(response: HTTPResponse, ids: tuple[str, ...], rules: ErrorRules = PLAIN) -> dict[str, str]:
    """The headers of an error for the client: limits under OpenAI's names, the time to retry, the request id."""
    headers = {}
    for name, value in response.headers.items():
        ours = rules.headers.get(name, name)
        if ours.startswith(_PASSED_HEADERS) and value.isprintable() and value.isascii() and len(value) <= _MAX_HEADER:
            in_seconds = ours != name and "-reset-" in ours and _NUMBER.fullmatch(value)
            headers[ours] = f"{value}s" if in_seconds else value
    wait_s = seconds_until(http_date(headers.get("retry-after")), response.headers.get("date"))
    if wait_s is not None:
        headers["retry-after"] = str(wait_s)
    identity = request_id(response.headers, ids)
    if identity is not None:
        headers["x-upstream-request-id"] = identity
    return headers


def http_date(value: str | None) -> datetime | None:
    """The time of an HTTP date (RFC 9110, section 5.6.7), None for anything else."""
    if not value or _NUMBER.match(value):
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_until(moment: datetime | None, date: str | None) -> int | None:
    """Seconds from the answer's own `Date` to `moment`, 0 if it is past. None without a `Date`: our clock is not read
    here, and the vendor's may be wrong.
    """
    now = http_date(date)
    if moment is None or now is None:
        return None
    return max(0, math.ceil((moment - now).total_seconds()))


def retry_after_s(headers: Mapping[str, str], message: str = "") -> float | None:
    """The seconds to wait, from `passed_headers` (retry-after-ms or retry-after), else from a message like "try again
    in 1m2.5s".
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if _SECONDS.fullmatch(headers.get(name, "")):
            return float(headers[name]) / scale
    match = _AGAIN_IN.search(message)
    if match is None or not any(match.groups()):
        return None
    hours, minutes, number, unit = match.groups()
    try:
        rest = float((number or "0").rstrip(".")) / (1000 if unit == "ms" else 1)
    except ValueError:
        return None
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + rest


# --- meaning ----------------------------------------------------------------------------------------------------------


def build(said: Mapping[str, Any], status: int, headers: dict[str, str], rules: ErrorRules = PLAIN) -> UpstreamError:
    """The error for a vendor's answer. `said`: message, type, param, code, each optional; `status`: the vendor's, 0 for
    an error inside a 200 that names none.
    """
    text, where = _message(said.get("message"))
    message = scrub(text or (f"The provider answered {status}." if status else "The provider's answer is an error."))
    kind, told = _word(said.get("type")), _word(said.get("code")) or _word(said.get("inner_code"))
    now, code = _meaning(status, kind, told, message, rules)
    now = now or 502
    out_of_money = code == "insufficient_quota" or now == 402
    ours = 429 if out_of_money else _status(now)
    error = UpstreamError(
        message,
        status=ours,
        code="insufficient_quota" if out_of_money else code or _CODES.get(ours),
        retryable=((now in (408, 409, 429) or (now >= 498 and now != 499)) or code in rules.again) and not out_of_money,
        upstream_status=status or now,
    )
    error.param = _word(said.get("param")) or _word(where)
    written = said.get("failed_generation")
    if written is not None:
        error.failed_generation = (written if isinstance(written, str) else text_of(written))[:_MAX_LOOKED_AT]
    named = kind if kind and _NAME.fullmatch(kind) and not _CLASS_NAME.fullmatch(kind) else None
    error.type = (named if ours < 500 else None) or ("insufficient_quota" if out_of_money else error.type)
    error.headers |= headers
    error.retry_after_s = retry_after_s(headers, message if ours == 429 else "")
    if error.retry_after_s is not None and ours == 429:
        error.headers.setdefault("retry-after", str(math.ceil(error.retry_after_s)))
    return error


def _meaning(
    status: int, kind: str | None, told: str | None, message: str, rules: ErrorRules
) -> tuple[int, str | None]:
    """OpenAI's status and code for this error. A code that is a bare number, or a sentence, is useless to a client."""
    for name in (told, kind):
        if name is not None and name in rules.codes:
            return rules.codes[name]
    for when, phrase, ours, said in rules.phrases:
        if status == when and phrase in message.lower():
            return ours, said
    meaning = meaning_of(status, told, kind, message)
    if meaning is not None and not (meaning.code == "content_filter" and told == "content_policy_violation"):
        return meaning.status, meaning.code
    code = told
    if told and _NUMBER.fullmatch(told):
        code = kind if kind and status < 500 and not (is_status(told) or _CLASS_NAME.fullmatch(kind)) else None
    if code is not None and (is_vague(code) or not _NAME.fullmatch(code)):
        code = None
    if status == 404 and code is None:
        return 404, "model_not_found"
    if kind in _UNSUPPORTED:
        return 400, "unsupported_parameter"
    return rules.statuses.get(status, status), code


def _status(status: int) -> int:
    if status in _OVERLOADED:
        return 503
    if status in (504, 524):
        return 504
    return status if 400 <= status < 500 else 502


def _message(value: object) -> tuple[str | None, str | None]:
    """The message as text and, if a validator wrote it (`{"detail": [{"loc", "msg"}]}`), the field."""
    if isinstance(value, dict):
        if "detail" in value:
            return _message(value["detail"])
        if isinstance(value.get("message"), str):
            return value["message"], None
    if isinstance(value, list):
        value = value[:_MAX_PLACES]
    if isinstance(value, list) and value and all(isinstance(each, dict) and "msg" in each for each in value):
        places = [".".join(str(step) for step in listed(each.get("loc")) if step != "body") for each in value]
        lines = [
            f"{place}: {each['msg']}" if place else str(each["msg"]) for place, each in zip(places, value, strict=True)
        ]
        return "; ".join(lines), places[0] or None
    return _text(value), None


def _text(value: object) -> str | None:
    """A vendor's field as text; some send objects where OpenAI sends strings."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else text_of(value)


def _word(value: object) -> str | None:
    """A type, code or field, shortened because it is repeated in rows, log lines and clients' programs."""
    text = _text(value)
    return (scrub(text)[:_MAX_WORD] or None) if text else None


def is_status(value: object) -> bool:
    return (isinstance(value, int) and 400 <= value < 600) or (
        isinstance(value, str) and re.fullmatch(r"[45]\d\d", value) is not None
    )
