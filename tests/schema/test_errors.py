"""What an error says beside its message."""

from __future__ import annotations

import pytest

from proxy.schema.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from proxy.schema.records import Outcome, Tokens
from proxy.schema.usage import UsageReport


@pytest.mark.parametrize("phase", ["connect", "first_token", "idle", "total"])
def test_a_time_out_names_its_phase(phase: str) -> None:
    """All four share a code; what to change depends on the phase."""
    error = UpstreamTimeout("late", Outcome(f"timeout_{phase}"))
    assert error.body()["error"] == {
        "message": "late",
        "type": "server_error",
        "param": None,
        "code": "upstream_timeout",
        "metadata": {"phase": phase},
    }
    error.upstream_status = 200
    assert error.body()["error"]["metadata"] == {"upstream_status": 200, "phase": phase}  # type: ignore[index]


def counted(output: int) -> UpstreamError:
    """An error inside a 200 that tells what was used."""
    error = UpstreamError("broke off", retryable=True, upstream_status=502)
    error.usage = UsageReport({}, Tokens(input=3, output=output))
    return error


@pytest.mark.parametrize(
    ("error", "is_resendable"),
    [
        (UpstreamError("refused", retryable=True, upstream_status=503), True),
        (UpstreamError("wrong", upstream_status=400), False),
        (UpstreamError("unreadable", retryable=True, upstream_status=200), False),
        (UpstreamError("broken off", retryable=True), False),
        (UpstreamTimeout("late", Outcome.TIMEOUT_TOTAL), False),
        (UpstreamTimeout("late", Outcome.TIMEOUT_FIRST_TOKEN), False),
        (UpstreamTimeout("late", Outcome.TIMEOUT_CONNECT), True),
        (UpstreamUnavailable("not there"), True),
        (counted(0), True),
        (counted(9), False),
    ],
)
def test_only_what_was_refused_or_never_arrived_is_sent_again(error: UpstreamError, is_resendable: bool) -> None:
    """Anything else the vendor may be working on, or have billed."""
    assert error.resendable is is_resendable
