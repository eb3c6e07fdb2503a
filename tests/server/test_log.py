"""The log never stops the server: lines leave on a thread, and what nobody takes is dropped and counted."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from proxy.server.log import (
    LIBRARY_LINES,
    MAX_FIELD,
    LibraryHandler,
    build_log,
    log_writer,
    one_line,
    plain_line,
    render_json,
)
from proxy.server.log_writer import LogWriter
from tests.server.api.raw import chat, get, post
from tests.serving import write_files
from tests.upstream import FakeUpstream


def encoded(event: dict[str, object]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def test_every_line_is_written_in_order() -> None:
    """By one thread, which ends and starts again as needed."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb") as writing:
        log = LogWriter(writing, encoded)
        for number in range(300):
            log.put({"number": number})
        assert log.flush(5)
        assert [json.loads(reader.readline())["number"] for _ in range(300)] == list(range(300))
    assert log.dropped == 0


def test_a_reader_that_has_stopped_stops_nobody() -> None:
    """`put` never waits; what does not fit is counted; the rest comes when somebody reads again."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb") as writing:
        log = LogWriter(writing, encoded, max_events=1000)
        begun = time.monotonic()
        for number in range(20_000):
            log.put({"number": number, "padding": "x" * 100})
        assert time.monotonic() - begun < 2
        assert not log.flush(0.05)
        assert log.dropped > 10_000
        lines = 0
        while lines < 20_000 - log.dropped:
            lines += json.loads(reader.readline())["number"] >= 0
        assert log.flush(5)


@pytest.mark.parametrize("broken", ["full", "closed"])
def test_a_stream_that_takes_nothing_loses_its_lines(broken: str) -> None:
    """They are counted."""
    if broken == "full":
        writing = open("/dev/full", "wb")  # noqa: SIM115
    else:
        read, write = os.pipe()
        os.close(read)
        writing = os.fdopen(write, "wb")
    with writing:
        log = LogWriter(writing, encoded)
        for _ in range(50):
            log.put({})
        assert log.flush(5)
        assert log.dropped == 50


def test_a_line_that_cannot_be_rendered_is_said() -> None:
    """And the next one is written."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb") as writing:
        log = LogWriter(writing, encoded)
        log.put({"bad": object()})
        log.put({"good": 1})
        assert log.flush(5)
        assert json.loads(reader.readline())["event"] == "log_line_failed"
        assert json.loads(reader.readline()) == {"good": 1}


@pytest.mark.parametrize(
    "value",
    ["plain", 'a "quote"', "back\\slash", "é", "\u2028", "\x7f", "\x1b[31m", "\n", "\ud800", "x" * 3000, None, 1.5],
)
def test_only_a_line_without_anything_to_escape_takes_the_short_way(value: object) -> None:
    """Both ways write the same."""
    event = {"level": "info", "event": "call", "timestamp": "now", "name": value, "count": 1}
    escaped = render_json(None, "", one_line(event.copy())) + b"\n"
    short = plain_line(event)
    assert short in (None, escaped)
    assert (short is None) == (isinstance(value, str) and value != "plain")
    assert len(escaped) < 12 * MAX_FIELD


def test_what_libraries_log_is_structured_and_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    """At most so many lines a second from each, then a count; tracebacks are one line."""
    build_log("json")
    library = logging.getLogger("asyncio")
    try:
        for number in range(LIBRARY_LINES * 5):
            library.warning("something odd %d", number)
        try:  # a logger of its own: of uvicorn's, other tests' servers may have used up this second's lines
            raise ZeroDivisionError
        except ZeroDivisionError:
            logging.getLogger("a.library").exception("two\nlines")
        writer = log_writer()
        assert writer is not None
        assert writer.flush(5)
    finally:
        structlog.reset_defaults()
        for handler in logging.getLogger().handlers[:]:
            if isinstance(handler, LibraryHandler):
                logging.getLogger().removeHandler(handler)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    odd = [line for line in lines if line.get("logger") == "asyncio" and line["event"] == "library"]
    assert LIBRARY_LINES <= len(odd) <= 2 * LIBRARY_LINES  # two, if a second ended meanwhile
    assert (lines[-1]["logger"], lines[-1]["level"], lines[-1]["message"]) == ("a.library", "error", "two\\nlines")
    assert "ZeroDivisionError" in lines[-1]["exception"]


def served(folder: Path, stderr: int) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0", "--log-format", "json"]
    command += ["--config", str(folder / "routing_rules.yaml"), "--pricing", str(folder / "pricing.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)
    assert process.stdout is not None
    return process, int(process.stdout.readline().rsplit(b":", 1)[1].split(b"/")[0])


@pytest.mark.parametrize("broken", ["unread", "full", "closed"])
@pytest.mark.slow
async def test_a_server_serves_and_stops_whatever_becomes_of_its_log(tmp_path: Path, broken: str) -> None:
    """More calls than a pipe has room for, then SIGTERM: exit code 0 within seconds."""
    async with FakeUpstream() as upstream:
        write_files(tmp_path, upstream.url)
        read, write = os.pipe()
        full = os.open("/dev/full", os.O_WRONLY)
        process, port = await asyncio.to_thread(served, tmp_path, full if broken == "full" else write)
        os.close(full)
        os.close(write)
        if broken == "closed":
            os.close(read)
        try:
            for _ in range(10):
                answers = await asyncio.gather(*(post(port, chat()) for _ in range(40)))
                assert {answer.status for answer in answers} == {200}
            begun = time.monotonic()
            assert (await get(port, "/livez")).status == 200
            assert time.monotonic() - begun < 1
            dropped = (await get(port, "/metrics")).body.decode().split("\nmmproxy_log_dropped_total ")[1]
            assert (float(dropped.split("\n")[0]) > 0) == (broken != "unread")  # those wait in the queue
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 20) == 0
            assert time.monotonic() - begun < 5
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            if broken != "closed":
                os.close(read)
