"""Budgets over real sockets, with the unmodified SDK: what fits, what is shortened, downgraded or refused."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.server.api.raw import HELLO, get
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRICING = """
version: 1
models:
  fake/*: {input: 0, output: 10.00, max_output: 4096, context: 100000}
  fake/ok(tag=cheap): {input: 0, output: 1.00, max_output: 4096}
  fake/ok(tag=pictures): {input: 0, output: 5.00, max_output: 4096, context: 100000, supports: [images, tools]}
  fake/ok(tag=free): {input: 0, output: 0}
  fake/ok(tag=unpriced): {input: 1}
  fake/echo-ok(tag=unlimited): {input: 0, output: 10.00}
  fake/ok(tag=words): {input: 0, output: 0.50, max_output: 4096, supports: [tools]}
"""
NANO = 1_000_000_000
ANSWER = 10 * 10_000  # ten tokens at 10 USD per million, in nano-USD


@asynccontextmanager
async def budgeted(folder: Path, upstream: FakeUpstream, budget: str, more: str = "") -> AsyncIterator[Server]:
    routing = ROUTING + "budget: " + budget.replace("{", "{{").replace("}", "}}") + "\n" + more
    async with serving(write_files(folder, upstream.url, routing, PRICING)) as running:
        yield running


async def ask(server: Server, model: str = "fake/ok", **fields: Any) -> Any:
    return await server.client.chat.completions.with_raw_response.create(
        **{"model": model, "messages": HELLO, "max_tokens": 10, **fields}
    )


def spending(folder: Path) -> dict[str, tuple[int, int]]:
    """Spent and reserved by budget."""
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        return {
            name: (spent, held)
            for name, spent, held in db.execute("SELECT budget, spent_nano, reserved_nano FROM spending")
        }


def sent(answer: Any) -> dict[str, Any]:
    """The request as the provider got it: `echo` answers with it."""
    found: dict[str, Any] = json.loads(json.loads(answer.text)["choices"][0]["message"]["content"])
    return found


async def refusal(server: Server, *args: Any, **fields: Any) -> dict[str, Any]:
    with pytest.raises(openai.RateLimitError) as caught:
        await ask(server, *args, **fields)
    response = caught.value.response
    assert (response.headers["x-should-retry"], "retry-after" in response.headers) == ("false", False)
    error: dict[str, Any] = response.json()["error"]
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    return error


async def test_calls_are_answered_until_the_budget_is_spent(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Then 429 says limit, spent, held, bound, reset time and the operator's words; free models go on."""
    budget = "{daily_usd: 0.00035, when_spent: reject, message: Ask Ann for more.}"
    async with budgeted(tmp_path, upstream, budget) as server:
        for _ in range(3):
            await ask(server)
        error = await refusal(server)
        assert error["message"].startswith("Ask Ann for more. The budget 'daily' has no room: $0.00035 allowed")
        figures = error["metadata"]
        assert {name: figures[name] for name in ("budget", "limit_usd", "spent_usd", "held_usd", "bound_usd")} == {
            "budget": "daily",
            "limit_usd": 0.00035,
            "spent_usd": 0.0003,
            "held_usd": 0.0,
            "bound_usd": 0.0001,
        }
        assert figures["resets_at"].endswith("T00:00:00Z")
        assert (await ask(server, "fake/ok(tag=free)")).status_code == 200
        assert (await ask(server, max_tokens=5)).status_code == 200
    assert spending(tmp_path) == {"daily": (3 * ANSWER + ANSWER // 2, 0)}
    assert len(upstream.ledger) == 5


async def test_a_window_that_refuses_uses_nothing_of_another(tmp_path: Path, upstream: FakeUpstream) -> None:
    budget = "{daily_usd: 1, per_provider: {fake: {total_usd: 0.0001}}, per_tag: {batch: {hour_usd: 0.0001}}}"
    async with budgeted(tmp_path, upstream, budget) as server:
        await ask(server, extra_body={"routing": {"tags": ["batch"]}})
        assert (await refusal(server))["metadata"]["budget"] == "provider fake total"
        assert (await refusal(server, extra_body={"routing": {"tags": ["batch"]}}))["metadata"][
            "budget"
        ] == "tag batch hour"
    assert spending(tmp_path) == {
        "daily": (ANSWER, 0),
        "provider fake total": (ANSWER, 0),
        "tag batch hour": (ANSWER, 0),
    }


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ("total_usd: 0.00001", "It does not reset."),
        ("per_tag: {batch: {total_usd: 0.00001}}", "It does not reset."),
        ("per_session: {total_usd: 0.00001}", "It resets once the session has used nothing for 30 days."),
    ],
)
@pytest.mark.slow
async def test_a_refusal_tells_when_a_total_ends(
    tmp_path: Path, upstream: FakeUpstream, limits: str, said: str
) -> None:
    """That of a session ends some time after its last call, every other never."""
    async with budgeted(tmp_path, upstream, "{when_spent: reject, " + limits + "}") as server:
        labels: dict[str, Any] = {
            "extra_headers": {"x-session-id": "s"},
            "extra_body": {"routing": {"tags": ["batch"]}},
        }
        error = await refusal(server, **labels)
    assert error["message"].endswith(said)
    assert error["metadata"]["resets_at"] is None


async def test_an_answer_is_shortened_if_only_its_length_does_not_fit(tmp_path: Path, upstream: FakeUpstream) -> None:
    """At most an eighth of what is left, at least 256 tokens, and reported. Explicit limits that fit stay."""
    async with budgeted(tmp_path, upstream, "{daily_usd: 0.04, when_spent: reject}") as server:
        answer = await ask(server, "fake/echo", max_tokens=openai.NOT_GIVEN)
        assert answer.headers["x-proxy-adapted-params"] == "max_completion_tokens"
        assert sent(answer)["max_completion_tokens"] == 500
        fits = await ask(server, "fake/echo", max_tokens=3000)
        assert ("x-proxy-adapted-params" in fits.headers, sent(fits)["max_tokens"]) == (False, 3000)
        too_long = await ask(server, "fake/echo", max_tokens=4096)
        assert (too_long.headers["x-proxy-adapted-params"], sent(too_long)["max_tokens"]) == ("max_tokens", 498)
        await refusal(server, max_tokens=4096, extra_body={"routing": {"strict": True}})


async def test_all_choices_of_an_answer_are_shortened_together(tmp_path: Path, upstream: FakeUpstream) -> None:
    async with budgeted(tmp_path, upstream, "{daily_usd: 0.04, when_spent: reject}") as server:
        answer = await ask(server, "fake/echo", max_tokens=openai.NOT_GIVEN, n=3)
        assert sent(answer)["max_completion_tokens"] == 256
        error = await refusal(server, "fake/echo", max_tokens=4096, n=16)
        assert error["metadata"]["bound_usd"] == 16 * 4096 * 1e-5


async def test_a_model_without_a_limit_gets_one(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Without any limit of the answer its cost has no bound."""
    async with budgeted(tmp_path, upstream, "{daily_usd: 1, when_spent: reject}") as server:
        answer = await ask(server, "fake/echo-ok(tag=unlimited)", max_tokens=openai.NOT_GIVEN)
    assert sent(answer)["max_completion_tokens"] == 4096


async def test_a_spent_soft_budget_downgrades_up_to_the_hard_one(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The answer says so in a header, its row and its trace; then the hard limit refuses."""
    budget = '{daily_usd: 0.0001, hard_daily_usd: 0.00012, when_spent: downgrade, downgrade_to: "fake/ok(tag=cheap)"}'
    async with budgeted(tmp_path, upstream, budget) as server:
        first = await ask(server)
        assert "x-proxy-downgraded" not in first.headers
        second = await ask(server, extra_body={"routing": {"trace": True}})
        assert second.headers["x-proxy-downgraded"] == "fake/ok"
        assert second.headers["x-proxy-model"] == "fake/ok(tag=cheap)"
        body = json.loads(second.text)
        assert (body["model"], body["routing"]["downgraded_from"]) == ("fake/ok(tag=cheap)", "fake/ok")
        stream = await server.client.chat.completions.create(
            model="fake/ok", messages=HELLO, max_tokens=10, stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert {chunk.model for chunk in chunks} == {"fake/ok(tag=cheap)"}
        assert (await refusal(server))["metadata"]["limit_usd"] == 0.00012
        error = await refusal(server, extra_body={"routing": {"allow_downgrade": False}})
        assert error["metadata"]["limit_usd"] == 0.0001
    assert spending(tmp_path)["daily"] == (ANSWER + 2 * ANSWER // 10, 0)
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        found = db.execute("SELECT downgraded_from, outcome FROM calls ORDER BY rowid").fetchall()
    assert found == [(None, "ok"), ("fake/ok", "ok"), ("fake/ok", "ok"), ("fake/ok", "rejected"), (None, "rejected")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hello", "fake/ok(tag=words)"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}], "fake/ok(tag=pictures)"),
    ],
)
async def test_without_a_name_the_cheapest_capable_model_takes_over(
    tmp_path: Path, upstream: FakeUpstream, content: Any, expected: str
) -> None:
    """Among the models that the configuration names, not every row of pricing.yaml."""
    more = 'models: {{a: "fake/ok(tag=words)", b: "fake/ok(tag=pictures)"}}\n'
    async with budgeted(tmp_path, upstream, "{daily_usd: 0, hard_daily_usd: 1, when_spent: downgrade}", more) as server:
        answer = await ask(server, messages=[{"role": "user", "content": content}])
    assert (answer.headers["x-proxy-model"], answer.headers["x-proxy-downgraded"]) == (expected, "fake/ok")


async def test_a_spent_provider_leaves_the_call_to_the_next_candidate(tmp_path: Path, upstream: FakeUpstream) -> None:
    more = 'models: {{pair: {{use: "fake/ok", fallback: ["fake/ok(tag=cheap)"]}}}}\n'
    budget = '{when_spent: reject, per_model: {"fake/ok": {daily_usd: 0.0001}}}'
    async with budgeted(tmp_path, upstream, budget, more) as server:
        first, second = await ask(server, "pair"), await ask(server, "pair")
        assert [each.headers["x-proxy-model"] for each in (first, second)] == ["fake/ok", "fake/ok(tag=cheap)"]
        assert (await refusal(server))["metadata"]["budget"] == "model fake/ok daily"


async def test_a_model_without_a_price_is_refused_where_a_budget_exists(
    tmp_path: Path, upstream: FakeUpstream, capfd: pytest.CaptureFixture[str]
) -> None:
    """402, unless unpriced calls are allowed: then they cost null, are counted, and the log names the model once."""
    async with budgeted(tmp_path, upstream, "{daily_usd: 1}") as server:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(server, "fake/ok(tag=unpriced)")
        assert (caught.value.status_code, caught.value.code) == (402, "price_unknown")
    (tmp_path / "more").mkdir()
    async with budgeted(tmp_path / "more", upstream, "{daily_usd: 1, unknown_price: allow}") as server:
        for _ in range(2):
            assert json.loads((await ask(server, "fake/ok(tag=unpriced)")).text)["usage"]["cost"] is None
        await ask(server)
        assert (await get(server.port, "/v1/usage")).json["total"]["unpriced_calls"] == 2
    assert spending(tmp_path / "more") == {"daily": (ANSWER, 0)}
    warnings = [line for line in capfd.readouterr().err.splitlines() if '"cost_unknown"' in line]
    assert [json.loads(line)["model"] for line in warnings] == ["fake/ok(tag=unpriced)"]


async def test_what_a_vendor_fetches_needs_a_cap_of_its_own(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Without `max_extra_usd` in the model's row a budget refuses a linked picture, and says what to add."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    linked = [{"role": "user", "content": [picture]}]
    async with budgeted(tmp_path, upstream, "{daily_usd: 1}") as server:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(server, messages=linked)
        assert (caught.value.status_code, caught.value.code) == (402, "price_unknown")
        assert "no upper bound" in caught.value.message
        assert "max_extra_usd" in caught.value.message
    (tmp_path / "more").mkdir()
    capped = PRICING.replace("fake/*: {", "fake/*: {max_extra_usd: 0.05, ")
    assert capped != PRICING
    routing = ROUTING + "budget: {{daily_usd: 1}}\n"
    async with serving(write_files(tmp_path / "more", upstream.url, routing, capped)) as server:
        assert (await ask(server, messages=linked)).status_code == 200


async def test_calls_wait_for_what_others_hold(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The second call's bound fits only once the first has ended: it waits for that instead of being refused."""
    async with budgeted(tmp_path, upstream, "{daily_usd: 0.0025, when_spent: reject}") as server:
        slow = asyncio.create_task(ask(server, "fake/delay_whole(s=0.1)", max_tokens=240))
        await upstream.until(lambda: upstream.open > 0)
        answer = await ask(server, max_tokens=230)
        assert answer.status_code == (await slow).status_code == 200
    assert spending(tmp_path)["daily"] == (2 * ANSWER, 0)


async def test_a_key_does_not_pay_for_what_broke_off_if_the_operator_forgives(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    """What the provider bills and what the key pays are two figures."""
    budget = "{daily_usd: 1, charge_failed: false, per_session: {daily_usd: 1}}"
    async with budgeted(tmp_path, upstream, budget) as server:
        with pytest.raises(openai.APIError):
            stream = await server.client.chat.completions.create(
                model="fake/cut_rst(k=5)", messages=HELLO, max_tokens=20, stream=True
            )
            async for _ in stream:
                pass
        listed = (await get(server.port, "/v1/requests")).json["data"][0]
        single = (await get(server.port, f"/v1/requests/{listed['id']}")).json
        usage = (await get(server.port, "/v1/usage?group_by=model")).json
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        [(cost, charged)] = db.execute("SELECT cost_nano, charged_nano FROM calls").fetchall()
    assert (cost > 0, charged) == (True, 0)
    for shown in (listed, single, usage["total"], usage["groups"][0]):
        assert (shown["cost_usd"], shown["charged_usd"]) == (cost / 1e9, 0)


async def explained(server: Server, **fields: Any) -> dict[str, Any]:
    body = {"model": "fake/ok", "messages": HELLO, "max_tokens": 10, **fields}
    found: dict[str, Any] = (await server.client.post("/route/explain", body=body, cast_to=httpx.Response)).json()
    return found


async def test_explain_foresees_what_the_budget_does(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Whatever it says, the call after it does: as asked, shortened, downgraded, refused."""
    budget = '{daily_usd: 0.5, hard_daily_usd: 0.51, when_spent: downgrade, downgrade_to: "fake/ok(tag=cheap)"}'
    effects = []
    async with budgeted(tmp_path, upstream, budget) as server:
        for model, max_tokens, hints in (
            ("fake/ok", 10, {}),
            ("fake/ok", 60_000, {}),
            ("fake/ok(n_tokens=49000)", 49_500, {}),
            ("fake/ok", 4_000, {}),
            ("fake/ok", 4_000, {"allow_downgrade": False}),
            ("fake/ok", 4_000, {"allow_downgrade": False, "strict": True}),
        ):
            told = await explained(server, model=model, max_tokens=max_tokens, routing=hints)
            effects.append((told["budget"]["effect"], told["budget"]["max_output_tokens"]))
            if effects[-1][0] == "refused":
                await refusal(server, model, max_tokens=max_tokens, extra_body={"routing": hints})
            else:
                answer = await ask(server, model, max_tokens=max_tokens, extra_body={"routing": hints})
                assert answer.headers["x-proxy-model"] == told["chosen"]
    assert effects == [
        ("none", None),
        ("shortened", 6248),
        ("none", None),
        ("downgraded", None),
        ("shortened", 256),
        ("refused", None),
    ]


async def test_rules_see_how_much_of_the_budget_is_spent(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The caller's tightest budget counts; `x-proxy-budget-remaining-usd` says what is left of it."""
    more = 'rules: [{{name: thrift, when: {{budget_spent_over: 0.4}}, use: "fake/ok(tag=cheap)"}}]\n'
    budget = "{daily_usd: 0.0002, total_usd: 1, when_spent: reject}"
    async with budgeted(tmp_path, upstream, budget, more) as server:
        first, second = await ask(server, "auto"), await ask(server, "auto")
        told = (await explained(server, model="auto"))["budget"]["windows"]
    assert [each.headers["x-proxy-model"] for each in (first, second)] == ["fake/ok", "fake/ok(tag=cheap)"]
    assert [float(each.headers["x-proxy-budget-remaining-usd"]) for each in (first, second)] == [0.0001, 0.00009]
    assert [(each["budget"], each["limit_usd"], each["spent_usd"]) for each in told] == [
        ("daily", 0.0002, 0.00011),
        ("total", 1.0, 0.00011),
    ]


async def test_usage_shows_each_budget_to_those_whom_it_concerns(tmp_path: Path, upstream: FakeUpstream) -> None:
    """A keyless server shows all; a key sees its own, an admin everything."""
    budget = "{daily_usd: 1, when_spent: reject, per_provider: {fake: {total_usd: 2}}, per_key: {ann: {daily_usd: 3}}}"
    async with budgeted(tmp_path, upstream, budget) as server:
        await ask(server)
        found = (await server.client.get("/usage", cast_to=httpx.Response)).json()["budget"]["windows"]
    assert [(each["budget"], each["limit_usd"], each["spent_usd"]) for each in found] == [
        ("daily", 1.0, 0.0001),
        ("key ann daily", 3.0, 0.0),
        ("provider fake total", 2.0, 0.0001),
    ]
    keys = {"PROXY_API_KEY": "sk-for-callers-0123456789", "PROXY_ADMIN_KEY": "sk-for-admins-0123456789"}
    async with serving(tmp_path / "routing_rules.yaml", keys) as server:
        shown = {}
        for name, key in keys.items():
            answer = await server.client.with_options(api_key=key).get("/usage", cast_to=httpx.Response)
            shown[name] = (answer.json()["budget"] or {}).get("windows", [])
    assert (len(shown["PROXY_API_KEY"]), len(shown["PROXY_ADMIN_KEY"])) == (0, 3)


async def test_spending_outlives_the_process(tmp_path: Path, upstream: FakeUpstream) -> None:
    async with budgeted(tmp_path, upstream, "{daily_usd: 0.0001, when_spent: reject}") as server:
        await ask(server)
    async with budgeted(tmp_path, upstream, "{daily_usd: 0.0001, when_spent: reject}") as server:
        assert (await explained(server))["budget"]["effect"] == "refused"
        await refusal(server)


async def test_a_hedge_without_room_leaves_the_first_request_alone(tmp_path: Path, upstream: FakeUpstream) -> None:
    """The second request is refused by the budget; the first one answers, and a spent budget is told as usual."""
    more = "router: {{hedge: {{enabled: true, after: 0.05, max_extra_cost_ratio: 9}}}}\n"
    more += 'models: {{pair: {{use: "fake/delay_whole(s=0.3)", fallback: ["fake/ok"]}}}}\n'
    budget = "{daily_usd: 0.00015, when_spent: reject}"
    routing = (
        ROUTING.replace("router: {{default_model: fake/ok}}\n", "")
        + "budget: "
        + budget.replace("{", "{{").replace("}", "}}")
    )
    async with serving(write_files(tmp_path, upstream.url, routing + "\n" + more, PRICING)) as server:
        answer = await ask(server, "pair")
        assert (answer.headers["x-proxy-model"], answer.headers["x-proxy-attempts"]) == ("fake/delay_whole(s=0.3)", "1")
        await refusal(server, "pair")
    assert spending(tmp_path) == {"daily": (ANSWER, 0)}
