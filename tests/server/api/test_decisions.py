"""What `auto` decides is told before the call, with the answer, in its headers, after the fact, and for a change."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.server.api.raw import HELLO, get, post
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: fake/ok, fallback: ["fake/ok(tag=spare)"]}}
rules:
  - name: finance
    when: {{header: {{x-team: finance}}}}
    use: "fake/ok(tag=finance)"
  - name: urgent work
    when: {{priority: high, not: {{task: chat}}}}
    use: {{strategy: cost_optimized, among: ["fake/ok(tag=dear)", "fake/ok(tag=cheap)"]}}
  - name: invoices
    when: {{text_matches: "*invoice*"}}
    use: "fake/ok(tag=invoice)"
"""
PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, max_output: 100}
  fake/ok(tag=dear): {input: 4.00, output: 20.00, max_output: 100}
  fake/ok(tag=cheap): {input: 1.00, output: 5.00, max_output: 100}
"""
CANARY = "canary-of-a-prompt"
ASKED: list[dict[str, Any]] = [
    {"messages": HELLO},
    {"messages": [{"role": "user", "content": f"{CANARY}: this invoice"}]},
    {"messages": HELLO, "routing": {"task": "code", "priority": "high"}},
    {"messages": HELLO, "routing": {"task": "chat", "priority": "high"}},
    {"messages": HELLO, "routing": {"preferred_model": "fake/ok(tag=mine)"}},
    {"messages": HELLO, "routing": {"strategy": "cost_optimized", "no_fallback": True}},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deciding(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder: Path = tmp_path_factory.mktemp("decisions")
    async with serving(write_files(folder, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


async def explain(server: Server, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    options: Any = {"headers": headers}
    answer = await server.client.post("/route/explain", body=body, cast_to=httpx.Response, options=options)
    return dict(answer.json())


async def ask(server: Server, headers: dict[str, str], **body: Any) -> Any:
    hints = {**body.pop("routing", {}), "trace": True}
    return await server.client.chat.completions.with_raw_response.create(
        extra_headers=headers, extra_body={"routing": hints}, **body
    )


@pytest.mark.parametrize("headers", [{}, {"x-team": "finance"}, {"x-team": "law"}])
@pytest.mark.parametrize("fields", ASKED)
@pytest.mark.parametrize("model", ["auto", "auto:code", "auto:cost"])
async def test_one_decision_is_told_everywhere(
    deciding: Server, model: str, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    """The same model, rule, strategy and candidates, before, with and after the call."""
    told = await explain(deciding, headers, model=model, **fields)
    raw = await ask(deciding, headers, model=model, **fields)
    routing = raw.parse().routing
    assert raw.headers["x-proxy-model"] == told["chosen"]
    assert (routing["step"], routing["rule"], routing["strategy"]) == (told["step"], told["rule"], told["strategy"])
    assert (raw.headers.get("x-proxy-rule"), raw.headers.get("x-proxy-strategy")) == (told["rule"], told["strategy"])
    assert routing["candidates"] == told["candidates"]
    later = (await get(deciding.port, "/v1/requests/" + raw.headers["x-request-id"])).json
    decision = later["decision"]
    assert (decision["step"], decision["rule"], decision["strategy"]) == (told["step"], told["rule"], told["strategy"])
    assert (decision["candidates"], decision["not_allowed"]) == (told["candidates"], 0)
    assert (decision["snapshot"], later["task_type"]) == (told["snapshot"], told["facts"]["task"])
    assert CANARY not in json.dumps(later)


async def test_every_rule_is_told_with_the_reason_why_it_failed(deciding: Server) -> None:
    """Up to the one that matches."""
    told = await explain(deciding, {"x-team": "law"}, model="auto", **ASKED[1])
    assert [(rule["name"], rule["matched"]) for rule in told["rules"]] == [
        ("finance", False),
        ("urgent work", False),
        ("invoices", True),
    ]
    assert "finance" in told["rules"][0]["why"] and "priority" in told["rules"][1]["why"]
    assert CANARY not in json.dumps(told["facts"])


async def test_a_stream_has_the_headers_of_its_decision(deciding: Server) -> None:
    """They are known at the first byte."""
    body = json.dumps({"model": "auto", "messages": HELLO, "stream": True}).encode()
    answer = await post(deciding.port, body, x_team="finance")
    assert answer.headers("x-proxy-rule") == ["finance"]
    assert answer.events[-1] == "[DONE]"


async def test_a_change_of_the_rules_is_tried_on_the_calls(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Without a single prompt: the rows tell which rules matched."""
    async with serving(write_files(tmp_path, upstream.url, ROUTING, PRICING)) as server:
        for fields in ASKED[:4]:
            await ask(server, {"x-team": "finance"} if fields is ASKED[0] else {}, model="auto", **fields)
        written = (tmp_path / "routing_rules.yaml").read_text()
        changed = written.replace("priority: high", "priority: low").replace("tag=invoice", "tag=dear")
        same, other = [
            (await post(server.port, json.dumps({"routing_rules": text}).encode(), "/admin/config/plan")).json
            for text in (written, changed)
        ]
    assert (same["calls"], same["changed"], same["not_replayed"], same["notes"]) == (4, 0, [], [])
    assert {each["name"]: each["before"] for each in same["rules"]} == {"finance": 1, "urgent work": 1, "invoices": 1}
    moved = {(each["rule_before"], each["before"], each["after"]) for each in other["changes"]}
    assert moved == {
        ("urgent work", "fake/ok(tag=cheap)", "fake/ok"),
        ("invoices", "fake/ok(tag=invoice)", "fake/ok(tag=dear)"),
    }
    assert other["rules_no_longer_matching"] == ["urgent work"]
    assert other["cost_usd_per_day"]["difference"] > 0
