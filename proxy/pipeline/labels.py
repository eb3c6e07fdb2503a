"""Translates: a request and its headers into the labels (tags, session, agents) that the client gives the call.

Coding agents send session and agent in headers of their own (Claude Code's, checked in November 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.routing.facts import SESSION_HEADERS
from proxy.schema.endpoints import AnyRequest
from proxy.schema.records import NO_LABELS, Labels

AGENT_HEADER, PARENT_HEADER = "x-claude-code-agent-id", "x-claude-code-parent-agent-id"
MAX_LABEL = 128  # characters; clients choose them


def labels(request: AnyRequest, headers: Mapping[str, str]) -> Labels:
    """The tags, session and agents of a request. Headers take precedence over `metadata.session_id`."""
    session = None
    for name in SESSION_HEADERS:
        if session is None:
            session = headers.get(name)
    if session is None and isinstance(metadata := request.fields.get("metadata"), dict):
        session = metadata.get("session_id")
    agent, parent_agent = headers.get(AGENT_HEADER), headers.get(PARENT_HEADER)
    tags = request.hints.tags
    if not (session or agent or parent_agent or tags):
        return NO_LABELS
    return Labels(tags, _label(session), _label(agent), _label(parent_agent))


def _label(text: Any) -> str | None:
    """Shortened, and without terminal control characters; None if nothing is left."""
    if not isinstance(text, str):
        return None
    return "".join(char for char in text[:MAX_LABEL] if char.isprintable()).strip() or None
