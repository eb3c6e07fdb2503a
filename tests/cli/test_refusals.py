"""`proxy serve` that cannot serve prints one clear line and exits with 2, before it has started anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.cli.commands import PATIENCE_S, environment, proxy, server

LOCAL = "version: 1\nproviders:\n  local: {type: embedded}\n"


def refused(folder, *arguments, **variables):
    """The one line a refused `proxy serve` writes; it printed no banner."""
    done = proxy("serve", *arguments, cwd=folder, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


@pytest.fixture
def taken():
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_in_use_is_one_line(tmp_path, taken):
    """It names the port and what to do."""
    message = f"port {taken} on 127.0.0.1 is in use. Choose another with --port, or stop the process that uses it."
    assert refused(tmp_path, "--port", str(taken)) == f"proxy: {message}\n"


def test_an_address_of_another_machine_is_one_line(tmp_path):
    """192.0.2.1 is nobody's (RFC 5737)."""
    message = refused(tmp_path, "--host", "192.0.2.1", "--port", "0", PROXY_API_KEY="a-key")
    assert message.startswith("proxy: cannot listen on 192.0.2.1:0: ")
    assert message.count("\n") == 1


def test_a_blank_key_is_one_line(tmp_path):
    """A server that was meant to have a key does not start without one."""
    line = "environment variable PROXY_API_KEY: is blank. Set it to a key, or unset it.\n"
    assert refused(tmp_path, PROXY_API_KEY=" \n") == line


def _missing_folder(folder):
    return folder / "missing" / "usage.db"


def _folder(folder):
    (folder / "usage.db").mkdir()
    return folder / "usage.db"


def _below_a_file(folder):
    (folder / "file").touch()
    return folder / "file" / "usage.db"


def _no_database(folder):
    (folder / "usage.db").write_text("these are the notes of a user, not a database\n" * 30)
    return folder / "usage.db"


@pytest.mark.parametrize("place", [_missing_folder, _folder, _below_a_file, _no_database])
@pytest.mark.sampled(3)
def test_an_unwritable_database_is_one_line(tmp_path, place):
    """It names the path and what to do."""
    path = place(tmp_path)
    message = refused(tmp_path, "--port", "0", "--db", str(path))
    assert message.startswith(f"proxy: Cannot use the usage database {path}: ")
    assert message.endswith("name another file with --db.\n")
    assert message.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_database_is_one_line(tmp_path):
    """The user that runs the server must own the file."""
    (tmp_path / "usage.db").touch(0o400)
    message = refused(tmp_path, "--port", "0", "--db", "usage.db")
    assert message.startswith("proxy: Cannot use the usage database usage.db: ")


@pytest.mark.slow
def test_workers_without_a_temporary_folder_are_one_line(tmp_path):
    """They share their metrics there. One process alone needs none."""
    (tmp_path / "routing_rules.yaml").write_text("version: 1\nproviders: {openai: {}}\n")
    code = (
        f"import runpy, tempfile; tempfile.tempdir = {str(tmp_path / 'missing')!r}; "
        "runpy.run_module('proxy', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--port", "0", "--workers", "2"],
        cwd=tmp_path,
        env=environment(OPENAI_API_KEY="sk-x"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    message = "several workers share a temporary folder, but none can be written: No such file or directory."
    assert (done.returncode, done.stderr) == (2, f"proxy: {message}\n")


def test_a_file_of_the_user_is_left_unchanged(tmp_path):
    """A wrong path does no damage."""
    path = _no_database(tmp_path)
    before = path.read_bytes()
    refused(tmp_path, "--port", "0", "--db", str(path))
    assert path.read_bytes() == before


def test_a_wrong_file_is_refused_with_every_problem(tmp_path):
    """As in `proxy check`."""
    (tmp_path / "routing_rules.yaml").write_text("version: 1\nproviders: {a: {type: x}, b: {type: y}}\nzzz: 1\n")
    lines = refused(tmp_path, "--port", "0").splitlines()
    assert [line.split(": ")[1] for line in lines] == ["providers.a.type", "providers.b.type", "zzz"]


@pytest.mark.parametrize(
    ("variable", "value", "path"),
    [("PROXY_PORT", "eighty", "server.port"), ("PROXY_LOG_FORMAT", "xml", "server.log_format")],
)
def test_a_wrong_variable_is_named(tmp_path, variable, value, path):
    """The mistake is in the environment, not in a file."""
    message = refused(tmp_path, **{variable: value})
    assert message.startswith(f"environment variable {variable}: {path}: ")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_network_without_a_key_is_refused_with_the_command_that_creates_one(tmp_path, host):
    """Anyone who reaches the server could spend the owner's money."""
    message = refused(tmp_path, "--host", host)
    assert f"a server on {host} needs a key" in message
    assert 'export PROXY_API_KEY="$(python3 -c' in message


@pytest.mark.skipif(sys.platform == "win32", reason="the command is for a POSIX shell")
@pytest.mark.slow
def test_the_command_in_the_message_lets_the_server_start(tmp_path):
    """It runs unchanged, and the server requires the key it creates."""
    (tmp_path / "routing_rules.yaml").write_text(LOCAL)
    command = refused(tmp_path, "--host", "0.0.0.0").splitlines()[1].strip()
    shell = subprocess.run(f'{command}; printf %s "$PROXY_API_KEY"', shell=True, stdout=subprocess.PIPE, check=True)
    key = shell.stdout.decode()
    assert key.startswith("mmp-")
    with server(tmp_path, "--host", "0.0.0.0", "--port", "0", PROXY_API_KEY=key) as running:
        assert "curl http://0.0.0.0:" in running.banner
        assert key not in running.banner
