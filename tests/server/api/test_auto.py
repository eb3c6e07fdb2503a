"""`auto` through the whole product: the model that the rules pick, and the row that says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.api.raw import chat, post
from tests.server.api.rows import row_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models:
  smart: {{use: fake/echo, fallback: [fake/ok]}}
router: {{default_model: fake/ok}}
rules:
  - {{name: blue team, when: {{header: {{X-Team: blue}}}}, use: smart}}
  - {{name: code, when: {{task: code}}, use: [fake/e503, smart]}}
tasks: {{reasoning: smart}}
"""
PRICING = "version: 1\nmodels: {fake/*: {input: 2.00, output: 10.00, max_output: 4096}}\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def routed(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    async with serving(write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


SMALL_TALK = [{"role": "user", "content": "Hi, how are you?"}]


@pytest.mark.parametrize(
    ("model", "fields", "headers", "answered", "task"),
    [
        ("auto", {"messages": SMALL_TALK}, {}, "fake/ok", "chat"),
        ("auto", {"routing": {"task": "reasoning"}}, {}, "fake/echo", "reasoning"),
        ("auto", {}, {"x_proxy_task": "reasoning"}, "fake/echo", "reasoning"),
        ("auto", {"metadata": {"routing.task": "reasoning"}}, {}, "fake/echo", "reasoning"),
        ("auto:reasoning", {}, {}, "fake/echo", "reasoning"),
        ("auto:code", {}, {}, "fake/echo", "code"),  # the first of the rule fails
        ("auto", {"messages": SMALL_TALK}, {"x_team": "blue"}, "fake/echo", "chat"),
        ("auto:reasoning", {"routing": {"preferred_model": "fake/ok"}}, {}, "fake/ok", "reasoning"),
        ("fake/ok", {"routing": {"task": "reasoning"}}, {}, "fake/ok", "reasoning"),
        ("fake/e503", {"routing": {"fallback": ["smart"]}}, {}, "fake/echo", None),
    ],
)
async def test_the_rules_pick_the_model(
    routed: Server,
    database: Path,
    model: str,
    fields: dict[str, Any],
    headers: dict[str, str],
    answered: str,
    task: Any,
) -> None:
    """By hint, name or header; the answer and the row say which model it was, and the row has the task."""
    answer = await post(routed.port, chat(model, **fields), **headers)
    assert (answer.status, answer.json["model"]) == (200, answered)
    row = await row_of(database, answer)
    assert (row["requested_model"], row["task_type"]) == (model, task)
    assert f"{row['provider']}/{row['model']}" == answered


async def test_no_hint_reaches_the_vendor(routed: Server) -> None:
    """Of all of them."""
    hints = {"task": "reasoning", "priority": "high", "tags": ["a"], "trace": False, "max_cost_usd": 1}
    answer = await post(routed.port, chat("auto", routing=hints, metadata={"routing.budget_mode": "true"}))
    sent = json.loads(answer.json["choices"][0]["message"]["content"])
    assert set(sent) == {"model", "messages"}


async def test_what_the_router_refuses_is_metered_as_rejected(
    routed: Server, database: Path, upstream: FakeUpstream
) -> None:
    """Nothing is sent."""
    for fields, status, code in (
        ({"routing": {"preferred_model": "nowhere"}}, 400, "invalid_value"),
        ({"routing": {"task": "poetry"}}, 400, "invalid_value"),
    ):
        answer = await post(routed.port, chat("auto", **fields))
        assert (answer.status, answer.error()["code"]) == (status, code)
        assert (await row_of(database, answer))["outcome"] == "rejected"
    assert upstream.ledger == []
