"""Faults of an upstream, and their effects on the caller and the books."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.books import INPUT_USD, OUTPUT_USD, MemoryPeak, assert_books_agree, files, rows
from tests.faults.talking import MESSAGES, Heard, ask, talk
from tests.serving import Server, serving
from tests.slowness import takes
from tests.upstream import FakeUpstream, prompt_tokens, refusing
from tests.upstream.transports.silence import silent
from tests.waiting import eventually

SHORT = {"connect": 0.3, "first_token": 0.4, "idle": 0.3, "total": 0.8}
LATER_S = 0.4  # than its limit a time-out may be
PROMPT = prompt_tokens({"messages": MESSAGES})
MAX_OUTPUT = 4096
MOST_NANO = MAX_OUTPUT * OUTPUT_USD * 1000  # of the output alone: what nobody saw may have been as much


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@asynccontextmanager
async def served(tmp_path: Path, upstream: FakeUpstream, **fake: Any) -> AsyncIterator[Server]:
    """Two providers without retries. At the end the upstream's ledger and the attempts agree, and nothing is open."""
    async with serving(files(tmp_path, upstream.url, fake=fake)) as running:
        yield running
        assert all(each.active == 0 for each in running.runtime.upstreams.values())
    assert_books_agree(tmp_path, upstream.ledger)


@pytest.fixture
async def server(tmp_path: Path, upstream: FakeUpstream) -> AsyncIterator[Server]:
    async with served(tmp_path, upstream, timeout_s=SHORT) as running:
        yield running


@pytest.fixture
async def patient(tmp_path: Path, upstream: FakeUpstream) -> AsyncIterator[Server]:
    """With time to read what is large, on a busy machine too."""
    async with served(tmp_path, upstream) as running:
        yield running


def said(tokens: int) -> str:
    """The text of the fake's first tokens."""
    return " ".join(f"tok{number}" for number in range(tokens))


def only(folder: Path, table: str = "calls") -> dict[str, Any]:
    (row,) = rows(folder, table)
    return row


def assert_no_invented_end(heard: Heard) -> None:
    assert heard.whole
    assert heard.finish_reasons == []
    assert not heard.done


# --- R04: cut short ---------------------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("cut", ["cut_clean(k={},s=0.05)", "cut_fin(k={},s=0.05)", "cut_rst(k={},s=0.05)"])
async def test_a_stream_cut_after_its_first_token_ends_in_an_error_frame(
    server: Server, tmp_path: Path, cut: str, k: int
) -> None:
    """The received part is passed on, then the error; the proxy never invents a finish or `[DONE]`."""
    heard = await ask(server.port, "fake/" + cut.format(k))
    assert_no_invented_end(heard)
    assert (heard.status, heard.content) == (200, said(k))
    assert heard.error["code"] == "upstream_truncated"
    call, attempt = only(tmp_path), only(tmp_path, "attempts")
    assert (call["outcome"], attempt["outcome"]) == ("upstream_truncated", "upstream_truncated")
    assert attempt["usage_source"] == "estimated"
    assert attempt["output"] == pytest.approx(k, abs=k / 2 + 1)
    assert attempt["cost_nano"] == attempt["input"] * INPUT_USD * 1000 + attempt["output"] * OUTPUT_USD * 1000
    assert attempt["input"] > 0


@pytest.mark.parametrize("cut", ["cut_clean(k=0)", "cut_fin(k=0)", "cut_rst(k=0)", "cut_clean(k=-1)", "half_headers"])
@pytest.mark.sampled(3)
async def test_a_stream_cut_before_its_first_token_is_a_502(server: Server, tmp_path: Path, cut: str) -> None:
    """Nothing was sent to the client, so the error has its own status."""
    heard = await ask(server.port, "fake/" + cut)
    assert (heard.status, heard.error["code"]) == (502, "upstream_truncated")
    assert only(tmp_path)["outcome"] == "upstream_truncated"
    assert only(tmp_path)["cost_nano"] >= MOST_NANO  # it may have been answered in full


