"""What an upstream can do to an answer, and what its caller and the books see of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.books import INPUT_USD, OUTPUT_USD, assert_books_agree, files, rows
from tests.faults.talking import MESSAGES, Heard, ask
from tests.serving import Server, serving
from tests.upstream import FakeUpstream, prompt_tokens, refusing

SHORT = {"connect": 0.3, "first_token": 0.4, "idle": 0.3, "total": 0.8}
PROMPT = prompt_tokens({"messages": MESSAGES})


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture
async def server(tmp_path: Path, upstream: FakeUpstream) -> AsyncIterator[Server]:
    """Two providers without retries. At the end the upstream's ledger and the attempts agree, and nothing is open."""
    async with serving(files(tmp_path, upstream.url, fake={"timeout_s": SHORT})) as running:
        yield running
        assert all(each.active == 0 for each in running.parts.upstreams.values())
    assert_books_agree(tmp_path, upstream.ledger)


def said(tokens: int) -> str:
    """What the fake says in its first so many tokens."""
    return " ".join(f"tok{number}" for number in range(tokens))


def only(folder: Path, table: str = "calls") -> dict[str, Any]:
    (row,) = rows(folder, table)
    return row


def assert_no_invented_end(heard: Heard) -> None:
    assert heard.whole
    assert heard.finish_reasons == []
    assert not heard.done


# --- R04: cut short ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 20])
@pytest.mark.parametrize("cut", ["cut_clean(k={},s=0.05)", "cut_fin(k={},s=0.05)", "cut_rst(k={},s=0.05)"])
async def test_a_stream_cut_after_its_first_token_ends_in_an_error_frame(
    server: Server, tmp_path: Path, cut: str, k: int
) -> None:
    """What came is passed on, then the error; never a finish or `[DONE]` that the upstream did not send."""
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
async def test_a_stream_cut_before_its_first_token_is_a_502(server: Server, tmp_path: Path, cut: str) -> None:
    """No byte has left, so the error has its own status."""
    heard = await ask(server.port, "fake/" + cut)
    assert (heard.status, heard.error["code"]) == (502, "upstream_truncated")
    assert only(tmp_path)["outcome"] == "upstream_truncated"
    assert only(tmp_path)["cost_nano"] > 0  # the prompt was worked on


async def test_a_stream_without_finish_reason_is_truncated(server: Server, tmp_path: Path) -> None:
    """`[DONE]` alone finishes nothing."""
    heard = await ask(server.port, "fake/no_finish", stream_options={"include_usage": True})
    assert_no_invented_end(heard)
    assert (heard.content, heard.error["code"]) == (said(10), "upstream_truncated")
    assert heard.usage is None
    assert (only(tmp_path)["outcome"], only(tmp_path)["output_tokens"]) == ("upstream_truncated", pytest.approx(10, abs=3))


async def test_a_stream_with_its_finish_but_no_end_marker_is_complete(server: Server, tmp_path: Path) -> None:
    """Many servers send no `[DONE]`: the finish_reason is what tells that an answer is whole."""
    heard = await ask(server.port, "fake/no_done")
    assert (heard.content, heard.finish_reasons, heard.done) == (said(10), ["stop"], True)
    assert (only(tmp_path)["outcome"], only(tmp_path)["output_tokens"]) == ("ok", 10)


@pytest.mark.parametrize(
    "cut", ["cut_clean(k=1)", "cut_fin(k=1)", "cut_rst(k=1)", "truncated_json(k=3)", "cut_fin(k=0)", "no_finish"]
)
async def test_a_whole_answer_that_breaks_off_is_a_502(server: Server, tmp_path: Path, cut: str) -> None:
    """Half of a JSON body, by a cut connection or a short Content-Length, is no answer."""
    heard = await ask(server.port, "fake/" + cut, stream=False)
    assert (heard.status, heard.error["code"]) == (502, "upstream_truncated")
    call = only(tmp_path)
    assert call["outcome"] == "upstream_truncated"
    assert call["cost_nano"] > 0


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
async def test_each_phase_has_its_time_out(
    server: Server, tmp_path: Path, mode: str, stream: bool, outcome: str, limit_s: float
) -> None:
    """504 `upstream_timeout` soon after the limit of the phase that took too long, which the row names."""
    begun = time.monotonic()
    heard = await ask(server.port, "fake/" + mode, stream=stream)
    took_s = time.monotonic() - begun
    assert (heard.status, heard.error["code"]) == (504, "upstream_timeout")
    assert limit_s <= took_s < limit_s + 0.4
    assert (only(tmp_path)["outcome"], only(tmp_path, "attempts")["outcome"]) == (outcome, outcome)
    assert only(tmp_path)["cost_nano"] > 0


async def test_a_stream_that_stalls_after_its_first_token_ends_in_an_error_frame(server: Server, tmp_path: Path) -> None:
    """The idle limit counts from the last event."""
    heard = await ask(server.port, "fake/stall_after(k=5)")
    assert_no_invented_end(heard)
    assert (heard.content, heard.error["code"]) == (said(5), "upstream_timeout")
    assert only(tmp_path)["outcome"] == "timeout_idle"
    assert only(tmp_path)["output_tokens"] == pytest.approx(5, abs=3)


async def test_bytes_that_make_no_event_are_no_progress(tmp_path: Path, upstream: FakeUpstream) -> None:
    """A byte now and then keeps no stream alive."""
    upstream.modes["drip"] = "ok(n_tokens=3,pace=0.05)-cut_fin(k=3)"
    async with serving(files(tmp_path, upstream.url, fake={"timeout_s": {**SHORT, "first_token": 5, "idle": 0.3}})) as server:
        # 20 ms a byte: the first event of some 200 bytes takes 4 s, the second as long.
        heard = await ask(server.port, "fake/slow_body(s=0.004)")
        assert_no_invented_end(heard)
        assert heard.error["code"] == "upstream_timeout"
    assert only(tmp_path)["outcome"] == "timeout_idle"
