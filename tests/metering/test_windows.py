"""Which window a moment falls in, and when its spending counts no more."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from proxy.metering.windows import BUCKET_S, WINDOWS, window_at

BERLIN = ZoneInfo("Europe/Berlin")
NS = 10**9


def ns(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * NS


@pytest.mark.parametrize(
    ("kind", "now", "start", "end"),
    [
        ("minute", "2026-11-29T12:34:56", "2026-11-29T12:34:00", "2026-11-29T12:35:00"),
        ("hour", "2026-11-29T12:34:56", "2026-11-29T12:00:00", "2026-11-29T13:00:00"),
        ("daily", "2026-11-29T00:00:00", "2026-11-29T00:00:00", "2026-11-30T00:00:00"),
        ("daily", "2026-03-29T12:00:00", "2026-03-29T00:00:00", "2026-03-30T00:00:00"),  # 23 hours
        ("daily", "2026-10-25T12:00:00", "2026-10-25T00:00:00", "2026-10-26T00:00:00"),  # 25 hours
        ("weekly", "2026-11-29T12:00:00", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),  # from Monday
        ("monthly", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("monthly", "2028-02-29T00:00:00", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_calendar_windows_begin_and_end_where_the_calendar_says(kind: str, now: str, start: str, end: str) -> None:
    """In the operator's time zone, also on days that change the clock."""
    window = window_at(kind, ns(now), BERLIN)
    assert (window.start_ns, window.since_ns, window.until_ns, window.resets_ns) == (
        *(ns(start), ns(start)),
        *(ns(end), ns(end)),
    )


def test_the_hour_that_a_clock_repeats_is_two() -> None:
    """2:30 comes twice on the day that summer time ends."""
    first = int(datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN).timestamp()) * NS
    second = int(datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1).timestamp()) * NS
    before, after = window_at("hour", first, BERLIN), window_at("hour", second, BERLIN)
    assert before.until_ns == after.start_ns == second - 30 * 60 * NS


@pytest.mark.parametrize("kind", WINDOWS)
def test_every_moment_has_its_window_and_the_next_begins_where_it_ends(kind: str) -> None:
    """Over a day that changes the clock, in steps that hit no boundary twice."""
    now = ns("2026-10-24T22:00:00")
    while now < ns("2026-10-26T02:00:00"):
        window = window_at(kind, now, BERLIN)
        assert window.since_ns <= window.start_ns <= now < window.until_ns
        if kind != "total":
            assert window_at(kind, window.until_ns, BERLIN).start_ns == window.until_ns
            assert window_at(kind, window.until_ns - 1, BERLIN) == window
        now += int(timedelta(minutes=37, seconds=1).total_seconds()) * NS


def test_a_sliding_window_resets_when_nothing_that_is_spent_by_now_counts() -> None:
    """Not before: who waits until then is not refused again for the same spending. `total` never resets."""
    now = ns("2026-11-29T12:34:56")
    window = window_at("last_24h", now, BERLIN)
    assert window.resets_ns is not None
    assert window_at("last_24h", window.resets_ns, BERLIN).since_ns > window.start_ns
    assert window_at("last_24h", window.resets_ns - 1, BERLIN).since_ns <= window.start_ns
    assert window.resets_ns - now <= (86_400 + BUCKET_S) * NS
    assert window_at("total", now, BERLIN).resets_ns is None
