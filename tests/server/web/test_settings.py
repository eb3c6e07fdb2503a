"""The page of settings: from a typed value to the file with its comments, the running server, and back."""

from __future__ import annotations

import asyncio
import html
import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.config.files import ROUTING as ROUTING_FILE
from proxy.config.files import shipped
from tests.server.api.raw import chat, post
from tests.server.web.browser import ADMIN, Browser, Elements, browsing
from tests.serving import ROUTING, Server, serving, spawned, write_files
from tests.upstream import FakeUpstream
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = "/dashboard/settings"
CHANGE = f"{SETTINGS}/change"
KEY = "sk-proj-abcdefghijklmnop-WXYZ"
COMMENTED = (
    ROUTING.replace("price: null,", "price: null, api_key_env: FAKE_KEY,")
    + "# What a day may cost.\nbudget:\n  daily_usd: 20.00       # dollars\n  alert_at: [0.8]\n"
    "rules:\n  - {{name: short, when: {{task: classification}}, use: fake/ok}}\n"
    "ensembles:\n  pair: {{strategy: voting, members: [fake/ok, fake/slow]}}  # two of them\n"
)
ENVIRON = {"PROXY_ADMIN_KEY": ADMIN, "FAKE_KEY": KEY}


@asynccontextmanager
async def opened(folder: Path, upstream: str, routing: str = COMMENTED) -> AsyncIterator[tuple[Server, Browser, Path]]:
    """A server with these files, and somebody who has signed in."""
    file = write_files(folder, upstream, routing)
    async with serving(file, ENVIRON) as server, browsing(server.port) as browser:
        assert (await browser.sign_in()).status_code == 303
        yield server, browser, file


