"""What the headers of an answer leave of a vendor's limits, in each vendor's own names."""

from __future__ import annotations

import pytest

from proxy.providers import PROVIDERS
from proxy.upstream.headroom import Headroom, headroom_of

OPENAI = {
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-reset-requests": "8ms",
    "x-ratelimit-remaining-tokens": "149984",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2026-11-22T10:01:30Z",
    "date": "Sun, 22 Nov 2026 10:00:00 GMT",
}
MISTRAL = {"x-ratelimit-limit-req-10-second": "60", "x-ratelimit-remaining-req-10-second": "59"}
COHERE = {"x-trial-endpoint-call-limit": "40", "x-trial-endpoint-call-remaining": "39"}


@pytest.mark.parametrize(
    ("kind", "headers", "found"),
    [
        ("openai", OPENAI, [Headroom("requests", 9999, 10_000, "8ms"), Headroom("tokens", 149_984, None, "")]),
        ("groq", OPENAI, [Headroom("requests", 9999, 10_000, "8ms"), Headroom("tokens", 149_984, None, "")]),
        ("anthropic", ANTHROPIC, [Headroom("requests", 49, 50, "1m30s")]),
        ("mistral", MISTRAL, [Headroom("requests", 59, 60, "")]),
        ("cohere", COHERE, [Headroom("requests", 39, 40, "")]),
        ("ollama", {"content-type": "application/json"}, []),
        ("openai", {"x-ratelimit-remaining-requests": "many", "x-ratelimit-remaining-<b>": "1"}, []),
        ("openai", {"x-ratelimit-remaining-tokens": "9" * 5000}, []),
        (
            "openai",
            {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-limit-tokens": "-1"},
            [Headroom("tokens", 5, None, "")],
        ),
    ],
)
def test_what_is_left(kind: str, headers: dict[str, str], found: list[Headroom]) -> None:
    """Nothing where a vendor says nothing, or nothing that is a count."""
    assert headroom_of(PROVIDERS[kind](), headers) == found
