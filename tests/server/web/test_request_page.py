"""The page of one request: what is kept of a call, and nothing that is not."""

from __future__ import annotations

import html
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from tests.server.api.raw import chat, post
from tests.server.web.browser import ADMIN, Browser
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = ROUTING + (
    "ensembles: {{pair: {{strategy: voting, members: [fake/ok, fake/ok]}}}}\n"
    "rules:\n"
    "  - {{name: only-images, when: {{has_images: true}}, use: fake/ok}}\n"
    "  - {{name: everything, when: {{}}, use: [fake/ok, fake/other]}}\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("request")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    routing = write_files(folder, upstream_of_module.url, SETTINGS)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def call(server: Server, body: bytes) -> str:
    """The id of a call."""
    return (await post(server.port, body, authorization=f"Bearer {ADMIN}")).headers("x-request-id")[0]


async def page(browser: Browser, call_id: str) -> str:
    answer = await browser.get(f"/dashboard/requests/{call_id}")
    assert answer.status_code == 200, answer.text
    return html.unescape(answer.text)


def money(text: str) -> list[float]:
    """The amounts of its money, from the first line to the sum."""
    table = text.partition("money-title")[2].partition("</table>")[0]
    return [float(amount) for amount in re.findall(r'<td class="n">\$([\d.]+)</td>', table)]


async def test_a_routed_call_says_why(server: Server, browser: Browser) -> None:
    """The rules that were tried with their reasons, the candidates, and the attempts with their times."""
    text = await page(browser, await call(server, chat("auto")))
    assert re.search(r"<th[^>]*>only-images</th><td>has_images is false, not true</td>", text)
    assert re.search(r'<th[^>]*>everything</th><td><span class="badge good">matched</span>', text)
    assert "not taken because" in text and "fake/other" in text
    assert re.search(r'<td class="n">\+[\d.]+ m?s</td>', text)


async def test_money_is_told_by_part_and_adds_up(server: Server, browser: Browser) -> None:
    """Each attempt, its parts below it, and the cost of the call."""
    text = await page(browser, await call(server, chat()))
    assert re.findall(r'depth1">(fresh input|output) <span class="muted">[\d,]+ tokens', text) == [
        "fresh input",
        "output",
    ]
    attempt, *parts, whole = money(text)
    assert attempt == whole == pytest.approx(sum(parts)) and len(parts) == 2


async def test_parts_that_are_not_known_are_not_made_up(server: Server, browser: Browser, folder: Path) -> None:
    """A cost that today's prices do not give."""
    call_id = await call(server, chat())
    with closing(sqlite3.connect(folder / "usage.db")) as db, db:
        db.execute("UPDATE attempts SET cost_nano = cost_nano + 7 WHERE call_id = ?", (call_id,))
    text = await page(browser, call_id)
    assert "its parts are not known" in text and "fresh input <span" not in text


async def test_an_ensemble_shows_its_votes(server: Server, browser: Browser) -> None:
    """Equal answers share a letter; a failed call has none."""
    text = await page(browser, await call(server, chat("ensemble:pair")))
    assert "Ensemble pair" in text and text.count('<strong class="good">A</strong>') == 2
    failed = await page(browser, await call(server, chat("fake/e400")))
    assert "upstream error" in failed and "votes-title" not in failed


async def test_another_configuration_is_not_asked_for_reasons(server: Server, browser: Browser, folder: Path) -> None:
    """Its rules may be others."""
    call_id = await call(server, chat("auto"))
    with closing(sqlite3.connect(folder / "usage.db")) as db, db:
        db.execute("UPDATE calls SET config_version = 'another' WHERE id = ?", (call_id,))
    text = await page(browser, call_id)
    assert "ran on another configuration" in text and "Rules tried" not in text and "Candidates" in text
