"""Translates: passes the trace of a call on to a provider that accepts it (`trace_context: true`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from proxy.providers.base.contract import Built
from proxy.upstream.upstream import Exchange, Upstream


class TracedUpstream(Upstream):
    """A provider that gets W3C's `traceparent`. `trace_headers` returns the headers of an attempt."""

    trace_headers: Callable[[str], Mapping[str, str]]

    def exchange(
        self, built: Built, attempt_id: str, stream: bool, on_sent: Callable[[], None] = lambda: None
    ) -> Exchange:
        headers = {**built.http.headers, **self.trace_headers(attempt_id)}
        return super().exchange(replace(built, http=replace(built.http, headers=headers)), attempt_id, stream, on_sent)
