"""One child, started once, awaited by many, started again when it dies, and gone when its owner is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from structlog.testing import CapturingLogger

from proxy.schema.errors import UpstreamUnavailable
from proxy.schema.records import Endpoint, LocalModelSpec
from proxy.upstream.local_model import Backoff, LocalModel
from tests.upstream.local_model import fakes
from tests.waiting import eventually

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).parents[3]


async def ask(endpoint: Endpoint, body: dict[str, Any], key: str | None = None) -> tuple[int, dict[str, Any]]:
    """One chat completion; `key` None sends the endpoint's own."""
    assert endpoint.key is not None
    headers = {"authorization": f"Bearer {key if key is not None else endpoint.key.reveal()}"}
    url = f"{endpoint.base_url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        return response.status, await response.json()


def saying(text: str, max_tokens: int = 8) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": max_tokens}


async def test_the_model_answers_whoever_has_its_key(real_model):
    """Also while signals meant for the whole process group arrive; a prompt that is too long is refused as such."""
    endpoint = await real_model.endpoint()
    os.kill(real_model.pid, signal.SIGINT)
    os.kill(real_model.pid, signal.SIGTERM)
    status, answer = await ask(endpoint, saying("Say hi."))
    assert (status, answer["model"], answer["object"]) == (200, "smollm2-135m", "chat.completion")
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 8
    assert (await ask(endpoint, saying("Say hi."), key="wrong"))[0] == 401
    assert (await ask(endpoint, saying("Say hi."), key=""))[0] == 401
    status, answer = await ask(endpoint, saying("hi " * 3000))
    assert (status, answer["error"]["type"]) == (400, "exceed_context_size_error")
    assert answer["error"]["n_ctx"] == 2048


async def test_every_caller_has_the_whole_context():
    """Four at once, each with more than its share of one context; the configured context is the limit."""
    model = LocalModel(LocalModelSpec(context=256))
    endpoint = await model.endpoint()
    answers = await asyncio.gather(*(ask(endpoint, saying(f"{n} " + "hi " * 150, max_tokens=2)) for n in range(4)))
    assert [status for status, _ in answers] == [200] * 4
    assert all(answer["usage"]["prompt_tokens"] > 150 for _, answer in answers)
    assert (await ask(endpoint, saying("hi " * 300)))[1]["error"]["n_ctx"] == 256
    await model.close()


async def test_the_child_gets_no_secret_by_argument_or_environment(real_model):
    """Other users of a machine may read arguments, and providers' keys are no business of the child."""
    endpoint = await real_model.endpoint()
    child = psutil.Process(real_model.pid)
    environment = child.environ()
    assert endpoint.key.reveal() not in repr((child.cmdline(), environment))
    assert "PYTEST_CURRENT_TEST" in os.environ
    assert "PYTEST_CURRENT_TEST" not in environment


async def test_a_killed_child_is_followed_by_another(real_model):
    first = await real_model.endpoint()
    killed = real_model.pid
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: real_model.pid != killed)
    second = await real_model.endpoint()
    assert (second.base_url, second.key) != (first.base_url, first.key)
    assert (await ask(second, saying("Say hi.")))[0] == 200


async def test_a_broken_file_is_named_as_the_cause(tmp_path):
    """The first caller hears it at once, not after the time-out."""
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, or so it says")
    model = LocalModel(LocalModelSpec(str(tmp_path / "broken.gguf")), ready_timeout_s=60)
    with pytest.raises(UpstreamUnavailable) as caught:
        await asyncio.wait_for(model.endpoint(), 30)
    assert "llama.cpp cannot load the file" in caught.value.message
    assert str(tmp_path) not in caught.value.message
    await model.close()


async def test_callers_at_once_share_one_child(fake_model, tmp_path):
    model = fake_model(fakes.SERVES)
    endpoints = await asyncio.gather(*(model.endpoint() for _ in range(20)))
    assert {endpoint.base_url for endpoint in endpoints} == {"http://127.0.0.1:1/v1"}
    assert len({endpoint.key.reveal() for endpoint in endpoints}) == 1
    assert fakes.pids(tmp_path) == [model.pid]


