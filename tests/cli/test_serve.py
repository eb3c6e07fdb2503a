"""`proxy serve` as users see it: the banner and its curl line, one log line per call, shutdown."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys

import httpx
import pytest

from tests.cli.commands import PATIENCE_S, ask, environment, log_lines, proxy, server, wait_until
from tests.serving import PRICING, ROUTING, TIMEOUTS
from tests.upstream import spawn

SERVER = "\nserver: {{host: {host}, port: {port}, log_format: {log_format}}}\n"


@pytest.fixture(scope="module")
def upstream():
    """One fake upstream for all servers of this module."""
    with spawn() as running:
        yield running


def configure(folder, upstream, extra=""):
    """Both files, where a server started in `folder` finds them."""
    text = ROUTING.format(db="usage.db", upstream=upstream.url, timeouts=TIMEOUTS)
    (folder / "routing_rules.yaml").write_text(text + extra)
    (folder / "pricing.yaml").write_text(PRICING)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, upstream):
    """Where the server of this module runs."""
    return configure(tmp_path_factory.mktemp("serve"), upstream, "  off: {type: openai, api_key_env: NEVER_SET}\n")


@pytest.fixture(scope="module")
def running(folder, upstream):
    """A server without keys, before the fake upstream."""
    routing = (folder / "routing_rules.yaml").read_text()
    off = "  off: {type: openai, api_key_env: NEVER_SET}\n"
    (folder / "routing_rules.yaml").write_text(routing.replace(off, "").replace("\nrouter:", "\n" + off + "router:"))
    with server(folder, "--port", "0") as spawned:
        yield spawned


def run_curl(banner, **variables):
    """Runs the curl line of a banner in a shell, as a reader would; through Python where there is no curl."""
    (line,) = [line.strip() for line in banner.splitlines() if line.startswith("  curl ")]
    if shutil.which("curl"):
        done = subprocess.run(
            line,
            shell=True,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        return json.loads(done.stdout)
    for name, value in variables.items():
        line = line.replace(f"${name}", value)
    _, url, *options = shlex.split(line)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in pairs if option == "-H")
    body = dict(pairs).get("-d")
    return httpx.request("POST" if body else "GET", url, headers=headers, content=body, timeout=PATIENCE_S).json()


def test_the_banner_says_where_it_listens_and_what_is_on(running):
    """The base URL is the one to use in an SDK."""
    lines = running.banner.splitlines()
    assert lines[0].endswith(f" on http://127.0.0.1:{running.port}/v1")
    assert lines[2:4] == ["  files       routing_rules.yaml, pricing.yaml", "  database    usage.db"]
    assert re.search(r"^  fake +on$", running.banner, re.MULTILINE)
    assert re.search(r"^  off +off: set NEVER_SET to enable it$", running.banner, re.MULTILINE)


def test_the_curl_line_works(running):
    """Copied unchanged."""
    answer = run_curl(running.banner)
    assert (answer["model"], answer["choices"][0]["finish_reason"]) == ("fake/ok", "stop")


@pytest.mark.parametrize("variable", ["PROXY_API_KEY", "PROXY_ADMIN_KEY"])
@pytest.mark.slow
def test_the_curl_line_works_with_a_key_and_does_not_show_it(tmp_path, upstream, variable):
    """The key comes from the shell's environment, whichever of the two variables is set."""
    key = {variable: "a-secret-of-the-server"}
    with server(configure(tmp_path, upstream), "--port", "0", **key) as keyed:
        assert "a-secret" not in keyed.banner
        assert ask(keyed).status_code == 401
        assert run_curl(keyed.banner, **key)["model"] == "fake/ok"
    assert "a-secret" not in (tmp_path / "server.log").read_text()


@pytest.mark.slow
def test_the_curl_line_works_if_auto_has_no_model(tmp_path, upstream):
    """Without a default model there is still something to call."""
    routing = configure(tmp_path, upstream) / "routing_rules.yaml"
    routing.write_text(routing.read_text().replace("router: {default_model: fake/ok}", ""))
    with server(tmp_path, "--port", "0") as without:
        assert "error" not in run_curl(without.banner)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is not an address of the machine")
