"""The Usage page's arithmetic: periods, series, shares, words."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.metering.standing import Standing
from proxy.schema.errors import BadRequest
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.schema.records import Charge
from proxy.server.api.periods import iso
from proxy.server.web.budget_view import budget_bar
from proxy.server.web.usage_view import (
    SERIES,
    asked_of,
    buckets_of,
    cache_hit_rate,
    chart_of,
    rows_of,
    token_parts,
)
from proxy.server.web.words import MARKS, ago, count, long_text, milliseconds, percent, plain, query, short, size, usd

NOW = int(datetime(2026, 11, 29, 20, 30, tzinfo=UTC).timestamp()) * NANO


def figures(**changes: Any) -> dict[str, Any]:
    """One group of usage."""
    names: tuple[str, ...] = (
        "calls",
        "successes",
        "errors",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "cached_tokens",
    )
    names += ("cache_write_tokens", "reasoning_tokens", "unpriced_calls")
    times = dict.fromkeys(("avg_latency_ms", "p95_latency_ms", "p50_first_token_ms"))
    return {**dict.fromkeys(names, 0), **times, "cost_usd": 0.0, **changes}


@pytest.mark.parametrize(
    ("span", "tz", "since", "until", "bars"),
    [
        ("24h", "UTC", "2026-11-28T21:00:00Z", "2026-11-29T21:00:00Z", 24),
        ("today", "UTC", "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z", 24),
        ("today", "Asia/Tokyo", "2026-11-30T00:00:00+09:00", "2026-12-01T00:00:00+09:00", 24),
        ("7d", "Europe/Berlin", "2026-11-23T00:00:00+01:00", "2026-11-30T00:00:00+01:00", 7),
        ("30d", "Asia/Kolkata", "2026-11-01T00:00:00+05:30", "2026-12-01T00:00:00+05:30", 30),
    ],
)
def test_ranges_are_whole_days_of_the_zone(span: str, tz: str, since: str, until: str, bars: int) -> None:
    """Or whole hours."""
    asked = asked_of([("range", span)], tz, NOW)
    assert (iso(asked.since_ns, tz), iso(asked.until_ns, tz)) == (since, until)
    assert len(list(buckets_of(asked))) == bars


def test_a_day_of_25_hours_has_25_bars() -> None:
    """When clocks go back, no hour is lost and none is counted twice."""
    asked = asked_of([("since", "2026-10-25"), ("until", "2026-10-26")], "Europe/Berlin", NOW)
    keys = [key for key, _, _ in buckets_of(asked)]
    assert len(keys) == len(set(keys)) == 25
    assert asked.unit == "hour" and asked.range == "custom"


def test_sessions_and_tags_are_read_for_a_day() -> None:
    """And the page says so."""
    asked = asked_of([("group", "session"), ("range", "30d")], "UTC", NOW)
    assert (asked.until_ns - asked.since_ns) / NANO == 24 * 3_600
    assert asked.until_ns >= NOW and "24 hours" in asked.note
    assert asked_of([("group", "key"), ("range", "30d")], "UTC", NOW).note == ""


def test_a_period_needs_an_end_after_its_beginning() -> None:
    """And a bounded length."""
    for items, param in (
        ([("since", "2026-01-02"), ("until", "2026-01-02")], "until"),
        ([("since", "2020-01-01")], "since"),
    ):
        with pytest.raises(BadRequest) as refused:
            asked_of(items, "UTC", NOW)
        assert refused.value.param == param


def test_the_chart_adds_up() -> None:
    """The series that are told apart, the others together, and failed calls as a part of their own."""
    asked = asked_of([("metric", "calls"), ("group", "key"), ("range", "7d")], "UTC", NOW)
    groups = [figures(key=f"k{n}", calls=20 - n, successes=18 - n, errors=2) for n in range(10)]
    points = [{**group, "day": "2026-11-25"} for group in groups]
    chart = chart_of(asked, points, groups)
    assert [each.name for each in chart.legend] == [*(f"k{n}" for n in range(SERIES)), "3 others", "failed"]
    assert chart.columns == [*(f"k{n}" for n in range(SERIES)), "others", "failed", "all"]
    assert chart.rows[2][1] == [*(str(18 - n) for n in range(SERIES)), str(11 + 10 + 9), "20", str(sum(range(11, 21)))]
    assert {value for _, row in chart.rows[3:] for value in row} == {"0"}
    assert len(chart.labels) == len(chart.rows) == 7


def test_percentiles_are_lines_and_not_added() -> None:
    """Those of the groups with the most calls."""
    asked = asked_of([("metric", "p95"), ("group", "task"), ("range", "24h")], "UTC", NOW)
    groups = [figures(task=f"t{n}", calls=n, p95_latency_ms=100.0 * n) for n in range(9)]
    chart = chart_of(asked, [{**groups[8], "hour": "2026-11-29T20:00:00Z"}], groups)
    assert [each.name for each in chart.legend] == [f"t{n}" for n in range(8, 1, -1)]
    assert "7 with the most calls of 9" in chart.note
    assert chart.rows[-1][1][0] == "800 ms"


def test_a_group_without_a_name_is_named() -> None:
    """Calls without a session, and calls that no model answered."""
    asked = asked_of([("group", "model"), ("range", "24h")], "UTC", NOW)
    groups = [figures(provider=None, model=None, calls=3), figures(provider="a", model="b/c", calls=1, cost_usd=2.0)]
    rows = rows_of(asked, figures(calls=4, cost_usd=2.0), groups)
    assert [(row.name, row.share) for row in rows] == [("a/b/c", 1.0), ("(no model)", 0.0)]
    assert rows[0].href.startswith("requests?") and rows[1].href == ""


def test_token_parts_add_up_to_the_total() -> None:
    """Input in three parts, output in two."""
    total = figures(
        input_tokens=100,
        cached_tokens=30,
        cache_write_tokens=20,
        output_tokens=40,
        reasoning_tokens=15,
        total_tokens=140,
    )
    parts = token_parts(total)
    assert [(name, tokens) for _, name, tokens, _ in parts] == [
        ("fresh input", 50),
        ("cache read", 30),
        ("cache write", 20),
        ("output", 25),
        ("reasoning", 15),
    ]
    assert sum(share for *_, share in parts) == pytest.approx(1)
    assert cache_hit_rate(total) == 0.3
    assert cache_hit_rate(figures()) is None
    assert {share for *_, share in token_parts(figures())} == {0}


def bar(spent: float, soft: float | None, hard: float, downgrade_to: str | None = None) -> Any:
    start = NOW - 12 * 3_600 * NANO
    nano = None if soft is None else int(soft * NANO)
    charge = Charge(
        "key a monthly", start, start, int(hard * NANO), nano, True, start + 24 * 3_600 * NANO, downgrade_to
    )
    return budget_bar(Standing(charge, int(spent * NANO), 0), [0.5, 0.8], NOW, "UTC")


@pytest.mark.parametrize(
    ("spent", "soft", "hard", "state", "badge", "effect"),
    [
        (1, 10, 12, "ok", "", "a call that may cost more is shortened or downgraded to a/cheap"),
        (6, 10, 12, "near", "50 % reached", "a call that may cost more is shortened or downgraded to a/cheap"),
        (9, 10, 12, "near", "80 % reached", "a call that may cost more is shortened or downgraded to a/cheap"),
        (11, 10, 12, "downgraded", "downgraded to a/cheap", "calls are refused at $12.00"),
        (12, 10, 12, "spent", "limit reached", "only calls that are free pass"),
        (8, None, 9, "near", "80 % reached", "a call that may cost more is shortened or refused"),
        (9, None, 9, "spent", "limit reached", "only calls that are free pass"),
        (0, None, 0, "spent", "limit reached", "only calls that are free pass"),
    ],
)
def test_a_budget_says_how_it_stands(
    spent: float, soft: float | None, hard: float, state: str, badge: str, effect: str
) -> None:
    """By what is spent and held; what happens to the next calls is said before the limit is passed."""
    shown = bar(spent, soft, hard, "a/cheap")
    assert shown.effect == effect
    assert (shown.state, shown.badge, shown.scope, shown.window) == (state, badge, "key a", "monthly")


def test_a_budget_says_what_is_to_come() -> None:
    """At this pace, by the end of the window."""
    shown = bar(6, None, 10)
    assert (shown.spent, shown.limit, shown.left, shown.projection) == ("$6.00", "$10.00", "$4.00", "$12.00")
    assert shown.is_over and shown.resets == "Mon 30 Nov, 08:30"
    assert not bar(4, None, 10).is_over


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (usd(None), "\u2013"), (usd(0), "$0.00"), (usd(1234.5), "$1,234"), (usd(0.5), "$0.5000"), (usd(-2), "-$2.00"),
        (usd(0.0000012), "$0.0000012"), (count(1234567), "1,234,567"), (short(999_600), "1M"), (short(1_234), "1.23k"),
        (short(0), "0"), (milliseconds(0), "0 ms"), (milliseconds(0.25), "0.2 ms"), (milliseconds(1500), "1.5 s"),
        (milliseconds(600_000), "10 min"), (percent(0.0004), "< 0.1 %"), (percent(0.5), "50 %"),
        (size(0), "0 B"), (size(497_680_384), "498 MB"), (ago(7_200), "2 h ago"), (ago(-1), "0 s ago"),
        (plain(None), "\u2013"), (plain("a" * 200), "a" * 120 + "\u2026"), (plain("a\u202eb"), "a\ufffdb"),
        (query({"a": "1", "b": "2"}, a=None, c="x y"), "?b=2&c=x+y"), (query({}), "?"),
    ],
)  # fmt: skip
def test_figures_have_one_form_each(word: str, said: str) -> None:
    """What nobody knows is a dash, and no zero."""
    assert word == said


def test_every_mark_of_unicode_is_seen() -> None:
    """Controls, formats, surrogates, separators; but not the joiners, and nothing that has a shape of its own."""
    kinds = {chr(code): unicodedata.category(chr(code)) for code in range(0x110000)}
    marks = {each for each, kind in kinds.items() if kind in ("Cc", "Cf", "Cs", "Zl", "Zp")} - set("\u200c\u200d")
    found = set(MARKS.findall("".join(kinds)))
    assert marks <= found
    assert {kinds[each] for each in found - marks} <= {"Cn", "Mn"}  # of a newer Unicode
    assert long_text("a\tb\n\x07\u202e\u2028c") == "a\tb\n\ufffd\ufffd\ufffdc"
    assert long_text("abc", 2) == "ab\u2026\n[1 more characters]"