async def test_a_stream_that_ends_without_finish_and_end_marker_is_truncated(server: Server, tmp_path: Path) -> None:
    """Its usage does not finish it."""
    heard = await ask(server.port, "fake/no_finish-no_done", stream_options={"include_usage": True})
    assert_no_invented_end(heard)
    assert (heard.content, heard.error["code"]) == (said(10), "upstream_truncated")
    assert heard.usage is None
    assert (only(tmp_path)["outcome"], only(tmp_path)["output_tokens"]) == (
        "upstream_truncated",
        pytest.approx(10, abs=3),
    )


@pytest.mark.parametrize("stream", [False, True])
async def test_a_complete_answer_without_finish_reason_gets_one(server: Server, tmp_path: Path, stream: bool) -> None:
    """A whole body, and a stream with its end marker."""
    heard = await ask(server.port, "fake/no_finish", stream=stream)
    assert (heard.status, heard.content, heard.finish_reasons) == (200, said(10), ["stop"])
    assert stream or heard.headers["x-proxy-adapted-params"] == "finish_reason"
    assert only(tmp_path)["outcome"] == "ok"


async def test_a_stream_with_its_finish_but_no_end_marker_is_complete(server: Server, tmp_path: Path) -> None:
    """Many servers send no `[DONE]`: the finish_reason marks an answer as complete."""
    heard = await ask(server.port, "fake/no_done")
    assert (heard.content, heard.finish_reasons, heard.done) == (said(10), ["stop"], True)
    assert (only(tmp_path)["outcome"], only(tmp_path)["output_tokens"]) == ("ok", 10)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "cut", ["cut_clean(k=1)", "cut_fin(k=1)", "cut_rst(k=1)", "truncated_json(k=3)", "cut_fin(k=0)"]
)
async def test_a_whole_answer_that_breaks_off_is_a_502(server: Server, tmp_path: Path, cut: str) -> None:
    """A truncated JSON body, from a cut connection or a short Content-Length, is not an answer."""
    heard = await ask(server.port, "fake/" + cut, stream=False)
    assert (heard.status, heard.error["code"]) == (502, "upstream_truncated")
    call = only(tmp_path)
    assert call["outcome"] == "upstream_truncated"
    assert call["cost_nano"] >= MOST_NANO


async def test_an_error_frame_of_the_upstream_ends_the_stream(server: Server, tmp_path: Path) -> None:
    """Its words reach the caller, nothing follows."""
    heard = await ask(server.port, "fake/sse_error(k=3,s=0.05)")
    assert_no_invented_end(heard)
    assert heard.content == said(3)
    assert "error" in heard.error["message"].lower()
    assert (only(tmp_path)["outcome"], only(tmp_path)["estimated"]) == ("upstream_error", 1)


# --- R08: time-outs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "stream", "outcome", "limit_s"),
    [
        ("slow_ttft(s=9)", True, "timeout_first_token", SHORT["first_token"]),
        ("stall_after(k=0)", True, "timeout_first_token", SHORT["first_token"]),
        ("blackhole", True, "timeout_first_token", SHORT["first_token"]),
        ("slow_headers(s=0.1)", True, "timeout_first_token", SHORT["first_token"]),
        ("slow_body(s=0.02)", True, "timeout_first_token", SHORT["first_token"]),
        ("slow_ttft(s=9)", False, "timeout_total", SHORT["total"]),
        ("blackhole", False, "timeout_total", SHORT["total"]),
        ("slow_headers(s=0.1)", False, "timeout_total", SHORT["total"]),
        ("slow_body(s=0.02)", False, "timeout_total", SHORT["total"]),
        ("stall_after(k=1)", False, "timeout_idle", SHORT["idle"]),
    ],
)
@pytest.mark.slow
async def test_each_phase_has_its_time_out(
    server: Server, tmp_path: Path, mode: str, stream: bool, outcome: str, limit_s: float
) -> None:
    """504 `upstream_timeout` soon after the limit of the phase that took too long, which the row names."""
    with takes(limit_s, LATER_S):
        heard = await ask(server.port, "fake/" + mode, stream=stream)
    assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")
    assert (only(tmp_path)["outcome"], only(tmp_path, "attempts")["outcome"]) == (outcome, outcome)
    assert (only(tmp_path, "attempts")["usage_source"], only(tmp_path)["cost_nano"] >= MOST_NANO) == ("unknown", True)
    assert only(tmp_path)["output_tokens"] == MAX_OUTPUT


