"""`start: at_start` loads the embedded model before anybody asks for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.serving import serving, write_files

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
