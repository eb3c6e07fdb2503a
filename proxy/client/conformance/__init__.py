"""Translates: the wire behaviour of an OpenAI-compatible server into pure checks. Only `run` performs I/O.

A check is a generator: it yields a request, receives the reply, and returns what it saw or raises Failed, Unsupported
or NotShown (`base`). It uses neither sockets nor clocks, so it can be tested without a server.

The checks judge the server, not how well its model follows instructions. If the model did not do what would show a
property, the prompt token count shows whether the model was asked at all.
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