async def test_a_stream_that_stalls_after_its_first_token_ends_in_an_error_frame(
    server: Server, tmp_path: Path
) -> None:
    """The idle limit counts from the last event."""
    heard = await ask(server.port, "fake/stall_after(k=5)")
    assert_no_invented_end(heard)
    assert (heard.content, heard.error["code"]) == (said(5), "upstream_timeout")
    assert only(tmp_path)["outcome"] == "timeout_idle"
    assert only(tmp_path)["output_tokens"] == pytest.approx(5, abs=3)


@pytest.mark.parametrize("pings", ["pinging_stall(k=3,s=0.05)", "pinging_stall(k=3,s=0.05)-named_pings"])
async def test_pings_do_not_keep_a_stalled_stream_alive(server: Server, tmp_path: Path, pings: str) -> None:
    """Signs of life from the connection say nothing about the model."""
    with takes(SHORT["idle"], LATER_S):
        heard = await ask(server.port, "fake/" + pings)
    assert_no_invented_end(heard)
    assert (heard.content, heard.error["code"]) == (said(3), "upstream_timeout")
    assert only(tmp_path)["outcome"] == "timeout_idle"


@pytest.mark.parametrize("pings", ["pinging_stall(k=0,s=0.05)", "pinging_stall(k=0,s=0.05)-named_pings"])
@pytest.mark.slow
async def test_pings_do_not_put_off_the_first_token(server: Server, tmp_path: Path, pings: str) -> None:
    """Its time-out counts from the answer's headers on."""
    with takes(SHORT["first_token"], LATER_S):
        heard = await ask(server.port, "fake/" + pings)
    assert (heard.status, only(tmp_path)["outcome"]) == (504, "timeout_first_token")


@pytest.mark.slow
async def test_bytes_that_make_no_event_are_no_progress(tmp_path: Path, upstream: FakeUpstream) -> None:
    """A byte now and then keeps no stream alive."""
    limits = {**SHORT, "first_token": 5.0}
    async with serving(files(tmp_path, upstream.url, fake={"timeout_s": limits})) as server:
        heard = await ask(server.port, "fake/slow_body(s=0.003)")  # an event of some 200 bytes takes 0.6 s
    assert_no_invented_end(heard)
    assert heard.error["code"] == "upstream_timeout"
    assert only(tmp_path)["outcome"] == "timeout_idle"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.slow
async def test_a_host_that_does_not_answer_is_a_connect_time_out(
    tmp_path: Path, upstream: FakeUpstream, stream: bool, transport: str
) -> None:
    """Nothing was sent, so nothing was used."""
    with silent() as url:
        fake = {"base_url": url, "timeout_s": SHORT, "transport": transport}
        async with serving(files(tmp_path, upstream.url, fake=fake)) as server:
            heard = await ask(server.port, "fake/ok", stream=stream)
    assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")
    call, attempt = only(tmp_path), only(tmp_path, "attempts")
    assert (call["outcome"], attempt["outcome"], attempt["usage_source"]) == (
        "timeout_connect",
        "timeout_connect",
        "none",
    )
    assert call["cost_nano"] == 0


# --- the deadline of a call -------------------------------------------------------------------------------------------

DEADLINE_S = 1.0


