"""Requests, providers, keys, ensembles and settings, sentence by sentence. Each test prints what it saw."""

from __future__ import annotations

import html
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio

from bench.usage import make
from proxy.config.patch import patched
from proxy.server.web.words import NOTHING, count, percent, plain, usd
from tests.server.api.raw import chat, get, post
from tests.server.web.browser import ADMIN, Browser, browsing
from tests.server.web.test_settings import SETTINGS, change, inputs
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
MONTH = ROUTING.replace('storage: {{url: "sqlite:///{db}"}}', 'storage: {{url: "sqlite:///{db}", keep_days: 400}}') + (
    "ensembles: {{pair: {{strategy: voting, members: [fake/ok, fake/slow], max_cost_usd: 1}}}}\n"
    "budget: {{per_key: {{default: {{daily_usd: 0.02}}}}, alert_at: [0.01]}}\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A month of calls of twelve keys, and a few real ones of another key; one provider's model fails and rests."""
    folder = tmp_path_factory.mktemp("every")
    make(folder / "usage.db", 2_000, int(time.time()) - 31 * 86_400)
    routing = write_files(folder, upstream_of_module.url, MONTH)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN, "PROXY_API_KEY": "the-key-of-calls"}) as running:
        for model in (*["fake/ok"] * 3, *["fake/e500"] * 8, "ensemble:pair"):
            answer = await post(running.port, chat(model, max_tokens=10), authorization="Bearer the-key-of-calls")
            assert answer.status in (200, 500, 502, 503), answer.json
        yield running


async def told(server: Server, path: str) -> Any:
    answer = await get(server.port, path, authorization=f"Bearer {ADMIN}")
    assert answer.status == 200, answer.json
    return answer.json


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "smollm2"),
        ("provider", "anthropic"),
        ("key", "team-1"),
        ("task", "code"),
        ("rule", "rule of chat"),
        ("session", "s-77"),
        ("tag", "nightly"),
        ("ensemble", "pair"),
        ("outcome", "upstream_error"),
        ("min_cost_usd", "0.015"),
        ("min_latency_ms", "20000"),
        ("since", time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))),
        ("until", time.strftime("%Y-%m-%d", time.gmtime(time.time() - 20 * 86_400))),
    ],
)
async def test_each_filter_finds_what_the_api_finds(server: Server, browser: Browser, name: str, value: str) -> None:
    """The same rows in the same order, and the field of the form keeps what was typed."""
    query = urlencode({name: value})
    rows = (await told(server, f"/v1/requests?limit=50&{query}"))["data"]
    text = (await browser.get(f"/dashboard/requests?{query}")).text
    ids = re.findall(r'<tr data-id="(\w+)">', text)
    assert ids == [row["id"] for row in rows] and ids
    assert '<details class="card filters" open>' in text
    kept = f'<option value="{value}" selected>' if name == "outcome" else f'name="{name}"[^>]* value="{value}"'
    assert re.search(kept, text)
    print(f"filter {name}={value}: {len(ids)} rows")


async def test_a_provider_shows_its_health(server: Server, browser: Browser) -> None:
    """Its breaker, the last error, latency and throughput of each model. Its limits: test_pages.py."""
    text = (await browser.get("/dashboard/providers")).text
    lines = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    ]
    cells = [[html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in line] for line in lines]
    rows = {line[0]: line for line in cells}
    sick, well = rows["fake/e500"], rows["fake/ok"]
    state = server._application._board_state().deployments["fake/e500"]
    assert sick[1] == state.breaker.replace("_", " ") == "open"
    assert "upstream_error" in sick[9] and re.search(r"\d+ s ago", sick[9]), sick
    assert sick[6:8] == ["8", "8"]
    assert well[1] == "healthy" and well[5] != NOTHING and re.fullmatch(r"[\d.]+ m?s", well[8]) and well[9] == NOTHING
    print(f"providers: {sick} {well}")


async def test_each_key_has_its_usage_and_its_budget(server: Server, browser: Browser) -> None:
    """The dearest first, each with its own bar and projection (of a day of which at least a hundredth has passed)."""
    has_begun = time.time() % 86_400 > 864
    text = (await browser.get("/dashboard/keys")).text
    cards = {
        html.unescape(name): card
        for name, card in re.findall(
            r'<section class="card[^"]*" aria-label="([^"]+)">(.*?)</section>', text, re.DOTALL
        )
    }
    since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 29 * 86_400))
    groups = (await told(server, f"/v1/usage?since={since}&group_by=key"))["groups"]
    charged = {group["key"]: group for group in groups}
    assert cards.keys() == charged.keys() and len(cards) == 13
    order = [charged[name]["charged_usd"] for name in cards]
    assert order == sorted(order, reverse=True)
    for name, card in cards.items():
        assert f">{count(charged[name]['calls'])} calls</a>" in card and usd(charged[name]["charged_usd"]) in card
    own = cards["default"]
    assert "of $0.02" in own and "% reached" in own
    assert "expected at the end of the window" in own or not has_begun
    assert 'class="budget' not in cards["team-1"]
    print(f"keys: {len(cards)}, default has {re.findall(r'<strong>([^<]+)</strong> of ([^ ]+)', own)}")


