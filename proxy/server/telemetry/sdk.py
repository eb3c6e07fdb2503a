"""Performs I/O: sends spans and metrics by OTLP over HTTP, from threads of the SDK, which read the OTEL_* variables.

The queue is bounded (OTEL_BSP_MAX_QUEUE_SIZE), and so are the bytes read of a collector's answer.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from structlog.typing import FilteringBoundLogger

from proxy import __version__
from proxy.server.telemetry.recording import Telemetry
from proxy.server.telemetry.signals import Signals

NAME = "multi-model-proxy"
SELDOM_S = 60.0
MAX_MESSAGES = 100
LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk._shared_internal",
)
MAX_ANSWER_BYTES = 64 * 1024


class Collector(requests.Session):
    """Connections to a collector. As for providers, no proxy and no password come from the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """The answer without its body: only its status counts. A short one is read, so that the connection is kept."""
        response = super().send(request, **{**options, "stream": True})
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) <= MAX_ANSWER_BYTES:
            response.raw.read(decode_content=False)
        response.close()
        response._content = b""
        if 300 <= response.status_code < 400:
            raise requests.TooManyRedirects(f"status {response.status_code}: redirects are not followed")
        return response


class Seldom(logging.Filter):
    """Lets each message of a logger through once in SELDOM_S: a collector that is down causes the same
    message all day.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        if record.created < self._next.get(message, 0.0):
            return False
        if len(self._next) >= MAX_MESSAGES:
            self._next.clear()
        self._next[message] = record.created + SELDOM_S
        return True


class Exports:
    """The SDK's providers of one process, and their recorder."""

    def __init__(self, processor: SpanProcessor | None, reader: MetricReader | None, log: FilteringBoundLogger) -> None:
        about = resource()
        self._closers: list[Callable[[], object]] = []
        tracer = meter = None
        if processor is not None:
            spans = TracerProvider(resource=about, shutdown_on_exit=False)
            spans.add_span_processor(processor)
            tracer = spans.get_tracer(NAME, __version__)
            self._closers.append(spans.shutdown)
        if reader is not None:
            metrics = MeterProvider([reader], about, shutdown_on_exit=False)
            meter = metrics.get_meter(NAME, __version__)
            self._closers.append(metrics.shutdown)
        self.telemetry = Telemetry(tracer, meter, log)

    @property
    def closers(self) -> tuple[Callable[[], object], ...]:
        """Functions that each send the remaining data of one signal, and stop. They block as long as the
        collector does.
        """
        return tuple(self._closers)


def started(signals: Signals, log: FilteringBoundLogger) -> Exports:
    """Starts the SDK's threads. Raises ValueError for a variable that it cannot read."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(Seldom())
    processor = BatchSpanProcessor(OTLPSpanExporter(session=Collector())) if signals.traces else None
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(session=Collector())) if signals.metrics else None
    return Exports(processor, reader, log)


def resource() -> Resource:
    """This process. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence."""
    own = Resource({"service.version": __version__, "service.instance.id": str(uuid.uuid4())})
    found = own.merge(Resource.create())
    if not os.environ.get("OTEL_SERVICE_NAME") and str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: NAME}))
    return found