async def ask_within(
    tmp_path: Path, upstream: FakeUpstream, name: str, limit: AbstractContextManager[None], **fields: Any
) -> Heard:
    """Asks a server with a call deadline of a second. `name` may be one of these models'; `limit`: of its time."""
    models = {
        "pair": ("fake/blackhole(tag=1)", ["backup/blackhole(tag=2)"]),
        "failed": ("fake/e500(delay=0.6)", ["backup/ok(delay=9)"]),
    }
    path = files(tmp_path, upstream.url, models=models, fake={"retries": 2})
    routing = json.loads(path.read_text())
    routing["router"]["deadline_s"] = DEADLINE_S
    path.write_text(json.dumps(routing))
    async with serving(path) as server:
        with limit:
            heard = await ask(server.port, name, **fields)
        assert all(each.active == 0 for each in server.runtime.upstreams.values())
        assert (server.runtime.ledger.state.open_calls, server.runtime.ledger.state.reserved_nano) == (0, 0)
    await upstream.until(lambda: upstream.open == 0)
    assert_books_agree(tmp_path, upstream.ledger)
    return heard


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "n", "attempts"),
    [
        ("fake/blackhole", 1, ["timeout_total"]),
        ("fake/slow_headers(s=0.1)", 1, ["timeout_total"]),
        ("failed", 1, ["upstream_error", "timeout_total"]),
        ("pair", 1, ["timeout_total"]),
        ("single/blackhole", 3, ["timeout_total"] * 3),
    ],
)
@pytest.mark.slow
async def test_one_deadline_holds_for_all_that_a_call_does(
    tmp_path: Path, upstream: FakeUpstream, name: str, n: int, attempts: list[str], stream: bool
) -> None:
    """Across time-outs of attempts, fallbacks and seats: 504, with the advice not to retry."""
    heard = await ask_within(tmp_path, upstream, name, takes(DEADLINE_S, LATER_S), stream=stream, n=n)
    assert (heard.status, heard.error["code"], heard.headers["x-should-retry"]) == (504, "upstream_timeout", "false")
    assert "router.deadline_s" in heard.error["message"]
    assert (only(tmp_path)["outcome"], only(tmp_path)["status"]) == ("timeout_total", 504)
    found = [row["outcome"] for row in rows(tmp_path, "attempts")]
    assert found[0] == attempts[0]
    assert set(found) <= set(attempts)  # the wait between two attempts is random
    assert len(found) >= (1 if attempts[0] == "upstream_error" else len(attempts))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_wait_beyond_the_deadline_is_not_begun(tmp_path: Path, upstream: FakeUpstream, stream: bool) -> None:
    """The caller learns at once what the vendor said."""
    heard = await ask_within(tmp_path, upstream, "fake/e429(retry_after=9)", takes(0, DEADLINE_S), stream=stream)
    assert (heard.status, heard.headers["retry-after"]) == (429, "9")
    assert [row["outcome"] for row in rows(tmp_path, "attempts")] == ["upstream_error"]


