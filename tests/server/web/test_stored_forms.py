"""Forms that make experiments, end prompts and take files of them: what they store is what the API would."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.server.web.browser import ADMIN, Browser, Elements
from tests.server.web.test_stored_pages import alert, done, form_of, marked
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("api")]
NEW, IMPORT = "/dashboard/new-experiment", "/dashboard/import-prompts"
ENSEMBLE = "ensembles: {{pair: {{strategy: voting, members: [fake/ok, fake/ok]}}}}\n"
FILE = """\
version: 1
prompts:
  greeting:
    template: Greet {name}.
    labels: [production]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    routing = write_files(tmp_path_factory.mktemp("forms"), upstream_of_module.url, ROUTING + ENSEMBLE)
    async with serving(routing, {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {ADMIN}"}
    async with httpx.AsyncClient(base_url=server.base_url, headers=headers, trust_env=False, timeout=20) as client:
        for template in ("Sell {x}.", "Sell {x} briefly."):
            path, body = ("/prompts/pitch", {}) if "briefly" in template else ("/prompts", {"id": "pitch"})
            await done(client.post(path, json={**body, "template": template, "labels": ["production"]}))
        yield client


async def new_form(browser: Browser, **fields: str) -> dict[str, str]:
    given = await form_of(browser, "/new-experiment?prompt=pitch", "/new-experiment")
    given |= {"metric": "success", "assignment": "sticky"}
    return given | {name.replace("__", "."): value for name, value in fields.items()}


async def test_an_experiment_is_made_by_its_form(browser: Browser, api: httpx.AsyncClient) -> None:
    """With the rows that are filled in, and nothing for fields that are empty; it is a draft."""
    form = await new_form(
        browser,
        id="by-form",
        name="By a form",
        variants__0__prompt_version="1",
        variants__0__weight="3",
        variants__1__prompt_version="2",
        variants__3__name="warm",
        variants__3__model="fake/ok",
        variants__3__parameters='{"temperature": 0.9}',
        minimum_samples="40",
        metric="score",
    )
    answer = await browser.send(NEW, form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/experiments/by-form"), alert(answer)
    made = await done(api.get("/experiments/by-form"))
    assert (made["status"], made["prompt"], made["metric"], made["minimum_samples"]) == ("draft", "pitch", "score", 40)
    keys = ("name", "weight", "prompt_version", "model", "parameters")
    assert [tuple(variant[key] for key in keys) for variant in made["variants"]] == [
        ("old", 3, 1, None, {}),
        ("new", 1, 2, None, {}),
        ("warm", 1, None, "fake/ok", {"temperature": 0.9}),
    ]
    assert "by-form" in (await browser.get("/dashboard/experiments")).text


async def test_a_form_has_as_many_variants_as_the_api(browser: Browser, api: httpx.AsyncClient) -> None:
    """A button adds an empty row and keeps what was typed, up to ten; models may be ensembles, with their own keys."""
    form = await new_form(browser, id="ten", name="<i>kept</i>", variants__1__parameters="{")
    for rows in range(4, 11):
        answer = await browser.send(NEW, {**form, "add": ""})
        assert answer.status_code == 200 and "aria-invalid" not in answer.text
        form["rows"] = re.findall(r'name="rows" value="(\d+)"', answer.text)[0]
        assert (form["rows"], f'name="variants.{rows - 1}.name"' in answer.text) == (str(rows), True)
        assert ('name="add"' in answer.text) == (rows < 10)
    assert "&lt;i&gt;kept&lt;/i&gt;" in answer.text and 'value="{"' in answer.text
    assert '<option value="ensemble:pair">' in answer.text
    form |= {"variants.1.parameters": "", "variants.1.model": "ensemble:pair", "variants.1.ensemble": '{"n": 2}'}
    wrong = await browser.send(NEW, {**form, "variants.9.name": "last", "variants.9.ensemble": "[]"})
    assert wrong.status_code == 400 and marked(wrong) == ["variants.9.ensemble"], alert(wrong)
    form |= {f"variants.{row}.name": f"v{row}" for row in range(10)}
    assert (await browser.send(NEW, form)).status_code == 303
    made = await done(api.get("/experiments/ten"))
    assert len(made["variants"]) == 10
    assert (made["variants"][1]["model"], made["variants"][1]["ensemble"]) == ("ensemble:pair", {"n": 2})


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"id": "no good"}, "id", "id"),
        ({"id": "by-form-2", "variants__1__name": ""}, "variants", "2 to 10"),
        ({"variants__0__model": "nobody/none"}, "variants.0.model", "nobody"),
        ({"variants__4__name": "far", "variants__4__model": "nobody/none"}, "variants.4.model", "variants.4.model"),
        ({"variants__4__model": "fake/ok"}, "variants.4.name", "variants.4.name"),
        ({"variants__1__parameters": "{"}, "variants.1.parameters", "no JSON"),
        ({"variants__1__parameters": '{"messages": []}'}, "variants.1.parameters", "not a parameter"),
        ({"variants__1__weight": "much"}, "variants.1.weight", "Expected a number"),
        ({"variants__1__prompt_version": "1.5"}, "variants.1.prompt_version", "variants.1.prompt_version"),
        ({"variants__1__name": "old"}, "variants.1.name", "twice"),
        ({"minimum_samples": "2"}, "minimum_samples", "from 5"),
        ({"minimum_effect": "x"}, "minimum_effect", "Expected a number"),
        ({"promote": "on"}, "promote", "prompt_version"),
        ({"metric": "luck"}, "metric", "metric"),
        ({"label": "no good"}, "label", "label"),
        ({"prompt": "no good"}, "prompt", "prompt"),
    ],
)
async def test_a_wrong_experiment_is_marked_and_not_made(
    browser: Browser, api: httpx.AsyncClient, fields: dict[str, str], field: str, said: str
) -> None:
    """In the row that was typed, whatever rows before it are empty; what was typed stays."""
    form = await new_form(browser, id="refused", name="<b>kept</b>")
    form |= {name.replace("__", "."): value for name, value in fields.items()}
    answer = await browser.send(NEW, form)
    assert answer.status_code == 400 and said in alert(answer), alert(answer)
    assert marked(answer) == ([] if field == "variants" else [field])
    assert "&lt;b&gt;kept&lt;/b&gt;" in answer.text and Elements(answer.text).unwanted() == []
    assert (await api.get("/experiments/refused")).status_code == 404


