"""Metrics: what is counted is what was served and billed, over all workers, in few series and few microseconds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.timing import Clock
from proxy.providers.base.contract import Provider
from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatRequest
from proxy.schema.records import AttemptEnd, CallEnd, Caller, Outcome, Tokens
from proxy.server.metrics import FAMILIES, TICK_S, Metrics, mark_dead
from tests.cli.commands import wait_until
from tests.faults.books import files
from tests.server.api.raw import chat, get, post
from tests.serving import Server, serving, spawned, write_files
from tests.slowness import usual_s
from tests.upstream import FakeUpstream, spawn
from tests.waiting import until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample of an exposition by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """One sample; 0 where there is none."""
    return found.get((name, frozenset(labels.items())), 0.0)


async def read(port: int) -> Samples:
    return samples((await get(port, "/metrics")).body.decode())


async def text_of(metrics: Metrics) -> str:
    body, _ = await metrics.exposition("")
    return body.decode()


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture
async def server(upstream: FakeUpstream, tmp_path: Path) -> AsyncIterator[Server]:
    """A request for `reliable` meets a provider that fails, and is answered by the other."""
    routing = files(tmp_path, upstream.url, models={"reliable": ("fake/e503", ["backup/ok"])})
    async with serving(routing) as running:
        yield running


def ended_call(model: str = "ok", cost_nano: int | None = 1_000_000, **tokens: Any) -> tuple[Call, CallEnd]:
    """One call that was answered at the first attempt."""
    request = ChatRequest(model=f"fake/{model}", messages=[], fields={})
    call = Call("c", Caller("somebody"), request, Clock(time.time_ns, time.perf_counter))
    attempt = Attempt(call, Deployment("fake", Provider(), model, None), request)
    attempt.ended = AttemptEnd(id="c-1", call_id="c", outcome=Outcome.OK, tokens=Tokens(**tokens), cost_nano=cost_nano)
    call.attempts.append(attempt)
    return call, CallEnd("c", Outcome.OK, 200, latency_ms=20.0, first_token_ms=5.0)


def note(known: set[str], metrics: Metrics, call: Call, end: CallEnd) -> None:
    for each in call.attempts:
        metrics.note_attempt(known, each)
    metrics.note_end(known, call, end)


def counting(known: str = "fake/ok", folder: Path | None = None) -> Metrics:
    metrics = Metrics("1", lambda: {"mmproxy_workers": 1, "mmproxy_config_ok": 1}, folder)
    call, end = ended_call(input=10, output=2)
    note({known}, metrics, call, end)
    return metrics


# --- what is counted --------------------------------------------------------------------------------------------------


async def test_tokens_and_cost_are_those_of_the_bill(server: Server) -> None:
    """Whole and streamed answers add up to what `/v1/usage` says."""
    for stream in (False, True):
        await post(server.port, chat("fake/cached", stream=stream))
        await post(server.port, chat("backup/ok", stream=stream))
    found = await read(server.port)
    usage = (await get(server.port, "/v1/usage")).json["total"]
    kinds: dict[str, float] = {}
    for (name, labels), tokens in found.items():
        if name == "mmproxy_tokens_total":
            kind = dict(labels)["kind"]
            kinds[kind] = kinds.get(kind, 0) + tokens
    assert kinds["input"] + kinds["cache_read"] == usage["input_tokens"] > 0
    assert (kinds["cache_read"], kinds["output"]) == (usage["cached_tokens"], usage["output_tokens"])
    cost = sum(usd for (name, _), usd in found.items() if name == "mmproxy_cost_usd_total")
    assert cost == pytest.approx(usage["cost_usd"], rel=1e-9)
    for streamed in ("false", "true"):
        served = {"provider": "fake", "model": "other", "outcome": "ok", "stream": streamed}
        assert value(found, "mmproxy_requests_total", **served) == 1
        assert value(found, "mmproxy_overhead_seconds_count", stream=streamed) == 2
    assert value(found, "mmproxy_first_token_seconds_count", provider="fake", model="other") == 1
    assert value(found, "mmproxy_request_duration_seconds_count", provider="fake", model="other") == 2


async def test_a_fallback_is_counted_where_it_ended(server: Server) -> None:
    """One retry and one fallback, both at the model that answered."""
    answer = await post(server.port, chat("reliable"))
    assert (answer.status, answer.headers("x-proxy-model")) == (200, ["backup/ok"])
    found = await read(server.port)
    for name in ("mmproxy_retries_total", "mmproxy_fallbacks_total"):
        assert value(found, name, provider="backup", model="ok") == 1
        assert value(found, name, provider="fake", model="e503") == 0
    labels = {"provider": "backup", "model": "ok", "outcome": "ok", "stream": "false"}
    assert value(found, "mmproxy_requests_total", **labels) == 1


async def test_a_refused_call_belongs_to_no_provider(server: Server) -> None:
    """It counts, but has no duration at a model."""
    await post(server.port, chat("nobody/knows"))
    found = await read(server.port)
    labels = {"provider": "none", "model": "none", "outcome": "rejected", "stream": "false"}
    assert value(found, "mmproxy_requests_total", **labels) == 1
    assert not any(name.startswith("mmproxy_request_duration") for name, _ in found)


async def test_an_unknown_price_is_counted_not_taken_for_zero() -> None:
    """The sum of costs is incomplete then, and says so."""
    metrics = Metrics("1", dict)
    call, end = ended_call(cost_nano=None, input=3)
    note({"fake/ok"}, metrics, call, end)
    found = samples(await text_of(metrics))
    assert value(found, "mmproxy_unpriced_attempts_total", provider="fake", model="ok") == 1
    assert not any(name == "mmproxy_cost_usd_total" for name, _ in found)


async def test_calls_in_flight_are_seen(server: Server) -> None:
    """A gauge: up while a call is served, down when it ended."""
    asking = asyncio.create_task(post(server.port, chat("fake/delay_whole(s=0.5)")))

    async def is_served() -> bool:
        return value(await read(server.port), "mmproxy_in_flight_requests") == 1

    async def is_idle() -> bool:
        return value(await read(server.port), "mmproxy_in_flight_requests") == 0

    await until(is_served)
    await asking
    await until(is_idle)


async def test_tasks_are_counted(server: Server) -> None:
    """More while calls are served, and fewer when they ended: a leak would show."""
    calls = 10

    async def tasks() -> float:
        return value(await read(server.port), "mmproxy_tasks")

    before = await tasks()
    asking = [asyncio.create_task(post(server.port, chat("fake/delay_whole(s=0.5)"))) for _ in range(calls)]

    seen = [before]

    async def are_more() -> bool:
        seen.append(await tasks())
        return seen[-1] > before + calls  # our own clients' tasks run on the same loop

    with suppress(TimeoutError):
        await until(are_more)
    assert max(seen) > before + calls
    await asyncio.gather(*asking)

    async def are_gone() -> bool:
        seen.append(await tasks())
        return seen[-1] < before + calls  # the server may have begun others of its own

    with suppress(TimeoutError):
        await until(are_gone)
    assert seen[-1] < before + calls


async def test_a_loop_that_is_held_up_is_seen() -> None:
    """What holds it up for longer than a tick shows in the histogram."""
    metrics = Metrics("1", dict)
    watching = asyncio.create_task(metrics.watch())
    await asyncio.sleep(0)
    time.sleep(TICK_S + 0.3)  # noqa: ASYNC251 - the fault under test

    async def is_measured() -> bool:
        return value(samples(await text_of(metrics)), "mmproxy_loop_lag_seconds_count") > 0

    await until(is_measured)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    found = samples(await text_of(metrics))
    assert value(found, "mmproxy_loop_lag_seconds_sum") >= 0.25
    assert value(found, "mmproxy_loop_lag_seconds_bucket", le="0.25") == 0


# --- overhead ---------------------------------------------------------------------------------------------------------


class Hands:
    """A clock that stands still unless moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def call(self) -> Call:
        request = ChatRequest(model="m", messages=[], fields={})
        return Call("c", Caller(), request, Clock(lambda: 0, lambda: self.now_s))


