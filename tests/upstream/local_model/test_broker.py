"""One child for all workers: they ask their supervisor over a Unix socket, and hear what it would say itself."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from proxy.schema.errors import UpstreamUnavailable
from proxy.schema.records import LocalModelSpec
from proxy.upstream.local_model import LocalModel, LocalModelBroker, RemoteLocalModel
from tests.upstream.local_model import fakes
from tests.waiting import eventually


@pytest.fixture
def broker_of(tmp_path):
    """Starts a broker for one model named "local"; the path of its socket is `path`."""
    brokers = []

    def start(model):
        broker = LocalModelBroker({"local": model}, str(tmp_path / "broker"))
        broker.start()
        brokers.append(broker)
        return broker

    yield start
    for broker in brokers:
        broker.stop()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "broker")


async def test_all_workers_share_one_child(broker_of, build_fake, path, tmp_path):
    broker_of(build_fake(fakes.SERVES))
    workers = [RemoteLocalModel(path, "local") for _ in range(5)]
    endpoints = await asyncio.gather(*(worker.endpoint() for worker in workers for _ in range(4)))
    assert {endpoint.base_url for endpoint in endpoints} == {"http://127.0.0.1:1/v1"}
    assert len({endpoint.key.reveal() for endpoint in endpoints if endpoint.key}) == 1
    assert len(fakes.pids(tmp_path)) == 1


async def test_a_worker_finds_the_child_that_follows_a_dead_one(broker_of, build_fake, path, tmp_path):
    broker_of(build_fake(fakes.SERVES))
    worker = RemoteLocalModel(path, "local")
    first = await worker.endpoint()
    os.kill(fakes.pids(tmp_path)[0], 9)
    await eventually(lambda: len(fakes.pids(tmp_path)) == 2)
    second = await worker.endpoint()
    assert (first.base_url, second.base_url) == ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1")


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (fakes.SERVES, {"find_spec": fakes.installation()}),
        (fakes.REFUSES, {}),
        (fakes.SERVES_WHEN_TOLD, {"ready_timeout_s": 0.05}),
    ],
)
async def test_a_worker_hears_the_supervisors_own_error(broker_of, build_fake, fake_model, path, body, options):
    broker_of(build_fake(body, **options))
    with pytest.raises(UpstreamUnavailable) as said:
        await fake_model(body, **options).endpoint()
    with pytest.raises(UpstreamUnavailable) as heard:
        await RemoteLocalModel(path, "local").endpoint()
    for field in ("message", "status", "code", "retryable", "retry_after_s", "headers"):
        assert getattr(heard.value, field) == getattr(said.value, field), field


async def test_a_model_that_the_supervisor_does_not_run_is_an_error(broker_of, build_fake, path):
    broker_of(build_fake(fakes.SERVES))
    with pytest.raises(UpstreamUnavailable, match="runs no model for 'other'") as caught:
        await RemoteLocalModel(path, "other").endpoint()
    assert not caught.value.retryable


async def test_a_model_may_start_with_its_broker(broker_of, build_fake, tmp_path):
    broker_of(build_fake(fakes.SERVES, start="at_start"))
    await eventually(lambda: bool(fakes.pids(tmp_path)))
    assert len(fakes.pids(tmp_path)) == 1


async def test_stopping_ends_the_child_and_tells_the_workers(broker_of, build_fake, path, tmp_path):
    broker = broker_of(build_fake(fakes.SERVES))
    worker = RemoteLocalModel(path, "local")
    await worker.endpoint()
    broker.stop()
    broker.stop()
    assert [fakes.is_gone(pid) for pid in fakes.pids(tmp_path)] == [True]
    with pytest.raises(UpstreamUnavailable, match="does not answer") as caught:
        await worker.endpoint()
    assert (caught.value.retryable, caught.value.headers) == (False, {"retry-after": "1"})


async def test_stopping_ends_the_wait_of_a_worker(broker_of, build_fake, path, tmp_path):
    broker = broker_of(build_fake(fakes.SERVES_WHEN_TOLD))
    waiting = asyncio.create_task(RemoteLocalModel(path, "local").endpoint())
    await eventually(lambda: len(fakes.pids(tmp_path)) == 1)
    await asyncio.to_thread(broker.stop)
    with pytest.raises(UpstreamUnavailable):
        await asyncio.wait_for(waiting, 5)


async def test_a_worker_that_goes_away_harms_nobody(broker_of, build_fake, path, tmp_path):
    broker_of(build_fake(fakes.SERVES_WHEN_TOLD))
    worker = RemoteLocalModel(path, "local")
    gone = asyncio.create_task(worker.endpoint())
    await eventually(lambda: len(fakes.pids(tmp_path)) == 1)
    gone.cancel()
    await asyncio.wait([gone])
    (tmp_path / "go").touch()
    assert (await worker.endpoint()).base_url == "http://127.0.0.1:1/v1"


async def test_nonsense_on_the_socket_harms_nobody(broker_of, build_fake, path):
    broker_of(build_fake(fakes.SERVES))
    for nonsense in (b"", b"\n", b"[1]\n", b"\xff\n"):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(nonsense)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert (await RemoteLocalModel(path, "local").endpoint()).base_url == "http://127.0.0.1:1/v1"


def test_only_this_user_may_ask(broker_of, build_fake, path):
    broker = broker_of(build_fake(fakes.SERVES))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    broker.stop()
    assert not os.path.exists(path)


def test_a_taken_path_is_refused_and_left_alone(broker_of, build_fake, path):
    broker_of(build_fake(fakes.SERVES))
    second = LocalModelBroker({}, path)
    with pytest.raises(OSError):
        second.start()
    second.stop()
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect(path)
        worker.sendall(b"no question\n")
        assert worker.recv(1) == b""


async def test_a_supervisor_that_hangs_is_not_waited_for_for_ever(path):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(UpstreamUnavailable, match="does not answer"):
            await RemoteLocalModel(path, "local", timeout_s=0.05).endpoint()


@pytest.mark.embedded
async def test_the_real_model_runs_beside_a_blocked_main_thread(broker_of, path):
    """The supervisor of a server's workers blocks its main thread, so the broker has a loop of its own."""
    model = LocalModel(LocalModelSpec(start="at_start"))
    broker = broker_of(model)
    endpoint = await RemoteLocalModel(path, "local").endpoint()
    assert endpoint.key is not None
    pid = model.pid
    assert pid is not None and not fakes.is_gone(pid)
    broker.stop()
    assert fakes.is_gone(pid)
