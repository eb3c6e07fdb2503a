"""Each call of an ensemble leaves one record, with everything that the report needs and no text."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from proxy.schema.ensembles import EnsembleRecord
from tests.ensembles.first import STRATEGIES
from tests.server.api.raw import Answer, chat, get, post, request
from tests.server.api.rows import row_of, row_with_id
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, max_output: 4096}
"""
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: fake/ok}}
ensembles:
  pair: {{strategy: first, members: [fake/ok, fake/echo, "fake/ok(tag=b)"]}}
  quick: {{strategy: first, members: [fake/ok, "fake/stall_after(k=1)"], enough: 1, min_answers: 1}}
  broken: {{strategy: first, members: [fake/ok, fake/e500]}}
  missed: {{strategy: first, members: [fake/e500, fake/e400, fake/ok], min_answers: 2}}
  tail: {{strategy: first, members: [fake/ok, fake/echo], last: "fake/ok(tag=last)"}}
  other: {{strategy: first, members: [fake/ok, fake/echo], last: "fake/echo(tag=last)"}}
  outer: {{strategy: first, members: ["ensemble:pair", fake/echo]}}
  stuck: {{strategy: first, members: [fake/ok, "fake/stall_after(k=1)"]}}
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "usage.db"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    """Keyless, with ensembles of the strategy `first`."""
    files = write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)
    async with serving(files, strategies=STRATEGIES) as running:
        yield running


def records(database: Path, call_id: str) -> list[EnsembleRecord]:
    with closing(sqlite3.connect(database)) as db:
        rows = db.execute("SELECT record FROM ensemble_calls WHERE call_id = ?", (call_id,)).fetchall()
    return [msgspec.json.decode(row, type=EnsembleRecord) for (row,) in rows]


async def asked(server: Server, database: Path, name: str, **fields: Any) -> tuple[Answer, EnsembleRecord]:
    answer = await post(server.port, chat(f"ensemble:{name}", **fields))
    row = await row_of(database, answer)
    (record,) = records(database, row["id"])
    assert row["cost_nano"] is None or sum(each.cost_nano or 0 for each in record.members) <= row["cost_nano"]
    return answer, record


@pytest.mark.parametrize("stream", [False, True])
async def test_equal_answers_share_a_number(server: Server, database: Path, stream: bool) -> None:
    """With what each member cost, and which answer the ensemble gave."""
    answer, record = await asked(server, database, "pair", stream=stream)
    assert answer.status == 200
    assert (record.name, record.strategy, record.answer, record.confidence) == ("pair", "first", 0, 1.0)
    assert [(each.name, each.outcome, each.answer) for each in record.members] == [
        ("fake/ok", "ok", 0),
        ("fake/echo", "ok", 1),
        ("fake/ok(tag=b)", "ok", 0),
    ]
    row = await row_of(database, answer)
    assert sum(each.cost_nano or 0 for each in record.members) == row["cost_nano"] > 0
    assert all(each.latency_ms > 0 and each.model == each.name for each in record.members)
    text = msgspec.json.encode(record).decode()
    assert "tok0" not in text and "one two" not in text


async def test_members_that_fail_or_are_stopped(server: Server, database: Path, upstream: FakeUpstream) -> None:
    """The code of their error, or cancelled; neither has an answer."""
    _, broken = await asked(server, database, "broken")
    assert [(each.outcome, each.answer) for each in broken.members] == [("ok", 0), ("upstream_error", None)]
    _, quick = await asked(server, database, "quick")
    assert [(each.outcome, each.answer) for each in quick.members] == [("ok", 0), ("cancelled", None)]
    assert quick.answer == 0


async def test_a_quorum_that_is_missed(server: Server, database: Path) -> None:
    """A record without an answer; the report counts the call as failed."""
    answer, record = await asked(server, database, "missed")
    assert answer.status == 502
    assert (record.answer, [each.answer for each in record.members]) == (None, [None, None, 0])
    report = await get(server.port, "/v1/ensembles/missed/report")
    assert (report.json["calls"], report.json["failed"], report.json["verdict"]["decision"]) == (1, 1, "undecided")


async def test_a_model_that_answers_after_the_members(server: Server, database: Path) -> None:
    """Its answer is compared with theirs; one that nobody gave has a number of its own."""
    for name, answer in (("tail", 0), ("other", 2)):
        _, record = await asked(server, database, name)
        assert ([each.answer for each in record.members], record.answer) == ([0, 1], answer)


async def test_an_ensemble_in_an_ensemble_is_one_member(server: Server, database: Path) -> None:
    """A call has one record, whose costs cover what its members asked."""
    answer, record = await asked(server, database, "outer")
    assert [each.name for each in record.members] == ["ensemble:pair", "fake/echo"]
    assert sum(each.cost_nano or 0 for each in record.members) == (await row_of(database, answer))["cost_nano"]


async def test_a_client_that_leaves(server: Server, database: Path) -> None:
    """The record goes with the end of the call, whatever ended it."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(chat("ensemble:stuck")))
    await writer.drain()
    call_id = await _open_call(database)
    writer.close()
    await writer.wait_closed()
    row = await row_with_id(database, call_id)
    (record,) = records(database, call_id)
    assert (row["outcome"], record.answer) == ("client_closed", None)
    assert {each.outcome for each in record.members} <= {"ok", "cancelled"}


async def test_other_calls_leave_none(server: Server, database: Path) -> None:
    """A model, and a request that is refused before anybody is asked."""
    for body in (chat("fake/ok"), chat("ensemble:pair", n=2, stream=True)):
        row = await row_of(database, await post(server.port, body))
        assert records(database, row["id"]) == []


async def test_the_report_reads_the_records(server: Server, database: Path) -> None:
    """Those of its own ensemble."""
    await asked(server, database, "pair")
    report = (await get(server.port, "/v1/ensembles/pair/report")).json
    assert [(each["member"], each["differed"], each["compared"]) for each in report["members"]] == [
        ("fake/ok", 0, report["calls"]),
        ("fake/echo", report["calls"], report["calls"]),
        ("fake/ok(tag=b)", 0, report["calls"]),
    ]


async def _open_call(database: Path) -> str:
    """The id of the call of `stuck` that is open, once both of its attempts are."""
    async with asyncio.timeout(20):
        while True:
            with closing(sqlite3.connect(database)) as db:
                rows = db.execute(
                    "SELECT call_id FROM attempts JOIN calls ON calls.id = call_id WHERE calls.closed_ns IS NULL "
                    "AND requested_model = 'ensemble:stuck' GROUP BY call_id HAVING COUNT(*) = 2"
                ).fetchall()
            if rows:
                return str(rows[0][0])
            await asyncio.sleep(0.01)
