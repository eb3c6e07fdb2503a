"""A proxy without a server prints nothing, leaves nothing open, and has one embedded model in all."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from proxy import APISettings, MultiModelAPI
from proxy.client.errors import MultiModelError, SettingsError
from proxy.client.in_process import InProcessTransport
from tests.client.scene import ROUTING
from tests.serving import write_files
from tests.upstream import FakeUpstream, spawn

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["await api.close()", "pass"], ids=["closed", "left open"])
def test_a_program_prints_only_what_it_prints(tmp_path: Path, ending: str) -> None:
    """In development mode, with every warning an error: calls, failures and the end, closed or not."""
    program = f"""
import asyncio, sys
from proxy import APISettings, MultiModelAPI, SyncMultiModelAPI
settings = APISettings.load(sys.argv[1])
async def main():
    api = MultiModelAPI(settings)
    print((await api.generate("Hi", model="fake/ok")).finish_reason)
    try:
        await api.generate("Hi", model="fake/e500")
    except Exception as error:
        print(error.code)
    async for chunk in api.generate_stream("Hi", model="fake/stall_after(k=3)"):
        if chunk.text:
            break
    {ending}
asyncio.run(main())
api = SyncMultiModelAPI(settings)
print(api.generate("Hi", model="fake/ok").finish_reason)
{ending.removeprefix("await ")}
"""
    with spawn() as upstream:
        path = write_files(tmp_path, upstream.url, ROUTING)
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", program, str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    slow = [line for line in done.stderr.splitlines() if not line.startswith("Executing <")]  # a busy machine
    assert (done.stdout.split(), slow) == (["stop", "upstream_error", "stop"], [])
    assert done.returncode == 0


async def test_the_logs_of_the_program_stay_as_they_are(tmp_path: Path) -> None:
    """Warnings go to the logger `proxy`, if somebody listens there."""
    before = structlog.get_config(), [*logging.getLogger().handlers]
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    async with FakeUpstream() as upstream:
        settings = APISettings.load(write_files(tmp_path, upstream.url, ROUTING))
        logging.getLogger("proxy").addHandler(handler)
        try:
            async with MultiModelAPI(settings) as api:
                for _ in range(6):
                    with pytest.raises(MultiModelError):
                        await api.generate("Hi", model="fake/cut_rst(k=-1)")
        finally:
            logging.getLogger("proxy").removeHandler(handler)
    assert (structlog.get_config(), logging.getLogger().handlers) == before
    assert any(line.startswith("breaker ") and "model='fake/cut_rst(k=-1)'" in line for line in heard)


async def test_a_database_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """With the argument that names another one."""
    (tmp_path / "file").write_text("")
    settings = APISettings(sections={"storage": {"url": f"sqlite:///{tmp_path}/file/usage.db"}})
    api = MultiModelAPI(settings)
    with pytest.raises(MultiModelError, match="sections="):
        await api.generate("Hi")
    with pytest.raises(MultiModelError, match="sections="):
        await api.generate("Hi")


async def test_settings_that_cannot_be_used_fail_before_the_first_call(tmp_path: Path) -> None:
    """Each mistake by its name; the settings may be corrected afterwards."""
    settings = APISettings(router={"strategy": "best"}, sections={"storage": {"url": f"sqlite:///{tmp_path}/u.db"}})
    api = MultiModelAPI(settings)
    with pytest.raises(SettingsError, match=r"router\.strategy: "):
        await api.explain("Hi")
    settings.router = {}
    assert (await api.explain("Hi")).requested == "auto"
    await api.close()


async def test_calls_that_run_end_with_the_client(tmp_path: Path) -> None:
    """They are metered, and nobody waits for them."""
    async with FakeUpstream() as upstream:
        api = MultiModelAPI(APISettings.load(write_files(tmp_path, upstream.url, ROUTING)))
        call = asyncio.create_task(api.generate("Hi", model="fake/stall_after(k=-1)"))
        await upstream.until(lambda: upstream.open == 1)
        await api.close()
        with pytest.raises(MultiModelError):
            await call
        await upstream.until(lambda: upstream.open == 0)
        async with api:
            (group,) = (await api.usage(group_by="key")).groups
    assert (group["key"], group["calls"], group["errors"]) == ("python", 1, 1)


# --- the transport ----------------------------------------------------------------------------------------------------


async def ask(app, **options) -> httpx.Response:
    transport = InProcessTransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://inside", **options) as client:
        return await client.post("/a%20b?x=1", content=b"body", headers={"X-One": "1"})


async def test_the_application_sees_the_request_as_it_is() -> None:
    seen: dict[str, Any] = {}

    async def app(scope, receive, send):
        seen.update(scope, body=(await receive())["body"])
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-two", b"2")]})
        await send({"type": "http.response.body", "body": b"an", "more_body": True})
        await send({"type": "http.response.body", "body": b"swer"})

    answer = await ask(app)
    assert (answer.status_code, answer.headers["x-two"], answer.content) == (201, "2", b"answer")
    assert (seen["method"], seen["path"], seen["raw_path"], seen["query_string"]) == ("POST", "/a b", b"/a%20b", b"x=1")
    assert (seen["body"], dict(seen["headers"])[b"x-one"]) == (b"body", b"1")


async def test_an_answer_is_read_as_it_comes_and_held_up_by_its_reader() -> None:
    """At most as many pieces wait as fit."""
    sent = 0

    async def app(scope, receive, send):
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while sent < 1000:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            sent += 1
            await asyncio.sleep(0)
        await send({"type": "http.response.body"})

    transport = InProcessTransport(app)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://inside") as client,
        client.stream("GET", "/") as answer,
    ):
        pieces: Any = answer.aiter_raw()
        assert await anext(pieces) == b"x"
        for _ in range(200):
            await asyncio.sleep(0)
        assert sent < 40
        await pieces.aclose()


@pytest.mark.parametrize("when", ["before", "after the start", "in the body"])
async def test_an_application_that_fails_is_a_broken_connection(when: str) -> None:
    """Not a hanging call."""

    async def app(scope, receive, send):
        if when != "before":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if when == "in the body":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("a bug")

    with pytest.raises(httpx.RemoteProtocolError):
        await ask(app)


async def test_the_application_hears_that_its_client_has_left() -> None:
    """The client that gives up does not wait for it."""
    heard = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        heard.set()

    with pytest.raises(httpx.ReadTimeout):
        await ask(app, timeout=0.05)
    await asyncio.wait_for(heard.wait(), 20)