async def test_a_cancelled_caller_does_not_stop_the_start(fake_model, tmp_path):
    """The first caller, who caused the start, goes; the second gets the same child."""
    model = fake_model(fakes.SERVES_WHEN_TOLD)
    first = asyncio.create_task(model.endpoint())
    second = asyncio.create_task(model.endpoint())
    await eventually(lambda: len(fakes.pids(tmp_path)) == 1)
    first.cancel()
    await asyncio.wait([first])
    (tmp_path / "go").touch()
    assert (await second).base_url == "http://127.0.0.1:1/v1"
    assert first.cancelled()
    assert fakes.pids(tmp_path) == [model.pid]


async def test_start_loads_before_anyone_asks(fake_model, tmp_path):
    model = fake_model(fakes.SERVES)
    model.start()
    model.start()
    await eventually(lambda: len(fakes.pids(tmp_path)) == 1)
    await model.endpoint()
    assert fakes.pids(tmp_path) == [model.pid]


async def test_a_caller_waits_for_as_long_as_it_is_told_to(fake_model, tmp_path):
    """Then it is told to come back, and the load goes on."""
    model = fake_model(fakes.SERVES_WHEN_TOLD, ready_timeout_s=0.05)
    with pytest.raises(UpstreamUnavailable) as caught:
        await model.endpoint()
    assert caught.value.message == "The embedded model is still loading. Try again in a moment."
    assert (caught.value.status, caught.value.retryable, caught.value.headers) == (503, False, {"retry-after": "2"})
    await eventually(lambda: len(fakes.pids(tmp_path)) == 1)
    (tmp_path / "go").touch()
    await eventually(lambda: model.pid is not None)


async def test_a_caller_waits_through_crashes(fake_model, tmp_path):
    model = fake_model(fakes.CRASHES_TWICE)
    assert (await model.endpoint()).base_url == "http://127.0.0.1:3/v1"
    assert len(fakes.pids(tmp_path)) == 3


async def test_a_child_that_keeps_crashing_is_said_to(fake_model):
    model = fake_model(fakes.CRASHES, ready_timeout_s=0.5)
    with pytest.raises(UpstreamUnavailable, match=r"stopped unexpectedly \d+ times in a row") as caught:
        await model.endpoint()
    assert not caught.value.retryable
    assert caught.value.retry_after_s == pytest.approx(2, abs=0.1)


async def test_nobody_waits_for_a_start_that_comes_after_their_time(fake_model):
    """The next start is in 30 s, a caller would wait 10 s: it hears so at once, with the time to come back."""
    model = fake_model(fakes.CRASHES, backoff=Backoff(first_s=30))
    with pytest.raises(UpstreamUnavailable, match="stopped unexpectedly 2 times in a row") as caught:
        await asyncio.wait_for(model.endpoint(), 5)
    assert caught.value.retry_after_s == pytest.approx(30, abs=2)
    assert int(caught.value.headers["retry-after"]) in range(28, 31)


async def test_restarts_back_off_to_a_cap(fake_model):
    """At once, then doubling; the log says when."""
    log: Any = CapturingLogger()
    model = fake_model(fakes.REFUSES, log=log, backoff=Backoff(first_s=0.01, cap_s=0.03))
    with pytest.raises(UpstreamUnavailable, match=r"^The embedded model cannot be served: it is broken\.$"):
        await model.endpoint()
    await eventually(lambda: len(log.calls) >= 5)
    assert [call.kwargs["restart_in_s"] for call in log.calls[:5]] == [0.0, 0.01, 0.02, 0.03, 0.03]
    assert {call.args for call in log.calls} == {("local_model_stopped",)}


def test_the_default_back_off_doubles_to_thirty_seconds():
    delays = [Backoff().delay_s(failures) for failures in (1, 2, 3, 4, 8, 9, 10_000)]
    assert delays == [0.0, 0.5, 1.0, 2.0, 30.0, 30.0, 30.0]


async def test_a_child_that_was_healthy_is_started_again_at_once(fake_model):
    log: Any = CapturingLogger()
    model = fake_model(fakes.SERVES, log=log, backoff=Backoff(first_s=60, healthy_s=0))
    for life in range(1, 4):
        assert (await model.endpoint()).base_url == f"http://127.0.0.1:{life}/v1"
        killed = model.pid
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda killed=killed: model.pid != killed)  # type: ignore[misc]
    stops = [call.kwargs["restart_in_s"] for call in log.calls if call.args == ("local_model_stopped",)]
    assert stops == [0.0, 0.0, 0.0]


