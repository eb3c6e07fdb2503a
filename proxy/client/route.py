"""Performs I/O: asks a running server how it would route a request."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

TIMEOUT_S = 30.0


class Unanswered(Exception):
    """The server cannot be reached, or its reply is not an answer. The text is a sentence without its subject."""


def explain(base_url: str, key: str | None, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer of `POST /v1/route/explain`; `base_url` ends in /v1. Raises Unanswered."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    try:
        answer = httpx.post(f"{base_url.rstrip('/')}/route/explain", content=body, headers=headers, timeout=TIMEOUT_S)
        return answer.status_code, msgspec.json.decode(answer.content, type=dict[str, Any])
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unanswered(f"does not answer: {error}") from error
    except msgspec.DecodeError as error:
        raise Unanswered(
            f"answers {answer.status_code} with something other than JSON. Does the address end in /v1?"
        ) from error
