"""Pages of prompts, experiments and sites: what they show and change is what the API says, whoever wrote the texts."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from proxy.server.web.rendering import CSP
from proxy.server.web.site import sign_in_link
from tests.server.web.browser import ADMIN, Browser, Elements, browsing
from tests.server.web.test_pages import EVIL
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("api")]
SETTINGS = ROUTING + (
    "sites: {{evil: {{name: '<img src=x onerror=alert(1)>', category: shops, domains: [evil.example],"
    " description: '{wide}', tasks: {{one: {{about: '<b>one</b>', say: [take it], fields: {{x: text}}}}}}}}}}\n"
)
PATHS = (
    *("/prompts", "/prompts?archived=true", "/prompts/pitch", "/prompts/pitch?version=2", "/prompts/pitch?before=2"),
    *("/prompts/pitch?from=1&to=2", "/prompts/pitch?from=2&to=2", "/prompts/pitch/new", "/new-prompt", "/experiments"),
    *("/experiments/running", "/experiments/draft", "/experiments/won", "/sites", "/sites?category=shops"),
    *("/sites?instructions=get+trending+communities&asset=https://reddit.com", "/sites/reddit", "/sites/evil"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    settings = SETTINGS.replace("{wide}", "w" * 900)
    routing = write_files(tmp_path_factory.mktemp("stored"), upstream_of_module.url, settings)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Two versions of a prompt; an experiment that runs, one that is a draft, one with a winner."""
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(base_url=server.base_url, headers=headers, trust_env=False, timeout=20) as client:
        await done(client.post("/prompts", json={"id": "pitch", "template": "Sell {x}.", "labels": ["production"]}))
        second = {"template": "Sell {x} to {y}.\nBriefly.", "model": "fake/ok", "notes": "for whom"}
        await done(client.post("/prompts/pitch/versions", json=second))
        variants = [{"name": "old", "prompt_version": 1}, {"name": "new", "prompt_version": 2}]
        for name in ("running", "draft", "won"):
            body: dict[str, Any] = {"id": name, "prompt": "pitch", "variants": variants, "minimum_samples": 5}
            body |= {} if name == "won" else {"prompt": None, "variants": [{"name": "a"}, {"name": "b"}]}
            await done(client.post("/experiments", json=body))
            if name != "draft":
                await done(client.post(f"/experiments/{name}/start"))
        for number in range(12):
            for variant in ("new", "old"):
                outcome = {"variant": variant, "success": variant == "new", "unit": f"{variant}{number}"}
                await done(client.post("/experiments/won/outcomes", json=outcome))
        yield client


async def done(asked: Any) -> Any:
    answer = await asked
    assert answer.status_code < 300, answer.text
    return answer.json()


