"""`start: at_start` loads the embedded model before anybody asks for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from tests.serving import serving, spawned, write_files
from tests.waiting import eventually

pytestmark = pytest.mark.embedded

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  local: {{type: embedded, start: START}}
"""


@pytest.mark.parametrize(("start", "state"), [("at_start", "running"), ("on_first_use", "not started")])
async def test_the_model_is_loaded_when_the_file_says(tmp_path: Path, start: str, state: str) -> None:
    """No request is made; its state says whether a child serves."""
    async with serving(write_files(tmp_path, "", ROUTING.replace("START", start))) as server:
        async with asyncio.timeout(30), httpx.AsyncClient() as client:
            while True:
                health = await client.get(server.base_url.replace("/v1", "/health"))
                told = health.json()["providers"]["local"]["state"]
                if told != "starting":
                    break
                await asyncio.sleep(0.05)
        assert told == state


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
async def test_its_start_is_in_the_log(tmp_path: Path, workers: int) -> None:
    """In the log's own form, also where the model belongs to the supervisor of several workers. Nothing follows the
    banner on standard output.
    """
    routing = write_files(tmp_path, "", ROUTING.replace("START", "at_start"))
    log = tmp_path / "server.log"
    with spawned(routing, "--workers", str(workers)) as server:
        await eventually(lambda: "local_model_ready" in log.read_text(), timeout_s=60)
        assert server.stop() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read().strip() == b""
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events.count("local_model_ready") == 1