async def test_an_ensemble_shows_its_report(server: Server, browser: Browser) -> None:
    """The verdict, calls, agreement, cost, and each member beside it."""
    report = await told(server, "/v1/ensembles/pair/report")
    text = html.unescape((await browser.get("/dashboard/ensembles?name=pair")).text)
    assert report["verdict"]["text"] in text and plain(report["verdict"]["decision"].replace("_", " ")) in text
    assert re.search(rf'<dt>Calls</dt>\s*<dd class="figure">{report["calls"]}<', text)
    assert usd(report["cost_usd"]) in text and percent(report["agreed"] / report["calls"]) in text
    for member in report["members"]:
        assert member["member"] in text and usd(member["cost_usd"]) in text
    print(f"ensembles: {report['verdict']['decision']}, {[each['member'] for each in report['members']]}")


async def test_every_field_of_the_settings_reaches_file_and_server(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """One by one in the form, all in one save: routing, retries, budget, limits, providers and ensembles."""
    file = write_files(tmp_path, upstream_of_module.url, MONTH)
    given = {
        "router.strategy": "",
        "router.default_model": "fake/slow",
        "router.fallback": "fake/ok\r\nfake/slow",
        "router.max_retries": "5",
        "router.retry_delay_s": "0.5",
        "router.deadline_s": "77",
        "budget.daily_usd": "12.5",
        "budget.alert_at": "50, 90",
        "budget.when_spent": "downgrade",
        "budget.downgrade_to": "fake/ok",
        "rate_limits.default.requests_per_minute": "61",
        "rate_limits.default.tokens_per_minute": "62000",
        "rate_limits.default.concurrent": "63",
        "rate_limits.keyless.requests_per_minute": "64",
        "rate_limits.keyless.tokens_per_minute": "65000",
        "rate_limits.keyless.concurrent": "66",
        "providers.fake.models.default": "ok",
        "ensembles.enabled": "on",
        "ensembles.pair.members": "fake/ok\r\nfake/slow\r\nfake/other",
        "ensembles.pair.max_cost_usd": "0.25",
    }
    async with serving(file, {"PROXY_ADMIN_KEY": ADMIN}) as server, browsing(server.port) as browser:
        await browser.sign_in()
        fields = inputs((await browser.get(SETTINGS)).text)
        choices = re.findall(r'name="router.strategy".*?</select>', (await browser.get(SETTINGS)).text, re.DOTALL)[0]
        given["router.strategy"] = re.findall(r'value="([^"]+)"', choices)[-1]
        left = {name for name in fields if name not in given} - {"token", "version"}
        assert left == {
            *("router.enabled", "router.auto_retry", "providers.fake.enabled"),
            *("ensembles.pair.strategy", "ensembles.pair.judge", "ensembles.pair.escalate_to"),
        }
        fields.pop("router.auto_retry")  # an empty box is not sent
        page = await browser.send(SETTINGS, fields | given)
        assert page.status_code == 200, page.text[:3000]
        assert (await change(browser, page, "save")).status_code == 303
        config = server.runtime.config
        router, limits, budget = config.router, config.rate_limits, config.budget
        assert limits is not None and budget is not None
        assert (router.strategy, router.default_model) == (given["router.strategy"], "fake/slow")
        assert (list(router.fallback), router.auto_retry) == (["fake/ok", "fake/slow"], False)
        assert (router.max_retries, router.retry_delay_s, router.deadline_s) == (5, 0.5, 77)
        assert (budget.daily_usd, list(budget.alert_at), budget.downgrade_to) == (12.5, [0.5, 0.9], "fake/ok")
        default, keyless = limits.default, limits.keyless
        assert (default.requests_per_minute, default.tokens_per_minute, default.concurrent) == (61, 62_000, 63)
        assert (keyless.requests_per_minute, keyless.tokens_per_minute, keyless.concurrent) == (64, 65_000, 66)
        assert config.providers["fake"].models == {"default": "ok"} and config.ensembles_enabled
        pair = config.ensembles["pair"]
        assert (list(pair.members), pair.max_cost_usd) == (["fake/ok", "fake/slow", "fake/other"], 0.25)
        again = inputs((await browser.get(SETTINGS)).text)
        assert {name: again[name] for name in given} == given
        assert patched(file.read_text(), {}) == file.read_text()
        print(f"settings: {len(given) + 1} of {len(given) + 1} fields reached the file and the server")
