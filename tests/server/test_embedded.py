"""An application inside another program shares what there is one of, and touches nothing that is the program's."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from proxy.config.source import ConfigFiles
from proxy.schema.errors import UpstreamUnavailable
from proxy.schema.records import LocalModelSpec
from proxy.server.auth import Auth
from proxy.server.embedded import SharedModel, _Guest, program_log
from proxy.upstream.local_model import LocalModel
from tests.serving import write_files
from tests.upstream.local_model import fakes
from tests.waiting import eventually


@pytest.fixture
def spec(tmp_path: Path) -> LocalModelSpec:
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"GGUF")
    return LocalModelSpec(model_path=str(weights))


@pytest.fixture
def build(tmp_path: Path) -> Callable[[LocalModelSpec], LocalModel]:
    """A model whose child is a small script."""

    def model(spec: LocalModelSpec) -> LocalModel:
        command = fakes.fake_child(fakes.SERVES, tmp_path)
        return LocalModel(spec, command=command, find_spec=fakes.installation("xllamacpp"), ready_timeout_s=30)

    return model


async def test_all_applications_of_a_process_have_one_child(spec, build, tmp_path) -> None:
    """It ends with the last of them."""
    models = [SharedModel(spec, build) for _ in range(3)]
    assert (await models[0].state()).state == "not started" and fakes.pids(tmp_path) == []
    endpoints = await asyncio.gather(*(model.endpoint() for model in models for _ in range(3)))
    assert len({endpoint.base_url for endpoint in endpoints}) == 1
    (pid,) = fakes.pids(tmp_path)
    assert [(await model.state()).state for model in models] == ["running"] * 3
    for model in models[:2]:
        await model.release()
        await model.release()
    assert not fakes.is_gone(pid) and (await models[2].endpoint()).base_url == endpoints[0].base_url
    await models[2].release()
    await eventually(lambda: fakes.is_gone(pid))
    assert len(fakes.pids(tmp_path)) == 1


async def test_they_share_it_over_event_loops(spec, build, tmp_path) -> None:
    """Threads have loops of their own."""

    async def use() -> None:
        model = SharedModel(spec, build)
        await model.endpoint()
        await model.release()

    async with asyncio.TaskGroup() as tasks:
        mine = SharedModel(spec, build)
        await mine.endpoint()
        for _ in range(3):
            tasks.create_task(asyncio.to_thread(asyncio.run, use()))
    assert len(fakes.pids(tmp_path)) == 1
    await mine.release()


async def test_after_the_last_one_the_next_starts_anew(spec, build, tmp_path) -> None:
    for _ in range(2):
        model = SharedModel(spec, build)
        await model.endpoint()
        await model.release()
    assert len(fakes.pids(tmp_path)) == 2


async def test_a_model_that_is_not_installed_says_so(spec, tmp_path) -> None:
    model = SharedModel(spec, lambda spec: LocalModel(spec, find_spec=fakes.installation()))
    with pytest.raises(UpstreamUnavailable):
        await model.endpoint()
    await model.release()


def test_books_that_cannot_be_kept_do_not_stop_the_server_of_the_program(tmp_path: Path) -> None:
    """uvicorn's signal handler names its server; a server of our own would be told to stop."""

    class Server:
        should_exit = False

        def handle(self, *_: object) -> None:
            """A signal."""

    server = Server()
    config = ConfigFiles(write_files(tmp_path, "http://127.0.0.1:9"), None, {}).load()
    guest = _Guest(config, {}, Auth(None, None), program_log())
    before = signal.signal(signal.SIGTERM, server.handle)
    try:
        guest._end()
        assert (guest.has_failed, server.should_exit) == (True, False)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_log_of_a_program_is_a_logger_that_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Until somebody adds a handler. Only warnings and errors reach it, with their fields and tracebacks."""
    before = structlog.get_config()
    log = program_log()
    log.warning("nobody_hears", why="100%")
    records: list[logging.LogRecord] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Heard()
    logging.getLogger("proxy").addHandler(handler)
    try:
        log.info("call", fields={"model": "a"})
        log.warning("breaker", fields={"model": "a"}, state="open", why="100%")
        try:
            raise ValueError("a bug")
        except ValueError as error:
            log.error("internal_error", exc_info=error)
        log.bind().exception("again")
    finally:
        logging.getLogger("proxy").removeHandler(handler)
    assert [record.getMessage() for record in records] == [
        "breaker model='a' state='open' why='100%'",
        "internal_error",
        "again",
    ]
    assert records[1].exc_info and records[1].exc_info[0] is ValueError
    assert structlog.get_config() == before
    assert capfd.readouterr() == ("", "")
