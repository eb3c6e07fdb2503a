"""Translates: what an OpenAI-compatible server must do on the wire, as pure checks; `run` alone performs I/O.

A check is a generator: it yields what to send, is given what came back, and returns what it saw, or raises Failed,
Unsupported or NotShown (`base`). It knows neither sockets nor clocks, so it can be read, and tried, without a server.
What the server does is judged, not how well its model obeys: where the model did not do what would show a property, the
number of tokens that the server read tells whether it was asked at all.
"""

from __future__ import annotations

from proxy.client.conformance.base import Check
from proxy.client.conformance.errors import ERRORS
from proxy.client.conformance.formats import JSON, MEDIA, REASONING
from proxy.client.conformance.limits import SAMPLING, STOPS
from proxy.client.conformance.messages import MESSAGES
from proxy.client.conformance.others import MODELS, VECTORS
from proxy.client.conformance.streams import STREAM
from proxy.client.conformance.tools import TOOLS
from proxy.client.conformance.whole import WHOLE

CHECKS: tuple[Check, ...] = (
    *WHOLE,
    *STREAM,
    *MESSAGES,
    *SAMPLING,
    *STOPS,
    *TOOLS,
    *JSON,
    *MEDIA,
    *REASONING,
    *ERRORS,
    *VECTORS,
    *MODELS,
)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(check.group for check in CHECKS))
