"""Translates: the standard OTEL_* variables into the signals to export. The SDK reads their other settings."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
SPOKEN = "http/protobuf"


class Signals(Struct, frozen=True):
    """What to export. `problems`: why a requested signal is not exported."""

    traces: bool = False
    metrics: bool = False
    problems: tuple[str, ...] = ()

    @property
    def are_wanted(self) -> bool:
        return self.traces or self.metrics


def signals(environ: Mapping[str, str]) -> Signals:
    """A signal is exported if its exporter is `otlp`, or if only an endpoint is set."""
    if _value(environ, "OTEL_SDK_DISABLED") == "true":
        return Signals()
    problems: list[str] = []
    traces = _is_wanted(environ, "TRACES", problems)
    metrics = _is_wanted(environ, "METRICS", problems)
    return Signals(traces, metrics, tuple(problems))


def _is_wanted(environ: Mapping[str, str], signal: str, problems: list[str]) -> bool:
    variable = f"OTEL_{signal}_EXPORTER"
    exporters = [name.strip() for name in _value(environ, variable).split(",") if name.strip()]
    own = ENDPOINT.replace("OTLP", f"OTLP_{signal}")
    if not exporters and not (_value(environ, own) or _value(environ, ENDPOINT)):
        return False
    if others := sorted({*exporters} - {"otlp", "none"}):
        problems.append(f"{variable} names {', '.join(others)}; only otlp and none are supported")
    if exporters and "otlp" not in exporters:
        return False
    own = PROTOCOL.replace("OTLP", f"OTLP_{signal}")
    variable = own if _value(environ, own) else PROTOCOL
    if (protocol := _value(environ, variable) or SPOKEN) != SPOKEN:
        problems.append(f"{variable} is {protocol}; only {SPOKEN} is supported")
        return False
    return True


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip().lower()
