"""`proxy usage` reads the ledger of `GET /v1/usage`, with or without a server."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.cli.commands import proxy
from tests.serving import ROUTING, spawned, write_files
from tests.upstream.fake import spawn


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """A folder after three calls, and what the server said of them."""
    folder = tmp_path_factory.mktemp("used")
    with spawn() as upstream, spawned(write_files(folder, upstream.url)) as server:
        for model in ("fake/ok", "fake/ok", "fake/e400"):
            body = {"model": model, "messages": [{"role": "user", "content": "one two"}]}
            httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=30)
        answer = httpx.get(f"{server.base_url}/usage", params={"group_by": "provider,model"}).json()
        server.stop()
    return folder, answer


@pytest.mark.slow
def test_json_equals_the_answer_of_the_server(used):
    """To the last digit."""
    folder, answer = used
    done = proxy("usage", "--group-by", "provider,model", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == answer
    assert answer["total"]["calls"] == 3


@pytest.mark.slow
def test_a_table_has_the_groups_and_the_total(used):
    """The total is the last line."""
    folder, answer = used
    lines = [line.split() for line in proxy("usage", "--group-by", "provider,model", cwd=folder).stdout.splitlines()]
    assert lines[0][:5] == ["PROVIDER", "MODEL", "CALLS", "OK", "ERRORS"]
    assert [line[:5] for line in lines[1:]] == [
        ["fake", "e400", "1", "0", "1"],
        ["fake", "ok", "2", "2", "0"],
        ["total", "-", "3", "2", "1"],
    ]
    assert [line[-1] for line in lines] == ["BY_COST", "-", "█" * 8, "-"]
    assert float(lines[-1][7]) == answer["total"]["cost_usd"]


@pytest.mark.slow
def test_csv_has_the_groups(used):
    """The columns of the answer, keys first; without groups, one row for the total."""
    folder, _ = used
    lines = proxy("usage", "--group-by", "model", "--csv", cwd=folder).stdout.splitlines()
    assert lines[0].startswith("model,calls,successes,errors,input_tokens")
    assert [line.split(",")[:3] for line in lines[1:]] == [["e400", "1", "0"], ["ok", "2", "2"]]
    lines = proxy("usage", "--csv", cwd=folder).stdout.splitlines()
    assert [line.split(",")[:2] for line in lines] == [["calls", "successes"], ["3", "2"]]


@pytest.fixture(scope="module")
def spent(tmp_path_factory):
    """A folder with a budget after two calls, and what the server said of it."""
    folder = tmp_path_factory.mktemp("spent")
    budget = (
        "budget: {{total_usd: 5, per_key: {{ann: {{total_usd: 2}}}}, per_model: {{fake/ok: {{monthly_usd: 1}}}}}}\n"
    )
    with spawn() as upstream, spawned(write_files(folder, upstream.url, ROUTING + budget)) as server:
        for _ in range(2):
            body = {"model": "fake/ok", "messages": [{"role": "user", "content": "one two"}]}
            assert httpx.post(f"{server.base_url}/chat/completions", json=body, timeout=30).status_code == 200
        answer = httpx.get(f"{server.base_url}/usage").json()
        server.stop()
    return folder, answer


@pytest.mark.slow
def test_budgets_are_those_of_the_server(spent):
    """Also once it has ended; only the projection goes on."""
    folder, answer = spent
    told = json.loads(proxy("usage", "--json", cwd=folder).stdout)["budget"]["windows"]
    for window in (*told, *answer["budget"]["windows"]):
        del window["projected_usd"]
    assert told == answer["budget"]["windows"]
    found = {
        window["budget"]: (window["spent_usd"] > 0, window["limit_usd"], bool(window["resets_at"])) for window in told
    }
    assert found == {
        "total": (True, 5.0, False),
        "key ann total": (False, 2.0, False),
        "model fake/ok monthly": (True, 1.0, True),
    }


@pytest.mark.slow
def test_budgets_stand_below_the_table(spent):
    """Not in CSV, which has one table."""
    folder, answer = spent
    lines = [line.split() for line in proxy("usage", cwd=folder).stdout.splitlines()]
    assert lines[2] == []
    assert lines[3] == ["LIMIT_USD", "SPENT_USD", "HELD_USD", "LEFT_USD", "PROJECTED_USD", "RESETS_AT", "BUDGET"]
    assert [line[-2:] for line in lines[4:]] == [["-", "total"], ["ann", "total"], ["fake/ok", "monthly"]]
    assert float(lines[4][1]) == answer["total"]["cost_usd"] > 0
    assert len(proxy("usage", "--csv", cwd=folder).stdout.splitlines()) == 2


def test_bars_fill_a_terminal(used):
    """They take what the table leaves, and nothing is coloured where no terminal reads."""
    done = proxy("usage", "--group-by", "model", cwd=used[0], COLUMNS="200")
    assert "█" * 40 in done.stdout
    assert "\x1b" not in done.stdout


def test_without_groups_there_is_only_the_total(used):
    """One line."""
    lines = proxy("usage", cwd=used[0]).stdout.splitlines()
    assert (len(lines), lines[0].split()[0], lines[1].split()[0]) == (2, "CALLS", "3")


@pytest.mark.parametrize(
    ("period", "calls"),
    [(["--since", "2020-01-01"], 3), (["--until", "2020-01-01"], 0), (["--since", "2200-01-01T00:00:00Z"], 0)],
)
def test_a_period_limits_the_calls(used, period, calls):
    """Days and times, in the formats of the server."""
    done = proxy("usage", "--json", *period, cwd=used[0])
    assert json.loads(done.stdout)["total"]["calls"] == calls


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--since", "yesterday"],
            "proxy: since: expected a date or time such as 2026-11-22 or 2026-11-22T08:00:00Z.\n",
        ),
        (
            ["--group-by", "colour"],
            "proxy: group_by: unknown group 'colour'. Known: model, provider, key, rule, task, strategy, ensemble, "
            "prompt, experiment, variant, tag, session, agent, hour, day.\n",
        ),
    ],
)
def test_a_bad_parameter_is_one_line(used, arguments, said):
    """Exit code 2."""
    done = proxy("usage", *arguments, cwd=used[0])
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_missing_database_is_one_line_and_is_not_created(tmp_path):
    """A wrong path must not look like no usage."""
    done = proxy("usage", "--db", "typo.db", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "proxy: there is no database at typo.db yet. `proxy serve` creates it; --db selects another.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_database_is_one_line(tmp_path):
    """Exit code 2."""
    (tmp_path / "x.db").write_text("not a database, but long enough to be read as one" * 100)
    done = proxy("usage", "--db", "x.db", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "proxy: file is not a database\n")