async def form_of(browser: Browser, path: str, action: str) -> dict[str, str]:
    """The fields that the page has put into the form with this target, as a browser would send them."""
    text = (await browser.get(f"/dashboard{path}")).text
    (form,) = re.findall(rf'<form[^>]*action="/dashboard{re.escape(action)}(?:#\w+)?".*?</form>', text, re.DOTALL)[-1:]
    fields = {name: html.unescape(value) for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', form)}
    areas = re.findall(r'<textarea name="([^"]+)"[^>]*>\n(.*?)</textarea>', form, re.DOTALL)
    return fields | {html.unescape(name): html.unescape(value).replace("\n", "\r\n") for name, value in areas}


def alert(answer: httpx.Response) -> str:
    return html.unescape(re.findall(r'role="alert">([^<]+)<', answer.text)[0])


def marked(answer: httpx.Response) -> list[str]:
    """The fields that are marked as wrong."""
    return re.findall(r'name="([\w.]+)"[^>]*aria-invalid="true"', answer.text)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.sampled(4)
async def test_pages_need_nothing_from_elsewhere(browser: Browser, path: str) -> None:
    """As all pages: what the policy allows is what they use; each form has its token."""
    answer = await browser.get(f"/dashboard{path}")
    assert (answer.status_code, answer.headers["content-security-policy"]) == (200, CSP), answer.text[-500:]
    assert Elements(answer.text).unwanted() == []
    ids = re.findall(r'\sid="([^"]+)"', answer.text)
    assert len(ids) == len(set(ids)) and answer.text.count("<h1") == 1
    forms = re.findall(r'<form[^>]*method="post".*?</form>', answer.text, re.DOTALL)
    assert forms and all('name="token"' in form for form in forms)
    assert answer.text.count('aria-current="page"') == 1


@pytest.mark.parametrize("path", ["/prompts", "/prompts/pitch", "/new-prompt", "/experiments/won", "/sites/reddit"])
async def test_nobody_sees_them_without_signing_in(server: Server, api: httpx.AsyncClient, path: str) -> None:
    """Nor changes anything; a form without a token is refused, too."""
    async with browsing(server.port) as stranger:
        assert (await stranger.get(f"/dashboard{path}")).status_code == 303
        for target in ("/prompts/pitch/labels", "/prompts/pitch/new", "/new-prompt", "/experiments/running/stop"):
            assert (await stranger.send(f"/dashboard{target}", {"label": "x"})).status_code == 303
        await stranger.sign_in()
        for target in ("/prompts/pitch/labels", "/prompts/pitch/new", "/new-prompt", "/experiments/running/stop"):
            assert (await stranger.send(f"/dashboard{target}", {"label": "x"})).status_code == 403
            token = await stranger.token("/dashboard/prompts")
            foreign = await stranger.send(f"/dashboard{target}", {"token": token}, origin="http://evil.example")
            assert foreign.status_code == 403
    assert (await done(api.get("/experiments/running")))["status"] == "running"


async def test_a_prompt_shows_its_versions_and_what_differs(browser: Browser) -> None:
    """The newest first, with labels; the texts line by line."""
    page = (await browser.get("/dashboard/prompts/pitch")).text
    assert re.findall(r'\?version=(\d)#version"', page)[:2] == ["2", "1"]
    assert "production" in page and "for whom" in page and "Sell {x}." in page
    compared = (await browser.get("/dashboard/prompts/pitch?from=1&to=2")).text
    assert '<span class="removed">-Sell {x}.</span>' in compared
    assert '<span class="added">+Briefly.</span>' in compared and "New variables: y." in compared
    assert "are the same" in (await browser.get("/dashboard/prompts/pitch?from=2&to=2")).text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/prompts/pich", 404, "Did you mean pitch?"),
        ("/prompts/pitch?version=9", 404, "Versions: 1, 2"),
        ("/prompts/pitch?from=0&to=2", 400, "version"),
        ("/prompts/pitch?nonsense=1", 400, "Unknown parameter"),
        ("/prompts?archived=maybe&x=1", 400, "Unknown parameter"),
        ("/prompts/pitch/new?from=x", 400, "version"),
        ("/experiments/none", 404, "Experiments: draft"),
        ("/experiments?limit=3", 400, "Unknown parameter"),
        ("/sites/redit", 404, "Did you mean reddit?"),
        ("/sites?category=cats", 400, "category: expected one of"),
        ("/sites?domain=a+b", 400, "domain"),
    ],
)
async def test_what_is_unknown_gets_a_page_that_names_it(browser: Browser, path: str, status: int, said: str) -> None:
    """As the API does."""
    answer = await browser.get(f"/dashboard{path}")
    assert (answer.status_code, said in alert(answer)) == (status, True), alert(answer)


