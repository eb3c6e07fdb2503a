"""Performs I/O: records calls as spans and metrics in memory. Nothing is sent here, and no failure reaches a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from weakref import WeakValueDictionary

from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as ai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics as names
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import FilteringBoundLogger

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.providers.base.contract import Provider
from proxy.schema.records import CallEnd, Endpoint, Outcome
from proxy.server.telemetry.attributes import (
    Where,
    attempt_span,
    call_span,
    failure,
    measured,
    operation,
    provider_attributes,
    shown,
)

Providers = Mapping[str, tuple[Provider, Endpoint]]
_W3C = TraceContextTextMapPropagator()
_NO_HEADERS: Mapping[str, str] = {}
# The conventions' own buckets.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKENS = tuple(4**power for power in range(14))


class Trace:
    """The spans of one call, and when it started."""

    __slots__ = ("__weakref__", "attempts", "span", "started_ns")

    def __init__(self, span: Span, started_ns: int) -> None:
        self.span = span
        self.started_ns = started_ns
        self.attempts: dict[str, Span] = {}  # those whose ids were sent to a provider

    def at(self, seconds: float) -> int:
        """Unix nanoseconds for a time in seconds since the call began."""
        return self.started_ns + int(seconds * 1e9)


class Telemetry:
    """Spans and metrics of calls. It outlives reloads. `tracer` or `meter` None: that signal is off."""

    def __init__(self, tracer: Tracer | None, meter: Meter | None, log: FilteringBoundLogger) -> None:
        self._tracer = tracer
        self._instruments = None if meter is None else _Instruments(meter)
        self._log = log
        self._traces: WeakValueDictionary[str, Trace] = WeakValueDictionary()  # the calls hold them

    @property
    def is_tracing(self) -> bool:
        return self._tracer is not None

    def observing(
        self, ended: Callable[[Call, CallEnd], None], configured: frozenset[str], providers: Providers
    ) -> Callable[[Call, CallEnd], None]:
        """The observer `ended` of one configuration, which records each call as well."""
        known = {name: provider_attributes(name, *each) for name, each in providers.items()}
        note = partial(self.note_end, Where(configured, known))

        def observed(call: Call, end: CallEnd) -> None:
            ended(call, end)
            note(call, end)

        return observed

    def begin(self, call: Call, headers: Mapping[str, str]) -> Trace | None:
        """The trace of a call, which continues the client's `traceparent`."""
        try:
            return self._begin(call, headers)
        except Exception:
            self._log.exception("telemetry_error")
            return None

    def _begin(self, call: Call, headers: Mapping[str, str]) -> Trace | None:
        if self._tracer is None:
            return None
        started_ns = call.opened_ns - int(call.time.elapsed_ms() * 1e6)
        parent = _W3C.extract({name: headers[name] for name in _W3C.fields if name in headers}, Context())
        name = f"{operation(call.request)} {shown(call.request.model)}"
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, start_time=started_ns)
        trace = self._traces[call.id] = Trace(span, started_ns)
        return trace

    def headers(self, attempt_id: str) -> Mapping[str, str]:
        """The headers that pass the trace on to a provider."""
        try:
            return self._headers(attempt_id)
        except Exception:
            self._log.exception("telemetry_error")
            return _NO_HEADERS

    def _headers(self, attempt_id: str) -> Mapping[str, str]:
        trace = self._traces.get(attempt_id.rpartition("-")[0])
        if trace is None or self._tracer is None:
            return _NO_HEADERS
        context = set_span_in_context(trace.span, Context())
        span = trace.attempts[attempt_id] = self._tracer.start_span("attempt", context, SpanKind.CLIENT)
        headers: dict[str, str] = {}
        _W3C.inject(headers, set_span_in_context(span, Context()))
        return headers

    def note_end(self, where: Where, call: Call, end: CallEnd) -> None:
        """Records an ended call with all its attempts."""
        try:
            if isinstance(call.trace, Trace):
                self._end_spans(where, call, end, call.trace)
            if self._instruments is not None:
                self._instruments.note(where, call, end)
        except Exception:
            self._log.exception("telemetry_error")

    def _end_spans(self, where: Where, call: Call, end: CallEnd, trace: Trace) -> None:
        if trace.span.is_recording():
            for attempt in call.attempts:
                if attempt.ended is not None:
                    self._end_attempt(where, call, attempt, trace)
            trace.span.set_attributes(call_span(call, end))
            if end.status >= 500:
                trace.span.set_status(Status(StatusCode.ERROR))
        trace.span.end(trace.at(end.latency_ms / 1000))

    def _end_attempt(self, where: Where, call: Call, attempt: Attempt, trace: Trace) -> None:
        ended, tracer = attempt.ended, self._tracer
        assert ended is not None and tracer is not None
        began_s = attempt.started - call.time.started
        span = trace.attempts.get(attempt.id)
        name = f"{operation(call.request)} {shown(attempt.deployment.model)}"
        if span is None:
            context = set_span_in_context(trace.span, Context())
            span = tracer.start_span(name, context, SpanKind.CLIENT, start_time=trace.at(began_s))
        else:
            span.update_name(name)
        span.set_attributes(attempt_span(call, attempt, where))
        if failure(ended.outcome, ended.status):
            span.set_status(Status(StatusCode.ERROR))
        span.end(trace.at(began_s + (ended.duration_ms or 0.0) / 1000))


class _Instruments:
    """The conventions' metrics: those of a client for each attempt, those of a server for each call."""

    def __init__(self, meter: Meter) -> None:
        seconds = partial(_histogram, meter, unit="s")
        self._duration = seconds(names.GEN_AI_CLIENT_OPERATION_DURATION, "Duration of requests to providers.", _SECONDS)
        self._first_chunk = seconds(
            names.GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK, "Time until a provider's first token.", _FIRST
        )
        self._usage = _histogram(
            meter, names.GEN_AI_CLIENT_TOKEN_USAGE, "Tokens of requests to providers.", _TOKENS, unit="{token}"
        )
        self._request = seconds(names.GEN_AI_SERVER_REQUEST_DURATION, "Duration of calls.", _SECONDS)
        self._first = seconds(names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN, "Time until a call's first token.", _FIRST)

    def note(self, where: Where, call: Call, end: CallEnd) -> None:
        context = Context()  # no exemplars: the trace of a call is not current here
        for attempt in call.attempts:
            if (ended := attempt.ended) is None:
                continue
            about = measured(call, attempt, where)
            duration_s = (ended.duration_ms or 0.0) / 1000
            self._duration.record(duration_s, {**about, **failure(ended.outcome, ended.status)}, context)
            if attempt.own_first_token_ms is not None:
                self._first_chunk.record(attempt.own_first_token_ms / 1000, about, context)
            if ended.usage_source != "none":
                self._usage.record(ended.tokens.prompt, {**about, ai.GEN_AI_TOKEN_TYPE: "input"}, context)
                self._usage.record(ended.tokens.output, {**about, ai.GEN_AI_TOKEN_TYPE: "output"}, context)
        if call.attempts:
            about = measured(call, call.answering, where)
            self._request.record(end.latency_ms / 1000, {**about, **failure(end.outcome, end.status)}, context)
            if end.first_token_ms is not None and end.outcome is Outcome.OK:
                self._first.record(end.first_token_ms / 1000, about, context)


def _histogram(meter: Meter, name: str, text: str, buckets: tuple[float, ...], *, unit: str) -> Histogram:
    return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=list(buckets))
