"""The pages: what they show is what the API says, and nobody's text runs or breaks them."""

from __future__ import annotations

import csv
import html
import io
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.server.web.rendering import CSP
from proxy.server.web.words import count, usd
from tests.server.api.raw import chat, get, post
from tests.server.web.browser import ADMIN, Browser, Elements, browsing
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = ROUTING + (
    'usage: {{baseline: "fake/ok"}}\n'
    "ensembles: {{pair: {{strategy: voting, members: [fake/ok, fake/ok]}}}}\n"
    "budget: {{daily_usd: 1, alert_at: [0.5], timezone: Europe/Berlin, per_key: {{default: {{monthly_usd: 7}}}}}}\n"
)
ALL = (
    *("/dashboard", "/dashboard?metric=calls&group=key", "/dashboard?metric=p95&range=24h", "/dashboard?group=session"),
    *("/dashboard?metric=tokens&group=tag&range=today", "/dashboard?range=30d&baseline=fake/ok&metric=errors"),
    *("/dashboard/requests", "/dashboard/requests?outcome=ok&model=ok", "/dashboard/providers", "/dashboard/keys"),
    *("/dashboard/ensembles", "/dashboard/sign-in"),
)
EVIL = (
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "{{7*7}}${7*7}",
    "\u202egnp.exe",
    "a\x00b\x07c",
    "w" * 10_000,
    "\u0438\u043c\u044f \U0001f469\u200d\U0001f4bb",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Four calls with a key; one of them failed."""
    routing = write_files(tmp_path_factory.mktemp("pages"), upstream_of_module.url, SETTINGS)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN, "PROXY_API_KEY": "the-key-of-calls"}) as running:
        for model in ("fake/ok", "fake/ok", "fake/e400", "ensemble:pair"):
            await post(running.port, chat(model), authorization="Bearer the-key-of-calls", x_session_id="s 1")
        yield running


@pytest.mark.parametrize("path", ALL)
@pytest.mark.sampled(4)
async def test_pages_need_nothing_from_elsewhere(browser: Browser, path: str) -> None:
    """No inline script, no inline style, no other host: what the policy allows is what they use."""
    answer = await browser.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"] == CSP
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    text = answer.text
    assert Elements(text).unwanted() == []
    links = re.findall(r'(?:href|src|action)="([^"]*)"', text)
    assert [link for link in links if re.match(r"\w+:|//", link) and not link.startswith("data:image/svg+xml,")] == []
    assert text.count("<h1") == 1 and '<html lang="en">' in text and "<main" in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    forms = re.findall(r'<form[^>]*method="post".*?</form>', text, re.DOTALL)
    assert forms and all('name="token"' in form for form in forms)


async def test_usage_says_what_the_api_says(server: Server, browser: Browser) -> None:
    """Cost, calls, failures and tokens of the period; calls, not attempts."""
    since = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 6 * 86_400))
    asked = await get(server.port, f"/v1/usage?since={since}&group_by=provider,model", authorization=f"Bearer {ADMIN}")
    total, groups = asked.json["total"], asked.json["groups"]
    assert total["calls"] == 4 and total["errors"] == 1
    text = (await browser.get()).text
    tiles = dict(re.findall(r'<dt>([^<]+)</dt>\s*<dd class="figure">([^<]+)</dd>', text))
    assert tiles["Cost"] == usd(total["cost_usd"])
    assert tiles["Calls"] == "4"
    assert "1 failed (25 %)" in text
    rows = re.findall(r'<th scope="row" class="name" title="([^"]+)">.*?<td class="n">([^<]+)</td>', text, re.DOTALL)
    assert dict(rows) == {f"{group['provider']}/{group['model']}": usd(group["cost_usd"]) for group in groups}
    parts = re.findall(r'</svg>(fresh input|cache read|cache write|output|reasoning)</th><td class="n">([\d,]+)<', text)
    assert sum(int(tokens.replace(",", "")) for _, tokens in parts) == total["total_tokens"]
    assert f'title="{count(total["total_tokens"])}"' in text


async def test_the_budget_is_shown_with_its_zone(browser: Browser) -> None:
    """Its overall window, and that of the key on the page of keys too."""
    text = (await browser.get()).text
    assert "of $1.00" in text and "Days and hours in Europe/Berlin" in text
    assert "of $7.00" in text
    keys = (await browser.get("/dashboard/keys")).text
    assert "of $7.00" in keys and "of $1.00" not in keys
    assert "PROXY_API_KEY" in keys and "the-key-of-calls" not in keys and ADMIN not in keys


@pytest.mark.parametrize("table", ["groups", "chart"])
async def test_tables_are_files_too(browser: Browser, table: str) -> None:
    """With the figures of the page, and formulas that do not run."""
    answer = await browser.get(f"/dashboard/usage.csv?group=key&table={table}")
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["key"], row["calls"], row["errors"]) == ("default", "4", "1")
    assert ("day" in row) == (table == "chart")
    log = await browser.get("/dashboard/requests.csv?outcome=ok")
    assert {line["outcome"] for line in csv.DictReader(io.StringIO(log.text))} == {"ok"}


async def test_the_list_leads_to_each_request(browser: Browser) -> None:
    """With the filters of the address, and a page for each: its attempts, its money, why this model."""
    text = (await browser.get("/dashboard/requests")).text
    ids = re.findall(r'<tr data-id="(\w+)">', text)
    assert len(ids) == 4
    failed = (await browser.get("/dashboard/requests?outcome=upstream_error")).text
    assert len(re.findall(r"<tr data-id=", failed)) == 1 and "(1)" in failed
    for call_id in ids:
        page = (await browser.get(f"/dashboard/requests/{call_id}")).text
        assert call_id in page and "fake/" in page
    ensemble = (await browser.get(f"/dashboard/requests/{ids[0]}")).text
    assert ensemble.count('<span class="badge good">ok</span>') >= 2
    assert "vote" in ensemble or "seat" in ensemble


async def test_a_provider_shows_what_its_last_answer_left_of_its_limits(browser: Browser) -> None:
    text = (await browser.get("/dashboard/providers")).text
    assert re.search(r"Left of its limits, said \d+ s ago: 9,999 of 10,000 requests", text)


async def test_pages_of_a_list_follow_one_another(server: Server, browser: Browser) -> None:
    """By the cursor of the API."""
    text = (await browser.get("/dashboard/requests?limit=3")).text
    older = html.unescape(re.findall(r'href="([^"]+)">Older', text)[0])
    after = (await browser.get(older)).text
    ids = re.findall(r'<tr data-id="(\w+)">', text + after)
    assert len(ids) == len(set(ids)) == 4
    assert ">Newest</a>" in after and ">Newest</a>" not in text


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("?range=year", "range"),
        ("?metric=cats", "metric"),
        ("?group=password", "group"),
        ("?since=yesterday", "since"),
        ("?since=2026-01-02&until=2026-01-01", "until"),
        ("?since=1990-01-01&until=2026-01-01", "since"),
        ("?tz=Mars/Base", "tz"),
        ("?nonsense=1", "Unknown parameter"),
        ("/requests?outcome=fine", "outcome"),
        ("/requests?min_cost_usd=much", "min_cost_usd"),
        ("/requests?cursor=x", "cursor"),
        ("/requests?limit=100000", "limit"),
        ("/ensembles?since=x&name=none", "no such ensemble"),
        ("/requests/none", "no request"),
    ],
)
async def test_wrong_parameters_get_a_page_that_names_them(browser: Browser, path: str, param: str) -> None:
    """Never an empty page, and never a trace."""
    answer = await browser.get(f"/dashboard{path}")
    assert answer.status_code in (400, 404)
    assert param in html.unescape(re.findall(r'role="alert">([^<]+)<', answer.text)[0])


async def test_hostile_names_are_only_text(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """In every column that clients or providers choose, on every page that shows it."""
    routing = write_files(tmp_path, upstream_of_module.url, SETTINGS)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN}) as server, browsing(server.port) as browser:
        for _ in EVIL:
            await post(server.port, chat(), authorization=f"Bearer {ADMIN}")
        with closing(sqlite3.connect(tmp_path / "usage.db")) as db, db:
            ids = [row[0] for row in db.execute("SELECT id FROM calls ORDER BY opened_ns")]
            assert len(ids) == len(EVIL)
            for call_id, text in zip(ids, EVIL, strict=True):
                db.execute(
                    "UPDATE calls SET model = ?1, provider = ?1, key_id = ?1, rule = ?1, session = ?1, task_type = ?1,"
                    " requested_model = ?1, error_code = ?1, agent = ?1, tags = json_array(?1) WHERE id = ?2",
                    (text, call_id),
                )
                db.execute(
                    "UPDATE attempts SET model = ?1, provider = ?1, error_code = ?1, upstream_request_id = ?1,"
                    " price_version = ?1 WHERE call_id = ?2",
                    (text, call_id),
                )
        await browser.sign_in()
        groups = [f"?range=24h&group={group}" for group in ("model", "key", "rule", "task", "session", "tag")]
        for path in (*groups, "/requests", "/keys", "/providers", *(f"/requests/{call_id}" for call_id in ids)):
            answer = await browser.get(f"/dashboard{path}")
            assert answer.status_code == 200, path
            text = answer.text
            page = Elements(text)
            assert page.unwanted() == [], path
            assert not set(text) & {"\u202e", "\x00", "\x07"}
            assert max(map(len, page.texts)) < 1_500, path
        texts = Elements((await browser.get("/dashboard/requests")).text).texts
        assert {"<img src=x onerror=alert(1)>", "{{7*7}}${7*7}"} <= set(texts)


@pytest.mark.slow
async def test_an_empty_server_says_how_to_begin(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """On every page; nothing is divided by nothing."""
    keys = {"PROXY_ADMIN_KEY": ADMIN}
    async with serving(write_files(tmp_path, upstream_of_module.url), keys) as server, browsing(server.port) as browser:
        await browser.sign_in()
        for path in ("", "?metric=p95", "?metric=calls&group=tag", "?range=30d&baseline=nowhere/none"):
            answer = await browser.get(f"/dashboard{path}")
            assert answer.status_code == 200
            assert f"curl http://127.0.0.1:{server.port}/v1/chat/completions" in answer.text
            assert "ANTHROPIC_BASE_URL" in answer.text and "from openai import OpenAI" in answer.text
        for path in ("/requests", "/providers", "/keys", "/ensembles"):
            assert (await browser.get(f"/dashboard{path}")).status_code == 200


async def test_static_files_are_the_two_that_pages_load(browser: Browser) -> None:
    """By their names in a table: no path of a client reaches the disk."""
    page = (await browser.get()).text
    for name, media in (("dashboard.css", "text/css"), ("dashboard.js", "text/javascript")):
        (link,) = re.findall(rf'"(/dashboard/static/{re.escape(name)}\?v=\w+)"', page)
        answer = await browser.get(link)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(media)
        assert "immutable" in answer.headers["cache-control"]
    for name in ("..%2frendering.py", "%2e%2e", "dashboard.css%00", "x.js", "..%2f..%2fapp.py"):
        assert (await browser.get(f"/dashboard/static/{name}")).status_code in (400, 404), name
