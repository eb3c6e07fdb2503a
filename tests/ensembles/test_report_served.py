"""Records and reports of real strategies, over real sockets: members say what they are told to."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from proxy.schema.ensembles import EnsembleRecord
from tests.server.api.raw import chat, get, post
from tests.server.api.rows import row_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.modes import says

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
ensembles:
  voting: {{strategy: voting, members: [fake/m0, fake/m1, fake/m2]}}
  cascade: {{strategy: voting, members: [fake/m0, fake/m1], below: escalate, escalate_to: fake/strong}}
  ranking: {{strategy: ranking, members: [fake/m0, fake/m1]}}
  fusion: {{strategy: fusion, members: [fake/m0, fake/m1], judge: fake/strong}}
  grouped: {{strategy: voting, members: [fake/m0, fake/m1], cluster_by: judge, judge: fake/judge}}
"""


class World:
    """A server, its upstream and its database."""

    def __init__(self, server: Server, upstream: FakeUpstream, database: Path) -> None:
        self.server, self.upstream, self.database = server, upstream, database

    def say(self, *texts: str, **others: str) -> None:
        self.upstream.modes |= {f"m{place}": says(each) for place, each in enumerate(texts)}
        self.upstream.modes |= {name: says(each) for name, each in others.items()}

    async def ask(self, name: str, **fields: Any) -> tuple[str, EnsembleRecord]:
        """The id of the call, and what it left."""
        answer = await post(self.server.port, chat(f"ensemble:{name}", **fields))
        assert answer.status == 200, answer.bytes[-500:]
        call_id = (await row_of(self.database, answer))["id"]
        with closing(sqlite3.connect(self.database)) as db:
            ((record,),) = db.execute("SELECT record FROM ensemble_calls WHERE call_id = ?", (call_id,)).fetchall()
        return call_id, msgspec.json.decode(record, type=EnsembleRecord)

    async def rate(self, call_id: str, **fields: Any) -> None:
        body = json.dumps({"id": call_id, **fields}).encode()
        assert (await post(self.server.port, body, "/v1/feedback")).status == 200

    async def report(self, name: str) -> dict[str, Any]:
        return dict((await get(self.server.port, f"/v1/ensembles/{name}/report")).json)


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    async with FakeUpstream() as upstream, serving(write_files(folder, upstream.url, ROUTING)) as server:
        yield World(server, upstream, folder / "usage.db")


def answers(record: EnsembleRecord) -> list[int | None]:
    return [each.answer for each in record.members]


async def test_votes_that_say_the_same_share_a_number(tmp_path: Path) -> None:
    """In whatever words."""
    async with world(tmp_path) as here:
        here.say("$49.99", "49.99 USD", "$50")
        _, record = await here.ask("voting")
        assert (answers(record), record.answer, record.strategy) == ([0, 0, 1], 0, "voting")
        assert record.confidence == pytest.approx(2 / 3, abs=1e-3)
        assert (record.agreed, record.escalation) == (True, None)
        here.say("same", "it is the same", judge='{"groups": [["A", "B"]]}')
        _, record = await here.ask("grouped")
        assert (answers(record), record.answer) == ([0, 0], 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_of_an_escalation_is_compared(tmp_path: Path, stream: bool) -> None:
    """It is that of a member, or a new one."""
    async with world(tmp_path) as here:
        for strong, answer in (("43.", 1), ("44", 2)):
            here.say("42", "43", strong=strong)
            _, record = await here.ask("cascade", stream=stream)
            assert (answers(record), record.answer, record.agreed) == ([0, 1], answer, False)
            assert record.escalation is not None
            assert (record.escalation.name, record.escalation.answer) == ("fake/strong", answer)
            assert (record.escalation.cost_nano or 0) > 0
        here.say("42", "42")
        _, record = await here.ask("cascade", stream=stream)
        assert (answers(record), record.answer, record.escalation, record.agreed) == ([0, 0], 0, None, True)
        report = await here.report("cascade")
        assert (report["calls"], report["escalated"], report["agreed"]) == (3, 2, 1)
        assert [each["differed"] for each in report["members"]] == [2, 1]
        assert (report["escalation"]["model"], report["escalation"]["calls"]) == ("fake/strong", 2)
        assert "It asked fake/strong in 66.7 %" in report["verdict"]["text"]


async def test_other_strategies(tmp_path: Path) -> None:
    """The best answer is that of a member; merged JSON may be; what a judge wrote is nobody's."""
    async with world(tmp_path) as here:
        here.say("A long and complete answer to one two three.", "no", strong="Both together.")
        _, ranked = await here.ask("ranking")
        assert (answers(ranked), ranked.answer in (0, 1)) == ([0, 1], True)
        _, written = await here.ask("fusion")
        assert (answers(written), written.answer) == ([0, 1], None)
        here.say('{"a": 1}', '{"a": 1, "b": 2}')
        _, merged = await here.ask("fusion")
        assert (answers(merged), merged.answer) == ([0, 1], 1)
        verdict = (await here.report("fusion"))["verdict"]
        assert verdict["decision"] == "undecided"


@pytest.mark.slow
async def test_ratings_lead_to_a_verdict(tmp_path: Path) -> None:
    """One member is always right and the others seldom: it alone would have done, for a third of the cost."""
    random = Random(5)
    async with world(tmp_path) as here:
        for number in range(100):
            here.say(f"{number}", *(f"{number if random.random() < 0.5 else random.randint(900, 999)}" for _ in "ab"))
            call_id, record = await here.ask("voting")
            await here.rate(call_id, success=record.answer == record.members[0].answer)
        report = await here.report("voting")
        assert report["rated_calls"] == report["calls"] == 100
        assert (report["verdict"]["decision"], report["verdict"]["member"]) == ("one_member", "fake/m0")
        first = report["members"][0]
        assert first["cost_multiple"] == pytest.approx(3, abs=0.2)
        assert first["lift"]["high"] < 0.02 and first["lift"]["at_most"] == 0
