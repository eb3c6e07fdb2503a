"""The playground: its calls are those of the API, by the admin key that signed in."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.web.browser import ADMIN, Browser, Elements, browsing
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.waiting import eventually, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLAYGROUND = "/dashboard/playground"
STREAM = f"{PLAYGROUND}/stream"
EVIL = "<img src=x onerror=alert(1)>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    routing = write_files(tmp_path_factory.mktemp("playground"), upstream_of_module.url, ROUTING)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def asked(browser: Browser, path: str = PLAYGROUND, **fields: str) -> Any:
    usual = {"token": await browser.token(PLAYGROUND), "model": "fake/ok", "message": "one two three", "do": "send"}
    return await browser.send(path, {**usual, **fields})


def said(page: str) -> list[str]:
    return [html.unescape(text) for text in re.findall(r'<div class="answer">(.*?)</div>', page, re.DOTALL)]


async def test_a_plan_calls_nothing(upstream_of_module: FakeUpstream, browser: Browser) -> None:
    """It shows who would answer and why, for each of two models."""
    before = len(upstream_of_module.ledger)
    page = await asked(browser, do="plan", model="auto", other="fake/slow")
    assert page.status_code == 200
    shown = " ".join(Elements(page.text).texts)
    assert "fake/ok" in shown and "fake/slow" in shown and "Nothing was called." in shown
    refused = await asked(browser, do="plan", model="no-such-model")
    assert refused.status_code == 200 and "no-such-model" in re.findall(r'role="alert">([^<]+)<', refused.text)[0]
    assert len(upstream_of_module.ledger) == before


async def test_a_plain_form_gets_whole_answers(server: Server, browser: Browser) -> None:
    """Two side by side, each with what it cost; both are listed under Requests by the key that signed in."""
    page = await asked(browser, other="fake/e400", temperature="0.5", max_tokens="50", system="Be brief.")
    assert page.status_code == 200
    assert len(said(page.text)) == 1 and said(page.text)[0].strip()
    assert len(re.findall(r'role="alert">', page.text)) == 1
    assert "$0.0" in page.text and "tokens in" in page.text
    ids = re.findall(r'/dashboard/requests/(\w{26})"', page.text)
    assert len(ids) == 2
    rows = await server.runtime.ledger.latest(2)
    assert {row.key_id for row in rows} == {"admin"}
    assert (await browser.get(f"/dashboard/requests/{ids[0]}")).status_code == 200


async def test_parameters_reach_the_model(browser: Browser) -> None:
    """Those with fields, and the others as JSON. This model answers with the body that it got."""
    page = await asked(
        browser, model="fake/echo", temperature="0.5", max_tokens="50", system="Be brief.", more='{"top_p": 0.9}'
    )
    sent = json.loads(said(page.text)[0])
    assert (sent["temperature"], sent["top_p"]) == (0.5, 0.9)
    assert 50 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("message", "  ", "Type a message"),
        ("temperature", "warm", "Expected a number"),
        ("max_tokens", "nan", "Expected a number"),
        ("more", "{", "Expected a JSON object"),
        ("more", "[1]", "Expected a JSON object"),
        ("more", '{"messages": []}', "messages has a field"),
    ],
)
async def test_a_wrong_field_is_marked(browser: Browser, field: str, value: str, message: str) -> None:
    """What was typed stays; nothing is called."""
    page = await asked(browser, **{"system": EVIL, field: value})
    assert page.status_code == 400
    assert message in re.findall(rf'id="wrong-{field}">([^<]+)<', page.text)[0]
    assert f'aria-describedby="wrong-{field}"' in page.text
    assert html.escape(EVIL) in page.text and Elements(page.text).unwanted() == []


async def test_the_stream_is_the_apis_own(browser: Browser) -> None:
    """Frames of the chat API, with the usage at the end; `side` chooses the model."""
    answer = await asked(browser, STREAM, other="fake/e400")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    frames = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    text = "".join(choice["delta"].get("content") or "" for frame in frames for choice in frame["choices"])
    assert text.strip() and frames[-1]["usage"]["cost"] > 0
    assert answer.text.rstrip().endswith("data: [DONE]")
    assert answer.headers["x-proxy-model"] == "fake/ok" and len(answer.headers["x-request-id"]) == 26
    other = await asked(browser, STREAM, other="fake/e400", side="1")
    assert other.status_code == 400 and other.json()["error"]["message"]


async def test_only_the_page_may_call(upstream_of_module: FakeUpstream, browser: Browser) -> None:
    """No token of the session, another site, or no session at all: nothing is called."""
    before = len(upstream_of_module.ledger)
    for path in (PLAYGROUND, STREAM):
        assert (await asked(browser, path, token="0" * 64)).status_code == 403
        fields = {"token": await browser.token(PLAYGROUND), "model": "fake/ok", "message": "x"}
        assert (await browser.send(path, fields, origin="https://evil.example")).status_code == 403
        assert (await browser.send(path, {**fields, "message": "x" * 300_000})).status_code == 413
    assert (await browser.get(STREAM)).status_code == 405
    assert len(upstream_of_module.ledger) == before


async def test_an_answer_is_only_text(upstream_of_module: FakeUpstream, browser: Browser) -> None:
    """Models may say anything; names and errors too."""
    for model in (EVIL, f"fake/{EVIL}", "fake/ok"):
        for do in ("send", "plan"):
            page = await asked(browser, model=model, other="\u202egnp", system=EVIL, do=do)
            assert page.status_code == 200
            assert Elements(page.text).unwanted() == []


@pytest.mark.parametrize("model", ["fake/ok(n_tokens=2000,pace=0.02)", "fake/slow_ttft(s=30)"])
@pytest.mark.slow
async def test_an_answer_ends_with_its_session(upstream_of_module: FakeUpstream, tmp_path: Path, model: str) -> None:
    """Whether it has begun or not: who signs out in another window stops it, and the call is settled."""
    patient = "{connect: 2, first_token: 60, idle: 60, total: 120}"
    routing = write_files(tmp_path, upstream_of_module.url, timeouts=patient)
    async with (
        serving(routing, {"PROXY_ADMIN_KEY": ADMIN}) as server,
        browsing(server.port) as browser,
        browsing(server.port) as window,
    ):
        await browser.sign_in()
        window.client.cookies.update(browser.client.cookies)
        before = len(upstream_of_module.ledger)
        asking = asyncio.create_task(asked(browser, STREAM, model=model))
        await eventually(lambda: len(upstream_of_module.ledger) > before)
        token = await window.token(PLAYGROUND)
        assert (await window.send("/dashboard/sign-out", {"token": token})).status_code == 303
        answer = await asyncio.wait_for(asking, 15)  # either model takes far longer
        if "ttft" in model:
            assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/sign-in")
        else:
            last = answer.text.strip().splitlines()[-1]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "session_over"

        async def is_settled() -> bool:
            """Nobody waits for the books of a call that was stopped, so they may come after its last byte."""
            answer = await browser.client.get("/v1/requests", headers={"authorization": f"Bearer {ADMIN}"})
            outcomes = [row["outcome"] for row in answer.json()["data"]]
            assert outcomes in (["open"], ["client_closed"])
            return outcomes == ["client_closed"]

        await until(is_settled)
