"""Translates: an error raised outside of an endpoint into the dialect of that endpoint."""

from __future__ import annotations

import re

from proxy.schema.errors import ProxyError
from proxy.server.api.aliases import own_path
from proxy.server.formats.messages.errors import AnthropicError

_MESSAGES = re.compile(r"(?:/v1)?/messages(?:/|$)")


def in_dialect(path: str, error: ProxyError, request_id: str | None = None) -> ProxyError:
    """The error with the body that clients of this path expect."""
    own, _ = own_path(path)
    return AnthropicError(error, request_id) if _MESSAGES.match(own) else error
