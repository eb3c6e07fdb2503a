"""The standard variables, and what they turn on."""

from __future__ import annotations

import pytest

from proxy.server.telemetry.signals import Signals, signals

HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Signals()),
        ({"OTEL_SERVICE_NAME": "mine"}, Signals()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, Signals()),
        (HERE, Signals(True, True)),
        ({**HERE, "OTEL_SDK_DISABLED": "TRUE"}, Signals()),
        ({**HERE, "OTEL_METRICS_EXPORTER": "none"}, Signals(True, False)),
        ({**HERE, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, Signals()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, Signals(True, False)),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c/m"}, Signals(False, True)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, Signals(True, False)),
        ({**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, Signals(True, True)),
    ],
)
def test_a_signal_is_exported_where_the_variables_say_so(environ: dict[str, str], expected: Signals) -> None:
    """An endpoint turns on what it is for, unless the exporter is `none`."""
    assert signals(environ) == expected


@pytest.mark.parametrize(
    ("environ", "expected", "problem"),
    [
        (
            {**HERE, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            Signals(False, True),
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is grpc; only http/protobuf is supported",
        ),
        (
            {**HERE, "OTEL_METRICS_EXPORTER": "prometheus"},
            Signals(True, False),
            "OTEL_METRICS_EXPORTER names prometheus; only otlp and none are supported",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "console,otlp"},
            Signals(True, False),
            "OTEL_TRACES_EXPORTER names console; only otlp and none are supported",
        ),
    ],
)
def test_what_is_not_supported_is_a_problem(environ: dict[str, str], expected: Signals, problem: str) -> None:
    """It names the variable, and turns off no more than it must."""
    found = signals(environ)
    assert (found.traces, found.metrics, found.problems) == (expected.traces, expected.metrics, (problem,))
