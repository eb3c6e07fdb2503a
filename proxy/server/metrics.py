"""Performs I/O: metrics for Prometheus. Counters are plain numbers in memory; with several workers each writes its own
to a file in a shared folder, and the worker that is scraped adds them up.

Label values are providers and models that the configuration names, outcomes, and fixed words: names that clients make
up become `other`, so that they cannot increase the number of series. No user, key or prompt is a label.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.schema.records import CallEnd, Tokens

TICK_S = 0.5  # between two measurements of the event loop's lag; with several workers also between two snapshots
OTHER, NONE = "other", "none"  # a model that no file names; a call without an attempt

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_ANSWERED = ("provider", "model")


class Family(Struct, frozen=True):
    """One metric. `over_workers`: how a gauge's values are combined: `sum`, `max` or `min`; counters are added."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    over_workers: str = "sum"

    @property
    def exposed(self) -> str:
        """The name in the exposition."""
        return self.name + ("_total" if self.kind == "counter" else "")


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "mmproxy_requests",
            "counter",
            "Requests to models that ended, by the model that answered or was tried last.",
            (*_ANSWERED, "outcome", "stream"),
        ),
        Family(
            "mmproxy_request_duration_seconds",
            "histogram",
            "From a request's last byte to its answer's end.",
            _ANSWERED,
            _SECONDS,
        ),
        Family(
            "mmproxy_first_token_seconds",
            "histogram",
            "From a request's last byte to the first token of its stream.",
            _ANSWERED,
            _SECONDS,
        ),
        Family(
            "mmproxy_overhead_seconds",
            "histogram",
            "Time in the proxy while no provider was waited for; of a stream, until its first token.",
            ("stream",),
            _SHORT_SECONDS,
        ),
        Family(
            "mmproxy_retries",
            "counter",
            "Attempts beyond the first of their request, at the same model or at another.",
            _ANSWERED,
        ),
        Family("mmproxy_fallbacks", "counter", "Requests that ended at another model than the first.", _ANSWERED),
        Family(
            "mmproxy_retries_refused", "counter", "Retries and hedges that a retry budget did not allow.", _ANSWERED
        ),
        Family("mmproxy_breaker_state", "gauge", "0 closed, 1 half open, 2 open.", _ANSWERED, (), "max"),
        Family(
            "mmproxy_tokens",
            "counter",
            "Tokens of all attempts by kind: input (uncached), cache_read, cache_write, output.",
            (*_ANSWERED, "kind"),
        ),
        Family("mmproxy_cost_usd", "counter", "Cost of all attempts in US dollars.", _ANSWERED),
        Family(
            "mmproxy_unpriced_attempts",
            "counter",
            "Attempts whose price is unknown, so that their cost is missing in mmproxy_cost_usd_total.",
            _ANSWERED,
        ),
        Family("mmproxy_overloaded", "counter", "Requests refused at once because server.max_in_flight was reached."),
        Family("mmproxy_in_flight_requests", "gauge", "Requests to models that are being served."),
        Family("mmproxy_connections", "gauge", "Open connections of clients."),
        Family("mmproxy_body_bytes", "gauge", "Bytes of request bodies in memory."),
        Family("mmproxy_tasks", "gauge", "Tasks of the event loop."),
        Family(
            "mmproxy_connections_timed_out",
            "counter",
            "Connections closed because a head, body or reader was late.",
        ),
        Family("mmproxy_connections_evicted", "counter", "Waiting connections closed to make room for new ones."),
        Family("mmproxy_bodies_refused", "counter", "Bodies refused because all of them together were too large."),
        Family("mmproxy_malformed_requests", "counter", "Requests that were not HTTP, or whose framing was refused."),
        Family("mmproxy_log_dropped", "counter", "Log lines lost because standard error could not be written in time."),
        Family("mmproxy_ledger_pending_changes", "gauge", "Changes that wait to be written to the database."),
        Family("mmproxy_ledger_degraded", "gauge", "1 while the database cannot be written.", over_workers="max"),
        Family("mmproxy_ledger_lost", "counter", "Calls that ended without a row of their own end."),
        Family("mmproxy_vault_failures", "counter", "Times that reasoning states could not be kept or looked for."),
        Family(
            "mmproxy_replays",
            "counter",
            "Requests that got an answer bought before, by what they share: key, retry, cache.",
            ("kind",),
        ),
        Family("mmproxy_kept_answers_failures", "counter", "Times that answers could not be kept or looked for."),
        Family(
            "mmproxy_loop_lag_seconds",
            "histogram",
            "How late the event loop was at what it had to do, measured twice a second.",
            (),
            _SHORT_SECONDS,
        ),
        Family("mmproxy_config_reloads", "counter", "Changed configurations that were taken over."),
        Family("mmproxy_config_reload_errors", "counter", "Changed configurations that were refused."),
        Family(
            "mmproxy_config_ok",
            "gauge",
            "0 while the files hold an error, so that an earlier configuration serves.",
            over_workers="min",
        ),
        Family("mmproxy_workers", "gauge", "Worker processes that serve."),
        Family("mmproxy_build_info", "gauge", "Always 1; the label tells the version.", ("version",), (), "max"),
    )
}

