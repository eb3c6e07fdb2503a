"""`GET /v1/ensembles/{name}/report`: whose calls, of which period, and what exists."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from proxy.ensembles.report import EnsembleReport
from proxy.schema.ensembles import EnsembleQuery, Rating
from proxy.server.api.outcome_queries import MAX_CALLS, reported
from proxy.storage.sqlite import SqliteStore
from tests.ensembles.first import STRATEGIES
from tests.ensembles.panels import simulated
from tests.server.api.raw import Answer, get, post
from tests.server.api.test_keys import add, secret
from tests.serving import ROUTING, Server, serving, write_files
from tests.storage.test_ensemble_calls import decided
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN = "the-admin-key-of-these-tests"
ENSEMBLES = """
aliases: {{my-votes: votes, plain: fake/ok}}
models: {{votes: {{use: "ensemble:voting"}}}}
ensembles:
  voting: {{strategy: first, members: [fake/ok, "fake/ok(tag=b)"]}}
  careful: {{strategy: first, members: [fake/ok, "fake/ok(tag=c)"]}}
"""
DAY_NS = 86_400 * 10**9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which ann and bob have called two ensembles, one of which is no longer configured."""
    made = tmp_path_factory.mktemp("report")
    for name in ("ann", "bob"):
        add(made / "usage.db", name)
    store = SqliteStore(made / "usage.db")
    store.open()
    now_ns = time.time_ns()
    for number, call in enumerate(simulated((0.9, 0.6, 0.6), 60)):
        name = "voting" if number < 50 else "retired"
        record = msgspec.structs.replace(call.record, name=name)
        opened_ns = now_ns - (20 * DAY_NS if number < 10 else 10**9 * number)
        store.write(decided(f"call{number}", record, opened_ns, "bob" if number % 5 == 0 else "ann"))
        if number % 2:
            store.rate(Rating(f"call{number}", success=bool(call.rating)), None, now_ns)
    store.close()
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    files = write_files(folder, upstream_of_module.url, ROUTING + ENSEMBLES)
    async with serving(files, {"PROXY_ADMIN_KEY": ADMIN}, strategies=STRATEGIES) as running:
        yield running


async def asked(server: Server, path: str, key: str = ADMIN) -> Answer:
    return await get(server.port, f"/v1/ensembles/{path}", authorization=f"Bearer {key}")


async def test_a_report_of_the_last_week(server: Server) -> None:
    """With all its parts, by the name with or without its prefix."""
    answer = await asked(server, "voting/report")
    assert answer.status == 200
    found = answer.json
    assert msgspec.json.decode(answer.body, type=EnsembleReport).ensemble == "voting"
    assert (found["ensemble"], found["calls"], found["rated_calls"], found["has_more"]) == ("voting", 40, 20, False)
    assert [each["member"] for each in found["members"]] == ["m0", "m1", "m2"]
    assert found["members"][0]["lift"].keys() == {"rated_calls", "estimate", "low", "high", "at_least", "at_most"}
    assert found["verdict"]["decision"] == "undecided"
    assert "40 calls, of which 20 are rated" in found["verdict"]["text"]
    assert sum(level["calls"] for level in found["levels"]) == 40
    assert found["since"].endswith("Z") and found["until"] > found["since"]
    other = await asked(server, "ensemble:voting/report")
    assert other.json | {"since": 0, "until": 0} == found | {"since": 0, "until": 0}
    plain = await get(server.port, "/ensembles/voting/report", authorization=f"Bearer {ADMIN}")
    assert plain.json["calls"] == 40


async def test_a_longer_period_has_more_calls(server: Server) -> None:
    """Up to 31 days."""
    since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 25 * 86_400))
    answer = await asked(server, f"voting/report?since={since}&tz=Europe/Berlin")
    assert (answer.json["calls"], answer.json["since"][:10]) == (50, since)


async def test_a_key_sees_its_own_calls(server: Server) -> None:
    """An admin sees all."""
    counts = [(await asked(server, "voting/report", secret(name))).json["calls"] for name in ("ann", "bob")]
    assert counts == [32, 8]
    assert (await get(server.port, "/v1/ensembles/voting/report")).status == 401


