"""Budgets and keys of ensembles, through real sockets: the panel shrinks before anything is downgraded or refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ensembles.first import STRATEGIES
from tests.server.api.raw import Answer, chat, post
from tests.server.api.rows import calls, row_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRICING = """
version: 1
models:
  fake/*: {input: 0, output: 10.00, max_output: 4096}
  fake/ok(tag=cheap): {input: 0, output: 1.00, max_output: 4096}
"""
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: fake/ok}}
models: {{secret: "fake/ok(tag=secret)"}}
ensembles:
  three: {{strategy: first, members: [fake/ok, fake/echo, "fake/ok(tag=x)"]}}
  mixed: {{strategy: first, members: [fake/ok, secret, fake/echo]}}
  judged: {{strategy: first, members: [fake/ok, fake/echo], last: secret}}
"""
SEAT = 100 * 10e-6  # USD: the bound of one seat with max_tokens 100
USED = 10 * 10e-6  # what an answer costs


@asynccontextmanager
async def budgeted(folder: Path, upstream: FakeUpstream, budget: str) -> AsyncIterator[Server]:
    routing = ROUTING + "budget: " + budget.replace("{", "{{").replace("}", "}}") + "\n"
    async with serving(write_files(folder, upstream.url, routing, PRICING), strategies=STRATEGIES) as running:
        yield running


async def ask(server: Server, model: str = "ensemble:three", key: str = "", **fields: Any) -> Answer:
    headers = {"x_api_key": key} if key else {}
    return await post(server.port, chat(model, **{"max_tokens": 100, **fields}), **headers)


def panel(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.bytes[-900:]
    return dict(answer.json["routing"]["ensemble"])


def seated(answer: Answer) -> list[str]:
    return [each["model"] for each in panel(answer)["members"]]


# --- budgets ----------------------------------------------------------------------------------------------------------


async def test_the_hold_covers_the_whole_panel(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Before the first seat is asked: three seats, all that they may cost, and not a nano more than the limit."""
    async with budgeted(tmp_path, upstream, f"{{daily_usd: {3 * SEAT}, when_spent: reject}}") as server:
        assert len(seated(await ask(server))) == 3
    async with budgeted(tmp_path, upstream, f"{{daily_usd: {3 * SEAT}, when_spent: reject}}") as server:
        again = await ask(server)
        assert len(seated(again)) == 2, "three answers have been paid since"


async def test_what_is_held_is_what_the_explanation_says(tmp_path: Path, upstream: FakeUpstream) -> None:
    """While the members are asked: their bounds and those of the judge, added up."""
    panel = {"strategy": "first", "models": ["fake/blackhole", "fake/stall_after(k=0)"], "last": "fake/ok"}
    body = chat("ensemble:three", max_tokens=100, routing={"ensemble": panel})
    async with budgeted(tmp_path, upstream, "{daily_usd: 1}") as server:
        told = (await post(server.port, body, "/v1/route/explain")).json["ensemble"]
        asking = asyncio.create_task(post(server.port, body))
        await upstream.until(lambda: upstream.open == 2)
        (row,) = calls(tmp_path / "usage.db")
        assert row["hold_nano"] == round(told["bound_usd"] * 1e9) == round(3 * SEAT * 1e9)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await upstream.until(lambda: upstream.open == 0)


async def test_a_nearly_spent_budget_makes_the_panel_smaller(tmp_path: Path, upstream: FakeUpstream) -> None:
    """First of all, down to the quorum; it is told which budget and who was left out."""
    async with budgeted(tmp_path, upstream, f"{{daily_usd: {2.5 * SEAT}, when_spent: downgrade}}") as server:
        answer = await ask(server)
        assert seated(answer) == ["fake/ok", "fake/echo"]
        (gone,) = panel(answer)["left_out"]
        assert gone["model"] == "fake/ok(tag=x)"
        assert "the budget 'daily' has room for no more" in gone["why"]
        assert answer.headers("x-proxy-downgraded") == []
    assert len(upstream.ledger) == 2


async def test_many_panels_at_once_stay_within_the_limit(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Each is asked in whole, in part, or refused; no hold is left, and nothing else goes wrong."""
    async with budgeted(tmp_path, upstream, f"{{daily_usd: {9 * SEAT}, when_spent: reject}}") as server:
        answers = await asyncio.gather(*(ask(server, stream=bool(number % 2)) for number in range(24)))
        assert {answer.status for answer in answers} <= {200, 429}
        assert any(answer.status == 200 for answer in answers)
        ledger = server.runtime.ledger
        await eventually(lambda: not ledger.state.open_calls and not ledger.state.pending)
        assert ledger.state.reserved_nano == 0
    spent = sum(row["cost_nano"] for row in calls(tmp_path / "usage.db"))
    assert 0 < spent <= round(9 * SEAT * 1e9)


async def test_then_a_cheaper_model_answers_alone(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Where the smallest panel does not fit. The answer says what was asked for."""
    budget = f'{{daily_usd: {1.5 * SEAT}, when_spent: downgrade, downgrade_to: "fake/ok(tag=cheap)"}}'
    async with budgeted(tmp_path, upstream, budget) as server:
        answer = await ask(server)
        assert answer.status == 200, answer.bytes
        assert (answer.status, answer.json["model"]) == (200, "fake/ok(tag=cheap)")
        assert answer.headers("x-proxy-downgraded") == ["ensemble:three"]
        row = await row_of(tmp_path / "usage.db", answer)
        assert (row["downgraded_from"], row["attempts"]) == ("ensemble:three", 1)
    assert len(upstream.ledger) == 1


async def test_or_the_call_is_refused(tmp_path: Path, upstream: FakeUpstream) -> None:
    """429 with the figures, and nothing was asked; a stream as well."""
    async with budgeted(tmp_path, upstream, f"{{daily_usd: {1.5 * SEAT}, when_spent: reject}}") as server:
        for stream in (False, True):
            answer = await ask(server, stream=stream)
            assert (answer.status, answer.error()["code"]) == (429, "insufficient_quota")
    assert upstream.ledger == []


async def test_answers_without_a_limit_get_one(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Rather than to leave out members: the model's own limit is far above what an answer needs."""
    async with budgeted(tmp_path, upstream, "{daily_usd: 0.04, when_spent: reject}") as server:
        answer = await ask(server, max_tokens=None)
        assert len(seated(answer)) >= 2
        assert answer.headers("x-proxy-adapted-params") == ["max_completion_tokens"]


async def test_the_explanation_foresees_it(tmp_path: Path, upstream: FakeUpstream) -> None:
    """`shrunk`, with the smaller panel; `downgraded` with the other model."""
    async with budgeted(tmp_path, upstream, f"{{daily_usd: {2.5 * SEAT}, when_spent: reject}}") as server:
        told = (await post(server.port, chat("ensemble:three", max_tokens=100), "/v1/route/explain")).json
        assert told["budget"]["effect"] == "shrunk"
        assert [each["model"] for each in told["ensemble"]["members"]] == ["fake/ok", "fake/echo"]
    budget = f'{{daily_usd: {1.5 * SEAT}, when_spent: downgrade, downgrade_to: "fake/ok(tag=cheap)"}}'
    (tmp_path / "usage.db").unlink()
    async with budgeted(tmp_path, upstream, budget) as server:
        told = (await post(server.port, chat("ensemble:three", max_tokens=100), "/v1/route/explain")).json
        assert (told["budget"]["effect"], told["chosen"]) == ("downgraded", "fake/ok(tag=cheap)")
        assert "ensemble" not in told


# --- keys -------------------------------------------------------------------------------------------------------------

KEY, ADMIN = "the-key-of-the-callers", "the-admin-key-of-these-tests"


@asynccontextmanager
async def keyed(folder: Path, upstream: FakeUpstream, allowed: str) -> AsyncIterator[Server]:
    """Both keys may use these models only."""
    routing = ROUTING + f"keys: {{{{default: {{{{models: {allowed}}}}}, admin: {{{{models: {allowed}}}}}}}}}\n"
    files = write_files(folder, upstream.url, routing, PRICING)
    async with serving(files, {"PROXY_API_KEY": KEY, "PROXY_ADMIN_KEY": ADMIN}, strategies=STRATEGIES) as running:
        yield running


async def test_a_key_asks_only_members_that_it_may_use(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Another one that it may use has the place. Only an admin reads the name of the one that it may not."""
    async with keyed(tmp_path, upstream, "[fake/ok, fake/echo]") as server:
        ours, admins = [panel(await ask(server, "ensemble:mixed", key)) for key in (KEY, ADMIN)]
        for told in (ours, admins):
            assert [each["deployment"] for each in told["members"]] == ["fake/ok", "fake/echo", "fake/ok"]
        assert (ours["left_out"], ours["not_allowed"]) == ([], 1)
        assert admins["left_out"] == [{"model": "secret", "why": "not_allowed", "instead": "fake/ok"}]
        assert "secret" not in json.dumps(ours)
        explained = await post(server.port, chat("ensemble:mixed"), "/v1/route/explain", x_api_key=KEY)
        assert "secret" not in json.dumps(explained.json)


async def test_a_judge_that_a_key_may_not_use_is_a_403(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Nobody else may judge in its place unnoticed."""
    async with keyed(tmp_path, upstream, "[fake/ok, fake/echo]") as server:
        answer = await ask(server, "ensemble:judged", KEY)
        assert (answer.status, answer.error()["code"]) == (403, "model_not_allowed")
    assert upstream.ledger == []


async def test_the_name_of_an_ensemble_allows_all_that_it_asks(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Its judge too. Other models are not allowed by it, and an ensemble of these is refused."""
    async with keyed(tmp_path, upstream, '["ensemble:judged"]') as server:
        assert len(panel(await ask(server, "ensemble:judged", KEY))["members"]) == 3
        assert (await ask(server, "fake/ok(tag=x)", KEY)).status == 403
        assert (await ask(server, "fake/ok", KEY)).status == 200


async def test_a_key_without_any_member_is_refused(tmp_path: Path, upstream: FakeUpstream) -> None:
    """403, as for a model."""
    async with keyed(tmp_path, upstream, '["fake/ok(tag=other)"]') as server:
        answer = await ask(server, "ensemble:three", KEY)
        assert (answer.status, answer.error()["code"]) == (403, "model_not_allowed")
    assert upstream.ledger == []
