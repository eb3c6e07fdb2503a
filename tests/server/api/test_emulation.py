"""What a vendor lacks, as a client sees it: one answer, one bill, and a header that says what was done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.api.raw import HELLO, Answer, chat, post, request
from tests.server.api.rows import row_of
from tests.serving import Server, serving, write_files
from tests.storage.samples import rows
from tests.upstream import FakeUpstream
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# One provider whose vendor has one choice and four stops, and a second one for what it loses.
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  one: {{type: groq, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models:
  either: {{use: one/e503, fallback: [fake/ok]}}
router: {{default_model: fake/ok}}
"""
PRICING = """
version: 1
models:
  one/*: {input: 2.00, output: 10.00, max_output: 4096}
  fake/*: {input: 2.00, output: 10.00, max_output: 4096}
  fake/blind: {input: 2.00, output: 10.00, supports: [tools]}
"""
INPUT_NANO, OUTPUT_NANO = 2_000, 10_000
STOPS = ["no", "stop", "of", "these", "tok3"]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lacking(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    async with serving(write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


def attempts(database: Path, answer: Answer) -> list[dict[str, Any]]:
    (request_id,) = answer.headers("x-request-id")
    return rows(database, "SELECT * FROM attempts WHERE call_id = ? ORDER BY seq", request_id)


# --- several choices --------------------------------------------------------------------------------------------------


async def test_choices_are_asked_for_in_parallel(lacking: Server, upstream: FakeUpstream, database: Path) -> None:
    """One answer with all of them, the sum of the bills, and a row for each request that the vendor saw."""
    answer = await post(lacking.port, chat("one/delay_whole(s=0.3)", n=3))
    assert [choice["index"] for choice in answer.json["choices"]] == [0, 1, 2]
    assert all(choice["message"]["content"].startswith("tok0") for choice in answer.json["choices"])
    usage = answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (9, 30, 39)
    cost_nano = 9 * INPUT_NANO + 30 * OUTPUT_NANO
    assert round(usage["cost"] * 1e9) == cost_nano
    assert answer.headers("x-proxy-adapted-params") == ["n"]
    assert answer.headers("x-proxy-attempts") == ["3"]
    row = await row_of(database, answer)
    assert (row["attempts"], row["total_tokens"], row["cost_nano"]) == (3, 39, cost_nano)
    made = attempts(database, answer)
    assert [each["outcome"] for each in made] == ["ok"] * 3
    assert sorted(each["id"] for each in made) == sorted(seen.id or "" for seen in upstream.ledger)
    assert row["latency_ms"] < 3 * 300


async def test_the_vendor_is_not_told_of_choices_it_lacks(lacking: Server) -> None:
    """Each ask says what it wants, and has a seed of its own."""
    answer = await post(lacking.port, chat("one/echo", n=2, seed=5))
    bodies = [json.loads(choice["message"]["content"]) for choice in answer.json["choices"]]
    assert ["n" in body for body in bodies] == [False, False]
    assert [body["seed"] for body in bodies] == [5, 6]


async def test_streamed_choices_are_one_stream(lacking: Server) -> None:
    """Each begins with its role and ends with its finish; the usage is of all."""
    body = chat("one/ok(n_tokens=4)", n=2, stream=True, stream_options={"include_usage": True})
    answer = await post(lacking.port, body)
    *events, last, done = answer.events
    assert done == "[DONE]"
    for index in (0, 1):
        pieces = [choice for event in events for choice in event["choices"] if choice["index"] == index]
        assert pieces[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(piece["delta"].get("content") or "" for piece in pieces) == "tok0 tok1 tok2 tok3"
        assert [piece["finish_reason"] for piece in pieces if piece["finish_reason"]] == ["stop"]
    assert last["usage"]["total_tokens"] == 2 * 3 + 2 * 4
    assert answer.headers("x-proxy-adapted-params") == ["n"]


async def test_the_openai_sdk_reads_them(lacking: Server) -> None:
    """Whole, as if the vendor had them."""
    answer = await lacking.client.chat.completions.create(model="one/ok", messages=HELLO, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]


async def test_a_client_who_leaves_ends_every_ask(lacking: Server, upstream: FakeUpstream, database: Path) -> None:
    """Each upstream connection is closed, each attempt is settled, nothing stays held."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lacking.port)
    writer.write(request(chat("one/stall_after(k=3)", n=3, stream=True)))
    await reader.readuntil(b"tok2")

    async def all_asked() -> bool:
        return len(upstream.ledger) == 3

    await until(all_asked)
    writer.transport.abort()

    async def is_settled() -> bool:
        return not rows(database, "SELECT id FROM calls WHERE closed_ns IS NULL")

    await until(is_settled)
    (call_id,) = {(seen.id or "").rpartition("-")[0] for seen in upstream.ledger}
    made = rows(database, "SELECT * FROM attempts WHERE call_id = ?", call_id)
    assert [each["outcome"] for each in made] == ["client_closed"] * 3
    assert all(each["usage_source"] == "estimated" and each["cost_nano"] > 0 for each in made)
    assert lacking.runtime.ledger.state.reserved_nano == 0


async def test_a_stream_that_breaks_off_ends_with_an_error(lacking: Server, database: Path) -> None:
    """No finish, no `[DONE]`; the call is a failure and its attempts are settled."""
    answer = await post(lacking.port, chat("one/cut_fin(k=2)", n=2, stream=True))
    assert answer.events[-1]["error"]["code"] == "upstream_truncated"
    assert "[DONE]" not in answer.events
    row = await row_of(database, answer)
    assert (row["outcome"], row["attempts"]) == ("upstream_truncated", 2)
    assert all(each["closed_ns"] for each in attempts(database, answer))


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_more_stops_than_the_vendor_takes_still_stop(lacking: Server, stream: bool) -> None:
    """The bill is what it wrote."""
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = await post(lacking.port, chat("one/ok", stop=STOPS, stream=stream, **options))
    if stream:
        *events, last, _ = answer.events
        choices = [choice for event in events for choice in event["choices"]]
        text, finish = "".join(choice["delta"].get("content") or "" for choice in choices), choices[-1]["finish_reason"]
        usage = last["usage"]
    else:
        choice = answer.json["choices"][0]
        text, finish, usage = choice["message"]["content"], choice["finish_reason"], answer.json["usage"]
    assert (text, finish, usage["completion_tokens"]) == ("tok0 tok1 tok2 ", "stop", 10)
    assert answer.headers("x-proxy-adapted-params") == ["stop"]


# --- strict -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"routing": {"strict": True}}, {}),
        ({}, {"x_proxy_strict": "true"}),
        ({"metadata": {"routing.strict": "true"}}, {}),
    ],
)
async def test_strict_refuses_what_the_vendor_lacks(
    lacking: Server, upstream: FakeUpstream, database: Path, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    """Asked for in the body, in a header or in the metadata; nothing is sent, nothing is spent."""
    answer = await post(lacking.port, chat("one/ok", logit_bias={"1": 2}, **fields), **headers)
    error = answer.error()
    assert (answer.status, error["code"], error["param"]) == (400, "unsupported_parameter", "logit_bias")
    assert "one/ok" in error["message"]
    assert upstream.ledger == []
    row = await row_of(database, answer)
    assert (row["outcome"], row["cost_nano"], row["attempts"]) == ("rejected", 0, 1)
    assert (await post(lacking.port, chat("one/ok", logit_bias={"1": 2}))).headers("x-proxy-dropped-params") == [
        "logit_bias"
    ]


async def test_hints_do_not_reach_the_vendor(lacking: Server) -> None:
    """In none of their forms."""
    fields = {"routing": {"strict": False}, "metadata": {"routing.strict": "true", "kept": "x"}}
    answer = await post(lacking.port, chat("fake/echo", **fields), x_proxy_strict="true")
    seen = json.loads(answer.json["choices"][0]["message"]["content"])
    assert seen == {"model": "echo", "messages": HELLO, "metadata": {"kept": "x"}}


async def test_unknown_hints_are_refused(lacking: Server, upstream: FakeUpstream) -> None:
    """A hint that would do nothing is a mistake that nobody would see."""
    for fields in ({"routing": {"experimnt": "a"}}, {"routing": {"stict": True}}):
        answer = await post(lacking.port, chat("fake/ok", **fields))
        assert (answer.status, answer.error()["code"]) == (400, "unsupported_parameter")
    assert upstream.ledger == []


# --- content ----------------------------------------------------------------------------------------------------------


async def test_content_that_a_model_cannot_take_is_refused(lacking: Server, upstream: FakeUpstream) -> None:
    """By name, before any money is spent; a model of which nothing is said gets it."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, IMAGE]}]
    answer = await post(lacking.port, chat("fake/blind", messages=messages))
    error = answer.error()
    assert (answer.status, error["code"], error["param"]) == (400, "unsupported_content", "messages.0.content.1")
    assert "fake/blind" in error["message"]
    assert upstream.ledger == []
    assert (await post(lacking.port, chat("fake/ok", messages=messages))).status == 200


# --- broken answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "mode", ["html_502", "empty_200", "bad_json_error", "json_in_200_error", "wrong_ctype-cut_fin"]
)
async def test_a_broken_answer_is_a_502_with_the_vendors_status(
    lacking: Server, database: Path, mode: str, stream: bool, n: int
) -> None:
    """Nothing of it is shown, and the call is settled."""
    mode = mode.replace("cut_fin", "cut_fin(k=0)") if stream else mode  # before anything is said
    answer = await post(lacking.port, chat(f"one/{mode}", stream=stream, n=n))
    error = answer.error()
    assert answer.status == 502, error
    assert error["metadata"]["upstream_status"] in (200, 500, 502)
    assert "<" not in error["message"]
    row = await row_of(database, answer)
    assert (row["status"], row["success"]) == (502, 0)
    assert all(each["closed_ns"] for each in attempts(database, answer))
    assert lacking.runtime.ledger.state.reserved_nano == 0


async def test_a_line_without_end_is_an_error(lacking: Server, database: Path) -> None:
    """10 MB of it are not kept in memory, nor passed on."""
    answer = await post(lacking.port, chat("one/giant_line(mb=10)", stream=True))
    error = answer.error()
    assert (answer.status, error["metadata"]["upstream_status"]) == (502, 200)
    assert len(answer.bytes) < 2000
    assert (await row_of(database, answer))["outcome"] == "upstream_error"