async def test_a_stream_ends_at_the_deadline_in_an_error_frame(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Even if it is flowing; the received part is counted."""
    heard = await ask_within(tmp_path, upstream, "fake/ok(n_tokens=9000,pace=0.01)", takes(DEADLINE_S, LATER_S))
    assert_no_invented_end(heard)
    assert heard.error["code"] == "upstream_timeout"
    assert len(heard.content.split()) > 20
    (attempt,) = rows(tmp_path, "attempts")
    assert (attempt["outcome"], attempt["usage_source"]) == ("timeout_total", "estimated")


# --- R12: usage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("mode", "source"),
    [
        ("ok", "provider"),
        ("usage_in_last", "provider"),
        ("cached(n=2)", "provider"),
        ("reasoning(n=4)", "provider"),
        ("no_usage", "estimated"),
        ("usage_null", "estimated"),
        ("usage_partial", "estimated"),
        ("reasoning(n=4)-no_usage", "estimated"),
        ("tools(n=2)-no_usage", "estimated"),
        ("refusal-no_usage", "estimated"),
    ],
)
@pytest.mark.slow
async def test_every_answer_is_paid_for(
    server: Server, upstream: FakeUpstream, tmp_path: Path, mode: str, source: str, stream: bool
) -> None:
    """By the provider's count, or else by an estimate; the row and the caller get the same numbers."""
    options = {"stream_options": {"include_usage": True}} if stream else {}
    heard = await ask(server.port, "fake/" + mode, stream=stream, **options)
    call, attempt = only(tmp_path), only(tmp_path, "attempts")
    usage = heard.usage
    assert usage is not None
    assert (call["outcome"], attempt["usage_source"]) == ("ok", source)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (call["input_tokens"], call["output_tokens"])
    assert usage["cost"] == pytest.approx(call["cost_nano"] / 1e9)
    assert call["cost_nano"] > 0
    assert call["estimated"] == usage.get("estimated", False) == (source == "estimated")
    said_tokens = upstream.ledger[0].tokens_sent
    if source == "provider":
        assert (call["input_tokens"], call["output_tokens"]) == (PROMPT, said_tokens)
    else:
        assert said_tokens / 2 <= call["output_tokens"] <= said_tokens * 2


# --- R13: fallback ----------------------------------------------------------------------------------------------------

SECOND = "backup/utf8_split(n_tokens=3)"  # its text is like none of the others
SECOND_SAID = " ".join(f"tok{number}é漢😀" for number in range(3))


async def ask_pair(tmp_path: Path, upstream: FakeUpstream, first: str, **fields: Any) -> Heard:
    """Asks a name whose first model is `first` and whose fallback is `SECOND`; the books agree afterwards."""
    models = {"pair": (first, [SECOND])}
    fake = {"timeout_s": SHORT}
    if first == "fake/refused":
        with refusing() as url:
            path = files(tmp_path, upstream.url, models=models, fake={**fake, "base_url": url})
            async with serving(path) as server:
                return await ask(server.port, "pair", **fields)
    async with serving(files(tmp_path, upstream.url, models=models, fake=fake)) as server:
        heard = await ask(server.port, "pair", **fields)
    assert_books_agree(tmp_path, upstream.ledger)
    return heard


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        ("fake/refused", "upstream_error"),
        ("fake/close_before_request", "upstream_truncated"),
        ("fake/half_headers", "upstream_truncated"),
        ("fake/e500", "upstream_error"),
        ("fake/e429", "upstream_error"),
        ("fake/e401", "upstream_error"),
        ("fake/html_502", "upstream_error"),
        ("fake/sse_error(k=0)", "upstream_error"),
        ("fake/cut_clean(k=0)", "upstream_truncated"),
        ("fake/cut_rst(k=0)", "upstream_truncated"),
        ("fake/stall_after(k=0)", ("timeout_first_token", "timeout_idle")),
    ],
)
@pytest.mark.slow
async def test_before_the_first_delta_another_model_may_answer(
    tmp_path: Path, upstream: FakeUpstream, first: str, outcome: str | tuple[str, str], stream: bool
) -> None:
    """The answer is only the second model's, and headers and rows show the fallback."""
    heard = await ask_pair(tmp_path, upstream, first, stream=stream)
    assert (heard.status, heard.content, heard.finish_reasons) == (200, SECOND_SAID, ["stop"])
    assert (heard.headers["x-proxy-attempts"], heard.headers["x-proxy-model"]) == ("2", SECOND)
    failed, answered = rows(tmp_path, "attempts")
    expected = outcome if isinstance(outcome, str) else outcome[0 if stream else 1]
    assert (failed["outcome"], answered["outcome"]) == (expected, "ok")
    call = only(tmp_path)
    assert (call["outcome"], call["attempts"], call["fallback"], call["provider"]) == ("ok", 2, 1, "backup")