Labels = tuple[str, ...]
# By family and labels: one number, or for a histogram the count of each bucket, of larger values, and the sum.
Rows = dict[str, dict[Labels, list[float]]]
_Snapshot = dict[str, list[tuple[Labels, list[float]]]]


class Metrics:
    """The counters of one process. `read` returns the values that other objects keep, by family.

    `folder`: shared with the other workers and created by their supervisor; None if there is only one process.
    """

    def __init__(self, version: str, read: Callable[[], Mapping[str, float]], folder: Path | None = None) -> None:
        self._read = read
        self._folder = folder
        self._file = f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._log = structlog.get_logger("metrics")
        self._unwritten = False
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._rows: Rows = {name: {} for name in FAMILIES}
        self._rows["mmproxy_build_info"][(version,)] = [1.0]

    def count(self, family: str, labels: Labels = (), value: float = 1.0) -> None:
        """Adds to a counter."""
        rows = self._rows[family]
        row = rows.get(labels)
        if row is None:
            rows[labels] = [value]
        else:
            row[0] += value

    def note_breaker(self, labels: Labels, state: str) -> None:
        self._rows["mmproxy_breaker_state"][labels] = [float(("closed", "half_open", "open").index(state))]

    def observe(self, family: str, labels: Labels, value: float) -> None:
        """Adds one value to a histogram."""
        buckets, rows = FAMILIES[family].buckets, self._rows[family]
        row = rows.get(labels)
        if row is None:
            row = rows[labels] = [0.0] * (len(buckets) + 2)
        row[bisect_left(buckets, value)] += 1
        row[-1] += value

    def note_attempt(self, known: Container[str], attempt: Attempt) -> None:
        """Counts an ended attempt."""
        labels = _labels(known, attempt)
        if attempt.seq > 1:
            self.count("mmproxy_retries", labels)
        if attempt.ended is not None:
            self._note_spent(labels, attempt.ended.tokens, attempt.ended.cost_nano)

    def note_end(self, known: Container[str], call: Call, end: CallEnd) -> None:
        """Counts an ended call; `known` holds the `provider/model` names that may be labels."""
        stream = "true" if call.request.stream else "false"
        answered = _labels(known, call.answering) if call.attempts else (NONE, NONE)
        self.count("mmproxy_requests", (*answered, str(end.outcome), stream))
        if end.fallback:
            self.count("mmproxy_fallbacks", answered)
        if call.attempts:
            self.observe("mmproxy_request_duration_seconds", answered, end.latency_ms / 1000)
            self.observe("mmproxy_overhead_seconds", (stream,), call.time.overhead_ms() / 1000)
        if end.first_token_ms is not None:
            self.observe("mmproxy_first_token_seconds", answered, end.first_token_ms / 1000)

    def _note_spent(self, answered: Labels, tokens: Tokens, cost_nano: int | None) -> None:
        for kind in ("input", "cache_read", "cache_write", "output"):
            if counted := getattr(tokens, kind):
                self.count("mmproxy_tokens", (*answered, kind), counted)
        if cost_nano is None:
            self.count("mmproxy_unpriced_attempts", answered)
        elif cost_nano:
            self.count("mmproxy_cost_usd", answered, cost_nano / 1e9)

    async def watch(self) -> None:
        """Measures the event loop's lateness and, with several workers, writes snapshots; until cancelled."""
        loop = asyncio.get_running_loop()
        writing: asyncio.Future[None] | None = None
        try:
            while True:
                due = loop.time() + TICK_S
                await asyncio.sleep(TICK_S)
                self.observe("mmproxy_loop_lag_seconds", (), max(0.0, loop.time() - due))
                if self._folder is not None and (writing is None or writing.done()):
                    writing = loop.run_in_executor(self._thread, self._write, self._snapshot())
        finally:
            if self._folder is not None:  # a final snapshot, unless the disk hangs
                await asyncio.wait([loop.run_in_executor(self._thread, self._write, self._snapshot())], timeout=TICK_S)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, in the format that `accept` asks for. Made on the metrics' own thread."""
        own = self._snapshot()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._text, own, accept)

    def _text(self, own: bytes, accept: str) -> tuple[bytes, str]:
        self._write(own)
        write, content_type = exposition.choose_encoder(accept)
        snapshots = [(own, True)] if self._folder is None else list(self._all(self._folder, own))
        return write(_Collected(merged(snapshots))), content_type

    def _snapshot(self) -> bytes:
        read = {name: [((), [float(value)])] for name, value in self._read().items()}
        counted = {name: list(rows.items()) for name, rows in self._rows.items() if rows}
        return msgspec.json.encode({**counted, **read})

    def _write(self, snapshot: bytes) -> None:
        """Replaces this worker's file, whole or not at all. A folder that cannot be written is reported once."""
        if self._folder is None:
            return
        path = self._folder / self._file
        try:
            path.with_suffix(".new").write_bytes(snapshot)
            path.with_suffix(".new").replace(path)
        except OSError as error:
            if not self._unwritten:
                self._log.warning("metrics_not_shared", error=error.strerror)
            self._unwritten = True
        else:
            self._unwritten = False

    def _all(self, folder: Path, own: bytes) -> Iterator[tuple[bytes, bool]]:
        """Every worker's snapshot, and whether the worker is alive. Ours is current even on a full disk."""
        yield own, True
        dead = {path.stem for path in folder.glob("*.dead")}
        for path in folder.glob("*.json"):
            if path.name != self._file:
                yield path.read_bytes(), path.stem not in dead