async def test_a_model_that_loads_in_the_end_is_served(fake_model):
    """A file replaced in the meantime needs no restart of the server."""
    model = fake_model(fakes.REFUSES_ONCE)
    with pytest.raises(UpstreamUnavailable, match="it is broken"):
        await model.endpoint()
    await eventually(lambda: model.pid is not None)
    async with asyncio.timeout(20):
        while True:
            try:
                assert (await model.endpoint()).base_url == "http://127.0.0.1:2/v1"
                break
            except UpstreamUnavailable:
                await asyncio.sleep(0.01)


async def test_what_is_missing_is_said_and_not_worth_a_retry(fake_model, tmp_path):
    model = fake_model(fakes.SERVES, find_spec=fakes.installation())
    model.start()
    with pytest.raises(UpstreamUnavailable, match="pip install") as caught:
        await model.endpoint()
    assert (caught.value.message, caught.value.retryable) == (model.missing(), False)
    assert fakes.pids(tmp_path) == []


async def test_a_command_that_cannot_run_is_an_error_of_the_model(tmp_path):
    (tmp_path / "tiny.gguf").touch()
    found = fakes.installation("xllamacpp")
    model = LocalModel(LocalModelSpec(str(tmp_path / "tiny.gguf")), command=[str(tmp_path / "no")], find_spec=found)
    with pytest.raises(UpstreamUnavailable, match="its process cannot be started"):
        await model.endpoint()
    await model.close()


async def test_close_leaves_no_process_and_may_be_repeated(fake_model, tmp_path):
    model = fake_model(fakes.SERVES)
    await model.endpoint()
    await asyncio.gather(model.close(), model.close())
    await model.close()
    assert [fakes.is_gone(pid) for pid in fakes.pids(tmp_path)] == [True]
    with pytest.raises(UpstreamUnavailable, match="has been shut down") as caught:
        await model.endpoint()
    assert not caught.value.retryable
    assert len(fakes.pids(tmp_path)) == 1


async def test_close_while_loading_ends_the_load_and_its_waiters(fake_model, tmp_path):
    model = fake_model(fakes.SERVES_WHEN_TOLD)
    waiter = asyncio.create_task(model.endpoint())
    await eventually(lambda: len(fakes.pids(tmp_path)) == 1)
    await model.close()
    with pytest.raises(UpstreamUnavailable, match="has been shut down"):
        await waiter
    assert fakes.is_gone(fakes.pids(tmp_path)[0])


async def test_a_cancelled_close_still_ends_the_child(fake_model, tmp_path):
    model = fake_model(fakes.SERVES)
    await model.endpoint()
    closing = asyncio.create_task(model.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    [child] = fakes.pids(tmp_path)
    await eventually(lambda: fakes.is_gone(child) and model.pid is None)


async def test_close_before_a_start_does_nothing(fake_model, tmp_path):
    model = fake_model(fakes.SERVES)
    await model.close()
    model.start()
    assert fakes.pids(tmp_path) == []


OWNER = """
import asyncio, json, subprocess, sys
from proxy.upstream.local_model import LocalModel
from proxy.schema.records import LocalModelSpec

def bystander():
    return subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL).pid

async def main():
    model = LocalModel(LocalModelSpec())
    bystanders = [bystander()]
    endpoint = await model.endpoint()
    bystanders.append(bystander())
    print(json.dumps({"child": model.pid, "bystanders": bystanders}), flush=True)
    await asyncio.sleep(60)

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def start_owner(loop: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", OWNER, loop], cwd=ROOT, stdout=subprocess.PIPE)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_child_is_gone_when_its_owner_was_killed(loop):
    """Also while other children of that owner live on: none of them holds the pipe open."""
    with start_owner(loop) as owner:
        assert owner.stdout is not None
        told = json.loads(next(line for line in owner.stdout if line.startswith(b"{")))
        try:
            assert not fakes.is_gone(told["child"])
            owner.kill()
            await eventually(lambda: fakes.is_gone(told["child"]), timeout_s=2)
            assert [fakes.is_gone(pid) for pid in told["bystanders"]] == [False, False]
        finally:
            for pid in told["bystanders"]:
                os.kill(pid, signal.SIGKILL)
