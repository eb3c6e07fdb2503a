"""When a provider says when to come back, in whatever form, that is when."""

from __future__ import annotations

import pytest

from proxy.providers import PROVIDERS
from tests.providers.asking import answered

DATE = "Sat, 28 Nov 2026 12:00:00 GMT"
BODIES = {"google": {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow down"}}}
BODY = {"error": {"type": "rate_limit_error", "message": "slow down"}, "message": "slow down"}
EACH = pytest.mark.parametrize("kind", PROVIDERS)


def wait_s(kind: str, **headers: str) -> tuple[float | None, str | None]:
    """What we wait, and what the client is told."""
    error = PROVIDERS[kind]().parse_error(answered(429, BODIES.get(kind, BODY), **headers))
    return error.retry_after_s, error.headers.get("retry-after")


@EACH
@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        ("Sat, 28 Nov 2026 13:00:00 GMT", 3600),
        ("Saturday, 28-Nov-26 12:00:30 GMT", 30),
        ("Sat Nov 28 12:00:07 2026", 7),
        ("Sat, 28 Nov 2026 12:00:00 GMT", 0),
        ("Fri, 27 Nov 2026 12:00:00 GMT", 0),
    ],
)
def test_a_date_is_told_from_the_answers_own(kind: str, moment: str, seconds: int) -> None:
    """All three forms of RFC 9110. The client gets seconds: our answer has another date."""
    assert wait_s(kind, retry_after=moment, date=DATE) == (seconds, str(seconds))


@EACH
@pytest.mark.parametrize("date", [{}, {"date": "today"}], ids=["none", "wrong"])
def test_a_date_without_a_date_to_tell_it_from_is_ignored(kind: str, date: dict[str, str]) -> None:
    """No clock of ours stands in: the provider's may be wrong. The client may read it by its own."""
    moment = "Sat, 28 Nov 2026 13:00:00 GMT"
    assert wait_s(kind, retry_after=moment, **date) == (None, moment)


@EACH
@pytest.mark.parametrize("value", ["soon", "-5", "1e9", "9" * 20, "Sat, 99 Nov 2026 13:00:00 GMT", "\x00"])
def test_what_is_neither_seconds_nor_a_date_is_ignored(kind: str, value: str) -> None:
    """And fails nothing."""
    assert wait_s(kind, retry_after=value, date=DATE)[0] is None


@EACH
def test_seconds_stay_seconds(kind: str) -> None:
    """With a fraction too; milliseconds go first where a provider sends both."""
    assert wait_s(kind, retry_after="7", date=DATE) == (7.0, "7")
    assert wait_s(kind, retry_after="1.5")[0] == 1.5
    assert wait_s(kind, retry_after="7", retry_after_ms="250")[0] == 0.25