@pytest.mark.parametrize(
    "first",
    [
        "fake/cut_clean(k=1)",
        "fake/cut_fin(k=3)",
        "fake/sse_error(k=1)",
        "fake/sse_error(k=3)",
        "fake/stall_after(k=3)",
        "fake/reasoning(n=3)-cut_clean(k=1)",
        "fake/tools-cut_clean(k=1)",
        "fake/refusal-cut_clean(k=1)",
        "fake/two_choices-cut_clean(k=1)",
    ],
)
@pytest.mark.sampled(4)
async def test_after_the_first_delta_no_other_model_answers(tmp_path: Path, upstream: FakeUpstream, first: str) -> None:
    """Content, reasoning, a tool call or a refusal: each commits the answer to its model."""
    heard = await ask_pair(tmp_path, upstream, first)
    assert_no_invented_end(heard)
    assert heard.status == 200
    assert heard.error["code"] in ("upstream_truncated", "upstream_timeout", "upstream_error")
    assert said(3).startswith(heard.content)
    assert heard.headers["x-proxy-attempts"] == "1"
    assert [row["provider"] for row in rows(tmp_path, "attempts")] == ["fake"]


@pytest.mark.parametrize("mode", ["e400", "e413", "e422"])
async def test_a_request_that_is_wrong_is_not_passed_around(tmp_path: Path, upstream: FakeUpstream, mode: str) -> None:
    """Another model would refuse it as well."""
    heard = await ask_pair(tmp_path, upstream, "fake/" + mode)
    assert heard.status == int(mode[1:])
    assert len(rows(tmp_path, "attempts")) == 1


async def test_a_direct_name_has_no_fallback(server: Server, tmp_path: Path) -> None:
    """A client that names a model gets that model or an error."""
    heard = await ask(server.port, "fake/e500")
    assert heard.status == 502
    assert len(rows(tmp_path, "attempts")) == 1


async def test_when_all_fail_the_last_error_is_told(tmp_path: Path, upstream: FakeUpstream) -> None:
    """With the advice not to retry at once."""
    models = {"pair": ("fake/e500", ["backup/e503"])}
    async with serving(files(tmp_path, upstream.url, models=models)) as server:
        heard = await ask(server.port, "pair")
    assert (heard.status, heard.headers["x-should-retry"]) == (503, "false")
    assert [row["status"] for row in rows(tmp_path, "attempts")] == [500, 503]
    assert_books_agree(tmp_path, upstream.ledger)


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.slow
async def test_retries_answer_after_two_failures(
    tmp_path: Path, upstream: FakeUpstream, stream: bool, transport: str
) -> None:
    """Three attempts, three rows, and one answer."""
    fake = {"retries": 2, "transport": transport}
    async with serving(files(tmp_path, upstream.url, fake=fake)) as server:
        heard = await ask(server.port, "fake/fail_first(n=2)", stream=stream)
        assert server.runtime.upstreams["fake"].active == 0
    assert (heard.content, heard.headers["x-proxy-attempts"]) == (said(10), "3")
    assert [row["outcome"] for row in rows(tmp_path, "attempts")] == ["upstream_error", "upstream_error", "ok"]
    assert [row["cost_nano"] for row in rows(tmp_path, "attempts")][:2] == [0, 0]
    assert_books_agree(tmp_path, upstream.ledger)