def inputs(page: str) -> dict[str, str]:
    """The fields of the form of settings, or of the change, with their values, as a browser would send them."""
    form = re.findall(r'<form class="[^"]*form[^"]*".*?</form>', page, re.DOTALL)[0]
    found = {}
    for tag, has in Elements(form).found:
        if tag == "input" and has.get("name") and (has.get("type") != "checkbox" or "checked" in has):
            found[str(has["name"])] = "on" if has.get("type") == "checkbox" else has.get("value") or ""
    for name, text in re.findall(r'<textarea name="([^"]+)"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL):
        found[html.unescape(name)] = html.unescape(text).replace("\n", "\r\n")
    for name, options in re.findall(r'<select name="([^"]+)".*?>(.*?)</select>', form, re.DOTALL):
        chosen = re.findall(r'value="([^"]*)" selected', options)
        found[html.unescape(name)] = chosen[0] if chosen else ""
    return found


async def changed(browser: Browser, **values: str) -> httpx.Response:
    """The form of settings with other values (`budget__daily_usd`), sent."""
    fields = inputs((await browser.get(SETTINGS)).text)
    return await browser.send(SETTINGS, fields | {name.replace("__", "."): value for name, value in values.items()})


async def change(browser: Browser, page: httpx.Response, do: str, **more: str) -> httpx.Response:
    """One of the buttons of the page that shows a change."""
    return await browser.send(CHANGE, {**inputs(page.text), "do": do, **more})


def lines_of(page: str, kind: str) -> list[str]:
    found = re.findall(rf'<tr class="{kind}">.*?<code>(.*?)</code>', page)
    return [html.unescape(line) for line in found]


def alerts(page: str) -> str:
    found = re.findall(r'<(p|section) class="alert"[^>]*>(.*?)</\1>', page, re.DOTALL)
    return html.unescape(" ".join(text for _, text in found))


async def test_a_budget_goes_from_the_page_to_the_server_and_back(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """The difference first, then the file with its comments, a backup, the running server; then the way back."""
    async with opened(tmp_path, upstream_of_module.url) as (server, browser, file):
        before, file_mode = file.read_text(), 0o640
        file.chmod(file_mode)
        version = server.runtime.config.version
        page = await changed(browser, budget__daily_usd="5.5", router__fallback="fake/ok\r\nfake/slow")
        assert page.status_code == 200
        assert lines_of(page.text, "removed") == [
            "router: {default_model: fake/ok}",
            "  daily_usd: 20.00       # dollars",
        ]
        assert lines_of(page.text, "added") == [
            "router: {default_model: fake/ok, fallback: [fake/ok, fake/slow]}",
            "  daily_usd: 5.5       # dollars",
        ]
        assert file.read_text() == before
        saved = await change(browser, page, "save")
        assert saved.status_code == 303
        assert file.read_text() == before.replace("20.00", "5.5").replace(
            "default_model: fake/ok}", "default_model: fake/ok, fallback: [fake/ok, fake/slow]}"
        )
        backup = file.with_name(f"{file.name}.bak")
        assert backup.read_text() == before
        assert {stat.S_IMODE(each.stat().st_mode) for each in (file, backup)} == {file_mode}
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]
        assert server.runtime.config.budget is not None and server.runtime.config.budget.daily_usd == 5.5
        after = await browser.get(saved.headers["location"])
        assert "The server runs it now" in after.text and "of $5.50" in after.text
        earlier = await browser.get(f"{SETTINGS}/versions/{version}")
        assert lines_of(earlier.text, "added")[-1] == "  daily_usd: 20.00       # dollars"
        assert (await change(browser, earlier, "save")).status_code == 303
        assert file.read_text() == before
        assert server.runtime.config.version == version


async def test_a_key_in_a_file_that_does_not_load_stays_out_of_the_database(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """Somebody pastes one by mistake; the page takes it away again. The copy beside the file is the operator's own."""
    canary = "sk-CANARY0123456789abcdef"
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, file):
        right = file.read_text()
        file.write_text(right.replace("type: openai", f"type: openai, api_key: {canary}", 1))
        assert canary in file.read_text()
        page = await browser.get(f"{SETTINGS}/text")
        checked = await browser.send(f"{SETTINGS}/text", {**inputs(page.text), "routing": right})
        assert (await change(browser, checked, "save")).status_code == 303
        assert file.read_text() == right
        stored = [name for name in os.listdir(tmp_path) if name.startswith("usage.db") and "-owners" not in name]
        assert stored and not [name for name in stored if canary.encode() in (tmp_path / name).read_bytes()]


async def test_the_page_shows_what_is_configured(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Keys by their source and last four characters, rules, ensembles with what they cost."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, _file):
        text = (await browser.get(SETTINGS)).text
        shown = html.unescape(text)
        assert "sk-...WXYZ" in shown and "FAKE_KEY" in shown
        assert KEY not in shown and KEY[3:12] not in shown
        assert "{task: classification}" in shown
        assert "Asks 2 models for each call" in shown and "No limit of its cost" in shown
        fields = inputs(text)
        assert fields["ensembles.pair.members"] == "fake/ok\r\nfake/slow"
        assert (fields["budget.daily_usd"], fields["budget.alert_at"]) == ("20", "80")
        assert (fields["router.max_retries"], fields["router.strategy"]) == ("3", "task_based")
        assert (await change(browser, await browser.send(SETTINGS, fields), "explain")).status_code == 200


async def test_nothing_typed_changes_nothing(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """The form as it is loaded asks for no change, and writes nothing down that is a default."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, file):
        before = file.read_bytes()
        page = await changed(browser)
        assert "nothing changes" in page.text and 'value="save"' not in page.text
        texts = await browser.send(f"{SETTINGS}/text", inputs((await browser.get(f"{SETTINGS}/text")).text))
        assert "nothing changes" in texts.text
        assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("budget.daily_usd", "much", "Expected a number"),
        ("budget.daily_usd", "-1", "0"),
        ("budget.alert_at", "80, many", "Expected percentages"),
        ("budget.alert_at", "180", "1"),
        ("router.max_retries", "99", "10"),
        ("router.max_retries", "", "Fill in"),
        ("router.default_model", "no-such-model", "no-such-model"),
        ("router.fallback", "fake/ok\r\nno-such-model", "no-such-model"),
        ("router.strategy", "cheapest", "task_based"),
        ("rate_limits.default.requests_per_minute", "0", "1"),
        ("ensembles.pair.members", "nobody/nothing", "nobody"),
        ("budget.downgrade_to", '"><img src=x onerror=alert(1)>', "onerror"),
    ],
)
@pytest.mark.slow
async def test_a_wrong_value_is_marked_at_its_field(
    upstream_of_module: FakeUpstream, tmp_path: Path, name: str, value: str, message: str
) -> None:
    """What was typed is kept, and nothing is saved."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, file):
        before = file.read_bytes()
        page = await changed(browser, **{name: value, "router.deadline_s": "77"})
        assert page.status_code == 400
        kept = inputs(page.text)
        assert (kept[name], kept["router.deadline_s"]) == (value, "77")
        (error,) = re.findall(rf'id="f-{re.escape(name)}-error">([^<]+)<', page.text)
        assert message in html.unescape(error)
        assert f'aria-describedby="f-{name}-error"' in page.text
        assert "Nothing was saved" in page.text
        assert Elements(page.text).unwanted() == []
        assert file.read_bytes() == before and not file.with_name(f"{file.name}.bak").exists()


@pytest.mark.slow
async def test_what_is_too_long_is_refused_before_it_is_worked_on(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """A long list would hold the thread for files for many seconds, a text of 8 MB the event loop."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, file):
        before = file.read_text()
        for name, value in (("router__fallback", "fake/ok\r\n" * 2_000), ("budget__alert_at", "1," * 6_000)):
            page = await changed(browser, **{name: value})
            assert page.status_code == 400 and "Edit the file instead." in page.text
        fields = inputs((await browser.get(f"{SETTINGS}/text")).text)
        longest = before + ("#" * 999 + "\r\n") * 999  # no larger in the file, where each line ends with LF
        assert (await browser.send(f"{SETTINGS}/text", {**fields, "routing": longest})).status_code == 200
        for target in (f"{SETTINGS}/text", CHANGE):
            page = await browser.send(target, {**fields, "do": "edit", "routing": "<" * 1_000_001})
            assert page.status_code == 413 and len(page.content) < 10_000 and "at most 1 MB" in page.text
        assert file.read_text() == before


async def test_wrong_yaml_is_refused_with_its_line(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Broken text, unknown keys and unknown names alike; the text stays in the editor."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, file):
        before = file.read_text()
        fields = inputs((await browser.get(f"{SETTINGS}/text")).text)
        for text, message in (
            (before + "rules: [", "duplicate key"),
            (before.replace("alert_at: [0.8]", "alert_at: [0.8"), "not valid YAML"),
            (before.replace("daily_usd", "dayly_usd"), 'did you mean "daily_usd"'),
            (before.replace("use: fake/ok", "use: nobody"), "nobody"),
            ("", "empty"),
            ("<script>alert(1)</script>", "top level"),
        ):
            for path, more in ((f"{SETTINGS}/text", {}), (CHANGE, {"do": "save"})):
                page = await browser.send(path, {**fields, "routing": text, **more})
                assert page.status_code == 400, text
                assert message in alerts(page.text)
                assert inputs(page.text)["routing"].replace("\r\n", "\n") == text
                assert Elements(page.text).unwanted() == []
        assert file.read_text() == before


async def test_a_file_that_changed_meanwhile_is_not_overwritten(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """Neither by the form nor by the last step; what was typed is there to be repeated."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, file):
        page = await changed(browser, budget__daily_usd="5.5")
        fields = inputs((await browser.get(SETTINGS)).text)
        other = file.read_text() + "# somebody else was here\n"
        file.write_text(other)
        saved = await change(browser, page, "save")
        assert saved.status_code == 409 and "changed on disk" in alerts(saved.text)
        assert "daily_usd: 5.5" in inputs(saved.text)["routing"]
        form = await browser.send(SETTINGS, fields | {"budget.daily_usd": "7"})
        assert form.status_code == 409 and "changed on disk" in alerts(form.text)
        assert inputs(form.text)["budget.daily_usd"] == "7"
        assert (await change(browser, page, "effect")).status_code == 409
        assert file.read_text() == other


async def test_only_forms_of_the_page_change_something(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Without the token of the session, from another site, or as JSON: refused."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, file):
        before = file.read_bytes()
        fields = inputs((await changed(browser, budget__daily_usd="5.5")).text) | {"do": "save"}
        for path in (CHANGE, SETTINGS, f"{SETTINGS}/text"):
            for token in ({}, {"token": "0" * 64}):
                sent = {name: value for name, value in fields.items() if name != "token"} | token
                assert (await browser.send(path, sent)).status_code == 403
            assert (await browser.send(path, fields, origin="https://evil.example")).status_code == 403
            as_json = await browser.client.post(path, json=fields, headers=browser.headers)
            assert as_json.status_code == 415
        assert file.read_bytes() == before


async def test_hostile_text_in_the_files_is_only_text(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """In names of rules, in comments and in the difference."""
    evil = "<img src=x onerror=alert(1)>"
    routing = COMMENTED.replace("name: short", f'name: "{evil}"')
    async with opened(tmp_path, upstream_of_module.url, routing) as (_, browser, _file):
        page = await changed(browser, budget__daily_usd="5.5")
        text = inputs(page.text)
        marks = text["routing"] + f"# {evil} \u202egnp.exe </textarea><script>alert(1)</script> {'w' * 9_000}\r\n"
        again = await change(browser, page, "", routing=marks)
        for shown in (await browser.get(SETTINGS), page, again):
            assert shown.status_code == 200
            assert Elements(shown.text).unwanted() == []
        assert evil in lines_of(again.text, "added")[-1]
        assert all(len(line) < 500 and "\u202e" not in line for line in lines_of(again.text, "added"))
        assert inputs(again.text)["routing"] == marks


@pytest.mark.slow
async def test_a_prompt_and_past_calls_are_tried_before_saving(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """Under the rules of the change: nothing is called for it."""
    async with opened(tmp_path, upstream_of_module.url) as (server, browser, _file):
        for _ in range(3):
            await post(server.port, chat("auto"), authorization=f"Bearer {ADMIN}")
        asked = len(upstream_of_module.ledger)
        page = await changed(browser, router__default_model="fake/slow")
        explained = await change(browser, page, "explain", prompt="Say <b>hello</b>", model="auto")
        assert "fake/slow" in explained.text and "→" in explained.text
        assert inputs(explained.text)["prompt"] == "Say <b>hello</b>"
        refused = await change(browser, page, "explain", prompt="x", model="no-such-model")
        assert "no-such-model" in alerts(refused.text)
        effect = await change(browser, page, "effect")
        assert "3 of 3 calls" in effect.text and "fake/slow" in effect.text
        assert len(upstream_of_module.ledger) == asked


async def test_a_provider_is_tested_by_a_real_call(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """What failed is said; what was typed stays; the call is metered under the key that signed in."""
    async with opened(tmp_path, upstream_of_module.url) as (server, browser, _file):
        page = await changed(browser, **{"test": "fake", "budget.daily_usd": "123"})
        assert page.status_code == 200 and ">answered</span>" in page.text
        assert inputs(page.text)["budget.daily_usd"] == "123"
        change_page = await changed(browser, **{"providers.fake.models.default": "e401"})
        assert (await change(browser, change_page, "save")).status_code == 303
        tested = (await changed(browser, test="fake")).text
        assert ">failed</span>" in tested and "401" in tested
        usage = await server.runtime.ledger.latest(10)
        assert {call.key_id for call in usage} == {"admin"}


async def test_a_test_holds_a_place_like_any_call(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """It is counted while it runs, is refused where none is left, and runs once at a time."""
    patient = "{connect: 2, first_token: 60, idle: 60, total: 120}"
    routing = COMMENTED + "server: {{max_in_flight: 1}}\n"
    routing = routing.replace("retries: 0", "retries: 0, models: {{default: 'slow_ttft(s=30)'}}")
    file = write_files(tmp_path, upstream_of_module.url, routing, timeouts=patient)
    async with serving(file, ENVIRON) as server, browsing(server.port) as browser:
        await browser.sign_in()
        places = server._application._places
        before = len(upstream_of_module.ledger)
        testing = asyncio.create_task(changed(browser, test="fake"))
        await eventually(lambda: len(upstream_of_module.ledger) > before)
        assert places.taken == 1
        async with browsing(server.port) as other:
            await other.sign_in()
            assert "a test of it is running" in (await changed(other, test="fake")).text
        assert (await post(server.port, chat(), authorization=f"Bearer {ADMIN}")).status == 503
        for runtime in server._application._running.runtimes.open:  # type: ignore[union-attr]
            runtime.pipeline.stop_calls()
        assert ">failed</span>" in (await testing).text
        assert places.taken == 0
        with places:
            assert "server.max_in_flight" in (await changed(browser, test="fake")).text
        assert len(upstream_of_module.ledger) == before + 1


@pytest.mark.slow
async def test_the_shipped_files_come_back_as_a_change(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Reset to defaults shows its difference like any other change."""
    async with opened(tmp_path, upstream_of_module.url) as (server, browser, file):
        page = await browser.get(f"{SETTINGS}/defaults")
        assert page.status_code == 200 and "fake:" in "".join(lines_of(page.text, "removed"))
        path = shipped(ROUTING_FILE)
        assert path is not None
        assert (await change(browser, page, "save")).status_code == 303
        assert file.read_text() == path.read_text()
        assert "openai" in server.runtime.config.providers
        after = await browser.get(SETTINGS)
        assert "takes effect at the next start" in after.text  # the database is another one in the shipped file


async def test_a_file_that_cannot_be_written_gives_the_text_to_copy(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """Here its name is so long that no temporary file fits beside it: that fails for the super-user too."""
    folder = tmp_path / "files"
    folder.mkdir()
    file = write_files(folder, upstream_of_module.url, COMMENTED)
    file = file.rename(folder / ("r" * 240 + ".yaml"))
    before = file.read_text()
    async with serving(file, ENVIRON) as server, browsing(server.port) as browser:
        await browser.sign_in()
        page = await changed(browser, budget__daily_usd="5.5")
        refused = await change(browser, page, "save")
        assert refused.status_code == 409
        assert "cannot be written" in alerts(refused.text) and "Copy the text" in alerts(refused.text)
        assert "daily_usd: 5.5" in inputs(refused.text)["routing"]
        assert file.read_text() == before and sorted(each.name for each in folder.iterdir())[-1] == "usage.db-wal"


async def test_a_broken_file_on_disk_still_leads_back(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """The page says what is wrong, offers the text, and goes back to the version before."""
    async with opened(tmp_path, upstream_of_module.url) as (server, browser, file):
        before, version = file.read_text(), server.runtime.config.version
        file.write_text(before.replace("daily_usd", "dayly_usd"))
        page = await browser.get(SETTINGS)
        assert page.status_code == 200 and "dayly_usd" in alerts(page.text)
        earlier = await browser.get(f"{SETTINGS}/versions/{version}")
        assert (await change(browser, earlier, "save")).status_code == 303
        assert file.read_text() == before
        assert (await browser.get(f"{SETTINGS}/versions/none")).status_code == 404


@pytest.mark.slow
async def test_every_worker_runs_what_was_saved(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Each of two follows the files, whichever of them saved."""
    file = write_files(tmp_path, upstream_of_module.url, COMMENTED)
    with spawned(file, "--workers", "2", environ=ENVIRON) as server:
        async with browsing(server.port) as browser:
            await browser.sign_in()
            page = await changed(browser, budget__daily_usd="5.5")
            saved = await change(browser, page, "save")
            version = saved.headers["location"].partition("saved=")[2]
        seen: list[Any] = []
        async with asyncio.timeout(20):
            while seen[-12:] != [version] * 12:  # a connection of its own for each: both workers take some
                async with browsing(server.port) as browser:
                    answer = await browser.client.get("/health", headers={"authorization": f"Bearer {ADMIN}"})
                    seen.append(answer.json()["config"]["version"])


async def test_a_provider_key_goes_one_way(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Only where the operator allows it: into a file that nobody else may read, and out of it into no page."""
    file, keys = write_files(tmp_path, upstream_of_module.url, COMMENTED), tmp_path / "provider_keys"
    secret = "sk-another-key-that-nobody-sees-8642"
    async with (
        serving(file, {"PROXY_ADMIN_KEY": ADMIN, "PROXY_KEYS_FILE": str(keys)}) as server,
        browsing(server.port) as browser,
    ):
        await browser.sign_in()
        assert "fake" in server.runtime.config.disabled
        fields = {"token": await browser.token(SETTINGS), "variable": "FAKE_KEY", "key": secret, "do": "set"}
        path = f"{SETTINGS}/keys"
        for wrong in (
            {"variable": "PROXY_ADMIN_KEY"},
            {"variable": "PATH"},
            {"key": ""},
            {"key": "a\nPROXY_API_KEY=b"},
        ):
            refused = await browser.send(path, fields | wrong)
            assert refused.status_code == 400 and 'id="key-error"' in refused.text and secret not in refused.text
        assert (await browser.send(path, fields | {"token": "0" * 64})).status_code == 403
        assert not keys.exists()
        assert (await browser.send(path, fields)).status_code == 303
        assert stat.S_IMODE(keys.stat().st_mode) == 0o600
        assert f"FAKE_KEY={secret}\n" in keys.read_text()
        assert server.runtime.config.provider_keys["fake"]["FAKE_KEY"].reveal() == secret
        page = (await browser.get(SETTINGS)).text
        assert "sk-...8642" in page and secret not in page
        keys.chmod(0o644)
        assert "other users may read" in alerts((await changed(browser, budget__daily_usd="5")).text)
        keys.chmod(0o600)
        assert (await browser.send(path, fields | {"do": "remove"})).status_code == 303
        assert secret not in keys.read_text() and "fake" in server.runtime.config.disabled


@pytest.mark.slow
async def test_the_environment_and_the_operator_come_first(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """No file, no form; and a variable that the environment sets is not the page's."""
    async with opened(tmp_path, upstream_of_module.url) as (_, browser, _file):
        fields = {"token": await browser.token(SETTINGS), "variable": "FAKE_KEY", "key": "k" * 20, "do": "set"}
        assert (await browser.send(f"{SETTINGS}/keys", fields)).status_code == 400
        assert "New key" not in (await browser.get(SETTINGS)).text
    file, keys = tmp_path / ROUTING_FILE, tmp_path / "keys"
    async with serving(file, {**ENVIRON, "PROXY_KEYS_FILE": str(keys)}) as server, browsing(server.port) as browser:
        await browser.sign_in()
        fields["token"] = await browser.token(SETTINGS)
        assert (await browser.send(f"{SETTINGS}/keys", fields)).status_code == 400
        assert not keys.exists()