@pytest.mark.slow
def test_the_curl_line_works_on_another_loopback_address(tmp_path, upstream):
    """The server answers on the address it was told to listen on."""
    with server(configure(tmp_path, upstream), "--host", "127.0.0.2", "--port", "0") as elsewhere:
        assert run_curl(elsewhere.banner)["model"] == "fake/ok"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_key_and_call_no_model(running, path):
    """An orchestrator probes every few seconds."""
    answer = httpx.get(f"http://127.0.0.1:{running.port}{path}")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_each_call_is_one_log_line_without_prompt_or_key(running, folder):
    """Whole, streamed or refused: the line has the id that the caller got."""
    earlier = len(calls_in(folder))
    secret = {"authorization": "Bearer a-key-of-the-caller"}
    answers = [
        ask(running, "fake/ok", secret, user="whisper-whisper"),
        ask(running, "fake/ok", secret, stream=True, stop=["whisper-whisper"]),
        ask(running, "nobody/has-it", secret),
        ask(running, "fake/e400", secret),
    ]
    wait_until(lambda: len(calls_in(folder)) >= earlier + len(answers), "one line per call")
    lines = calls_in(folder)[earlier:]
    assert [(line["request_id"], line["status"]) for line in lines] == [
        (answer.headers["x-request-id"], answer.status_code) for answer in answers
    ]
    assert [line["outcome"] for line in lines] == ["ok", "ok", "rejected", "upstream_error"]
    text = (folder / "server.log").read_text()
    assert [word for word in ("Say hello", "whisper", "a-key", "tok0") if word in text] == []


def calls_in(folder):
    return [line for line in log_lines(folder) if line["event"] == "call"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_stopped_server_finishes_its_calls_and_exits_with_0(tmp_path, upstream, number):
    """`docker stop` and Ctrl-C lose no answer and no row."""
    with server(configure(tmp_path, upstream), "--port", "0") as stopping:
        model = f"fake/ok(n_tokens=20,pace=0.03,tag={number.name})"
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]}
        with httpx.stream("POST", f"{stopping.base_url}/chat/completions", json=body, timeout=PATIENCE_S) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            stopping.process.send_signal(number)
            text += "".join(pieces)
        assert stopping.process.wait(timeout=PATIENCE_S) == 0
    assert text.endswith("data: [DONE]\n\n")
    with sqlite3.connect(tmp_path / "usage.db") as db:
        rows = db.execute("SELECT outcome, output_tokens FROM calls").fetchall()
    db.close()
    assert rows == [("ok", 20)]


# --- flag > environment > file > default ------------------------------------------------------------------------------

LEVELS = ["flag", "environment", "file", "default"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is not an address of the machine")
@pytest.mark.parametrize("level", LEVELS)
def test_host_and_port_follow_the_order_of_precedence(tmp_path, upstream, level):
    """Every tested address is in use, so the error shows which one was chosen. Port 8000 may be anyone's."""
    hosts = {"flag": "127.0.0.4", "environment": "127.0.0.3", "file": "127.0.0.2", "default": "127.0.0.1"}
    nearer = LEVELS.index(level)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        try:
            listener.bind((hosts[level], 8000 if level == "default" else 0))
            listener.listen()
            port = listener.getsockname()[1]
        except OSError:
            assert level == "default"
            port = 8000
        flags = ["--host", hosts["flag"], "--port", str(port)] if nearer <= 0 else []
        variables = {"PROXY_HOST": hosts["environment"], "PROXY_PORT": str(port)} if nearer <= 1 else {}
        extra = SERVER.format(host=hosts["file"], port=port, log_format="json") if nearer <= 2 else ""
        done = proxy(
            "serve", *flags, cwd=configure(tmp_path, upstream, extra.replace("{{", "{").replace("}}", "}")), **variables
        )
    assert done.stderr.startswith(f"proxy: port {port} on {hosts[level]} is in use.")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.slow
def test_database_and_log_format_follow_the_order_of_precedence(tmp_path, upstream, level):
    """Shown by the file that appears and by the form of a log line."""
    nearer = LEVELS.index(level)
    databases = {"flag": "flag.db", "environment": "variable.db", "file": "file.db", "default": "proxy.db"}
    formats = {"flag": "json", "environment": "console", "file": "json", "default": "json"}
    flags = ["--db", databases["flag"], "--log-format", formats["flag"]] if nearer <= 0 else []
    variables = (
        {"PROXY_DB": databases["environment"], "PROXY_LOG_FORMAT": formats["environment"]} if nearer <= 1 else {}
    )
    routing = (
        configure(tmp_path, upstream, "server: {log_format: json}\n" if nearer <= 2 else "") / "routing_rules.yaml"
    )
    text = routing.read_text()
    routing.write_text(text.replace("usage.db", "file.db") if nearer <= 2 else re.sub(r"storage: .*\n", "", text))
    with server(tmp_path, "--port", "0", *flags, **variables) as configured:
        assert ask(configured, "nobody/has-it").status_code == 404
        assert configured.stop() == 0
    assert [file.name for file in tmp_path.glob("*.db")] == [databases[level]]
    line = (tmp_path / "server.log").read_text().splitlines()[-1]
    assert line.startswith("{") == (formats[level] == "json"), line
