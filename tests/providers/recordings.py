"""Recordings of real traffic under tests/fixtures, as the bytes and events a provider sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proxy.providers.base.contract import HTTPResponse
from proxy.schema.sse import Event, EventFraming

FIXTURES = Path(__file__).parent.parent / "fixtures"


OWN_WIRES = ("anthropic", "cohere", "google", "perplexity", "responses")  # everything else speaks OpenAI's


def recordings(kind: str, vendor: str | None = None) -> list[str]:
    """The names of every recording of a kind (whole, stream, events, error): of one vendor, or of all on OpenAI's
    wire.
    """
    found = [path.relative_to(FIXTURES) for path in FIXTURES.glob(f"*/*.{kind}.json")]
    return sorted(
        str(path) for path in found if (path.parts[0] not in OWN_WIRES if vendor is None else path.parts[0] == vendor)
    )


def answer(name: str) -> HTTPResponse:
    """A whole answer, or an error, as it came."""
    response = load(name)
    return HTTPResponse(response["status"], {"content-type": "application/json"}, json.dumps(response["json"]).encode())


def events(name: str) -> list[Event]:
    """The events of a streamed answer."""
    response = load(name)
    if "stream" in response:
        framing = EventFraming()
        return framing.feed(response["stream"].encode()) + framing.close()
    return [Event("", json.dumps(event).encode()) for event in response["events"]]


def load(name: str) -> dict[str, Any]:
    response: dict[str, Any] = json.loads((FIXTURES / name).read_text())["response"]
    return response