def attempt(call: Call) -> Attempt:
    call.attempts.append(Attempt(call, Deployment("fake", Provider(), "ok", None), call.request))
    return call.attempts[-1]


def test_overhead_leaves_out_what_was_waited_for() -> None:
    """2 s before, 5 s at the provider, 1 s after."""
    hands = Hands()
    call = hands.call()
    hands.now_s += 2
    tried = attempt(call)
    tried.begin_wait()
    hands.now_s += 5
    tried.note_received()
    hands.now_s += 1
    assert call.time.overhead_ms() == pytest.approx(3000)


def test_attempts_that_run_at_once_are_waited_for_once() -> None:
    """The first to be sent and the last to answer bound the waiting."""
    hands = Hands()
    call = hands.call()
    one, other = attempt(call), attempt(call)
    one.begin_wait()
    hands.now_s += 1
    other.begin_wait()
    hands.now_s += 1
    one.note_received()
    hands.now_s += 1
    other.note_received()
    other.note_received()
    hands.now_s += 0.5
    assert call.time.overhead_ms() == pytest.approx(500)


def test_a_streams_overhead_ends_with_its_first_token() -> None:
    """What a slow client takes afterwards is not the proxy's."""
    hands = Hands()
    call = hands.call()
    hands.now_s += 0.25
    tried = attempt(call)
    tried.begin_wait()
    hands.now_s += 2
    tried.note_first_token()
    hands.now_s += 60
    assert call.time.overhead_ms() == pytest.approx(250)


