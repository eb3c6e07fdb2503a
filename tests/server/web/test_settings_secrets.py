"""The page of settings and the server's environment: no change in the page carries a variable to a new place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server.web.browser import ADMIN, browsing
from tests.server.web.test_settings import ENVIRON, SETTINGS, alerts, change, inputs, opened
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = "the-password-of-a-database-1234"


async def test_a_provider_of_an_admins_own_gets_no_variable(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Neither checked, saved nor explained; the file on disk may do it, and goes on doing it."""
    file = write_files(tmp_path, upstream_of_module.url)
    environ = {"PROXY_ADMIN_KEY": ADMIN, "DATABASE_PASSWORD": SECRET}
    async with serving(file, environ) as server, browsing(server.port) as browser:
        await browser.sign_in()
        fields = inputs((await browser.get(f"{SETTINGS}/text")).text)
        before = file.read_text()
        thief = f'  thief: {{type: openai, base_url: "{upstream_of_module.url}", allow_private: true, '
        for name in ("api_key_env: DATABASE_PASSWORD", "headers_env: {x-sent: DATABASE_PASSWORD}"):
            text = before.replace("router:", f"{thief}{name}}}\nrouter:")
            for path, more in ((f"{SETTINGS}/text", {}), (f"{SETTINGS}/change", {"do": "save"})):
                page = await browser.send(path, {**fields, "routing": text, **more})
                assert page.status_code == 400
                assert "cannot make the server send DATABASE_PASSWORD there" in alerts(page.text)
                assert f"providers.thief.{name.partition(':')[0]}" in alerts(page.text)
                assert inputs(page.text)["routing"].replace("\r\n", "\n") == text
        assert file.read_text() == before
        assert not any(SECRET in str(call.headers) for call in upstream_of_module.ledger)
        file.write_text(text)
        fields = inputs((await browser.get(f"{SETTINGS}/text")).text)
        later = await browser.send(f"{SETTINGS}/text", {**fields, "routing": f"{text}budget: {{daily_usd: 1}}\n"})
        assert later.status_code == 200
        assert (await change(browser, later, "save")).status_code == 303


async def test_an_earlier_version_comes_back_whatever_it_sends(
    upstream_of_module: FakeUpstream, tmp_path: Path
) -> None:
    """It ran here before, so its file was on disk. Changed by one letter it is a change like any other."""
    async with opened(tmp_path, upstream_of_module.url) as (server, browser, file):
        before, version = file.read_text(), server.runtime.config.version
        fields = inputs((await browser.get(f"{SETTINGS}/text")).text)
        without = before.replace(" api_key_env: FAKE_KEY,", "")
        assert without != before and "FAKE_KEY" in ENVIRON
        page = await browser.send(f"{SETTINGS}/text", {**fields, "routing": without})
        assert (await change(browser, page, "save")).status_code == 303
        earlier = await browser.get(f"{SETTINGS}/versions/{version}")
        assert earlier.status_code == 200
        edited = await change(browser, earlier, "save", routing=f"{before}# mine\n")
        assert edited.status_code == 400 and "FAKE_KEY" in alerts(edited.text)
        assert (await change(browser, earlier, "save")).status_code == 303
        assert file.read_text() == before
