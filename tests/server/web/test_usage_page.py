"""The page on usage, sentence by sentence, on a month of calls and on a few real ones. Each test prints what it saw."""

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
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import pytest_asyncio

from bench.usage import make
from proxy.server.web.usage_view import GROUPS, METRICS, SERIES, asked_of, buckets_of, label, moment
from proxy.server.web.words import NOTHING, count, milliseconds, percent, short, usd
from tests.midday import zone
from tests.server.api.raw import chat, get, post
from tests.server.web.browser import ADMIN, Browser, browsing
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
CALLS = 3_000
ZONE = "Europe/Berlin"
MONTH = ROUTING.replace('storage: {{url: "sqlite:///{db}"}}', 'storage: {{url: "sqlite:///{db}", keep_days: 400}}') + (
    f"budget: {{{{daily_usd: 1, timezone: {ZONE}}}}}\n"
)
FIELDS = {"cost": "cost_usd", "calls": "calls", "tokens": "total_tokens", "errors": "errors"}
TIMES = {"p95": "p95_latency_ms", "first_token": "p50_first_token_ms"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("usage")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    """A server with a call for every quarter of an hour of the last 31 days."""
    make(folder / "usage.db", CALLS, int(time.time()) - 31 * 86_400)
    async with serving(write_files(folder, upstream_of_module.url, MONTH), {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def told(server: Server, page: str, group: str = "") -> dict[str, Any]:
    """What `GET /v1/usage` says of the period of a page."""
    asked = asked_of([(key, values[0]) for key, values in parse_qs(page).items()], ZONE, time.time_ns())
    query = urlencode({**asked.parameters(), "group_by": group})
    answer = await get(server.port, f"/v1/usage?{query}", authorization=f"Bearer {ADMIN}")
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


async def shown(browser: Browser, page: str = "") -> str:
    answer = await browser.get(f"/dashboard?{page}")
    assert answer.status_code == 200, answer.text[-300:]
    return answer.text


def tiles(text: str) -> dict[str, str]:
    return dict(re.findall(r'<dt>([^<]+)</dt>\s*<dd class="figure">([^<]+)</dd>', text))


def table(text: str, after: str) -> list[list[str]]:
    """The cells of the first table behind this mark, line by line."""
    part = text.partition(after)[2].partition("</table>")[0]
    return [
        [
            html.unescape(re.sub(r"<[^>]+>", "", cell)).strip()
            for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        ]
        for row in re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    ]


@pytest.mark.parametrize("span", ["24h", "7d", "30d", "today"])
async def test_totals_are_those_of_the_range(server: Server, browser: Browser, span: str) -> None:
    """Tokens, cost, requests and average latency."""
    total = (await told(server, f"range={span}"))["total"]
    found = tiles(await shown(browser, f"range={span}"))
    expected = [
        usd(total["cost_usd"]),
        count(total["calls"]),
        short(total["total_tokens"]),
        milliseconds(total["avg_latency_ms"]),
    ]
    assert [found[name] for name in ("Cost", "Calls", "Tokens", "Average latency")] == expected
    print(f"totals {span}: {expected}")


async def test_costs_by_model_are_bars_with_their_share(server: Server, browser: Browser) -> None:
    """The bar of the dearest is the longest; the shares add up to all."""
    answer = await told(server, "range=30d", "provider,model")
    text = await shown(browser, "range=30d")
    groups = sorted(answer["groups"], key=lambda group: -group["cost_usd"])
    part = text.partition('id="table-title"')[2]
    bars = [float(width) for width in re.findall(r'<rect class="spent"[^>]*width="([\d.]+)%"', part)]
    shares = [row[2] for row in table(text, 'id="table"')[1:-1]]
    whole = answer["total"]["cost_usd"]
    assert shares == [percent(group["cost_usd"] / whole) for group in groups]
    assert bars == pytest.approx([100 * group["cost_usd"] / groups[0]["cost_usd"] for group in groups], abs=0.01)
    print(f"bars: {len(bars)} models, shares {shares}")


async def test_tokens_by_model_are_a_table(server: Server, browser: Browser) -> None:
    """Input in its parts, output, total and cost of each."""
    groups = (await told(server, "range=30d", "provider,model"))["groups"]
    expected = {
        label(group, ("provider", "model")): [
            usd(group["cost_usd"]),
            count(group["calls"]),
            count(group["errors"]),
            count(group["input_tokens"] - group["cached_tokens"] - group["cache_write_tokens"]),
            count(group["cached_tokens"]),
            count(group["cache_write_tokens"]),
            count(group["output_tokens"]),
            count(group["reasoning_tokens"]),
            count(group["total_tokens"]),
        ]
        for group in groups
    }
    rows = table(await shown(browser, "range=30d"), 'id="table"')[1:-1]
    assert {row[0]: [row[1], *row[3:11]] for row in rows} == expected
    print(f"token table: {len(rows)} models, {sum(group['total_tokens'] for group in groups):,} tokens")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("metric", METRICS)
async def test_the_chart_shows_each_figure_by_each_group(
    server: Server, browser: Browser, metric: str, group: str
) -> None:
    """Bar by bar, the figures are those of `/v1/usage`; what is not told apart is one more series."""
    page = f"range=7d&metric={metric}&group={group}"
    asked = asked_of([("range", "7d"), ("metric", metric), ("group", group)], ZONE, time.time_ns())
    keys, field = GROUPS[group], FIELDS.get(metric) or TIMES[metric]
    answer = await told(server, page, ",".join((asked.unit, *keys)))
    text = await shown(browser, page)
    heads, *rows = table(text, 'id="chart"')
    say = {"cost": usd, "tokens": short, "calls": count, "errors": count}.get(metric, milliseconds)
    known = {(point[asked.unit], label(point, keys)): point[field] for point in answer["groups"]}
    names = [name for name in heads[1:] if name not in ("others", "failed", "all")]
    times = [key for key, _, _ in buckets_of(asked)]
    assert len(names) <= SERIES and [row[0] for row in rows] == [moment(key) for key in times]
    used = "successes" if metric == "calls" else field
    parts = {(point[asked.unit], label(point, keys)): point[used] for point in answer["groups"]}
    for key, row in zip(times, rows, strict=True):
        empty = None if metric in TIMES else 0
        assert row[1 : len(names) + 1] == [say(parts.get((key, name), empty)) for name in names]
        if metric not in TIMES:
            whole = sum(value or 0 for (at, _), value in known.items() if at == key)
            if metric == "cost":  # three digits, and dollars are added in another order here
                assert float(row[-1].strip("$").replace(",", "")) == pytest.approx(
                    whole, rel=0.0055, abs=0.005 if whole >= 1 else 0
                )
            else:
                assert row[-1] == say(whole)
    drawn = "bars" if metric not in TIMES else "lines"
    assert f'class="{drawn}"' in text and text.count('class="hit"') == len(times)
    print(f"{metric} by {group}: {len(names)} series, {len(times)} {asked.unit}s, {asked.note or 'whole range'}")


async def test_the_state_is_in_the_address(browser: Browser) -> None:
    """Every link and form of the page keeps what it does not change."""
    state = {"metric": "calls", "group": "key", "range": "30d", "tz": "Asia/Tokyo", "baseline": "fake/ok"}
    text = await shown(browser, urlencode(state))
    links = [html.unescape(link) for link in re.findall(r'href="(\?[^"]+|/dashboard/usage\.csv\?[^"]+)"', text)]
    changes: dict[str, set[str]] = {}
    for link in links:
        given = {key: values[0] for key, values in parse_qs(urlsplit(link).query).items()}
        kept = {key: value for key, value in state.items() if key != "range"}
        assert {key: given.get(key) for key in kept} == kept, link
        for key in given.keys() - kept.keys():
            changes.setdefault(key, set()).add(given[key])
    assert changes["range"] >= {"today", "24h", "7d", "30d"} and len(changes["since"]) == 30
    forms = re.findall(r'<form class="inline" method="get".*?</form>', text, re.DOTALL)
    assert len(forms) == 3
    for form in forms:
        names = set(re.findall(r'name="(\w+)"', form))
        assert names >= {"metric", "group", "tz", "baseline"}, form
        assert names & {"range", "since"}
    print(f"state: {len(links)} links and {len(forms)} forms keep {sorted(state)}")


async def test_failed_calls_are_a_red_part_of_the_same_bar(server: Server, browser: Browser) -> None:
    """As high as there were failures, on top of those that succeeded."""
    days = {each["day"]: each for each in (await told(server, "range=30d", "day"))["groups"]}
    text = await shown(browser, "range=30d&metric=calls&group=provider")
    svg = re.findall(r'<svg class="bars".*?</svg>', text, re.DOTALL)[0]
    bars = re.findall(r"<a .*?</a>", svg, re.DOTALL)
    top = float(re.findall(r'class="yaxis"[^>]*><span>([\d.]+)', text)[0])
    seen = 0
    for bar, (key, _, _) in zip(bars, buckets_of(asked_of([("range", "30d")], ZONE, time.time_ns())), strict=True):
        failed = days.get(key, {"errors": 0})["errors"]
        heights = [float(height) for height in re.findall(r'class="failed"[^>]*height="([\d.]+)"', bar)]
        assert sum(heights) == pytest.approx(100 * failed / top, abs=0.01)
        if failed:
            tops = [float(y) for y in re.findall(r'class="(?:s\d|failed)"[^>]*y="([\d.]+)"', bar)]
            assert min(tops) == tops[-1] and bar.rindex('class="failed"') > bar.rindex('class="s0"')
        seen += failed
    css = (await browser.get(re.findall(r'href="(/dashboard/static/dashboard\.css[^"]+)"', text)[0])).text
    assert ".failed { fill: var(--failed); }" in css and css.count("--failed: #") == 2
    assert seen > 50 and f'failed</span> <span class="muted">{count(seen)}<' in text
    print(f"failed: {seen} of {count(sum(each['calls'] for each in days.values()))} calls are red")


async def test_tokens_are_told_in_parts(server: Server, browser: Browser) -> None:
    """Fresh input, cache read, cache write, output, reasoning; they add up, and the hit rate is that of the input."""
    total = (await told(server, "range=30d"))["total"]
    text = await shown(browser, "range=30d")
    rows = table(text, 'id="tokens"')
    assert [row[0] for row in rows] == ["fresh input", "cache read", "cache write", "output", "reasoning"]
    assert sum(int(row[1].replace(",", "")) for row in rows) == total["total_tokens"]
    rate = percent(total["cached_tokens"] / total["input_tokens"])
    assert tiles(text)["Cache hit rate"] == rate and f"Cache hit rate: {rate} of the input" in text
    print(f"tokens: {[row[1] for row in rows]}, hit rate {rate}")


async def test_every_table_is_a_file(server: Server, browser: Browser) -> None:
    """The links beside the tables lead to the same figures."""
    text = await shown(browser, "range=30d&group=task")
    links = [html.unescape(link) for link in re.findall(r'href="([^"]+)" download', text)]
    assert len(links) == 3
    lines = {}
    for link in links:
        answer = await browser.get(link)
        assert answer.headers["content-type"].startswith("text/csv")
        lines[parse_qs(urlsplit(link).query)["table"][0]] = list(csv.DictReader(io.StringIO(answer.text)))
    groups = (await told(server, "range=30d", "task"))["groups"]
    calls = sum(group["calls"] for group in groups)
    assert len(lines["groups"]) == len(groups)
    assert sum(int(row["calls"]) for row in lines["groups"]) == calls
    assert sum(int(row["calls"]) for row in lines["chart"]) == calls and {"day", "task"} <= lines["chart"][0].keys()
    assert lines["tokens"][0]["part"] == "fresh input"
    assert sum(int(row["tokens"]) for row in lines["tokens"]) == sum(group["total_tokens"] for group in groups)
    print(f"csv: { ({name: len(rows) for name, rows in lines.items()}) } lines")


async def test_the_zone_is_printed_and_counts(server: Server, browser: Browser) -> None:
    """The configured one, unless the address names another."""
    assert f"Days and hours in {ZONE}." in await shown(browser)
    text = await shown(browser, "range=today&tz=Pacific/Auckland")
    assert "Days and hours in Pacific/Auckland." in text
    (first, *_) = re.findall(r'data-starts="([^"]+)"', text)[0].split()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00\+1[23]:00", first)
    print(f"zone: today in Auckland begins {first}")


async def test_the_storage_card_is_that_of_the_file(server: Server, browser: Browser, folder: Path) -> None:
    """Rows, sizes of the file and its log, the oldest row and the next clean-up."""
    text = await shown(browser)
    pairs = {
        name: re.sub(r"<[^>]+>", "", value).strip()
        for name, value in re.findall(r"<dt>([^<]+)</dt><dd>(.*?)</dd>", text.partition('id="storage"')[2])
    }
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        (rows,) = db.execute("SELECT COUNT(*) FROM calls").fetchone()
    assert pairs["Calls kept"].startswith(count(rows)) and rows >= CALLS
    assert re.fullmatch(r"\d+ \w{3} \d{4} \(31 d ago\)", pairs["Oldest"])
    assert re.fullmatch(r"[\d.]+ MB \+ [\d.]+ k?M?B write-ahead log", pairs["File"])
    assert re.fullmatch(r"now|in \d+ min", pairs["Next clean-up"])
    print(f"storage: {pairs}")


async def test_a_budget_has_a_bar_with_its_marks(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Spent of the limit, the share, where alerts are, that calls are downgraded, and what midnight will see."""
    routing = ROUTING + (
        "budget: {{daily_usd: 0.01, alert_at: [0.2, 0.8], when_spent: downgrade,"
        f" downgrade_to: 'fake/ok(n_tokens=250)', timezone: {zone()}}}}}\n"
    )
    prices = "version: 1\nmodels:\n  fake/*: {input: 2, output: 10}\n"
    file = write_files(tmp_path, upstream_of_module.url, routing, prices)
    async with serving(file, {"PROXY_ADMIN_KEY": ADMIN}) as server, browsing(server.port) as browser:
        await browser.sign_in()
        seen = []
        for _ in range(4):
            answer = await post(
                server.port, chat("fake/ok(n_tokens=300)", max_tokens=300), authorization=f"Bearer {ADMIN}"
            )
            assert answer.status == 200, answer.json
            seen_model = answer.headers("x-proxy-model")[0]
            text = await shown(browser)
            card = text.partition('id="budgets"')[2].partition("</section>")[0]
            spent = float(re.findall(r"<strong>\$([\d.]+)</strong> of \$0\.01", card)[0])
            used = re.findall(r'of \$[\d.]+ <span class="muted">\(([^)]+)\)', card)[0]
            seen.append((seen_model, spent, used, re.findall(r'class="badge \w+">([^<]+)', card)))
            assert used == percent(spent / 0.01) or spent >= 0.01  # from a cent on, to the cent
            assert card.count('class="mark alert"') == 2 and card.count('class="mark limit"') == 1
            assert re.search(r"\$[\d.]+ left", card) and "expected at the end of the window" in card
            assert "begins anew" in card
        print(f"budget: {seen}")
        assert seen[0][3] == ["20 % reached"]
        assert seen[-1][3] == ["downgraded to fake/ok(n_tokens=250)"]
        print(f"budget: {seen}")


async def test_calls_are_not_attempts_and_savings_name_their_baseline(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """A call that a fallback answered counts once. The baseline is that of the file, until the page names another."""
    routing = ROUTING + "usage: {{baseline: fake/dear}}\nmodels: {{safe: {{use: fake/e500, fallback: [fake/ok]}}}}\n"
    prices = "version: 1\nmodels:\n  fake/dear: {input: 20, output: 100}\n  fake/*: {input: 2, output: 10}\n"
    file = write_files(tmp_path, upstream_of_module.url, routing, prices)
    async with serving(file, {"PROXY_ADMIN_KEY": ADMIN}) as server, browsing(server.port) as browser:
        await browser.sign_in()
        answer = await post(server.port, chat("safe"), authorization=f"Bearer {ADMIN}")
        assert answer.status == 200, answer.json
        text = await shown(browser, "metric=calls")
        assert tiles(text)["Calls"] == "1" and "Calls, not attempts." in text
        assert [row[3] for row in table(text, 'id="table"')[1:]] == ["1", "1"]
        call_id = answer.headers("x-request-id")[0]
        detail = (await browser.get(f"/dashboard/requests/{call_id}")).text
        assert re.search(r'<dt>Attempts</dt>\s*<dd class="figure">2<', detail)
        cost = (await told(server, ""))["total"]["cost_usd"]
        assert tiles(text)["Saved"] == usd(9 * cost) and "against fake/dear" in text
        other = await shown(browser, "baseline=fake/ok")
        assert tiles(other)["Saved"] == "$0.00" and "at the prices of <strong>fake/ok</strong>" in other
        nobody = await shown(browser, "baseline=nobody/none")
        assert tiles(nobody)["Saved"] == NOTHING and "no price known for nobody/none" in nobody
        print(f"1 call, 2 attempts, {usd(cost)}; saved {usd(9 * cost)} against fake/dear, $0.00 against fake/ok")