async def test_a_prompt_from_its_form_to_its_second_version(browser: Browser, api: httpx.AsyncClient) -> None:
    """What the form begins with is the version as it is, to the last brace and space."""
    text = '\n Return {{"price": null}} for {page} \u202e<b>&amp;\n\n'
    given = await form_of(browser, "/new-prompt", "/new-prompt")
    given |= {
        "id": "by-form",
        "name": "By a form",
        "template": text.replace("\n", "\r\n"),
        "labels": "production, staging",
    }
    answer = await browser.send("/dashboard/new-prompt", given)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/prompts/by-form")
    made = await done(api.get("/prompts/by-form"))
    assert (made["template"], made["variables"]) == (text, ["page"])
    assert made["labels"] == {"production": 1, "staging": 1}

    again = await form_of(browser, "/prompts/by-form/new?from=1", "/prompts/by-form/new")
    assert again["template"] == text.replace("\n", "\r\n")
    again |= {"variables": "page", "parameters": '{"temperature": 0.2}', "notes": "cooler"}
    assert (await browser.send("/dashboard/prompts/by-form/new", again)).status_code == 303
    second = await done(api.get("/prompts/by-form/versions/2"))
    assert (second["template"], second["parameters"], second["notes"]) == (text, {"temperature": 0.2}, "cooler")
    history = (await done(api.get("/prompts/by-form/labels")))["history"]
    assert {move["moved_by"] for move in history} == {"admin"}

    chat = [{"role": "system", "content": "Be {tone}."}, {"role": "user", "content": [{"type": "text", "text": "{x}"}]}]
    third = {**again, "template": "", "messages": json.dumps(chat), "variables": "", "revision": "2"}
    assert (await browser.send("/dashboard/prompts/by-form/new", third)).status_code == 303
    fields = await form_of(browser, "/prompts/by-form/new?from=latest", "/prompts/by-form/new")
    assert (json.loads(fields["messages"]), fields["template"]) == (chat, "")


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"template": "Sell {x.__class__}."}, "template", "is not a variable"),
        ({"template": ""}, "template", "give either"),
        ({"template": "a", "messages": "[]"}, "template", "give either"),
        ({"template": "", "messages": "[{"}, "messages", "no JSON"),
        ({"template": "", "messages": "[" * 5_000}, "messages", "messages"),
        ({"template": "", "messages": '[{"role": "user", "content": "{"}]'}, "messages", "is not a variable"),
        ({"variables": "x, z"}, "variables", "declared, but not in the text: z"),
        ({"parameters": '{"temperature": "hot"}'}, "parameters", "temperature"),
        ({"parameters": "7"}, "parameters", "expected an object"),
        ({"model": "nobody/none"}, "model", "nobody"),
        ({"labels": "7"}, "labels", "not only digits"),
        ({"notes": "n" * 4_001}, "notes", "4000"),
        ({"tools": '{"a": 1}'}, "tools", "expected a list"),
        ({"template": "\x00"}, "template", "NUL"),
    ],
)
async def test_a_form_that_is_refused_saves_nothing_and_marks_the_field(
    browser: Browser, api: httpx.AsyncClient, fields: dict[str, str], field: str, said: str
) -> None:
    """What was typed is still there."""
    given = {**await form_of(browser, "/prompts/pitch/new?from=1", "/prompts/pitch/new"), "notes": "kept", **fields}
    answer = await browser.send("/dashboard/prompts/pitch/new", given)
    assert (answer.status_code, marked(answer)) == (400, [field]), alert(answer)
    assert alert(answer).startswith("Nothing was saved.") and said in alert(answer)
    assert ('value="kept"' in answer.text) == ("notes" not in fields)
    assert (await done(api.get("/prompts/pitch")))["latest_version"] == 2


