"""The client without `await`: the same answers, also where an event loop runs, and from several threads."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy import APISettings, MultiModelAPI, SyncMultiModelAPI
from proxy.client.errors import NotFound, RequestTimeout, ServerFailed
from tests.client.scene import IN_PROCESS, MODES, ROUTING, SERVER
from tests.serving import spawned, write_files
from tests.upstream import Spawned, spawn

QUESTION = "Extract product price from: <b>$49.99</b>"


class Sync:
    def __init__(self, api: SyncMultiModelAPI, upstream: Spawned) -> None:
        self.api = api
        self.upstream = upstream


@pytest.fixture(scope="module", params=[pytest.param(SERVER, marks=pytest.mark.slow), IN_PROCESS])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sync]:
    with spawn() as upstream:
        upstream.set_modes(MODES)
        path = write_files(tmp_path_factory.mktemp("client"), upstream.url, ROUTING)
        if request.param == IN_PROCESS:
            with SyncMultiModelAPI(APISettings.load(path)) as api:
                yield Sync(api, upstream)
            return
        with spawned(path) as server, SyncMultiModelAPI(base_url=server.base_url) as api:
            yield Sync(api, upstream)


def test_every_method_answers(asked: Sync) -> None:
    api = asked.api
    answer = api.generate(QUESTION, model="fake/a")
    assert answer.text == "$49.99"
    assert api.generate_ensemble("Prices", models=["fake/a", "fake/b"]).confidence == 1.0
    assert api.explain(QUESTION, task_type="reasoning").chosen == "fake/b"
    assert api.feedback(answer, success=True).success
    assert api.usage(group_by="model").total["calls"] >= 2
    with pytest.raises(NotFound):
        api.generate(QUESTION, model="nobody/knows")


def test_a_stream_is_a_plain_iterator(asked: Sync) -> None:
    stream = asked.api.generate_stream(QUESTION, model="fake/ok")
    assert "".join(chunk.text for chunk in stream) == stream.answer.text == asked.api.generate(QUESTION, "fake/ok").text
    assert list(stream) == []
    with pytest.raises(ServerFailed):
        list(asked.api.generate_stream(QUESTION, model="fake/cut_fin(k=3)"))


def test_a_stream_that_is_left_ends_at_the_provider(asked: Sync) -> None:
    """By the end of the loop, and by its block."""
    for chunk in asked.api.generate_stream(QUESTION, model="fake/stall_after(k=3)"):
        if "tok2" in chunk.text:
            break
    with asked.api.generate_stream(QUESTION, model="fake/stall_after(k=3)") as stream:
        next(stream)
    wait_until(lambda: asked.upstream.open() == 0)
    assert all(seen.peer_closed_early for seen in asked.upstream.ledger() if seen.model.startswith("stall"))


def wait_until(condition: Callable[[], bool]) -> None:
    """Asks again and again. Raises TimeoutError after 20 s or more."""
    pause = threading.Event()
    for _ in range(4000):
        if condition():
            return
        pause.wait(0.005)
    raise TimeoutError


async def test_it_works_where_a_loop_runs(asked: Sync) -> None:
    """As in a notebook. The loop is stopped meanwhile, as by any call that blocks."""
    assert asked.api.generate(QUESTION, model="fake/a").text == "$49.99"
    assert "".join(chunk.text for chunk in asked.api.generate_stream(QUESTION, model="fake/a")) == "$49.99"


def test_several_threads_may_ask_at_once(asked: Sync) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: asked.api.generate(QUESTION, model="fake/a").text, range(40)))
    assert texts == {"$49.99"}


def test_it_opens_again_after_it_was_closed(asked: Sync) -> None:
    """The first use counts, not the object."""
    asked.api.close()
    asked.api.close()
    assert asked.api.generate(QUESTION, model="fake/a").text == "$49.99"


def test_a_dropped_client_ends_its_thread(tmp_path: Path) -> None:
    with spawn() as upstream:
        path = write_files(tmp_path, upstream.url, ROUTING)
        api = SyncMultiModelAPI(APISettings.load(path))
        api.generate("Hi", model="fake/ok")
        threads = [thread for thread in threading.enumerate() if thread.name == "multi-model-api"]
        del api
        gc.collect()
        for thread in threads[-1:]:
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.slow
def test_one_client_serves_several_loops_one_after_the_other(tmp_path: Path) -> None:
    """Each `asyncio.run` closes what it opened: nothing is left over, and nothing is asked of a closed loop."""
    with spawn() as upstream:
        path = write_files(tmp_path, upstream.url, ROUTING)
        inside = MultiModelAPI(APISettings.load(path))
        with spawned(path) as server:
            outside = MultiModelAPI(base_url=server.base_url)
            for api in (inside, outside, inside, outside):
                assert asyncio.run(api.generate("Hi", model="fake/ok")).finish_reason == "stop"
        gc.collect()


def test_a_time_out_inside_the_process_is_one_too(tmp_path: Path) -> None:
    """And the call at the provider ends."""
    with spawn() as upstream:
        path = write_files(tmp_path, upstream.url, ROUTING)
        with SyncMultiModelAPI(APISettings.load(path), timeout_s=0.2) as api:
            with pytest.raises(RequestTimeout, match=r"0\.2 s \(timeout_s\)"):
                api.generate("Hi", model="fake/stall_after(k=-1)")
            wait_until(lambda: upstream.open() == 0)
        assert len(upstream.ledger()) <= 1  # it is not asked again


@pytest.mark.slow
def test_an_interrupt_ends_the_call(tmp_path: Path) -> None:
    """Ctrl-C in a terminal, or the stop button of a notebook."""
    program = """
import os, signal, sys, threading
from proxy import APISettings, SyncMultiModelAPI
with SyncMultiModelAPI(APISettings.load(sys.argv[1])) as api:
    print("asking", flush=True)
    threading.Thread(target=lambda: (sys.stdin.readline(), os.kill(os.getpid(), signal.SIGINT))).start()
    try:
        api.generate("Hi", model="fake/stall_after(k=-1)-delay_whole(s=0)")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(api.generate("Hi", model="fake/ok").finish_reason)
"""
    with spawn() as upstream:
        path = write_files(
            tmp_path, upstream.url, ROUTING, timeouts="{connect: 60, first_token: 60, idle: 60, total: 60}"
        )
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", program, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            wait_until(lambda: upstream.open() == 1)
            output, _ = process.communicate("now\n", timeout=60)
        wait_until(lambda: upstream.open() == 0)
    assert output.split() == ["asking", "interrupted", "stop"]