async def test_whole_answers_say_their_overhead(server: Server) -> None:
    """Neither a slow provider nor the pause before a retry is in it."""
    answer = await post(server.port, chat("fake/delay_whole(s=0.5)"))
    (overhead,) = answer.headers("x-proxy-overhead-ms")
    assert 0 < float(overhead) < 250


# --- few series -------------------------------------------------------------------------------------------------------


async def test_names_that_clients_make_up_are_no_labels(server: Server) -> None:
    """However many they try, the number of series stays."""
    for stream in (False, True):
        await post(server.port, chat("fake/ok(tag=0)", stream=stream))
        await post(server.port, chat("nobody/0"))
    before = await read(server.port)
    for number in range(1, 20):
        await post(server.port, chat(f"fake/ok(tag={number})", stream=number % 2 == 0))
        await post(server.port, chat(f"nobody/{number}"))
    after = await read(server.port)
    added = after.keys() ^ before.keys()  # the loop is measured twice a second: the first time may be between the two
    assert {name for name, _ in added if not name.startswith("mmproxy_loop_lag_seconds")} == set()
    assert value(after, "mmproxy_requests_total", provider="fake", model="other", outcome="ok", stream="true") == 10
    assert not any("tag" in text or "nobody" in text for _, labels in after for _, text in labels)


def test_no_metric_has_a_label_of_a_person() -> None:
    """Provider, model, outcome and fixed words; nothing of keys, users or prompts."""
    allowed = {"provider", "model", "outcome", "stream", "kind", "version"}
    assert {label for family in FAMILIES.values() for label in family.labels} == allowed


def test_names_of_metrics_follow_the_rules_of_prometheus() -> None:
    """Prefix, base units, and `_total` on counters only."""
    for family in FAMILIES.values():
        assert family.name.startswith("mmproxy_")
        assert family.kind in ("counter", "gauge", "histogram")
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert bool(family.buckets) == (family.kind == "histogram")
        if family.kind == "histogram":
            assert family.name.endswith("_seconds")
            assert list(family.buckets) == sorted(set(family.buckets))


def test_a_call_costs_less_than_ten_microseconds() -> None:
    """CPU time of what the hot path does for metrics, the best of several rounds."""
    metrics = counting()
    call, end = ended_call(input=10, output=2, cache_read=3)

    def one() -> None:
        call.time.begin_wait()
        call.time.end_wait()
        note({"fake/ok"}, metrics, call, end)

    def many() -> None:
        for _ in range(2000):
            one()

    taken_s = usual_s(many, 7) / 2000
    print(f"\n  {taken_s * 1e6:.1f} us")
    assert taken_s < 10e-6


# --- the route --------------------------------------------------------------------------------------------------------


