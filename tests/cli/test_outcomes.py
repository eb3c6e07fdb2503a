"""`proxy feedback` and `proxy ensembles report` work on the database of a server, whether it runs or not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest

from proxy.storage.sqlite import SqliteStore
from tests.cli.commands import proxy
from tests.ensembles.panels import simulated
from tests.serving import write_files
from tests.storage.test_ensemble_calls import decided


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database has 400 calls of an ensemble, without ratings."""
    folder = tmp_path_factory.mktemp("outcomes")
    write_files(folder, "http://127.0.0.1:9/v1")
    store = SqliteStore(folder / "usage.db")
    store.open()
    now_ns = time.time_ns()
    for number, call in enumerate(simulated((0.99, 0.9, 0.9), 400)):
        record = msgspec.structs.replace(call.record, name="careful")
        store.write(decided(f"{number:026x}", record, now_ns - number * 10**9))
    store.close()
    return folder


def test_a_rating_is_stored(place: Path) -> None:
    """By the id of the answer; `--json` prints what is stored."""
    done = proxy("feedback", f"chatcmpl-{7:026x}", "--failure", "--score", "0.25", cwd=place)
    assert (done.returncode, done.stdout) == (0, f"Stored: {7:026x} is a failure, score 0.25.\n")
    done = proxy("feedback", f"{7:026x}", "--comment", "=1+1", "--json", cwd=place)
    stored = json.loads(done.stdout)
    assert (stored["comment"], stored["success"], stored["source"], stored["key_id"]) == ("=1+1", None, "cli", None)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["x", "--success"], 1, "There is no call 'x'"),
        (["x"], 2, "success (true or false), score (from 0 to 1) or comment"),
        (["x", "--score", "nan"], 2, "score"),
        (["x", "--comment", "\udcff"], 2, "comment: expected a text that is valid Unicode"),
    ],
)
def test_a_bad_rating_is_refused(place: Path, arguments: list[str], code: int, said: str) -> None:
    """With the reason, and without a trace."""
    done = proxy("feedback", *arguments, cwd=place)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_report_as_a_table(place: Path) -> None:
    """The verdict first; members and levels of agreement below."""
    done = proxy("ensembles", "report", "ensemble:careful", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    verdict, counts, *rest = done.stdout.splitlines()
    assert verdict.startswith("m0 alone would have done: its answer differed in")
    assert counts.startswith("400 calls since ")
    tables = [line.split() for line in rest if line]
    assert tables[0][:4] == ["MEMBER", "CALLS", "DIFFERED", "FAILED"]
    assert [line[:2] for line in tables[1:4]] == [["m0", "400"], ["m1", "400"], ["m2", "400"]]
    assert tables[4] == ["CONFIDENCE", "CALLS", "RATED", "ACCURACY", "HONEST"]


def test_a_report_as_json(place: Path) -> None:
    """The body of the route; without calls and without such a name, exit code 1."""
    found = json.loads(proxy("ensembles", "report", "careful", "--json", cwd=place).stdout)
    assert (found["ensemble"], found["calls"], found["verdict"]["decision"]) == ("careful", 400, "one_member")
    for arguments, code, said in (
        (["nothing"], 1, "There is no ensemble"),
        (["careful", "--since", "2020-01-01"], 2, "31 days at most"),
    ):
        done = proxy("ensembles", "report", *arguments, cwd=place)
        assert (done.returncode, done.stdout, said in done.stderr) == (code, "", True), done.stderr


def test_without_a_database_there_is_nothing_to_rate(tmp_path: Path) -> None:
    """Exit code 2, and none is made."""
    write_files(tmp_path, "http://127.0.0.1:9/v1")
    for command in (["feedback", "x", "--success"], ["ensembles", "report", "voting"]):
        done = proxy(*command, cwd=tmp_path)
        assert (done.returncode, "there is no database" in done.stderr) == (2, True)
    assert not (tmp_path / "usage.db").exists()
