"""I/O: what the product wrote to its database, read from the file by other means than its own."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.server.api.raw import Answer


def calls(database: Path) -> list[dict[str, Any]]:
    """The rows of `calls`, in the order they were written."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM calls ORDER BY rowid")]


async def row_of(database: Path, answer: Answer) -> dict[str, Any]:
    """The ended row of the call that was answered; refusals are committed soon after their answer, so it waits."""
    (request_id,) = answer.headers("x-request-id")
    return await row_with_id(database, request_id)


async def row_with_id(database: Path, request_id: str) -> dict[str, Any]:
    """The ended row of one call, once it is committed."""
    async with asyncio.timeout(20):
        while True:
            for row in calls(database):
                if row["id"] == request_id and row["closed_ns"] is not None:
                    return row
            await asyncio.sleep(0.01)
