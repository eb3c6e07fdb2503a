"""`proxy config`: what servers ran, and the way back, also while the files are broken."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.commands import proxy
from tests.serving import PRICING, ROUTING, spawned, write_files
from tests.upstream.fake import spawn

HERE = ROUTING.replace("sqlite:///{db}", "sqlite:///usage.db")
OTHER = HERE.replace("default_model: fake/ok", "default_model: fake/other")


def version_of(folder: Path) -> str:
    return str(json.loads(proxy("check", "--json", cwd=folder).stdout)["config_version"])


def listed(folder: Path) -> list[dict[str, Any]]:
    done = proxy("config", "list", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return list(json.loads(done.stdout)["versions"])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After a server ran HERE, then OTHER with other prices. The database is named by its place beside the files."""
    folder = tmp_path_factory.mktemp("ran")
    environ = {"PROXY_DB": str(folder / "usage.db")}
    for routing, pricing in ((HERE, PRICING), (OTHER, PRICING + "# dearer\n")):
        files = write_files(folder, "http://127.0.0.1:9/v1", routing, pricing)
        with spawned(files, environ=environ) as server:
            httpx.get(f"{server.base_url}/models", timeout=30)  # it has started
            server.stop()
    return folder


@pytest.fixture
def folder(ran: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(ran, tmp_path / "copy"))


@pytest.mark.slow
def test_each_configuration_that_ran_is_listed_and_shown(folder: Path) -> None:
    """The latest first; both files as they were."""
    latest, first = listed(folder)
    assert (latest["version"], latest["in_files"], first["in_files"]) == (version_of(folder), True, False)
    assert latest["applied"].startswith("20")
    shown = proxy("config", "show", first["version"][:6], cwd=folder).stdout
    assert "default_model: fake/ok" in shown and "sqlite:///usage.db" in shown
    assert proxy("config", "show", first["version"], "--prices", cwd=folder).stdout == PRICING
    lines = proxy("config", "list", cwd=folder).stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["IN_FILES", "yes", "no"]


@pytest.mark.slow
def test_rollback_writes_both_files_and_can_be_undone(folder: Path) -> None:
    """An edit that no server has run is not lost."""
    _, first = listed(folder)
    edited = (folder / "routing_rules.yaml").read_text() + "# an edit\n"
    (folder / "routing_rules.yaml").write_text(edited)
    before = version_of(folder)
    told = json.loads(proxy("config", "rollback", first["version"][:8], "--json", cwd=folder).stdout)
    assert (told["version"], told["before"], len(told["written"])) == (first["version"], before, 2)
    assert version_of(folder) == first["version"]
    assert (folder / "pricing.yaml").read_text() == PRICING
    done = proxy("config", "rollback", before, cwd=folder)
    assert (done.returncode, (folder / "routing_rules.yaml").read_text()) == (0, edited)


@pytest.mark.slow
def test_rollback_works_while_the_files_are_broken(folder: Path) -> None:
    """Which is when it is needed. The broken file is kept beside the new one, but not in the database: it may be broken
    by a key.
    """
    _, first = listed(folder)
    (folder / "routing_rules.yaml").write_text(HERE.format(upstream="x", timeouts="1"))
    assert proxy("check", cwd=folder).returncode == 2
    told = json.loads(proxy("config", "rollback", first["version"], "--json", cwd=folder).stdout)
    assert version_of(folder) == first["version"]
    assert told["before"] is None and len(listed(folder)) == 2
    assert 'base_url: "x"' in (folder / "routing_rules.yaml.bak").read_text()
    (folder / "routing_rules.yaml").write_text("{{{")
    done = proxy("config", "rollback", first["version"], "--db", "usage.db", cwd=folder)
    assert (done.returncode, version_of(folder)) == (0, first["version"])


@pytest.mark.slow
def test_a_version_that_does_not_load_here_is_not_written(folder: Path) -> None:
    """Another program version, or a name that the prices no longer have."""
    now = (folder / "routing_rules.yaml").read_text()
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        db.execute("INSERT INTO configurations VALUES ('bad000000000', 1, ?, ?)", (b"later: 1\n", PRICING.encode()))
        db.commit()
    done = proxy("config", "rollback", "bad0", cwd=folder)
    assert (done.returncode, "later" in done.stderr, done.stdout) == (2, True, "")
    assert (folder / "routing_rules.yaml").read_text() == now


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("show", "zzz"), "no version"),
        (("show", ""), "no version"),
        (("rollback", "zzz"), "no version"),
        (("list", "--db", "none.db"), "no database"),
    ],
)
def test_what_cannot_run_is_exit_code_2(folder: Path, arguments: tuple[str, ...], text: str) -> None:
    """One line on standard error."""
    done = proxy("config", *arguments, cwd=folder)
    assert (done.returncode, done.stdout, text in done.stderr) == (2, "", True)


def test_a_beginning_of_several_versions_is_refused(folder: Path) -> None:
    """Nothing is guessed."""
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        db.executemany("INSERT INTO configurations VALUES (?, 1, x'00', NULL)", [("zz1",), ("zz2",)])
        db.commit()
    done = proxy("config", "show", "zz", cwd=folder)
    assert (done.returncode, "2 versions" in done.stderr) == (2, True)
    assert "had no pricing.yaml" in proxy("config", "show", "zz1", "--prices", cwd=folder).stderr


@pytest.mark.slow
def test_a_running_server_follows_a_rollback(tmp_path: Path) -> None:
    """`x-proxy-config` names the version again, and the history says that it runs."""
    ask = {"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}
    with spawn() as upstream, spawned(write_files(tmp_path, upstream.url)) as server:
        first = version_of(tmp_path)
        until(lambda: [each["version"] for each in listed(tmp_path)] == [first])  # the server has started
        write_files(tmp_path, upstream.url, ROUTING.replace("default_model: fake/ok", "default_model: fake/other"))

        def runs() -> str:
            answer = httpx.post(f"{server.base_url}/chat/completions", json=ask, timeout=30)
            return answer.headers["x-proxy-config"]

        until(lambda: runs() != first)
        until(lambda: len(listed(tmp_path)) >= 2)  # two files are written: a version between them may have run
        assert proxy("config", "rollback", first, cwd=tmp_path).returncode == 0
        until(lambda: runs() == first)
        until(lambda: listed(tmp_path)[0]["version"] == first)
        server.stop()


def until(condition: Any, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
