"""Performs I/O: OpenTelemetry: a span for each call and attempt, and metrics, by OTLP over HTTP. The extra `otel`."""
