"""OpenTelemetry: a span for each call and each attempt, and metrics, sent by OTLP over HTTP. The extra `otel`."""