def mark_dead(folder: Path, pid: int) -> None:
    """Marks a worker as gone: its counters stay, its gauges are dropped."""
    for path in folder.glob(f"{pid}-*.json"):
        with suppress(OSError):  # a full disk: its gauges stay until the server ends
            path.with_suffix(".dead").touch()


def merged(snapshots: Iterable[tuple[bytes, bool]]) -> Rows:
    """All snapshots combined; of a dead worker's only the counters."""
    total: Rows = {}
    for data, alive in snapshots:
        for name, rows in msgspec.json.decode(data, type=_Snapshot).items():
            family = FAMILIES[name]
            if family.kind == "gauge" and not alive:
                continue
            into = total.setdefault(name, {})
            for labels, row in rows:
                into[labels] = _joined(family, into[labels], row) if labels in into else row
    return total


def _joined(family: Family, one: list[float], other: list[float]) -> list[float]:
    if family.over_workers == "sum":
        return [a + b for a, b in zip(one, other, strict=True)]
    return [max(one[0], other[0]) if family.over_workers == "max" else min(one[0], other[0])]


class _Collected(Collector):
    """Merged rows in the form of the client library's encoders."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES.values():
            yield _metric(family, self._rows.get(family.name, {}))


def _metric(family: Family, rows: Mapping[Labels, list[float]]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for labels, row in rows.items():
            histogram.add_metric(labels, _cumulative(family.buckets, row), row[-1])
        return histogram
    metric = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(
        family.name, family.help, labels=family.labels
    )
    for labels, row in rows.items():
        metric.add_metric(labels, row[0])
    return metric


def _cumulative(buckets: tuple[float, ...], row: list[float]) -> list[tuple[str, float]]:
    counted = 0.0
    found = []
    for edge, count in zip((*map(str, buckets), "+Inf"), row[:-1], strict=True):
        counted += count
        found.append((edge, counted))
    return found


def _labels(known: Container[str], attempt: Attempt) -> Labels:
    return labels_of(known, attempt.deployment.name)


def labels_of(known: Container[str], name: str) -> Labels:
    """Provider and model; a model that only a client named gets no label of its own."""
    provider, _, model = name.partition("/")
    return (provider, model if name in known else OTHER)
