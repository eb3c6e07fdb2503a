"""The dashboard in Chromium: no error in its console, no other host asked, at both widths and in both themes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.api.raw import chat, post
from tests.serving import ROUTING, spawned, write_files
from tests.upstream import spawn

HOME = os.environ.get("CLIENTS_HOME")
PYTHON = Path(HOME or "nowhere") / "browser" / "bin" / "python"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ADMIN = "the-admin-key-of-this-walk"
SETTINGS = ROUTING + (
    'usage: {{baseline: "fake/ok"}}\nbudget: {{daily_usd: 1}}\n'
    "ensembles: {{pair: {{strategy: voting, members: [fake/ok, fake/ok]}}}}\n"
)


@pytest.mark.clients
@pytest.mark.skipif(not PYTHON.exists(), reason="the environment `browser`: run scripts/test-clients")
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_the_pages_work_in_a_browser(tmp_path: Path) -> None:
    """The policy of the pages is the browser's own judge: a violation is an error in its console."""
    with (
        spawn() as upstream,
        spawned(write_files(tmp_path, upstream.url, SETTINGS), environ={"PROXY_ADMIN_KEY": ADMIN}) as server,
    ):
        for model in ("fake/ok", "fake/ok", "fake/e400", "ensemble:pair"):
            await post(server.port, chat(model), authorization=f"Bearer {ADMIN}", x_session_id="<b>s</b>")
        program = Path(__file__).with_name("look_at_pages.py")
        command = [str(PYTHON), str(program), str(CHROMIUM), f"http://127.0.0.1:{server.port}", ADMIN]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=420, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["checks"] > 80
