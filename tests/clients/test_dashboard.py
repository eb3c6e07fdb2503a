"""The dashboard in Chromium: no error in its console, no other host asked, at both widths and in both themes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.filled import ADMIN, addresses, fill_crowded, fill_usual
from tests.upstream import spawn

HOME = os.environ.get("CLIENTS_HOME")
PYTHON = Path(HOME or "nowhere") / "browser" / "bin" / "python"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHECKS = {"usual": 250, "empty": 100, "crowded": 150}


@pytest.mark.clients
@pytest.mark.skipif(not PYTHON.exists(), reason="the environment `browser`: run scripts/test-clients")
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("state", CHECKS)
async def test_the_pages_work_in_a_browser(tmp_path: Path, state: str) -> None:
    """The policy of the pages is the browser's own judge: a violation is an error in its console. Without any call, and
    with many long and hostile names, too.
    """
    with spawn() as upstream, addresses(upstream.url, tmp_path, (state,)) as servers:
        if state == "usual":
            await fill_usual(servers[state])
        elif state == "crowded":
            await fill_crowded(servers[state], tmp_path / state / "usage.db")
        program = Path(__file__).with_name("look_at_pages.py")
        command = [str(PYTHON), str(program), str(CHROMIUM), servers[state], ADMIN, state]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=420, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["checks"] > CHECKS[state]
