"""Pages of a server with two workers: who signed in at one is known at the other."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.server.web.browser import ADMIN, SIGN_IN, browsing
from tests.serving import Spawned, spawned, write_files
from tests.waiting import eventually


def workers_of(server: Spawned) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [each for each in children if "spawn_main" in " ".join(each.cmdline())]


@pytest.mark.slow
async def test_a_session_holds_at_every_worker(tmp_path: Path) -> None:
    """One worker at a time is left running, so that it is the one that answers; a form's token holds there too."""
    routing = write_files(tmp_path, "http://127.0.0.1:9")
    with spawned(routing, "--workers", "2", environ={"PROXY_ADMIN_KEY": ADMIN}) as server:
        async with browsing(server.port) as browser:
            assert (await browser.sign_in()).status_code == 303
            token = await browser.token("/dashboard")
        await eventually(lambda: len(workers_of(server)) == 2, timeout_s=30)
        first, second = workers_of(server)
        for answering, other in ((first, second), (second, first)):
            async with browsing(server.port) as later:
                later.client.cookies = browser.client.cookies
                other.suspend()
                try:
                    assert (await later.get()).status_code == 200, answering.pid
                    wrong = await later.send("/dashboard/sign-out", {"token": token[::-1]})
                    assert wrong.status_code == 403
                finally:
                    other.resume()
        async with browsing(server.port) as last:
            last.client.cookies = browser.client.cookies
            assert (await last.send("/dashboard/sign-out", {"token": token})).headers["location"].endswith(SIGN_IN)
        for _, other in ((first, second), (second, first)):  # a copy of the cookie is worth nothing at either
            async with browsing(server.port) as thief:
                thief.client.cookies = browser.client.cookies
                other.suspend()
                try:
                    assert (await thief.get()).status_code == 303
                finally:
                    other.resume()
        assert server.stop() == 0
