"""kill -9 in the middle of an ensemble: a call has its end and its record, or neither."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.faults.books import rows
from tests.faults.talking import talk
from tests.serving import ROUTING, spawned, write_files
from tests.upstream import FakeUpstream
from tests.waiting import eventually

ENSEMBLES = """
ensembles:
  voting: {{strategy: voting, members: [fake/ok, "fake/ok(tag=b)", "fake/ok(tag=c)"]}}
  stuck: {{strategy: voting, members: [fake/ok, "fake/stall_after(k=1)"]}}
"""


@pytest.mark.slow
async def test_a_killed_server_leaves_no_half_records(tmp_path: Path) -> None:
    """The call in flight is unknown and has no record; ratings and records of the others are there."""

    def open_attempts() -> int:
        return sum(row["closed_ns"] is None for row in rows(tmp_path, "attempts"))

    async with FakeUpstream() as upstream:
        files = write_files(tmp_path, upstream.url, ROUTING + ENSEMBLES)
        with spawned(files) as server:
            async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=30) as client:
                for number in range(5):
                    body = {"model": "ensemble:voting", "messages": [{"role": "user", "content": f"{number}"}]}
                    answer = await client.post("/chat/completions", json=body)
                    rated = await client.post("/feedback", json={"id": answer.json()["id"], "success": True})
                    assert (answer.status_code, rated.status_code) == (200, 200)
            with closing(await talk(server.port, "ensemble:stuck")):
                await eventually(lambda: open_attempts() == 1)
                server.kill()
        with spawned(files) as server:
            async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=30) as client:
                report = (await client.get("/ensembles/voting/report")).json()
                assert (report["calls"], report["rated_calls"]) == (5, 5)
                assert (await client.get("/ensembles/stuck/report")).json()["calls"] == 0
            stuck = [row["outcome"] for row in rows(tmp_path, "calls") if row["requested_model"] == "ensemble:stuck"]
            assert stuck == ["unknown"]
