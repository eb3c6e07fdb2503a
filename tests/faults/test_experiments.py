"""Experiments across workers, and across the death of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.prompts.assignment import pick, position, unit_hash
from tests.serving import spawned, write_files
from tests.upstream import spawn

pytestmark = pytest.mark.slow
SHARES = {"a": 0.5, "b": 0.5}


def asked(base_url: str, user: str) -> Any:
    """A call over a connection of its own, so that any worker may take it; its row."""
    body = {
        "model": "fake/ok",
        "messages": [{"role": "user", "content": "hi"}],
        "user": user,
        "routing": {"experiment": "e"},
    }
    with httpx.Client(base_url=base_url, trust_env=False, timeout=60) as client:
        answer = client.post("/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        rated = client.post("/feedback", json={"id": answer.json()["id"], "success": True})
        assert rated.status_code == 200, rated.text
        return client.get(f"/requests/{answer.headers['x-request-id']}").json()


def test_workers_agree_and_a_killed_server_forgets_nothing(tmp_path: Path) -> None:
    """Started on one worker, an experiment runs on all; after kill -9 the results are what they were."""
    with spawn() as upstream:
        files = write_files(tmp_path, upstream.url)
        with spawned(files, "--workers", "2") as server:
            definition = {"id": "e", "variants": [{"name": "a"}, {"name": "b"}]}
            assert httpx.post(f"{server.base_url}/experiments", json=definition, timeout=30).status_code == 201
            assert httpx.post(f"{server.base_url}/experiments/e/start", timeout=30).status_code == 200
            for number in range(40):
                user = f"user {number % 20}"
                wanted = pick(SHARES, position(unit_hash("e", user)))
                assert asked(server.base_url, user)["variant"] == wanted
            before = httpx.get(f"{server.base_url}/experiments/e/results", timeout=30).json()
            server.kill()
        assert sum(each["calls"] for each in before["variants"]) == 40
        assert sum(each["units"] for each in before["variants"]) == 20
        assert before["sample_ratio"]["mismatch"] is False
        with spawned(files) as server:
            assert httpx.get(f"{server.base_url}/experiments/e/results", timeout=30).json() == before
            assert asked(server.base_url, "user 3")["variant"] == pick(SHARES, position(unit_hash("e", "user 3")))
