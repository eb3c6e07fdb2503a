"""`proxy ask` prints only the answer, as it comes, and meters it like any other call."""

from __future__ import annotations

import json
import sqlite3
import subprocess

import httpx
import psutil
import pytest

from tests.cli.commands import COMMAND, PATIENCE_S, ask, environment, is_gone, proxy, server, wait_until
from tests.serving import PRICING, ROUTING, TIMEOUTS
from tests.upstream import spawn


@pytest.fixture(scope="module")
def upstream():
    """One fake upstream for all questions."""
    with spawn() as running:
        yield running


@pytest.fixture
def folder(tmp_path, upstream):
    """Where both files are."""
    (tmp_path / "routing_rules.yaml").write_text(
        ROUTING.format(db="usage.db", upstream=upstream.url, timeouts=TIMEOUTS)
    )
    (tmp_path / "pricing.yaml").write_text(PRICING)
    return tmp_path


def rows(folder):
    """Key, outcome and output tokens of each call in the database."""
    db = sqlite3.connect(folder / "usage.db")
    try:
        return db.execute("SELECT key_id, outcome, output_tokens FROM calls ORDER BY opened_ns").fetchall()
    finally:
        db.close()


@pytest.mark.slow
def test_only_the_answer_is_on_standard_output(folder):
    """It can be piped, and ends with one newline."""
    done = proxy("ask", "Say hello.", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == " ".join(f"tok{number}" for number in range(10)) + "\n"
    assert rows(folder) == [("cli", "ok", 10)]


@pytest.mark.slow
def test_the_answer_streams(folder):
    """The first word arrives before the model has produced the second."""
    command = [*COMMAND, "ask", "Say hello.", "-m", "fake/stall_after(k=1)"]
    with subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"tok0"
        assert process.poll() is None
        process.kill()


@pytest.mark.slow
def test_a_truncated_answer_exits_with_1_and_the_reason(folder):
    """The text so far stays on standard output."""
    done = proxy("ask", "Say hello.", "-m", "fake/cut_fin(k=3)", cwd=folder)
    assert (done.returncode, done.stdout.split()) == (1, ["tok0", "tok1", "tok2"])
    assert done.stderr.startswith("proxy: fake closed the connection")
    assert rows(folder)[0][1] == "upstream_truncated"


@pytest.mark.parametrize(
    ("model", "message"),
    [("nobody/has-it", "The model 'nobody/has-it' does not exist."), ("fake/e401", "Incorrect API key")],
)
def test_a_failed_question_exits_with_1_and_one_line(folder, model, message):
    """An unknown name; a key that the provider rejects."""
    done = proxy("ask", "Say hello.", "--model", model, cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("proxy: ") and message in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unwritable_database_exits_with_2(folder):
    """As for `proxy serve`."""
    done = proxy("ask", "Say hello.", "--db", "missing/usage.db", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"proxy: Cannot use the usage database {folder.resolve()}/missing/usage.db: ")


@pytest.mark.slow
def test_it_works_beside_a_server_on_the_same_database(folder):
    """Two processes write, and the server's `/v1/usage` shows both calls."""
    with server(folder, "--port", "0") as running:
        assert ask(running).status_code == 200
        assert proxy("ask", "Say hello.", cwd=folder).returncode == 0
        assert ask(running).status_code == 200
        usage = httpx.get(f"{running.base_url}/usage", timeout=PATIENCE_S).json()
    assert (usage["total"]["calls"], usage["total"]["successes"], usage["total"]["output_tokens"]) == (3, 3, 30)


def test_its_options_are_the_fields_of_the_request(folder):
    """The system message, the temperature and the limit, which cuts the answer here."""
    done = proxy("ask", "Hi.", "-s", "Be brief.", "--temperature", "0", "--max-tokens", "3", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choices"][0]["finish_reason"] == "length"
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("arguments", [[], ["-"]])
@pytest.mark.slow
def test_standard_input_may_be_the_question(folder, arguments):
    """Piped in, without a question or with a dash."""
    command = [*COMMAND, "ask", *arguments]
    done = subprocess.run(
        command,
        input=b"Say hello.\n",
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[:1]) == (0, [b"tok0"])


@pytest.mark.slow
def test_without_a_question_it_says_what_to_do(folder):
    """An empty pipe asks nothing."""
    command = [*COMMAND, "ask"]
    done = subprocess.run(
        command, input=b"", cwd=folder, env=environment(), capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 2
    assert b"Give a QUESTION" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--json"], ["-m", "fake/cut_fin(k=3)"], ["-m", "nobody/has-it"]])
@pytest.mark.slow
def test_a_running_server_answers_and_meters(folder, arguments):
    """It has its model loaded. The answer, its errors and the exit code are the same as without a server."""
    alone = proxy("ask", "Hi.", *arguments, cwd=folder)
    with server(folder, "--port", "0") as running:
        asked = proxy("ask", "Hi.", *arguments, cwd=folder, PROXY_PORT=str(running.port))
    assert (asked.returncode, asked.stderr) == (alone.returncode, alone.stderr)
    assert asked.stdout.split()[:2] == alone.stdout.split()[:2]
    keys = [row[0] for row in rows(folder)]
    assert keys == (["cli", None] if "nobody/has-it" not in arguments else keys)


@pytest.mark.slow
def test_a_server_with_another_key_or_database_is_not_asked(folder):
    """The question is answered here, by the files of this folder."""
    with server(folder, "--port", "0", PROXY_API_KEY="a-key-of-the-server") as closed:
        assert proxy("ask", "Hi.", cwd=folder, PROXY_PORT=str(closed.port)).returncode == 0
        assert [row[0] for row in rows(folder)] == ["cli"]
        other = proxy("ask", "Hi.", "--db", "other.db", cwd=folder, PROXY_PORT=str(closed.port))
        assert other.returncode == 0
    assert [row[0] for row in rows(folder)] == ["cli"]


@pytest.mark.embedded
def test_without_any_key_the_embedded_model_answers(tmp_path):
    """No file, no key, no server: what a new user tries first. After `kill -9` no model process is left."""
    with subprocess.Popen([*COMMAND, "ask", "Hi."], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) != b""
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    wait_until(lambda: all(map(is_gone, children)), "the end of the embedded model")
