"""docs/dashboard.md matches the code: its setting loads, and its figures are those of the pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from proxy.config import Source, configure
from proxy.schema.records import NANO_PER_USD
from proxy.server.auth import STALE_S
from proxy.server.web.sessions import SESSION_S
from proxy.server.web.usage_view import GROUPS, METRICS, asked_of

PAGE = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text()
NOW_NS = int(datetime(2026, 11, 29, tzinfo=UTC).timestamp()) * NANO_PER_USD


def test_the_setting_is_one() -> None:
    """Every path of the pages begins with it."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    routing = f"version: 1\nproviders: {{openai: {{}}}}\n{text}"
    config = configure(Source("routing_rules.yaml", routing.encode()), None, {})
    assert config.server.prefix == "/ai"


def test_every_figure_is_that_of_the_code() -> None:
    """Of sessions, and of what is read from single calls."""
    text = " ".join(PAGE.split())
    assert f"after {SESSION_S // 3600} hours" in text and STALE_S < 2
    asked = asked_of([("group", "tag"), ("range", "30d")], "UTC", NOW_NS)
    assert f"the page shows {(asked.until_ns - asked.since_ns) // NANO_PER_USD // 3600} hours" in text


def test_every_choice_of_the_chart_is_named() -> None:
    """In the page's table."""
    (row,) = re.findall(r"^\| Usage \| (.*) \|$", PAGE, re.MULTILINE)
    for name in (*METRICS.values(), *GROUPS):
        assert name.lower() in row.lower(), name
