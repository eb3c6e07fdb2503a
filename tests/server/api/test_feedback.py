"""`POST /v1/feedback`: whose calls, which values, and what of it is stored."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.server.api.outcome_queries import MAX_COMMENT
from proxy.storage.feedback import MOST_PER_CALL
from tests.server.api.raw import Answer, chat, get, post
from tests.server.api.test_keys import add, secret
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN = "the-admin-key-of-these-tests"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    for name in ("ann", "bob"):
        add(folder / "usage.db", name)
    async with serving(write_files(folder, upstream_of_module.url), {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def called(server: Server, name: str = "ann") -> Answer:
    """A call of this key."""
    return await post(server.port, chat(), authorization=f"Bearer {secret(name)}")


async def rate(server: Server, fields: Any, key: str = ADMIN, path: str = "/v1/feedback", **headers: str) -> Answer:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return await post(server.port, body, path, authorization=f"Bearer {key}", **headers)


def stored(folder: Path, call_id: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute("SELECT * FROM feedback WHERE call_id = ? ORDER BY seq", (call_id,))]


async def test_a_rating_by_the_id_of_the_answer_or_of_the_request(server: Server, folder: Path) -> None:
    """Answered with what is stored; further ones are kept beside it, and the call shows all."""
    answer = await called(server)
    (request_id,) = answer.headers("x-request-id")
    fields = {"id": answer.json["id"], "success": True, "score": 1, "comment": "fine"}
    first = await rate(server, fields, secret("ann"))
    said = {"id": request_id, "success": True, "score": 1.0, "comment": "fine", "source": "api", "key_id": "ann"}
    assert (first.status, first.json) == (200, {**said, "timestamp": first.json["timestamp"]})
    second = await rate(server, {"id": request_id, "score": 0.25, "success": None}, ADMIN, "/feedback")
    assert (second.status, second.json["success"], second.json["score"]) == (200, None, 0.25)
    rows = stored(folder, request_id)
    assert [(row["seq"], row["success"], row["score"], row["comment"]) for row in rows] == [
        (1, 1, 1.0, "fine"),
        (2, None, 0.25, None),
    ]
    shown = await get(server.port, f"/v1/requests/{request_id}", authorization=f"Bearer {secret('ann')}")
    assert shown.json["feedback"] == [first.json, second.json]


async def test_a_key_rates_its_own_calls_only(server: Server, folder: Path) -> None:
    """Others get the answer for an id that never was; an admin rates every call."""
    (request_id,) = (await called(server)).headers("x-request-id")
    foreign = await rate(server, {"id": request_id, "success": False}, secret("bob"))
    absent = await rate(server, {"id": "chatcmpl-" + "0" * 26, "success": False}, secret("bob"))
    assert foreign.status == absent.status == 404
    assert foreign.error()["code"] == absent.error()["code"] == "not_found"
    assert foreign.error()["message"].replace(request_id, "0" * 26) == absent.error()["message"]
    assert stored(folder, request_id) == []
    assert (await rate(server, {"id": request_id, "success": False})).status == 200
    assert (await post(server.port, b"{}", "/v1/feedback")).status == 401


async def test_callers_without_a_key_rate_their_calls(upstream: FakeUpstream, tmp_path: Path) -> None:
    """On a server that asks for none."""
    async with serving(write_files(tmp_path, upstream.url)) as running:
        answer = await post(running.port, chat())
        rated = await post(
            running.port, json.dumps({"id": answer.json["id"], "success": True}).encode(), "/v1/feedback"
        )
        assert (rated.status, rated.json["key_id"]) == (200, None)


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({}, "success", "success (true or false), score (from 0 to 1) or comment"),
        ({"success": None, "score": None, "comment": None}, "success", "Rate the answer"),
        ({"comment": "  \n"}, "success", "Rate the answer"),
        ({"success": "yes"}, "success", "Expected `bool | null`"),
        ({"success": 1}, "success", "Expected `bool | null`"),
        ({"score": True}, "score", "Expected `float | null`"),
        ({"score": "0.5"}, "score", "Expected `float | null`"),
        ({"score": 1.0001}, "score", "<= 1"),
        ({"score": -0.1}, "score", ">= 0"),
        ({"score": 1e300}, "score", "<= 1"),
        ({"comment": 5}, "comment", "Expected `str | null`"),
        ({"comment": "x" * (MAX_COMMENT + 1)}, "comment", f"length <= {MAX_COMMENT}"),
        ({"sucess": True}, "sucess", 'did you mean "success"?'),
        ({"rating": 5}, "rating", "Known: id, success, score, comment"),
        ({"id": "", "success": True}, "id", "length >= 1"),
        ({"id": "x" * 201, "success": True}, "id", "length <= 200"),
        ({"id": 7, "success": True}, "id", "Expected `str`"),
    ],
)
async def test_a_bad_field_is_named(server: Server, fields: dict[str, Any], param: str, said: str) -> None:
    """400, before anything is looked up."""
    answer = await rate(server, {"id": "0" * 26, **fields})
    assert (answer.status, answer.error()["param"]) == (400, param)
    assert said in answer.error()["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "0x1"])
async def test_a_score_is_a_number(server: Server, number: str) -> None:
    """Nothing that JSON does not have."""
    answer = await rate(server, b'{"id": "x", "score": ' + number.encode() + b"}")
    assert (answer.status, answer.error()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"id": "a", "id": "b", "success": true}', 400),
        (b'{"success":', 400),
    ],
)
async def test_a_body_is_an_object(server: Server, body: bytes, status: int) -> None:
    """Without duplicate keys, in whole."""
    assert (await rate(server, body)).status == status
    assert (await rate(server, {"success": True})).error()["param"] == "id"
    assert (await rate(server, {"id": "x", "success": True}, content_type="text/plain")).status == 415


@pytest.mark.parametrize("size", [70_000, 10_000_000, 30_000_000])
async def test_a_large_body_is_refused(server: Server, size: int) -> None:
    """413 whatever is in it, and the server answers the next one."""
    answer = await rate(server, b'{"id": "x", "comment": "' + b"x" * size + b'"}')
    assert (answer.status, answer.error()["code"]) == (413, "request_too_large")
    assert "64 kB" in answer.error()["message"]
    assert (await rate(server, {"id": "x", "success": True})).status == 404


@pytest.mark.parametrize(
    "comment",
    [
        "'); DROP TABLE feedback; --",
        "=cmd|' /C calc'!A0",
        "\x00\x1b[2J",
        "<script>",
        "\u202e",
        "\U0001f600" * MAX_COMMENT,
    ],
)
async def test_a_comment_is_stored_as_a_text(server: Server, folder: Path, comment: str) -> None:
    """Whatever it would be elsewhere."""
    (request_id,) = (await called(server)).headers("x-request-id")
    answer = await rate(server, {"id": request_id, "comment": comment})
    assert (answer.status, answer.json["comment"]) == (200, comment)
    assert [row["comment"] for row in stored(folder, request_id)] == [comment]


async def test_half_a_character_is_no_text(server: Server) -> None:
    """A lone surrogate cannot be stored."""
    answer = await rate(server, b'{"id": "x", "comment": "\\ud800"}')
    assert answer.status == 400


async def test_concurrent_ratings_are_all_stored(server: Server, folder: Path) -> None:
    """As many as a call may have; then 409."""
    (request_id,) = (await called(server)).headers("x-request-id")
    scores = [number / MOST_PER_CALL for number in range(MOST_PER_CALL)]
    for at in range(0, MOST_PER_CALL, 20):
        some = [rate(server, {"id": request_id, "score": score}, secret("ann")) for score in scores[at : at + 20]]
        assert [answer.status for answer in await asyncio.gather(*some)] == [200] * 20
    rows = stored(folder, request_id)
    assert sorted(row["score"] for row in rows) == scores
    assert [row["seq"] for row in rows] == [*range(1, MOST_PER_CALL + 1)]
    refused = await rate(server, {"id": request_id, "score": 1}, secret("ann"))
    assert (refused.status, refused.error()["code"], refused.error()["param"]) == (409, "conflict", "id")
    assert f"already has {MOST_PER_CALL} ratings" in refused.error()["message"]


@pytest.mark.slow
async def test_a_store_that_cannot_be_written_is_told(upstream: FakeUpstream, tmp_path: Path) -> None:
    """503 within a few seconds, while another process holds the database; afterwards it works."""
    async with serving(write_files(tmp_path, upstream.url)) as running:
        answer = await post(running.port, chat())
        body = json.dumps({"id": answer.json["id"], "success": True}).encode()
        with closing(sqlite3.connect(tmp_path / "usage.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            refused = await post(running.port, body, "/v1/feedback")
            assert (refused.status, refused.error()["code"]) == (503, "storage_unavailable")
            assert refused.headers("retry-after") == ["5"]
            db.execute("ROLLBACK")
        assert (await post(running.port, body, "/v1/feedback")).status == 200