async def test_metrics_are_at_their_exact_path(server: Server) -> None:
    """No redirect; in Prometheus' own format or as OpenMetrics."""
    plain = await get(server.port, "/metrics")
    assert (plain.status, plain.headers("content-type")) == (200, ["text/plain; version=0.0.4; charset=utf-8"])
    assert plain.body.startswith(b"# HELP mmproxy_requests_total ")
    open_metrics = await get(server.port, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert open_metrics.headers("content-type")[0].startswith("application/openmetrics-text; version=1.0.0")
    assert open_metrics.body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("access", "key", "status"),
    [("public", "", 200), ("admin", "", 401), ("admin", "data", 403), ("admin", "admin", 200), ("off", "admin", 404)],
)
@pytest.mark.sampled(3)
async def test_who_may_read_the_metrics(
    upstream: FakeUpstream, tmp_path: Path, access: str, key: str, status: int
) -> None:
    """`server.metrics`: everyone, the admin, nobody."""
    routing = write_files(tmp_path, upstream.url)
    routing.write_text(f"{routing.read_text()}\nserver: {{metrics: {access}}}\n")
    async with serving(routing, {"PROXY_API_KEY": "data", "PROXY_ADMIN_KEY": "admin"}) as running:
        answer = await get(running.port, "/metrics", **({"x_api_key": key} if key else {}))
    assert answer.status == status
    if status != 200:
        codes = {401: "invalid_api_key", 403: "admin_required", 404: "not_found"}
        assert answer.error()["code"] == codes[status]


# --- several workers --------------------------------------------------------------------------------------------------


async def test_a_dead_workers_counts_stay_and_its_gauges_go(tmp_path: Path) -> None:
    """A counter that fell would look like a restart of everything."""
    await counting(folder=tmp_path).exposition("")
    (name,) = os.listdir(tmp_path)
    os.rename(tmp_path / name, tmp_path / "4711-dead.json")
    other = counting(folder=tmp_path)
    labels = {"provider": "fake", "model": "ok", "outcome": "ok", "stream": "false"}
    for workers in (2, 1, 1):
        found = samples(await text_of(other))
        assert value(found, "mmproxy_requests_total", **labels) == 2
        assert value(found, "mmproxy_workers") == workers
        mark_dead(tmp_path, 4711)


async def test_workers_gauges_are_joined_as_their_family_says(tmp_path: Path) -> None:
    """One worker with an old configuration is a configuration that is not well; two versions are two series."""
    one = Metrics("1", lambda: {"mmproxy_config_ok": 1, "mmproxy_ledger_degraded": 0}, tmp_path)
    other = Metrics("2", lambda: {"mmproxy_config_ok": 0, "mmproxy_ledger_degraded": 1}, tmp_path)
    await one.exposition("")
    found = samples(await text_of(other))
    assert (value(found, "mmproxy_config_ok"), value(found, "mmproxy_ledger_degraded")) == (0, 1)
    assert [value(found, "mmproxy_build_info", version=version) for version in ("1", "2")] == [1, 1]


async def test_a_folder_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    """The worker still tells its own numbers."""
    metrics = counting(folder=tmp_path / "gone")
    assert "mmproxy_workers 1.0" in await text_of(metrics)


@pytest.mark.slow
def test_all_workers_are_counted_and_none_is_forgotten(tmp_path: Path) -> None:
    """Whichever worker is asked, all calls are there; also those of a worker that was killed."""
    body = json.loads(chat("fake/ok"))

    def requests_seen(port: int) -> float:
        found = samples(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        return sum(number for (name, _), number in found.items() if name == "mmproxy_requests_total")

    def workers_seen(port: int) -> float:
        return value(samples(httpx.get(f"http://127.0.0.1:{port}/metrics").text), "mmproxy_workers")

    with spawn() as upstream, spawned(files(tmp_path, upstream.url), "--workers", "2") as server:
        wait_until(lambda: workers_seen(server.port) == 2, "both workers have told their numbers")
        for _ in range(20):
            answer = httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=30)
            assert answer.status_code == 200
        for _ in range(2):
            wait_until(lambda: requests_seen(server.port) == 20, "every call is counted")
        workers = [
            child
            for child in psutil.Process(server.process.pid).children()
            if "PROXY_METRICS_FOLDER" in child.environ() and "spawn_main" in " ".join(child.cmdline())
        ]
        folder = Path(workers[0].environ()["PROXY_METRICS_FOLDER"])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        wait_until(lambda: len(list(folder.glob("*.json"))) == 2, "both have written a snapshot")
        workers[0].send_signal(signal.SIGKILL)
        wait_until(lambda: list(folder.glob("*.dead")) != [], "the dead worker is marked")
        wait_until(lambda: workers_seen(server.port) == 2, "its successor serves")
        assert requests_seen(server.port) == 20
        assert server.stop() == 0
        assert not folder.exists()
