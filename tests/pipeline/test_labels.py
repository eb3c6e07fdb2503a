"""What a client says a call belongs to reaches the call's row."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.pipeline.hints import applied
from proxy.pipeline.labels import MAX_LABEL, labels
from proxy.schema.chat import ChatRequest
from proxy.schema.records import NO_LABELS, Labels


def request(**fields: Any) -> ChatRequest:
    return ChatRequest(model="auto", messages=[], fields=fields)


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({}, {}, NO_LABELS),
        ({}, {"x-session-id": "s1"}, Labels(session="s1")),
        ({}, {"x-claude-code-session-id": "s2"}, Labels(session="s2")),
        ({"metadata": {"session_id": "s3"}}, {}, Labels(session="s3")),
        ({"metadata": {"session_id": "s3"}}, {"x-session-id": "s1"}, Labels(session="s1")),
        ({"metadata": {"session_id": 7}}, {}, NO_LABELS),
        ({"metadata": None}, {}, NO_LABELS),
        (
            {},
            {"x-claude-code-agent-id": "a", "x-claude-code-parent-agent-id": "p"},
            Labels(agent="a", parent_agent="p"),
        ),
        ({"routing": {"tags": ["batch", "night"]}}, {}, Labels(tags=("batch", "night"))),
        ({}, {"x-session-id": "\x1b[2J\x07"}, Labels(session="[2J")),
        ({}, {"x-session-id": "s" * 500}, Labels(session="s" * MAX_LABEL)),
    ],
)
def test_labels_are_what_the_client_says(fields: dict[str, Any], headers: dict[str, str], expected: Labels) -> None:
    """Without characters that a terminal obeys, and of bounded length."""
    assert labels(applied(request(**fields), headers), headers) == expected
