"""Orchestrates: reports a request that got no HTTP answer: to the caller as an error, and to the log."""

from __future__ import annotations

from collections.abc import Callable

from proxy.schema.errors import UpstreamError, UpstreamTimeout, UpstreamTruncated, UpstreamUnavailable
from proxy.schema.records import Outcome
from proxy.upstream.transports.base import ConnectFailed, ConnectionLost, ConnectTimedOut

WARN_AGAIN_S = 60.0  # an outage of a busy server is one line a minute


def tell_nobody(event: str, **_: object) -> None:
    """A `warn` for upstreams whose failures only their callers see."""


class Unreached:
    """For one upstream. `warn` receives the event, `provider` and `reason`, each reason once in WARN_AGAIN_S."""

    def __init__(self, name: str, connect_s: float, warn: Callable[..., object]) -> None:
        self._name = name
        self._connect_s = connect_s
        self._warn = warn
        self._warned: dict[str, float] = {}

    def error(self, failure: ConnectFailed | ConnectionLost, now: float) -> UpstreamError:
        """The caller's error. It is also logged, unless a server only broke off, as all of them do now and then."""
        why = str(failure)
        error: UpstreamError
        if isinstance(failure, ConnectTimedOut):
            message = f"{self._name} did not accept a connection within {self._connect_s:g} s."
            error = UpstreamTimeout(message, Outcome.TIMEOUT_CONNECT)
        elif isinstance(failure, ConnectFailed):
            why = why or "Is the server up, and is its base_url right?"
            error = UpstreamUnavailable(f"{self._name} cannot be reached: {why}")
        elif why:
            error = UpstreamTruncated(f"{self._name} did not answer: {why}")
        else:
            return UpstreamTruncated(f"{self._name} closed the connection without an HTTP answer.")
        last = self._warned.get(error.message)
        if last is None or now - last >= WARN_AGAIN_S:
            self._warned[error.message] = now  # there are few phrases
            self._warn("provider_unreached", provider=self._name, reason=error.message)
        return error
