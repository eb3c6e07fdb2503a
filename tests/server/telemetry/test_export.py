"""Telemetry as an operator has it: a server with OTEL_* variables, and a collector on a real socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proxy.server.telemetry.exporting import MISSING
from proxy.server.telemetry.signals import PROTOCOL
from tests.cli.commands import wait_until
from tests.server.telemetry.collector import Collector, attributes, collecting
from tests.serving import Spawned, spawned, write_files
from tests.upstream import Spawned as Upstream
from tests.upstream import spawn

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
SECRET = "the-words-of-a-prompt"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
server: {{grace_s: 1}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 1, timeout_s: {timeouts}}}
  told: {{type: openai, base_url: "{upstream}", allow_private: true, trace_context: true, timeout_s: {timeouts}}}
router: {{default_model: fake/ok, retry_delay_s: 0.01}}
ensembles:
  pair: {{strategy: voting, members: [fake/ok, "fake/ok(n_tokens=5)"]}}
models:
  either: {{use: "fake/e500", fallback: ["fake/ok(n_tokens=5)"]}}
"""
PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with spawn() as running:
        yield running


@contextmanager
def server(folder: Path, upstream: Upstream, endpoint: str, *arguments: str, **more: str) -> Iterator[Spawned]:
    folder.mkdir(exist_ok=True)
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        **more,
    }
    path = write_files(folder, f"http://127.0.0.1:{upstream.port}/v1", ROUTING, PRICING)
    with spawned(path, *arguments, "--log-format", "json", environ=environ) as running:
        yield running


def ask(running: Spawned, model: str, *, traceparent: str | None = None, **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": SECRET}], **fields}
    headers = {} if traceparent is None else {"traceparent": traceparent}
    return httpx.post(f"{running.base_url}/chat/completions", json=body, headers=headers, timeout=60)


def embed(running: Spawned) -> httpx.Response:
    body = {"model": "fake/ok", "input": [SECRET]}
    return httpx.post(f"{running.base_url}/embeddings", json=body, timeout=60)


def leave(running: Spawned) -> None:
    """A client that goes away while its stream runs."""
    body = {
        "model": "fake/ok(n_tokens=2000,pace=0.01)",
        "stream": True,
        "messages": [{"role": "user", "content": SECRET}],
    }
    with httpx.stream("POST", f"{running.base_url}/chat/completions", json=body, timeout=60) as answer:
        next(answer.iter_bytes())


def is_complete(collector: Collector, calls: int) -> bool:
    """The spans of all calls are there, and the metrics count each of their attempts."""
    kinds = [span.kind for span in collector.spans()]
    durations = collector.metrics().get("gen_ai.client.operation.duration")
    counted = 0 if durations is None else sum(point.count for point in durations.histogram.data_points)
    return kinds.count(Span.SPAN_KIND_SERVER) == calls and kinds.count(Span.SPAN_KIND_CLIENT) == counted


def log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "server.log").read_text().splitlines()]


class Ran:
    """What a server sent that answered these calls and was stopped."""

    def __init__(
        self,
        collector: Collector,
        answers: dict[str, httpx.Response],
        told: dict[str, str],
        events: list[dict[str, Any]],
    ) -> None:
        self.events = events
        self.collector = collector
        self.answers = answers
        self.told = told
        self.spans = collector.spans()

    def of(self, name: str) -> tuple[Span, list[Span]]:
        """The span of a call, and those of its attempts in order."""
        call_id = self.answers[name].headers["x-request-id"]
        (own,) = [span for span in self.spans if attributes(span.attributes).get("mmproxy.request_id") == call_id]
        attempts = [span for span in self.spans if span.parent_span_id == own.span_id]
        return own, sorted(attempts, key=lambda span: attributes(span.attributes)["mmproxy.attempt"])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("telemetry")
    with collecting() as collector:
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=collectors-key", "OTEL_RESOURCE_ATTRIBUTES": "team=search"}
        with server(folder, upstream, collector.url, **headers) as running:
            answers = {
                "whole": ask(running, "fake/ok(n_tokens=7)", traceparent=TRACEPARENT, temperature=0.5, max_tokens=9),
                "stream": ask(running, "fake/ok(n_tokens=7)", stream=True),
                "either": ask(running, "either"),
                "refused": ask(running, "fake/e400"),
                "broken": ask(running, "fake/e500"),
                "unread": ask(running, "fake/ok", traceparent=TRACEPARENT, temperature="hot"),
                "unknown": ask(running, "nobody/knows"),
                "told": ask(running, "told/ok", traceparent=TRACEPARENT),
                "pair": ask(running, "ensemble:pair"),
                "vectors": embed(running),
                "odd": ask(running, "fake/ok", seed=2**70, traceparent="00-zz"),
            }
            leave(running)
            told = {each.id or "": each.headers.get("traceparent", "") for each in upstream.ledger()}
            wait_until(lambda: is_complete(collector, len(answers) + 1), "everything has been sent")
            assert running.stop() == 0
        yield Ran(collector, answers, told, log(folder))


