"""Every scope of a budget with every window: 42 limits at once, of which each in turn is the tight one."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from proxy.metering.windows import WINDOWS
from tests.serving import ROUTING, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
PRICING = "version: 1\nmodels:\n  fake/*: {input: 0, output: 10.00, max_output: 4096}\n"
KEY = "mmp-callers-01234567890123456789"
CALL: dict[str, Any] = {
    "model": "fake/ok",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 10,
    "extra_headers": {"x-session-id": "night"},
    "extra_body": {"routing": {"tags": ["batch"]}},
}
ANSWER_NANO = 10 * 10_000  # ten tokens at 10 USD per million
ROOM, TIGHT = "1", "0.0001"  # USD; the tight one has room for one answer
# Where a scope's limits stand in `budget:`, and how a refusal calls it.
SCOPES = {
    "": ("{limits}", ""),
    "key": ("per_key: {default: {limits}}", "key default "),
    "provider": ("per_provider: {fake: {limits}}", "provider fake "),
    "model": ("per_model: {fake/ok: {limits}}", "model fake/ok "),
    "tag": ("per_tag: {batch: {limits}}", "tag batch "),
    "session": ("per_session: {limits}", "session default/night "),
}


def budget_with(scope: str, window: str) -> str:
    """The section `budget` with all 42 limits: ample ones, and a tight one for this window of this scope."""
    parts = ["when_spent: reject"]
    for each, (place, _) in SCOPES.items():
        limits = ", ".join(f"{name}_usd: {TIGHT if (each, name) == (scope, window) else ROOM}" for name in WINDOWS)
        parts.append(place.replace("{limits}", limits if each == "" else "{" + limits + "}"))
    return "budget: {" + ", ".join(parts) + "}\n"


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("scope", SCOPES)
async def test_each_of_42_limits_refuses_alone(
    tmp_path: Path, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, scope: str, window: str
) -> None:
    """The refusal names it, and uses nothing of the other 41."""
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)  # else a minute may end between the two calls
    routing = ROUTING + budget_with(scope, window).replace("{", "{{").replace("}", "}}")
    async with serving(write_files(tmp_path, upstream.url, routing, PRICING), {"PROXY_API_KEY": KEY}) as server:
        client = server.client.with_options(api_key=KEY)
        await client.chat.completions.create(**CALL)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**CALL)
    assert caught.value.response.json()["error"]["metadata"]["budget"] == SCOPES[scope][1] + window
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        booked = db.execute("SELECT budget, spent_nano, reserved_nano FROM spending").fetchall()
    names = sorted(prefix + name for _, prefix in SCOPES.values() for name in WINDOWS)
    assert sorted(booked) == [(name, ANSWER_NANO, 0) for name in names]
    assert len(upstream.ledger) == 1
