"""Every kind of mistake gets one clear message with its position."""

from __future__ import annotations

import pytest

from tests.config.files import lines_of
from tests.config.mistakes import HEAD, MISTAKES, PRICE_MISTAKES


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_has_one_exact_line(text: str | bytes, expected: list[str]) -> None:
    """File, line, column, path and message are as in the table, and nothing else is reported."""
    assert lines_of(text) == [f"routing_rules.yaml{line}" for line in expected]


@pytest.mark.parametrize(
    ("text", "expected"), [case[1:] for case in PRICE_MISTAKES], ids=[c[0] for c in PRICE_MISTAKES]
)
def test_a_mistake_in_the_prices_has_one_exact_line(text: str, expected: list[str]) -> None:
    """The same rules apply to pricing.yaml."""
    assert lines_of(HEAD, f"version: 1\n{text}\n") == [f"pricing.yaml{line}" for line in expected]


def test_all_mistakes_of_both_files_are_reported_at_once() -> None:
    """Nobody wants to fix a file one message at a time. They are sorted by file and line."""
    routing = """\
version: 1
providers:
  openai: {retrys: 1, timeout_s: {total: -1}}
  ollama: {}
server: {port: x, wrokers: 2}
models:
  a: nowhere
  b: [c]
aliases: {c: b}
"""
    assert lines_of(routing, "version: 1\nmodels:\n  openai/x: {output: ten}\n  openai/x: {}\n") == [
        "pricing.yaml:3:22: models.openai/x.output: expected a number, got text",
        "pricing.yaml:4:3: models.openai/x: duplicate key; it first appears in line 3",
        'routing_rules.yaml:3:12: providers.openai.retrys: unknown key; did you mean "retries"?',
        "routing_rules.yaml:3:42: providers.openai.timeout_s.total: must be greater than 0",
        "routing_rules.yaml:4:3: providers.ollama.base_url: a name inside your own network;"
        " add allow_private: true if this is intended",
        "routing_rules.yaml:5:16: server.port: expected a whole number, got text",
        'routing_rules.yaml:5:19: server.wrokers: unknown key; did you mean "workers"?',
        'routing_rules.yaml:7:6: models.a: unknown model "nowhere"'
        "; use a name under models: or aliases:, or provider/model",
        "routing_rules.yaml:8:6: models.b: expected text or keys and values, got a list",
    ]


def test_each_cycle_is_reported_once() -> None:
    """Two cycles give two messages, however many names lead into them."""
    models = "models:\n  a: b\n  b: a\n  c: a\n  d: {use: gpt-6-sol, fallback: [e]}\n  e: {use: d, fallback: [c]}\n"
    assert lines_of(HEAD + models) == [
        "routing_rules.yaml:5:6: models.b: circular reference: a -> b -> a",
        "routing_rules.yaml:8:12: models.e.use: circular reference: d -> e -> d",
    ]
