"""A server cleans its database up by itself, and `/health` tells its size."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.books import files
from tests.faults.talking import ask
from tests.serving import spawned
from tests.storage.samples import fill_calls, outcomes
from tests.upstream import FakeUpstream
from tests.waiting import until


@pytest.mark.slow
async def test_old_calls_are_gone_soon_after_the_start(tmp_path: Path) -> None:
    """Calls go on, and the new ones stay."""
    fill_calls(tmp_path / "usage.db", 2_000)  # of 2023
    async with FakeUpstream() as upstream:
        routing = files(tmp_path, upstream.url)
        with spawned(routing) as server:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
                heard = await ask(server.port, "fake/ok")

                async def is_clean() -> bool:
                    return {*outcomes(tmp_path / "usage.db")} == {heard.call_id}

                await until(is_clean)

                async def state() -> dict[str, Any]:
                    found: dict[str, Any] = (await client.get("/health")).json()["database"]
                    return found

                async def is_counted() -> bool:  # once after the clean-up; an earlier count saw the old calls
                    return bool((await state())["calls"] == 1)

                await until(is_counted)
                database = await state()
    assert database["next_clean_up"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert database["file_bytes"] > 0
    assert database["oldest_call"].startswith("20")


async def test_calls_of_a_shorter_retention_than_that_of_errors(tmp_path: Path) -> None:
    """The settings of the file reach the clean-up."""
    fill_calls(tmp_path / "usage.db", 20)
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        db.execute("UPDATE calls SET success = 0, outcome = 'upstream_error' WHERE rowid % 2 = 0")
        db.commit()
    async with FakeUpstream() as upstream:
        routing = files(tmp_path, upstream.url)
        written = json.loads(routing.read_text())
        written["storage"] |= {"keep_days": 1, "keep_errors_days": 36500}
        routing.write_text(json.dumps(written))
        with spawned(routing):

            async def is_clean() -> bool:
                return len(outcomes(tmp_path / "usage.db")) == 10

            await until(is_clean)
    assert {*outcomes(tmp_path / "usage.db").values()} == {"upstream_error"}
