"""Translates: the errors of OpenAI-shaped servers, with error statuses and inside a 200."""

from __future__ import annotations

from typing import Any

from proxy.providers.base.answers import decode, json_or_none
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.envelopes import error_inside, said_in_answer, status_of
from proxy.providers.base.errors import PLAIN, ErrorRules, build, passed_headers
from proxy.providers.base.usage import usage_of
from proxy.schema.errors import UpstreamError

_REFUSALS = (400, 401, 403, 404, 429)


def error_from(response: HTTPResponse, ids: tuple[str, ...], rules: ErrorRules = PLAIN) -> UpstreamError:
    """The error of a non-2xx answer. A client's mistake keeps its status; a provider's own failure is a 502 or 503."""
    return build(said_in_answer(response), response.status, passed_headers(response, ids, rules), rules)


def body_of(response: HTTPResponse, rules: ErrorRules) -> dict[str, Any]:
    """The body of a 2xx answer. Raises UpstreamError if it is not an object, or an error."""
    try:
        body = decode(response.body)
    except UpstreamError:
        value = json_or_none(response.body)
        if isinstance(value, list) and value and isinstance(value[0], dict) and (error := error_in(value[0], rules)):
            raise error from None
        raise
    error = error_in(body, rules)
    if error is not None:
        raise error
    return body


def error_in(event: dict[str, Any], rules: ErrorRules = PLAIN) -> UpstreamError | None:
    """The error inside a 200, with the usage beside it; None when there is none."""
    said = error_inside(event)
    if said is None:
        return None
    error = build(said, status_of(said), {}, rules)
    error.usage = usage_of(event)
    error.is_refusal = error.usage is None and error.status in _REFUSALS and error.code != "content_filter"
    return error