@pytest.mark.parametrize("kind", ["aiohttp", "httpx"])
async def test_a_stale_connection_is_replaced_within_the_attempt(
    tmp_path: Path, upstream: FakeUpstream, kind: str
) -> None:
    """The provider closed it as the request arrived: this uses no retry and costs nothing."""
    async with serving(files(tmp_path, upstream.url, fake={"retries": 0, "transport": kind})) as server:
        heard = [await ask(server.port, "fake/stale_keepalive") for _ in range(3)]
    assert [each.content for each in heard] == [said(10)] * 3
    assert len(upstream.ledger) > 3
    assert [(row["outcome"], row["usage_source"]) for row in rows(tmp_path, "attempts")] == [("ok", "provider")] * 3
    assert_books_agree(tmp_path, upstream.ledger)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "mode",
    ["cut_clean(k=0)", "cut_rst(k=0)", "stall_after(k=0)", "blackhole", "half_headers", "empty_200", "wrong_ctype"],
)
@pytest.mark.slow
async def test_a_request_that_may_be_worked_on_is_sent_once(
    tmp_path: Path, upstream: FakeUpstream, mode: str, stream: bool
) -> None:
    """Time-outs, broken connections and unreadable answers are not retried: the vendor could bill them twice."""
    async with serving(files(tmp_path, upstream.url, fake={"retries": 2, "timeout_s": SHORT})) as server:
        heard = await ask(server.port, "fake/" + mode, stream=stream)
    if mode == "wrong_ctype":  # an answer is read for what it is
        assert heard.status == 200
    else:
        assert (heard.status in (502, 504), heard.headers["x-should-retry"]) == (True, "false")
        assert only(tmp_path, "attempts")["usage_source"] == "unknown"
        assert only(tmp_path)["cost_nano"] >= MOST_NANO
    assert len(upstream.ledger) == 1
    assert_books_agree(tmp_path, upstream.ledger)