async def test_names_that_lead_to_an_ensemble_have_its_report(server: Server) -> None:
    """An alias, and an entry of `models`."""
    whole = (await asked(server, "voting/report?since=2020-01-01&until=2020-01-02")).json
    for name in ("votes", "my-votes", "ensemble:voting"):
        assert (await asked(server, f"{name}/report")).json["calls"] == 40
        assert (await asked(server, f"{name}/report?since=2020-01-01&until=2020-01-02")).json == whole
    assert (await asked(server, "plain/report")).status == 404


async def test_an_unknown_ensemble_lists_what_exists(server: Server) -> None:
    """404. One without a call has a report that says so; one that is no longer configured has its calls."""
    answer = await asked(server, "votting/report")
    assert (answer.status, answer.error()["code"]) == (404, "model_not_found")
    message = answer.error()["message"]
    assert "Did you mean ensemble:voting?" in message and "ensemble:voting, ensemble:careful" in message
    empty = await asked(server, "careful/report")
    assert (empty.status, empty.json["calls"], empty.json["verdict"]["decision"]) == (200, 0, "undecided")
    assert (await asked(server, "retired/report")).json["calls"] == 10
    assert (await asked(server, "%2e%2e%2fetc/report")).status == 404


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("since=yesterday", "since", "such as 2026-11-22"),
        ("since=2020-01-01", "since", "31 days at most"),
        ("since=0001-01-01", "since", "31 days at most"),
        ("since=2300-01-01&until=2200-01-01", "until", "must not be before"),
        ("tz=Europe/Berlln", "tz", 'did you mean "Europe/Berlin"?'),
        ("since=2026-01-01&since=2026-01-02", "since", "given twice"),
        ("group_by=model", "group_by", "Known: since, until, tz"),
    ],
)
async def test_a_bad_period_is_named(server: Server, query: str, param: str, said: str) -> None:
    """As in `/v1/usage`."""
    answer = await asked(server, f"voting/report?{query}")
    assert (answer.status, answer.error()["param"]) == (400, param)
    assert said in answer.error()["message"]


@pytest.mark.parametrize("query", ["since=9999-12-31", "until=0001-01-01"])
async def test_any_date_is_a_period(server: Server, query: str) -> None:
    """Of no calls."""
    answer = await asked(server, f"voting/report?{query}")
    assert (answer.status, answer.json["calls"]) == (200, 0)


async def test_a_report_says_that_there_are_more_calls() -> None:
    """One more than the limit was read, and is left out."""
    query = EnsembleQuery("voting", 0, 10**18, None, 3)
    calls = simulated((0.9, 0.6), 4)
    found = [reported(query, "UTC", calls[:count]) for count in (3, 4)]
    assert [(each.calls, each.has_more, each.since) for each in found] == [
        (3, False, "1970-01-01T00:00:00Z"),
        (3, True, "1970-01-01T00:00:00Z"),
    ]


@pytest.mark.slow
async def test_a_report_has_the_newest_calls(folder: Path, server: Server) -> None:
    """At most so many; it says that there are more, and answers others meanwhile."""
    now_ns = time.time_ns()
    with closing(sqlite3.connect(folder / "usage.db")) as db, db:
        record = db.execute("SELECT record FROM ensemble_calls WHERE ensemble = 'voting' LIMIT 1").fetchone()[0]
        db.executemany(
            "INSERT INTO calls (id, opened_ns, closed_ns, owner, requested_model, stream, outcome, cost_nano, "
            "latency_ms, success) VALUES (?, ?, 1, 'x', 'ensemble:many', 0, 'ok', 3000, 5.0, 1)",
            [(f"many{number}", now_ns - number) for number in range(MAX_CALLS + 5)],
        )
        db.executemany(
            "INSERT INTO ensemble_calls VALUES (?, 'many', ?, ?)",
            [(f"many{number}", now_ns - number, record) for number in range(MAX_CALLS + 5)],
        )
    reports = [asyncio.ensure_future(asked(server, "many/report")) for _ in range(2)]
    assert (await get(server.port, "/livez")).status == 200
    for answer in await asyncio.gather(*reports):
        assert (answer.status, answer.json["calls"], answer.json["has_more"]) == (200, MAX_CALLS, True)


async def test_feedback_changes_the_report(server: Server) -> None:
    """At once, late as it is."""
    before = (await asked(server, "retired/report")).json
    body = json.dumps({"id": "call50", "success": True}).encode()
    assert (await post(server.port, body, "/v1/feedback", authorization=f"Bearer {ADMIN}")).status == 200
    after: dict[str, Any] = (await asked(server, "retired/report")).json
    assert after["rated_calls"] == before["rated_calls"] + 1