async def test_a_prompt_is_archived_and_comes_back(browser: Browser, api: httpx.AsyncClient) -> None:
    """With its versions; one version too. What is in use, or was changed meanwhile, is refused."""
    await done(api.post("/prompts", json={"id": "old", "template": "a", "labels": ["production"]}))
    await done(api.post("/prompts/old", json={"template": "b"}))

    async def press(step: str, **fields: str) -> httpx.Response:
        page = (await browser.get("/dashboard/prompts/old")).text
        revision = re.findall(r'name="revision" value="(\d+)"', page)[0]
        token = await browser.token("/dashboard/prompts/old")
        return await browser.send(f"/dashboard/prompts/old/{step}", {"token": token, "revision": revision, **fields})

    refused = await press("archive", version="1")
    assert refused.status_code == 409 and "has the label production" in alert(refused)
    assert (await press("archive", version="2")).status_code == 303
    assert (await done(api.get("/prompts/old/versions/2")))["archived_at"] is not None
    stale = await press("archive", revision="1")
    assert stale.status_code == 412 and "Somebody has changed it" in alert(stale)
    assert (await done(api.get("/prompts/old")))["archived_at"] is None
    assert (await press("archive")).status_code == 303
    assert (await done(api.get("/prompts/old")))["archived_at"] is not None
    assert "/old/restore" in (await browser.get("/dashboard/prompts/old")).text
    assert (await press("restore")).status_code == 303
    assert (await done(api.get("/prompts/old")))["archived_at"] is None


async def test_a_file_of_prompts_is_imported(browser: Browser, api: httpx.AsyncClient) -> None:
    """Twice is once; what is wrong is named with its line, and nothing of the file is stored."""
    form = {"token": await browser.token(IMPORT)}
    page = await browser.send(IMPORT, {**form, "file": FILE.replace("\n", "\r\n")})
    assert page.status_code == 200
    assert re.findall(r'prompts/greeting">greeting</a></th><td>([^<]+)<', page.text) == ["version 1"]
    assert (await done(api.get("/prompts/greeting")))["template"] == "Greet {name}."
    await browser.send(IMPORT, {**form, "file": FILE})
    assert (await done(api.get("/prompts/greeting")))["latest_version"] == 1
    exported = (await api.get("/prompts/export")).text
    assert (await browser.send(IMPORT, {**form, "file": exported})).status_code == 200
    for text, said in (
        ("", "Choose a file"),
        ("prompts: [", "not valid YAML"),
        (FILE.replace("greeting", "other").replace("{name}", "{na me}"), "is not a variable"),
        (FILE.replace("greeting", "other") + "    model: nobody/none\n", "nobody"),
        ("<img src=x onerror=alert(1)>", "the file"),
    ):
        wrong = await browser.send(IMPORT, {**form, "file": text})
        assert wrong.status_code == 400 and said in alert(wrong), alert(wrong)
        assert alert(wrong).startswith("Nothing was imported.") and text in html.unescape(wrong.text)
        assert Elements(wrong.text).unwanted() == []
    assert (await api.get("/prompts/other")).status_code == 404
    too_large: Any = await browser.send(IMPORT, {**form, "file": "#" * 1_000_001})
    assert too_large.status_code == 400 and "1 MB" in alert(too_large)