async def test_a_label_moves_and_keeps_its_history(browser: Browser, api: httpx.AsyncClient) -> None:
    """With the name of the key, and a note; it can be taken off."""
    target = "/prompts/pitch/labels"
    form = await form_of(browser, "/prompts/pitch", target)
    moved = {**form, "label": "staging", "version": "2", "note": "<img src=x onerror=alert(1)>"}
    answer = await browser.send(f"/dashboard{target}", moved)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/prompts/pitch#labels")
    page = await browser.get("/dashboard/prompts/pitch")
    assert "by admin" in page.text and Elements(page.text).unwanted() == []
    assert (await done(api.get("/prompts/pitch")))["labels"] == {"production": 1, "staging": 2}
    stale = await browser.send(f"/dashboard{target}", {**moved, "version": "1"})
    assert stale.status_code == 412 and "Somebody has changed it" in alert(stale)
    for fields, field in (({"version": "9"}, ""), ({"version": "x"}, "version"), ({"label": "latest"}, "label")):
        fresh = {**await form_of(browser, "/prompts/pitch", target), "label": "staging", "version": "1", **fields}
        refused = await browser.send(f"/dashboard{target}", fresh)
        assert (refused.status_code in (400, 404), marked(refused)) == (True, [field] if field else []), fields
    off = {**await form_of(browser, "/prompts/pitch", target), "label": "staging", "version": "none"}
    assert (await browser.send(f"/dashboard{target}", off)).status_code == 303
    assert (await done(api.get("/prompts/pitch")))["labels"] == {"production": 1}


@pytest.mark.parametrize("value", [*EVIL, "{x}", "{{7*7}}", "line\r\nline"])
async def test_a_version_is_tried_without_any_call(browser: Browser, api: httpx.AsyncClient, value: str) -> None:
    """The values are only text, in the field and in the result."""
    calls = len((await done(api.get("/requests")))["data"])
    form = await form_of(browser, "/prompts/pitch?version=1", "/prompts/pitch/try")
    if "\x00" in value:
        value = value.replace("\x00", "")
    answer = await browser.send("/dashboard/prompts/pitch/try", {**form, "value.x": value})
    assert answer.status_code == 200, alert(answer)
    page = Elements(answer.text)
    assert page.unwanted() == []
    shown = re.findall(r'<pre class="text">(.*?)</pre>', answer.text, re.DOTALL)[-1]
    expected = value.replace("\r\n", "\n").replace("\u202e", "\ufffd").replace("\x07", "\ufffd")
    assert html.unescape(shown) == f"Sell {expected}."
    assert len((await done(api.get("/requests")))["data"]) == calls
    missing = await browser.send(
        "/dashboard/prompts/pitch/try", {**form, "version": "2", "value.y": "x", "value.z": "y"}
    )
    assert "unknown: 'z'" in alert(missing)


async def test_hostile_texts_of_prompts_are_only_text(browser: Browser, api: httpx.AsyncClient) -> None:
    """In names, notes, texts, and fields of chats, on each page that shows them."""
    for number, text in enumerate(EVIL):
        text = text.replace("\x00", "").replace("{{7*7}}${7*7}", "$[7*7]")
        message = {"role": "user", "content": f"{text} {{x}}", "name": "n"}
        title = text[:200] if text[:200].isprintable() else "x"
        body = {"id": f"evil-{number}", "name": title, "messages": [message], "notes": text[:4000]}
        await done(api.post("/prompts", json=body))
        await done(api.post(f"/prompts/evil-{number}", json={"template": f"{text}{{y}}", "notes": "</textarea><b>"}))
        for path in ("", "?from=1&to=2", "?version=1", "/new?from=1", "/new?from=2"):
            answer = await browser.get(f"/dashboard/prompts/evil-{number}{path}")
            page = Elements(answer.text)
            assert (answer.status_code, page.unwanted()) == (200, []), path
            assert not set(re.sub("<textarea.*?</textarea>", "", answer.text, flags=re.DOTALL)) & {"\u202e", "\x07"}
    listed = (await browser.get("/dashboard/prompts")).text
    assert Elements(listed).unwanted() == [] and "evil-0" in listed


