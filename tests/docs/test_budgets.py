"""docs/budgets.md is true: its settings load, its error is what callers get, its numbers are the code's."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from proxy.config import Source, check, configure
from proxy.metering.budgets import HARD_FACTOR
from proxy.metering.windows import BUCKET_S, WINDOWS
from proxy.pipeline.call import BUDGET_WAIT_S
from proxy.pipeline.holds import LEAST_TOKENS, SHARE, UNLIMITED_TOKENS, USEFUL_TOKENS, spent
from proxy.schema.json import encode
from proxy.schema.records import NANO_PER_USD, Charge, Crossing
from proxy.server.notify import shown
from proxy.storage.base import Room

PAGE = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text()
HEAD = "version: 1\nproviders: {openai: {}, perplexity: {}}\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_settings_on_the_page_load(text: str) -> None:
    environ = {"OPENAI_API_KEY": "any", "PERPLEXITY_API_KEY": "any"}
    config = configure(Source("routing_rules.yaml", (HEAD + text).encode()), None, environ)
    assert [str(each) for each in check(config, date(2026, 11, 29))] == []
    assert config.budget is not None


def test_the_error_on_the_page_is_what_callers_get() -> None:
    """Every field, and no other."""
    written, _ = blocks("json")
    resets_ns = int(datetime(2026, 11, 30, tzinfo=UTC).timestamp()) * NANO_PER_USD
    charge = Charge("daily", 0, 0, 20 * NANO_PER_USD, resets_ns=resets_ns)
    room = Room(charge, 20 * NANO_PER_USD, 19_990_000_000, 0, 61_000_000, is_soft=False, is_of_attempt=False)
    error = spent(room, "Ask ann@example.com for more.")
    assert json.loads(encode(error.body())) == json.loads(written)
    assert error.headers == {"x-should-retry": "false"}


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    assert (HARD_FACTOR, BUDGET_WAIT_S, SHARE, LEAST_TOKENS, BUCKET_S) == (1.25, 0.25, 8, 256, 600)
    assert (USEFUL_TOKENS, UNLIMITED_TOKENS) == (1024, 4096)
    assert all(f"`{window}`" in PAGE for window in WINDOWS)


def test_the_alert_on_the_page_is_what_webhooks_get() -> None:
    """Field by field."""
    _, written = blocks("json")
    resets_ns = 1_795_996_800 * 10**9
    crossing = Crossing("daily", resets_ns - 86_400 * 10**9, 0, 0.8, 16_020_000_000, 20 * 10**9, resets_ns)
    assert {"event": "budget_alert", **shown(crossing)} == json.loads(written)
