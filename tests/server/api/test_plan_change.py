"""`POST /admin/config/plan`: what another configuration would change for the calls of the past."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.api.raw import HELLO, Answer, post
from tests.server.api.test_keys import add
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLAN, KEY, ADMIN = "/admin/config/plan", "the-key-of-the-callers", "the-admin-key-of-these-tests"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models:
  smart: fake/ok
  other: fake/ok(tag=b)
router: {{default_model: smart}}
"""
PRICING = """
version: 1
models:
  fake/ok: {input: 2.00, output: 10.00, max_output: 100, supports: [images, tools]}
  fake/ok(tag=b): {input: 1.00, output: 5.00, max_output: 100, supports: [tools]}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """After three calls."""
    folder: Path = tmp_path_factory.mktemp("plan")
    files = write_files(folder, upstream_of_module.url, ROUTING, PRICING)
    async with serving(files, {"PROXY_API_KEY": KEY, "PROXY_ADMIN_KEY": ADMIN}) as running:
        client = running.client.with_options(api_key=KEY)
        for model in ("smart", "smart", "other"):
            await client.chat.completions.create(model=model, messages=HELLO)
        yield running


@pytest.fixture
def written(used: Server, upstream_of_module: FakeUpstream) -> str:
    """The running routing_rules.yaml."""
    return ROUTING.format(db="unused.db", upstream=upstream_of_module.url, timeouts="{total: 5}")


async def plan(server: Server, key: str = ADMIN, **body: Any) -> Answer:
    return await post(server.port, json.dumps(body).encode(), PLAN, x_api_key=key)


async def test_another_model_behind_a_name(used: Server, written: str) -> None:
    """Which calls move, what it costs, and what the model cannot do any more."""
    told = (await plan(used, routing_rules=written.replace("smart: fake/ok", "smart: fake/ok(tag=b)"))).json
    assert (told["calls"], told["changed"], told["not_replayed"]) == (3, 2, [])
    (change,) = told["changes"]
    assert (change["requested"], change["calls"]) == ("smart", 2)
    assert (change["before"], change["after"]) == ("fake/ok", "fake/ok(tag=b)")
    assert change["capabilities_lost"] == ["images"]
    cost = told["cost_usd_per_day"]
    assert cost["difference"] == pytest.approx(cost["after"] - cost["before"]) and cost["difference"] < 0
    assert told["from"] != told["to"]


async def test_another_price(used: Server, written: str) -> None:
    """No call moves, and the day costs more."""
    told = (await plan(used, routing_rules=written, pricing=PRICING.replace("input: 2.00", "input: 4.00"))).json
    assert (told["changed"], told["changes"]) == (0, [])
    assert told["cost_usd_per_day"]["difference"] > 0


async def test_a_name_that_disappears_refuses_its_calls(used: Server, written: str) -> None:
    """With the error that its callers would see."""
    told = (await plan(used, routing_rules=written.replace("  other: fake/ok(tag=b)\n", ""), calls=1)).json
    assert (told["calls"], told["changes"][0]["after"]) == (1, None)
    assert told["changes"][0]["refused"].startswith("404 model_not_found")


async def test_files_that_do_not_load_are_refused_with_every_line(used: Server, written: str) -> None:
    """As `proxy check` prints them."""
    answer = await plan(used, routing_rules=written.replace("default_model: smart", "default_model: smrt"))
    error = answer.error()
    assert (answer.status, error["param"]) == (400, "routing_rules")
    assert "routing_rules.yaml:" in error["message"] and "smrt" in error["message"]
    assert (await plan(used, routing_rules=written, pricing="models: [")).status == 400


@pytest.mark.parametrize("body", [{}, {"routing_rules": 1}, {"routing_rules": "", "calls": 0}, {"calls": "x"}])
async def test_other_bodies_are_refused(used: Server, body: dict[str, Any]) -> None:
    """With the field."""
    answer = await plan(used, **body)
    assert (answer.status, answer.error()["code"]) == (400, "invalid_value")


async def test_it_is_for_admins(used: Server, written: str) -> None:
    """It tells about all callers."""
    answer = await plan(used, KEY, routing_rules=written)
    assert (answer.status, answer.error()["code"]) == (403, "admin_required")


async def test_the_lists_of_keys_in_the_database_hold(upstream: FakeUpstream, tmp_path: Path) -> None:
    """A key that may use only the model of today is refused by tomorrow's; one without a list is not."""
    files = write_files(tmp_path, upstream.url, ROUTING, PRICING)
    narrow = add(tmp_path / "usage.db", "narrow", models=("fake/ok",))
    free = add(tmp_path / "usage.db", "free")
    async with serving(files, {"PROXY_ADMIN_KEY": ADMIN}) as server:
        for key in (narrow, free, free):
            client = server.client.with_options(api_key=key)
            await client.chat.completions.create(model="smart", messages=HELLO)
        changed = files.read_text().replace("smart: fake/ok", "smart: fake/ok(tag=b)")
        told = (await plan(server, routing_rules=changed)).json
    found = [(change["calls"], change["after"], (change["refused"] or "")[:22]) for change in told["changes"]]
    assert found == [(2, "fake/ok(tag=b)", ""), (1, None, "403 model_not_allowed:")]