async def test_an_experiment_says_what_its_results_say(browser: Browser, api: httpx.AsyncClient) -> None:
    """The verdict, the figures of each variant, and how they came about; then its label is moved and moved back."""
    page = (await browser.get("/dashboard/experiments/won")).text
    assert "new wins" in page and page.count('<path class="band"') == 1
    assert "100 % of 12" in page and "0 % of 12" in page
    results = await done(api.get("/experiments/won/results"))
    assert results["winner"] == "new"
    promoted = await browser.send(
        "/dashboard/experiments/won/promote",
        await form_of(browser, "/experiments/won", "/experiments/won/promote"),
    )
    assert promoted.status_code == 303
    assert (await done(api.get("/prompts/pitch")))["labels"]["production"] == 2
    back = await form_of(browser, "/experiments/won", "/experiments/won/revert")
    stale = await browser.send("/dashboard/experiments/won/revert", {**back, "revision": "1"})
    assert stale.status_code == 412 and "Somebody has changed it" in alert(stale)
    assert (await browser.send("/dashboard/experiments/won/revert", back)).status_code == 303
    assert (await done(api.get("/prompts/pitch")))["labels"]["production"] == 1
    again = await browser.send(
        "/dashboard/experiments/won/revert", {**back, "revision": str(int(back["revision"]) + 1)}
    )
    assert again.status_code == 409 and alert(again).startswith("Nothing was changed.")


async def test_an_experiment_starts_and_stops(browser: Browser, api: httpx.AsyncClient) -> None:
    """Each page has the forms that its state allows; without outcomes nothing is divided by nothing."""
    draft = (await browser.get("/dashboard/experiments/draft")).text
    assert "Not started" in draft and "/draft/start" in draft and "/draft/stop" not in draft
    start = await form_of(browser, "/experiments/draft", "/experiments/draft/start")
    assert (await browser.send("/dashboard/experiments/draft/start", start)).status_code == 303
    running = (await browser.get("/dashboard/experiments/draft")).text
    assert "There are no outcomes yet" in running and "/draft/start" not in running
    assert (await browser.send("/dashboard/experiments/draft/delete", start)).status_code == 404
    stop = await form_of(browser, "/experiments/draft", "/experiments/draft/stop")
    assert (await browser.send("/dashboard/experiments/draft/stop", stop)).status_code == 303
    assert (await done(api.get("/experiments/draft")))["status"] == "stopped"
    assert "/draft/stop" not in (await browser.get("/dashboard/experiments/draft")).text


async def test_hostile_texts_of_experiments_are_only_text(browser: Browser, api: httpx.AsyncClient) -> None:
    """In names, and in the parameters that a variant sets."""
    for number, text in enumerate(EVIL):
        name = text[:200] if text[:200].isprintable() else "x"
        variants = [{"name": "a", "parameters": {"stop": text.replace("\x00", "")}}, {"name": "b"}]
        made = await api.post("/experiments", json={"id": f"evil-{number}", "name": name, "variants": variants})
        assert made.status_code == 201, made.text
        answer = await browser.get(f"/dashboard/experiments/evil-{number}")
        assert (answer.status_code, Elements(answer.text).unwanted()) == (200, [])
        assert not set(answer.text) & {"\u202e", "\x07"} and max(map(len, Elements(answer.text).texts)) < 1_500
    assert Elements((await browser.get("/dashboard/experiments")).text).unwanted() == []


async def test_sites_are_filtered_and_found(browser: Browser) -> None:
    """With the filters of the API; texts of the configuration are only text."""
    listed = (await browser.get("/dashboard/sites?category=weather")).text
    assert set(re.findall(r'/dashboard/sites/([\w-]+)"', listed)) == {"weather-com", "weather-gov", "wetter-com"}
    found = (await browser.get("/dashboard/sites?instructions=get+trending+communities&asset=https://reddit.com")).text
    assert "/dashboard/sites/reddit#trending" in found
    for wrong in ("asset=ht+tp://a", "instructions=write+a+poem"):
        answer = await browser.get(f"/dashboard/sites?{wrong}")
        assert answer.status_code == 200 and 'role="status">' in answer.text
    reddit = (await browser.get("/dashboard/sites/reddit")).text
    assert 'id="trending"' in reddit and "&#34;additionalProperties&#34;: false" in reddit
    evil = (await browser.get("/dashboard/sites/evil")).text
    assert Elements(evil).unwanted() == [] and "&lt;img src=x" in evil


