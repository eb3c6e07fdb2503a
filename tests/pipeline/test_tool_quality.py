"""Which tool calls of an answer are broken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.pipeline.tool_quality import MAX_ARGUMENTS, judged

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "share": {"type": "number"}, "any": {}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "web_search"},
]


def judge(name: str, arguments: str | None) -> int:
    made, broken = judged([{"tool_calls": [{"function": {"name": name, "arguments": arguments}}]}], TOOLS)
    assert made == 1
    return broken


@pytest.mark.parametrize(
    "arguments",
    [
        '{"city": "Oslo"}',
        '{"city": "Oslo", "days": 2, "share": 1, "any": [null]}',
        '{"city": "Oslo", "days": 2.0, "share": 0.5}',
        json.dumps({"city": "x" * MAX_ARGUMENTS, "more": 1}),  # too long to be looked at
    ],
)
def test_arguments_that_match_are_fine(arguments: str) -> None:
    """At the top level."""
    assert judge("weather", arguments) == 0


@pytest.mark.parametrize(
    "arguments",
    ["", "{", "[]", '"Oslo"', '{"days": 2}', '{"city": 7}', '{"city": "Oslo", "days": true}', '{"city": "", "x": 1}'],
)
def test_arguments_that_do_not_match_are_broken(arguments: str) -> None:
    """Invalid JSON, no object, a missing or unknown name, another type."""
    assert judge("weather", arguments) == 1


def test_a_tool_that_was_not_offered_is_broken() -> None:
    """One without a schema takes any object, or nothing."""
    assert [judge("wether", "{}"), judge("now", ""), judge("now", '{"a": 1}'), judge("now", "7")] == [1, 0, 0, 1]


def test_answers_without_calls_count_nothing() -> None:
    """Nor do custom tools, whose input is free text."""
    assert judged([{"content": "hi"}, {"tool_calls": None}], TOOLS) == (0, 0)
    assert judged([{"tool_calls": [{"custom": {"name": "x", "input": "{"}}]}], TOOLS) == (1, 0)
