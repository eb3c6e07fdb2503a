"""`proxy usage reprice` and `proxy usage reconcile`, on the database of a server that runs."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.commands import proxy
from tests.serving import spawned, write_files
from tests.upstream.fake import spawn

DEAR = '{"version": 1, "models": {"fake/*": {"input": 200, "output": 1000}}}'


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A folder whose server runs and has taken three calls."""
    folder = tmp_path_factory.mktemp("bills")
    with spawn() as upstream, spawned(write_files(folder, upstream.url)) as server:
        for _ in range(3):
            body = {"model": "fake/ok", "messages": [{"role": "user", "content": "one two"}]}
            httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=30)
        yield folder, server


def cost(server: Any) -> float:
    total: float = httpx.get(f"{server.base_url}/usage", timeout=30).json()["total"]["cost_usd"]
    return total


def told(folder: Path, *arguments: str) -> Any:
    done = proxy("usage", *arguments, "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.slow
def test_repricing_shows_and_then_writes(used):
    """Nothing changes without --apply; a second run finds nothing; the old version is known by its hash."""
    folder, server = used
    before = cost(server)
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        (version,) = db.execute("SELECT DISTINCT price_version FROM attempts").fetchone()
    (folder / "dear.json").write_text(DEAR)
    arguments = ("reprice", "--since", "2020-01-01", "--pricing", "dear.json")
    shown = told(folder, *arguments)
    (model,) = shown["models"]
    assert (model["model"], model["attempts"], shown["applied"]) == ("fake/ok", 3, False)
    assert model["before_usd"] == pytest.approx(before)
    assert cost(server) == before
    assert told(folder, *arguments, "--apply")["models"] == shown["models"]
    assert cost(server) == pytest.approx(model["after_usd"]) != pytest.approx(before)
    assert told(folder, *arguments, "--apply")["models"] == []
    back = told(folder, *arguments, "--apply", "--price-version", version)
    assert back["price_version"] == version
    assert cost(server) == pytest.approx(before)
    done = proxy("usage", *arguments, "--price-version", "nothing", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown version 'nothing'. Known: by-day, current, " in done.stderr


@pytest.mark.slow
def test_a_bill_is_compared_per_day_and_model(used):
    """The difference is what the vendor asks for beyond our cost."""
    folder, server = used
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        (day,) = db.execute("SELECT date(MAX(opened_ns) / 1000000000, 'unixepoch') FROM calls").fetchone()
    (folder / "bill.csv").write_text(f"date,model,cost\n{day},ok,1\n")
    ours = cost(server)
    answer = told(folder, "reconcile", "bill.csv")
    assert answer["rows"] == [
        {"day": day, "model": "ok", "ours_usd": ours, "billed_usd": 1, "difference_usd": pytest.approx(1 - ours)}
    ]
    other = told(folder, "reconcile", "bill.csv", "--provider", "other")
    assert other["rows"][0]["ours_usd"] is None
    table = proxy("usage", "reconcile", "bill.csv", cwd=folder).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["DAY", day, "total"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("reconcile", "bad.csv"), "proxy: bad.csv: unknown columns: discount. Remove them, or name them date, model"),
        (("reconcile", "none.csv"), "none.csv"),
        (("reprice", "--since", "yesterday"), "proxy: since: expected a date or time such as 2026-11-22"),
        (("reprice",), "--since"),
        (("reprice", "--since", "2026-01-01", "--db", "typo.db"), "proxy: there is no database at typo.db yet."),
    ],
)
@pytest.mark.slow
def test_a_mistake_is_one_line(used, arguments, said):
    """Exit code 2."""
    folder, _ = used
    (folder / "bad.csv").write_text("date,model,cost,discount\n")
    done = proxy("usage", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