async def test_empty_lists_say_how_to_begin(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """With a command and a snippet to copy."""
    routing = write_files(tmp_path, upstream_of_module.url)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN}) as server, browsing(server.port) as browser:
        await browser.sign_in()
        headers = {"authorization": f"Bearer {ADMIN}"}
        async with httpx.AsyncClient(base_url=server.base_url, headers=headers, trust_env=False) as client:
            for name in ("extraction_v1", "reasoning_v1"):
                await done(client.delete(f"/prompts/{name}"))
        for path in ("/prompts", "/experiments"):
            text = (await browser.get(f"/dashboard{path}")).text
            assert f"curl http://127.0.0.1:{server.port}/v1{path}" in text and "from openai import OpenAI" in text
        archived = (await browser.get("/dashboard/prompts/extraction_v1")).text
        assert "What is archived cannot be used" in archived and "/extraction_v1/labels" not in archived


async def test_a_large_version_is_shown_in_bounded_steps(browser: Browser, api: httpx.AsyncClient) -> None:
    """A page of the largest prompt says that it shows a part, and its form has all of it."""
    text = "\n".join(f"line {number} {{x}}" for number in range(14_000))
    await done(api.post("/prompts", json={"id": "large", "template": text}))
    other = text.replace("line 7 ", "other 7 ")
    given = {**await form_of(browser, "/prompts/large/new", "/prompts/large/new"), "template": other}
    assert (await browser.send("/dashboard/prompts/large/new", given)).status_code == 303
    page = await browser.get("/dashboard/prompts/large")
    assert "more characters]" in page.text and len(page.content) < 200_000
    compared = (await browser.get("/dashboard/prompts/large?from=1&to=2")).text
    assert '<span class="removed">-line 7 {x}</span>' in compared
    again = await form_of(browser, "/prompts/large/new?from=2", "/prompts/large/new")
    assert again["template"].replace("\r\n", "\n") == other
    began = time.monotonic()
    too_much = await browser.send("/dashboard/prompts/large/new", {**again, "template": "x" * 300_000})
    assert (too_much.status_code, marked(too_much)) == (400, ["template"]) and time.monotonic() - began < 5


async def test_forms_work_under_a_path_and_by_the_link(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """All links and redirects begin with it; who came by the link of the start has a name in the history, too."""
    secret = b"s" * 32
    routing = write_files(tmp_path, upstream_of_module.url, ROUTING + "server: {{root_path: /ai}}\n")
    async with serving(routing, pages_secret=secret) as server, browsing(server.port) as browser:
        link = sign_in_link(secret, f"http://127.0.0.1:{server.port}/ai").partition(str(server.port))[2]
        cookie = (await browser.get(link)).headers["set-cookie"].partition(";")[0]
        page = (await browser.get("/ai/dashboard/prompts/extraction_v1", cookie=cookie)).text
        links = re.findall(r'(?:href|action)="(/[^"]*)"', page)
        assert links and all(each.startswith("/ai/dashboard") for each in links)
        token = re.findall(r'name="token" value="([0-9a-f]{64})"', page)[0]
        revision = re.findall(r'name="revision" value="(\d+)"', page)[0]
        fields = {"token": token, "revision": revision, "label": "staging", "version": "1"}
        moved = await browser.send("/ai/dashboard/prompts/extraction_v1/labels", fields, cookie=cookie)
        assert moved.status_code == 303, alert(moved)
        assert moved.headers["location"] == "/ai/dashboard/prompts/extraction_v1#labels"
        history = (await browser.get("/v1/prompts/extraction_v1/labels")).json()["history"]
        assert (history[0]["label"], history[0]["moved_by"]) == ("staging", "dashboard")