async def test_retry_after_is_waited_for(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Retry-After is the minimum wait."""
    async with serving(files(tmp_path, upstream.url, fake={"retries": 1})) as server:
        heard = await ask(server.port, "fake/e429(retry_after=0.7)")
    assert (heard.status, heard.headers["retry-after"]) == (429, "0.7")
    first, second = upstream.ledger
    assert 0.7 <= second.t_recv - first.t_recv < 4
    assert_books_agree(tmp_path, upstream.ledger)


async def test_a_long_retry_after_is_left_to_the_caller(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The proxy does not wait more than ten seconds; the caller gets the Retry-After."""
    async with serving(files(tmp_path, upstream.url, fake={"retries": 2})) as server:
        with takes(0, 1):
            heard = await ask(server.port, "fake/e429(retry_after=11)")
    assert (heard.status, heard.headers["retry-after"]) == (429, "11")
    assert len(upstream.ledger) == 1
    assert_books_agree(tmp_path, upstream.ledger)


async def test_at_most_four_attempts_are_made(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Retries and fallbacks together; with more candidates than attempts each gets one."""
    models = {"many": ("fake/e500", ["backup/e500(tag=1)", "backup/e500(tag=2)", "backup/e500(tag=3)", "backup/ok"])}
    async with serving(files(tmp_path, upstream.url, models=models, fake={"retries": 1})) as server:
        heard = await ask(server.port, "many")
    assert heard.status == 503
    assert [seen.model for seen in upstream.ledger] == ["e500", "e500(tag=1)", "e500(tag=2)", "e500(tag=3)"]
    assert_books_agree(tmp_path, upstream.ledger)


# --- R26: odd wires ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    [
        "chunk_split",
        "crlf_sse",
        "chunk_split-crlf_sse",
        "comment_pings",
        "multi_data_lines",
        "bom",
        "dup_headers",
        "huge_headers",
        "100_continue(hints=1)",
        "fast(n_tokens=10)",
        "role_each_chunk",
    ],
)
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.slow
async def test_odd_but_valid_streams_say_the_same(
    tmp_path: Path, upstream: FakeUpstream, mode: str, transport: str
) -> None:
    """The text, the finish and the exact usage are those of a plain stream."""
    async with serving(files(tmp_path, upstream.url, fake={"transport": transport})) as server:
        heard = await ask(server.port, "fake/" + mode, stream_options={"include_usage": True})
    assert (heard.status, heard.content, heard.finish_reasons, heard.done) == (200, said(10), ["stop"], True)
    assert heard.usage is not None
    assert (heard.usage["prompt_tokens"], heard.usage["completion_tokens"]) == (PROMPT, 10)
    assert (only(tmp_path)["outcome"], only(tmp_path)["estimated"]) == ("ok", 0)
    assert_books_agree(tmp_path, upstream.ledger)


async def test_characters_cut_by_chunks_arrive_whole(server: Server) -> None:
    """Characters of two, three and four bytes."""
    heard = await ask(server.port, "fake/utf8_split(n_tokens=3)")
    assert heard.content == SECOND_SAID


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "mode", ["dup_headers", "huge_headers", "100_continue", "chunk_split", "wrong_ctype", "gzip_bomb(mb=0)", "bom"]
)
@pytest.mark.slow
async def test_odd_but_valid_answers_say_the_same(server: Server, tmp_path: Path, mode: str, stream: bool) -> None:
    """An answer is read by its content, whatever its headers say, compressed or not."""
    options = {"stream_options": {"include_usage": True}} if stream else {}
    heard = await ask(server.port, "fake/" + mode, stream=stream, **options)
    assert (heard.status, heard.content) == (200, said(10))
    assert only(tmp_path)["output_tokens"] == 10


@pytest.mark.parametrize(
    ("mode", "stream", "code", "outcome"),
    [
        ("giant_line", True, "upstream_error", "upstream_error"),
        ("gzip_bomb", True, "upstream_error", "upstream_error"),
        ("gzip_bomb", False, "upstream_error", "upstream_error"),
        ("html_502", True, "upstream_error", "upstream_error"),
        ("html_502", False, "upstream_error", "upstream_error"),
        ("bad_json_error", True, "upstream_error", "upstream_error"),
        ("empty_200", True, "upstream_truncated", "upstream_truncated"),
        ("empty_200", False, "upstream_truncated", "upstream_truncated"),
        ("json_in_200_error", True, "upstream_error", "upstream_error"),
        ("json_in_200_error", False, "upstream_error", "upstream_error"),
        ("half_headers", False, "upstream_truncated", "upstream_truncated"),
        ("huge_headers(kb=1024)", True, "upstream_truncated", "upstream_truncated"),
        ("redirect", True, "upstream_error", "upstream_error"),
    ],
)
@pytest.mark.slow
async def test_what_cannot_be_read_is_a_clean_502(
    patient: Server, tmp_path: Path, mode: str, stream: bool, code: str, outcome: str
) -> None:
    """An error in OpenAI's shape, soon, in bounded memory, with nothing of the provider's page in it."""
    with MemoryPeak() as memory, takes(0, 2):
        heard = await ask(patient.port, "fake/" + mode, stream=stream)
    assert memory.grown_kb < 96 * 1024  # twice what it takes: other tests of this process come and go
    assert (heard.status, heard.error["code"]) == (502, code)
    assert "<html" not in heard.error["message"]
    assert only(tmp_path)["outcome"] == outcome


async def test_a_giant_answer_that_is_valid_is_passed_on(patient: Server, tmp_path: Path) -> None:
    """Ten megabytes in one field: large, but an answer."""
    heard = await ask(patient.port, "fake/giant_line", stream=False)
    assert (heard.status, len(heard.content)) == (200, 10 * 2**20)
    assert only(tmp_path)["outcome"] == "ok"


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.slow
async def test_a_client_that_reads_slowly_is_not_the_upstream_stalling(
    tmp_path: Path, upstream: FakeUpstream, transport: str
) -> None:
    """While the client does not read, the upstream is blocked and its time-outs do not run."""
    fake = {"transport": transport, "timeout_s": {**SHORT, "total": 9.0}}
    async with serving(files(tmp_path, upstream.url, fake=fake)) as server:
        conversation = await talk(server.port, "fake/fast(n_tokens=60000)")
        assert await conversation.head() == 200
        await eventually(lambda: any(each.held_back for each in upstream.connections))
        await asyncio.sleep(3 * SHORT["idle"])
        assert upstream.ledger[0].tokens_sent < 60000
        heard = await conversation.rest()
    assert (heard.finish_reasons, heard.done) == (["stop"], True)
    assert only(tmp_path)["output_tokens"] == 60000