@pytest.mark.slow
def test_every_call_is_a_span_of_the_server(ran: Ran) -> None:
    """Also one that was refused before any provider was asked."""
    statuses = {name: answer.status_code for name, answer in ran.answers.items()}
    assert statuses == {
        "whole": 200, "stream": 200, "either": 200, "refused": 400, "broken": 502, "unread": 400, "unknown": 404,
        "told": 200, "pair": 200, "vectors": 200, "odd": 200,
    }  # fmt: skip
    for name, status in statuses.items():
        own, _ = ran.of(name)
        assert own.kind == Span.SPAN_KIND_SERVER, name
        assert attributes(own.attributes)["http.response.status_code"] == status, name
        assert (own.status.code == own.status.STATUS_CODE_ERROR) is (status >= 500), name
        assert own.start_time_unix_nano < own.end_time_unix_nano, name


@pytest.mark.slow
def test_every_attempt_is_a_span_of_a_client(ran: Ran) -> None:
    """With vendor, models, tokens, cost and address, inside the time of its call."""
    own, (attempt,) = ran.of("whole")
    found = attributes(attempt.attributes)
    usage = ran.answers["whole"].json()["usage"]
    assert (own.name, attempt.name) == ("chat fake/ok(n_tokens=7)", "chat ok(n_tokens=7)")
    assert attempt.kind == Span.SPAN_KIND_CLIENT
    assert {key: found[key] for key in found if not key.startswith("mmproxy.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "ok(n_tokens=7)",
        "gen_ai.response.model": found["gen_ai.response.model"],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": 7,
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": found["server.port"],
    }
    assert found["mmproxy.cost_usd"] == pytest.approx(usage["cost"])
    assert own.start_time_unix_nano <= attempt.start_time_unix_nano
    assert attempt.end_time_unix_nano <= own.end_time_unix_nano
    parameters = attributes(own.attributes)
    assert (parameters["gen_ai.request.temperature"], parameters["gen_ai.request.max_tokens"]) == (0.5, 9)


def test_a_fallback_shows_each_attempt(ran: Ran) -> None:
    """The failed ones have the type of their error."""
    _, attempts = ran.of("either")
    assert [attributes(each.attributes).get("error.type") for each in attempts][-1] is None
    assert len(attempts) == 3
    assert all(each.status.code == each.status.STATUS_CODE_ERROR for each in attempts[:-1])
    assert attributes(attempts[0].attributes)["http.response.status_code"] == 500
    own, _ = ran.of("broken")
    assert attributes(own.attributes)["error.type"] == ran.answers["broken"].json()["error"]["code"]


def test_the_members_of_an_ensemble_are_side_by_side(ran: Ran) -> None:
    """The call has the ensemble's name, and the sum of their tokens."""
    own, attempts = ran.of("pair")
    assert len(attempts) == 2
    found = attributes(own.attributes)
    assert found["mmproxy.ensemble"] == "pair"
    tokens = [attributes(each.attributes)["gen_ai.usage.output_tokens"] for each in attempts]
    assert found["gen_ai.usage.output_tokens"] == sum(tokens)


def test_embeddings_are_another_operation(ran: Ran) -> None:
    """As the conventions name it."""
    own, (attempt,) = ran.of("vectors")
    assert {attributes(span.attributes)["gen_ai.operation.name"] for span in (own, attempt)} == {"embeddings"}


def test_a_client_that_left_is_no_error(ran: Ran) -> None:
    """Neither of the server nor of the provider."""
    spans = [span for span in ran.spans if attributes(span.attributes)["mmproxy.outcome"] == "client_closed"]
    assert {span.kind for span in spans} == {Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT}
    assert all("error.type" not in attributes(span.attributes) for span in spans)
    assert all(span.status.code != span.status.STATUS_CODE_ERROR for span in spans)


def test_nothing_went_wrong_with_telemetry_itself(ran: Ran) -> None:
    """Whatever the call was."""
    events = [line["event"] for line in ran.events]
    assert "telemetry_on" in events
    assert {"telemetry_error", "telemetry_cut", "library"}.isdisjoint(events)


def test_a_stream_says_when_its_first_token_came(ran: Ran) -> None:
    """On the span of the attempt in seconds, as the conventions say."""
    own, (attempt,) = ran.of("stream")
    assert attributes(own.attributes)["gen_ai.request.stream"] is True
    assert 0 < attributes(attempt.attributes)["gen_ai.response.time_to_first_chunk"] < 60


@pytest.mark.parametrize("name", ["whole", "unread", "told"])
def test_the_trace_of_the_client_goes_on(ran: Ran, name: str) -> None:
    """Also in a call that was refused."""
    own, _ = ran.of(name)
    assert (own.trace_id.hex(), own.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)


@pytest.mark.parametrize("name", ["stream", "odd"])
def test_without_a_trace_of_the_client_there_is_a_new_one(ran: Ran, name: str) -> None:
    """A `traceparent` that cannot be read counts as none."""
    own, _ = ran.of(name)
    assert own.trace_id.hex() != TRACE_ID
    assert own.parent_span_id == b""


def test_a_provider_gets_the_trace_only_if_its_section_says_so(ran: Ran) -> None:
    """`trace_context: true`: the parent that it is told is the attempt's span."""
    _, (attempt,) = ran.of("told")
    told = ran.told[f"{ran.answers['told'].headers['x-request-id']}-1"]
    assert told == f"00-{TRACE_ID}-{attempt.span_id.hex()}-01"
    assert [value for value in ran.told.values() if value] == [told]


def test_no_text_of_a_prompt_or_an_answer_leaves(ran: Ran) -> None:
    """Nor what a client put where a number belongs."""
    answer = ran.answers["whole"].json()["choices"][0]["message"]["content"]
    for body in ran.collector.raw:
        assert SECRET.encode() not in body
        assert answer.encode() not in body
        assert b"hot" not in body


def test_the_variables_of_the_standard_are_obeyed(ran: Ran) -> None:
    """Headers for the collector, attributes of the resource; the process has an id of its own."""
    assert {headers["api-key"] for headers in ran.collector.headers} == {"collectors-key"}
    assert set(ran.collector.paths) == {"/v1/traces", "/v1/metrics"}
    about = ran.collector.resources()[0]
    assert (about["service.name"], about["team"]) == ("multi-model-proxy", "search")
    assert len({each["service.instance.id"] for each in ran.collector.resources()}) == 1


def test_metrics_have_the_conventions_names(ran: Ran) -> None:
    """Client metrics count attempts, server metrics count calls that asked somebody."""
    metrics = ran.collector.metrics()
    assert metrics.keys() == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
        "gen_ai.client.token.usage",
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
    }
    attempts = sum(span.kind == Span.SPAN_KIND_CLIENT for span in ran.spans)
    points = metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert sum(point.count for point in points) == attempts
    kinds = {attributes(point.attributes).get("error.type") for point in points}
    assert kinds == {None, "400", "500"}
    usage = metrics["gen_ai.client.token.usage"]
    assert usage.unit == "{token}"
    spent = sum(p.sum for p in usage.histogram.data_points if attributes(p.attributes)["gen_ai.token.type"] == "output")
    assert spent == sum(
        attributes(span.attributes)["gen_ai.usage.output_tokens"]
        for span in ran.spans
        if span.kind == Span.SPAN_KIND_CLIENT
    )
    (first,) = metrics["gen_ai.server.time_to_first_token"].histogram.data_points
    assert first.count == 1


