"""`proxy conformance`: tables, exit codes and clean-up."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from proxy.client.conformance import CHECKS
from proxy.client.conformance.streams import STREAM
from tests.cli.commands import COMMAND, PATIENCE_S, environment, proxy, wait_until
from tests.serving import write_files
from tests.upstream.fake import refusing, spawn


@pytest.fixture(scope="module")
def upstream():
    """One fake upstream for all runs."""
    with spawn() as running:
        yield running


@pytest.fixture
def folder(tmp_path, upstream):
    """Where both files are."""
    write_files(tmp_path, upstream.url)
    return tmp_path


def test_the_configured_proxy_is_checked_and_nothing_is_written(folder):
    """It starts its own proxy with the user's files but not the user's database. Client keys do not matter."""
    done = proxy("conformance", "-m", "fake/actor", "--json", cwd=folder, PROXY_API_KEY="a-key-for-callers-only")
    said = json.loads(done.stdout)
    assert [each["seen"] for each in said["checks"] if each["outcome"] == "failed"] == []
    assert done.returncode == 0
    assert said["counts"] == {"passed": len(CHECKS), "failed": 0, "not supported": 0, "not shown": 0}
    assert sorted(path.name for path in folder.iterdir()) == ["pricing.yaml", "routing_rules.yaml"]


def test_the_user_learns_beforehand_how_many_calls_it_makes(folder):
    """On standard error, so that standard output has only the tables: one row per check, then one per group."""
    done = proxy("conformance", "-m", "fake/actor", "--only", "whole", "--only", "stream", cwd=folder)
    assert done.stderr.splitlines()[0] == "23 checks of fake/actor, in about 3 calls of at most 60 s"
    assert done.stderr.splitlines()[-1] == "23 passed, 0 failed, 0 not supported, 0 not shown"
    rows, groups = (table.splitlines() for table in done.stdout.split("\n\n"))
    assert (rows[0].split(), len(rows)) == (["CHECK", "GROUP", "RESULT", "SEEN"], 24)
    assert [row.split() for row in groups] == [
        ["GROUP", "PASSED", "OF", "REST"],
        ["whole", "12", "12", "-"],
        ["stream", "11", "11", "-"],
    ]


def test_a_server_is_checked_directly_with_a_key_from_the_environment(folder, upstream):
    """A failed check gives exit code 1."""
    upstream.reset()
    arguments = ("conformance", "-m", "actor-no_done", "--base-url", upstream.url, "--only", "stream")
    done = proxy(*arguments, "--api-key-env", "THEIR_KEY", cwd=folder, THEIR_KEY="sk-theirs")
    failed = [line for line in done.stdout.splitlines() if "  failed  " in line]
    assert (done.returncode, [line.split()[0] for line in failed]) == (1, ["done_last"])
    assert done.stdout.splitlines()[-1].split(maxsplit=3) == ["stream", "10", "11", "failed: done_last"]
    assert all(seen.authorization for seen in upstream.ledger())


def test_a_feature_the_vendor_lacks_is_not_a_failure(folder, upstream):
    """The exit code is 0, and the table has the reason."""
    routing = folder / "routing_rules.yaml"
    routing.write_text(routing.read_text().replace("type: openai", "type: lmstudio"))
    done = proxy("conformance", "-m", "fake/actor", "--only", "sampling", cwd=folder)
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("logprobs ")]
    assert (done.returncode, row.endswith("not supported  dropped: logprobs")) == (0, True)


def test_an_image_link_is_checked_only_on_request(folder, upstream):
    """The provider fetches it."""
    arguments = ("conformance", "-m", "actor", "--base-url", upstream.url, "--only", "models")
    without = proxy(*arguments, cwd=folder)
    asked = proxy(*arguments, "--image-link", "https://example.com/red.png", cwd=folder)
    assert ("image_link" in without.stdout, "image_link" in asked.stdout) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base-url", "ftp://x/v1"], "--base-url must be an http or https address"),
        (["--base-url", "http://[x/v1"], "--base-url must be an http or https address"),
        (["--base-url", "http://x:99999/v1"], "--base-url must be an http or https address"),
        (["--base-url", "http://x:1/v1", "--api-key-env", "NOT_SET"], "NOT_SET is not set"),
        (["--api-key-env", "SET"], "--api-key-env is the key of a --base-url"),
        (["--only", "nothing"], "nothing"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_exit_with_2(folder, arguments, said):
    """One line says why, before any call."""
    done = proxy("conformance", "-m", "actor", *arguments, cwd=folder, SET="x")
    assert (done.returncode, done.stdout, said in done.stderr) == (2, "", True), done


def test_an_unreachable_server_exits_with_2(folder):
    """No check is possible then."""
    with refusing() as url:
        done = proxy("conformance", "-m", "actor", "--base-url", url, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{url} cannot be reached" in done.stderr


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "configured"])
@pytest.mark.parametrize(("model", "said"), [("e401", "Incorrect API key"), ("nothing", "answers 404")])
@pytest.mark.sampled(3)
def test_an_unusable_model_exits_with_2(folder, upstream, direct, model, said):
    """One sentence says why, after the line with the number of calls."""
    arguments = ("-m", model, "--base-url", upstream.url) if direct else ("-m", f"fake/{model}")
    done = proxy("conformance", *arguments, "--json", cwd=folder)
    (line,) = done.stderr.splitlines()[1:]
    assert (done.returncode, done.stdout, said in line) == (2, "", True), line
    assert line.startswith(f"proxy: {upstream.url if direct else f'fake/{model}'} ")


@pytest.mark.parametrize(("form", "number"), [([], signal.SIGINT), (["--json"], signal.SIGTERM)], ids=["table", "json"])
@pytest.mark.slow
def test_ctrl_c_keeps_the_results_and_cleans_up(folder, upstream, tmp_path_factory, form, number):
    """Rows are printed one by one: the first are out while a later check still waits."""
    own = tmp_path_factory.mktemp("temporary")
    write_files(folder, upstream.url, timeouts="{connect: 60, first_token: 60, idle: 60, total: 60}")
    arguments = ("conformance", "-m", "fake/actor-delay_whole(s=60)", "--only", "stream", *form)
    upstream.reset()
    command = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(TMPDIR=str(own)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    try:
        head = [] if form else [command.stdout.readline() for _ in range(10)]
        wait_until(lambda: len(upstream.ledger()) == 3, "the first answer in one piece is waited for")
        command.send_signal(number)
        rest, said = command.communicate(timeout=PATIENCE_S)
    finally:
        command.kill()
        command.communicate()
    assert (command.returncode, "Traceback" in said) == (130, False), said
    assert list(own.iterdir()) == []
    if form:
        assert [each["check"] for each in json.loads(rest)["checks"]] == [each.name for each in STREAM[:9]]
    else:
        assert [line.split()[0] for line in head] == ["CHECK", *(each.name for each in STREAM[:9])]
        assert rest.splitlines()[-1].split()[:3] == ["stream", "9", "9"]
        assert said.splitlines()[-1] == "proxy: stopped after 9 of 11 checks."


@pytest.mark.slow
def test_a_closed_pipe_ends_it_silently(folder):
    """As with `| head`."""
    command = f"{sys.executable} -m proxy conformance -m fake/actor --only whole --only tools | head -2"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert len(done.stdout.splitlines()) == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
