"""A collector of OpenTelemetry's data on a real socket, which answers well or badly."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

FLOOD_BYTES = 64 * 1024


class Collector:
    """What was received. `mode`: ok, stall (never answers), flood (an answer without end), or a status."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self.stopped = threading.Event()
        self._arrived = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.note(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                self.close_connection = collector.mode != "ok"
                if collector.mode == "stall":
                    collector.stopped.wait()
                elif collector.mode == "flood":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\r\n")
                    try:
                        while not collector.stopped.is_set():
                            self.wfile.write(bytes(FLOOD_BYTES))
                    except OSError:
                        return
                else:
                    status = b"200 OK" if collector.mode == "ok" else collector.mode.encode() + b" No"
                    self.wfile.write(b"HTTP/1.1 " + status + b"\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n")

            def log_message(self, *_: object) -> None:
                """Silent."""

        return Handler

    def note(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._arrived:
            self.paths.append(path)
            self.headers.append(headers)
            self.raw.append(body)
            self._arrived.notify_all()

    def wait_for(self, path: str, timeout_s: float = 30) -> None:
        """Until something has been posted there."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: path in self.paths, timeout_s), self.paths

    def bodies(self, path: str) -> list[bytes]:
        with self._arrived:
            return [body for at, body in zip(self.paths, self.raw, strict=True) if at == path]

    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies("/v1/traces")]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[dict[str, Any]]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies("/v1/traces")]
        return [attributes(each.resource.attributes) for request in requests for each in request.resource_spans]

    def metrics(self) -> dict[str, Metric]:
        """The last state of each, by name."""
        requests = [ExportMetricsServiceRequest.FromString(body) for body in self.bodies("/v1/metrics")]
        return {
            metric.name: metric
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()


def attributes(pairs: Any) -> dict[str, Any]:
    """OTLP's list of pairs as a dictionary."""

    def value(pair: KeyValue) -> Any:
        kind = pair.value.WhichOneof("value")
        return getattr(pair.value, kind) if kind else None

    return {pair.key: value(pair) for pair in pairs}


@contextmanager
def collecting(mode: str = "ok") -> Iterator[Collector]:
    """A collector that runs until the end of the block."""
    collector = Collector(mode)
    thread = threading.Thread(target=collector.serve, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.close()
        thread.join()