def test_a_model_that_only_a_client_named_is_no_series_of_its_own(ran: Ran) -> None:
    """`fake/ok` is in the files; `fake/ok(n_tokens=7)` is a client's word."""
    points = ran.collector.metrics()["gen_ai.client.operation.duration"].histogram.data_points
    models = {attributes(point.attributes)["gen_ai.request.model"] for point in points}
    assert models == {"ok", "ok(n_tokens=5)", "e500", "other"}


# --- collectors that do not do their work -----------------------------------------------------------------------------


@contextmanager
def bad(mode: str) -> Iterator[str]:
    """The address of a collector that is of no use."""
    if mode == "refuse":
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    elif mode == "garbage":
        yield "http://[nowhere"
    else:
        with collecting(mode) as collector:
            yield collector.url


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stall", "refuse", "flood", "503", "302", "garbage"])
def test_a_bad_collector_does_nothing_to_calls(tmp_path: Path, upstream: Upstream, mode: str) -> None:
    """Calls are answered, memory stays bounded, and the server ends in time."""
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "64", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "32"}
    with bad(mode) as url, server(tmp_path, upstream, url, **small) as running:
        process = psutil.Process(running.process.pid)
        ask(running, "fake/ok")
        before = process.memory_info().rss
        for _ in range(150):
            assert ask(running, "fake/ok").status_code == 200
        grown = process.memory_info().rss - before
        started = time.monotonic()
        assert running.stop() == 0
        took_s = time.monotonic() - started
    print(f"{mode}: {grown / 1e6:.1f} MB more after 150 calls, ended after {took_s:.1f} s")
    events = [line["event"] for line in log(tmp_path)]
    assert "telemetry_on" in events
    assert {"telemetry_off", "telemetry_error", "internal_error"}.isdisjoint(events)
    told = [line for line in log(tmp_path) if line["event"] in ("library", "telemetry_cut")]
    assert (told != []) is (mode != "flood")  # only the status of an answer counts
    assert len(told) < 12
    assert grown < 60e6
    assert took_s < 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PYTHONPATH": "{folder}"}, MISSING),
        ({PROTOCOL: "grpc"}, f"{PROTOCOL} is grpc; only http/protobuf is supported"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1"}, "max_export_batch_size must be less than or equal to max_queue_size."),
    ],
    ids=["no extra", "protocol", "value"],
)
def test_what_cannot_be_exported_is_said_and_the_server_serves(
    tmp_path: Path, upstream: Upstream, variables: dict[str, str], reason: str
) -> None:
    """The extra is missing, or a variable cannot be obeyed."""
    (tmp_path / "opentelemetry.py").write_text("'This module is no package, so nothing can be imported from it.'")
    variables = {name: value.format(folder=tmp_path) for name, value in variables.items()}
    with server(tmp_path, upstream, "http://127.0.0.1:9", **variables) as running:
        assert ask(running, "fake/ok").status_code == 200
        assert running.stop() == 0
    told = [line["reason"] for line in log(tmp_path) if line["event"] == "telemetry_off"]
    assert set(told) == {reason}


@pytest.mark.slow
def test_each_worker_is_an_instance_of_its_own(tmp_path: Path, upstream: Upstream) -> None:
    """Counters of two processes must not be taken for one that goes back and forth."""
    with collecting() as collector, server(tmp_path, upstream, collector.url, "--workers", "2") as running:
        ids: set[str] = set()
        for _ in range(500):
            ask(running, "fake/ok")
            ids = {each["service.instance.id"] for each in collector.resources()}
            if len(ids) == 2:
                break
        assert len(ids) == 2
        assert running.stop() == 0
