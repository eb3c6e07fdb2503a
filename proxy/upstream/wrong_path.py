"""Translates: the answer of a server that knows no such path into an error that names `base_url`.

Without this a client reads that its model does not exist, and nobody checks the address.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from proxy.schema.errors import UpstreamError

# How servers and gateways report an unknown path, from their sources: Go, FastAPI, llama.cpp, nginx, Azure, OpenAI.
_OF_PATHS = re.compile(
    r"answered 40[45] \(|\bnot found\b|page not|no route|invalid url|unknown (?:request )?(?:url|path|endpoint)"
    r"|unexpected endpoint|cannot (?:get|post)\b|method not allowed|no such (?:url|path|route|endpoint)",
    re.IGNORECASE,
)
_OF_MODELS = re.compile(r"model|deployment|engine|adapter|\blora\b", re.IGNORECASE)


def as_wrong_path(error: UpstreamError, base_url: str | None) -> UpstreamError | None:
    """The error for a request whose path the server at this address does not know; None if it says something else."""
    if error.upstream_status not in (404, 405) or base_url is None:
        return None
    if _OF_MODELS.search(error.message) or not _OF_PATHS.search(error.message):
        return None
    hint = "Is its base_url right?"
    if not re.search(r"/v\d", urlsplit(base_url).path):
        hint = "Its base_url has no /v1, which most servers need."
    message = f"{error.message.rstrip('. ')}. The server does not know this path. {hint}"
    wrong = UpstreamError(message, upstream_status=error.upstream_status)
    wrong.headers |= error.headers
    return wrong
