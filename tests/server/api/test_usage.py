"""`GET /v1/usage` and `GET /v1/requests`: what may be asked, who sees what, pages and CSV."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from proxy.schema.dimensions import DIMENSIONS
from proxy.server.api.shapes import UsageSums
from tests.server.api.raw import Answer, chat, get, post
from tests.server.api.test_keys import add, secret
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN = "the-admin-key-of-these-tests"
BASELINE = ROUTING + 'usage: {{baseline: "fake/ok"}}\n'
FORMULAS = ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", " =1", "\uff1d1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("usage")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    """Seven calls of two keys, with tags and sessions; one of them fails."""
    for name in ("ann", "bob", "eve"):
        add(folder / "usage.db", name)
    async with serving(write_files(folder, upstream_of_module.url, BASELINE), {"PROXY_ADMIN_KEY": ADMIN}) as running:
        for key, model, tags, session in [
            ("ann", "fake/ok", ["x"], "s1"),
            ("ann", "fake/ok", ["x", "y"], "s1"),
            ("ann", "fake/e400", [], None),
            ("bob", "fake/ok", ["y"], "s2"),
            ("bob", "fake/ok", [], "s2"),
        ]:
            headers = {"authorization": f"Bearer {secret(key)}"} | ({"x_session_id": session} if session else {})
            await post(running.port, chat(model, routing={"tags": tags}), **headers)
        for text in FORMULAS:
            await post(running.port, chat(), authorization=f"Bearer {secret('eve')}", x_session_id=quote(text))
        with closing(sqlite3.connect(folder / "usage.db")) as db, db:  # headers cannot carry all of them
            for text in FORMULAS:
                db.execute("UPDATE calls SET session = ? WHERE session = ?", (text, quote(text)))
        yield running


async def asked(server: Server, path: str, key: str = ADMIN) -> Answer:
    return await get(server.port, path, authorization=f"Bearer {key}")


def counts(answer: Answer, *keys: str) -> dict[Any, int]:
    return {tuple(group[key] for key in keys): group["calls"] for group in answer.json["groups"]}


async def test_usage_can_be_grouped_by_every_dimension(server: Server) -> None:
    """Alone and with another; unknown values are null. The shape in the document names them all."""
    assert set(DIMENSIONS) <= set(UsageSums.__annotations__)
    for name in DIMENSIONS:
        for keys in ((name,), ("model", name)):
            answer = await asked(server, f"/v1/usage?group_by={','.join(keys)}")
            assert answer.status == 200
            assert sum(counts(answer, *keys).values()) == 11 + (name == "tag"), keys


async def test_a_call_counts_in_the_group_of_each_of_its_tags(server: Server) -> None:
    """So groups by tag may add up to more than the total."""
    answer = await asked(server, "/v1/usage?group_by=tag", secret("ann"))
    assert counts(answer, "tag") == {(None,): 1, ("x",): 2, ("y",): 1}
    assert answer.json["total"]["calls"] == 3


async def test_a_key_sees_its_own_calls(server: Server) -> None:
    """In usage and in the log, whatever it asks for; an admin sees all."""
    for key, calls in ((secret("ann"), 3), (secret("bob"), 2), (ADMIN, 11)):
        for query in ("group_by=key", "group_by=session,key", "group_by=key&format=json"):
            answer = await asked(server, f"/v1/usage?{query}", key)
            assert answer.json["total"]["calls"] == sum(group["calls"] for group in answer.json["groups"]) == calls
        assert len((await asked(server, "/v1/requests", key)).json["data"]) == calls
    assert (await asked(server, "/v1/requests?key=ann", secret("bob"))).json["data"] == []
    assert len((await asked(server, "/requests?key=ann")).json["data"]) == 3


async def test_the_period_is_told_in_its_time_zone(server: Server) -> None:
    """Times without an offset are of `tz`; one that reads single calls has a beginning."""
    answer = await asked(server, "/v1/usage?since=2026-03-29&until=2026-03-30T12:00:00.5&tz=Europe/Berlin")
    period = (answer.json["since"], answer.json["until"])
    assert period == ("2026-03-29T00:00:00+01:00", "2026-03-30T12:00:00+02:00")
    assert (await asked(server, "/v1/usage")).json["since"] is None
    assert (await asked(server, "/v1/usage?group_by=tag")).json["since"] is not None
    assert (await asked(server, "/v1/usage?group_by=day&tz=Asia/Kolkata")).json["since"] is not None


@pytest.mark.parametrize(
    ("path", "param", "said"),
    [
        ("usage?group_by=colour", "group_by", "Known: model, provider, key, rule"),
        ("usage?group_by=modle", "group_by", 'did you mean "model"?'),
        ("usage?groupby=model", "groupby", 'did you mean "group_by"?'),
        ("usage?since=yesterday", "since", "such as 2026-11-22"),
        ("usage?since=2026-01-02&until=2026-01-01", "until", "must not be before `since`"),
        ("requests?since=2026-01-02&until=2026-01-01T23:59:59Z", "until", "must not be before `since`"),
        ("usage?tz=Europe/Berlln", "tz", 'did you mean "Europe/Berlin"?'),
        ("usage?tz=../../etc/passwd", "tz", "no such time zone"),
        ("usage?tz=Europe", "tz", "no such time zone"),
        ("usage?format=xml", "format", "Known: json, csv"),
        ("usage?since=2026-01-01&since=2026-01-02", "since", "given twice"),
        ("usage?group_by=tag&since=2026-01-01&until=2026-03-01", "since", "31 days at most"),
        ("usage?group_by=day&tz=Asia/Kolkata&since=2026-01-01&until=2026-03-01", "since", "31 days at most"),
        ("usage?model=gpt", "model", "Known: since, until, tz, group_by, format"),
        ("requests?outcome=okay", "outcome", "Known: open, ok, upstream_error"),
        ("requests?status=abc", "status", "from 100 to 599"),
        ("requests?status=200.5", "status", "from 100 to 599"),
        ("requests?min_cost_usd=-1", "min_cost_usd", "expected a number from 0"),
        ("requests?min_cost_usd=nan", "min_cost_usd", "expected a number from 0"),
        ("requests?min_latency_ms=inf", "min_latency_ms", "expected a number from 0"),
        ("requests?limit=0", "limit", "from 1 to 1000"),
        ("requests?limit=1e400", "limit", "from 1 to 1000"),
        ("requests?limit=1001", "limit", "from 1 to 1000"),
        ("requests?cursor=%2b", "cursor", "next_cursor"),
        ("requests?cursor=OTk6", "cursor", "next_cursor"),
        ("requests?cursor=wrE6YQ", "cursor", "next_cursor"),
        ("requests?sesion=x", "sesion", 'did you mean "session"?'),
    ],
)
async def test_a_bad_value_is_named_with_what_is_allowed(server: Server, path: str, param: str, said: str) -> None:
    """400, the parameter, and the near name."""
    answer = await asked(server, f"/v1/{path}")
    assert (answer.status, answer.error()["param"]) == (400, param)
    assert said in answer.error()["message"]


@pytest.mark.parametrize("edge", ["0001-01-01", "9999-12-31T23:59:59", "1969-01-01", "2300-01-01"])
@pytest.mark.parametrize("tz", ["UTC", "Asia/Kolkata", "America/New_York"])
async def test_any_date_is_a_period(server: Server, edge: str, tz: str) -> None:
    """Also the ends of the calendar, in any zone."""
    for query in (f"since={edge}", f"until={edge}", f"until={edge}&group_by=day", f"until={edge}&group_by=tag"):
        assert (await asked(server, f"/v1/usage?{query}&tz={tz}")).status == 200, query
    assert (await asked(server, f"/v1/requests?since={edge}&tz={tz}")).status == 200


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        ("model=ok", 10),
        ("model=fake/ok", 10),
        ("model=fake/e400", 1),
        ("provider=fake", 11),
        ("provider=other", 0),
        ("tag=x", 2),
        ("tag=x&session=s1", 2),
        ("tag=x%27%20OR%201=1--", 0),
        ("session=s2", 2),
        ("outcome=ok", 10),
        ("outcome=upstream_error", 1),
        ("status=400", 1),
        ("min_cost_usd=1000", 0),
        ("min_cost_usd=0", 11),
        ("min_latency_ms=0.001", 11),
        ("min_latency_ms=1000000", 0),
        ("since=2999-01-01", 0),
        ("until=2999-01-01", 11),
        ("rule=none", 0),
        ("task=chat", 0),
        ("strategy=x&ensemble=x&prompt=x&agent=x", 0),
    ],
)
async def test_filters_choose_the_calls(server: Server, query: str, calls: int) -> None:
    """All of them must fit."""
    answer = await asked(server, f"/v1/requests?{query}")
    assert (answer.status, len(answer.json["data"])) == (200, calls)


async def test_pages_hold_every_call_once_while_calls_arrive(server: Server) -> None:
    """The cursor names a call and not a number of rows: later calls move nothing."""
    path = "/v1/requests?limit=3"
    whole = [row["id"] for row in (await asked(server, "/v1/requests", secret("eve"))).json["data"]]
    found, cursor = [], ""
    for _ in range(10):
        answer = (await asked(server, path + cursor, secret("eve"))).json
        found += [row["id"] for row in answer["data"]]
        cursor = f"&cursor={answer['next_cursor']}"
        if not answer["has_more"]:
            break
        await post(server.port, chat("fake/e400"), authorization=f"Bearer {secret('eve')}")
    assert found == whole
    assert answer["next_cursor"] is None


async def test_calls_of_one_moment_are_paged_too(server: Server, folder: Path) -> None:
    """Ties are ordered by id."""
    with closing(sqlite3.connect(folder / "usage.db")) as db, db:
        db.executemany(
            "INSERT INTO calls (id, opened_ns, owner, requested_model, stream, outcome, rule)"
            " VALUES (?, 5, 'o', 'm', 0, 'open', 'tied')",
            [(name,) for name in "bcad"],
        )
    first = (await asked(server, "/v1/requests?rule=tied&limit=3")).json
    second = (await asked(server, f"/v1/requests?rule=tied&limit=3&cursor={first['next_cursor']}")).json
    assert [row["id"] for row in first["data"] + second["data"]] == list("dcba")


async def test_savings_are_measured_against_the_baseline(server: Server) -> None:
    """Calls of the baseline itself save nothing."""
    total = (await asked(server, "/v1/usage?group_by=model")).json["total"]
    assert total["cost_usd"] > 0
    assert total["savings_usd"] == pytest.approx(0, abs=1e-9)


async def test_csv_has_the_same_rows(server: Server) -> None:
    """Of usage and of the log; the cursor is a header."""
    answer = await asked(server, "/v1/usage?group_by=key,model&format=csv")
    groups = (await asked(server, "/v1/usage?group_by=key,model")).json["groups"]
    assert answer.headers("content-type") == ["text/csv; charset=utf-8"]
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [(row["key"], row["model"], int(row["calls"])) for row in rows] == [
        (group["key"], group["model"], group["calls"]) for group in groups
    ]
    page = (await asked(server, "/v1/requests?limit=2")).json
    answer = await asked(server, "/v1/requests?limit=2&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [row["id"] for row in rows] == [row["id"] for row in page["data"]]
    assert list(rows[0]) == list(page["data"][0])
    assert answer.headers("x-next-cursor") == [page["next_cursor"]]
    (total,) = csv.DictReader(io.StringIO((await asked(server, "/v1/usage?format=csv")).body.decode()))
    assert int(total["calls"]) == (await asked(server, "/v1/usage")).json["total"]["calls"]


@pytest.mark.parametrize("path", ["/v1/requests?format=csv", "/v1/usage?group_by=session&format=csv"])
async def test_csv_runs_nothing_in_a_spreadsheet(server: Server, path: str) -> None:
    """Texts of clients that look like formulas get an apostrophe."""
    rows = list(csv.DictReader(io.StringIO((await asked(server, path, secret("eve"))).body.decode())))
    sessions = {row["session"] for row in rows if row["session"]}
    assert sessions == {"'" + text for text in FORMULAS}
