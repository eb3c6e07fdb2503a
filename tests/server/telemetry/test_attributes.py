"""Values on their way into spans: nothing that one call holds may cost the others of its batch."""

from __future__ import annotations

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from proxy.providers import PROVIDERS
from proxy.schema.records import Endpoint, Outcome
from proxy.server.telemetry.attributes import MAX_TEXT, failure, provider_attributes, shown


@pytest.mark.parametrize("text", ["plain", "\ud800 half a pair", "nul \0", "\U0001f600" * 1000, ""])
def test_any_text_can_be_sent(text: str) -> None:
    """Also halves of characters, which are JSON but no UTF-8."""
    sent = AnyValue(string_value=shown(text)).SerializeToString()
    assert len(AnyValue.FromString(sent).string_value) <= MAX_TEXT


@pytest.mark.parametrize(
    ("name", "type", "settings", "base_url", "expected"),
    [
        ("openai", "openai", {}, "https://api.openai.com/v1", ("openai", "api.openai.com", 443)),
        ("mine", "openai", {"base_url": "http://10.0.0.1:9/v1"}, "http://10.0.0.1:9/v1", ("mine", "10.0.0.1", 9)),
        (
            "g",
            "google",
            {},
            "https://generativelanguage.googleapis.com",
            ("gcp.gemini", "generativelanguage.googleapis.com", 443),
        ),
        ("m", "mistral", {}, "https://api.mistral.ai", ("mistral_ai", "api.mistral.ai", 443)),
        ("a", "anthropic", {}, "https://api.anthropic.com", ("anthropic", "api.anthropic.com", 443)),
        ("six", "openai", {"base_url": "http://[::1]/v1"}, "http://[::1]/v1", ("six", "::1", 80)),
        ("local", "embedded", {}, "", ("embedded", None, None)),
    ],
)
def test_a_provider_has_the_conventions_name_and_its_address(
    name: str, type: str, settings: dict[str, str], base_url: str, expected: tuple[str, str | None, int | None]
) -> None:
    """The embedded model has no fixed address."""
    found = provider_attributes(name, PROVIDERS[type](**settings), Endpoint(base_url))  # type: ignore[arg-type]
    assert (found["gen_ai.provider.name"], found.get("server.address"), found.get("server.port")) == expected


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        (Outcome.OK, 200, {}),
        (Outcome.CLIENT_CLOSED, 499, {}),
        (Outcome.CANCELLED, None, {}),
        (Outcome.UPSTREAM_ERROR, 503, {"error.type": "503"}),
        (Outcome.UPSTREAM_TRUNCATED, 200, {"error.type": "upstream_truncated"}),
        (Outcome.TIMEOUT_CONNECT, None, {"error.type": "timeout_connect"}),
    ],
)
def test_the_error_of_a_metric_is_one_of_few(outcome: Outcome, status: int | None, expected: dict[str, str]) -> None:
    """A status or an outcome: a vendor's own code would be a series of its own."""
    assert failure(outcome, status) == expected
