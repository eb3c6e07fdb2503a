"""`api.sites`: the catalog of a server, and of the proxy in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy import APISettings, SyncMultiModelAPI
from proxy.client.errors import BadRequest, NotFound
from tests.client.scene import IN_PROCESS, SERVER, scene
from tests.serving import write_files


@pytest.mark.parametrize("how", [SERVER, IN_PROCESS])
async def test_sites_are_listed_shown_and_matched(how: str, tmp_path: Path) -> None:
    """And used: the match names what a question takes."""
    async with scene(how, tmp_path) as asked:
        sites = asked.api.sites
        assert [card.id for card in await sites.list(category="weather")] == [
            "weather-com",
            "weather-gov",
            "wetter-com",
        ]
        assert "reddit" not in {card.id for card in await sites.list(javascript=False)}
        assert [task.id for task in (await sites.get("arxiv")).tasks] == ["paper", "listing", "search"]
        found = await sites.match("get trending communities", ["https://reddit.com"])
        assert (found.site.id, found.task.id, found.task.model) == ("reddit", "trending", "auto:extraction")
        used = {"site": {"id": found.site.id, "task": found.task.id}}
        assert (await asked.api.generate("the page", model="fake/ok", extra_body=used)).text


@pytest.mark.parametrize("how", [SERVER, IN_PROCESS])
async def test_errors_name_what_is_wrong(how: str, tmp_path: Path) -> None:
    """Wrong arguments before anything is sent."""
    async with scene(how, tmp_path) as asked:
        sites = asked.api.sites
        with pytest.raises(NotFound, match="Nearest: reddit"):
            await sites.match("x", ["https://redddit.com"])
        with pytest.raises(NotFound, match="Did you mean reddit"):
            await sites.get("redit")
        with pytest.raises(BadRequest, match=r"assets\[0\]"):
            await sites.match("x", ["no url"])
        with pytest.raises(ValueError, match="assets: expected a list"):
            await sites.match("x", "https://reddit.com")
        with pytest.raises(ValueError, match="site_id"):
            await sites.get(" ")


def test_without_asyncio_it_is_the_same(tmp_path: Path) -> None:
    """`SyncMultiModelAPI.sites`."""
    path = write_files(tmp_path, "http://127.0.0.1:1/v1")
    with SyncMultiModelAPI(APISettings.load(path)) as api:
        assert api.sites.list(domain="en.wikipedia.org")[0].id == "wikipedia"
        assert api.sites.get("wikipedia").category == "encyclopaedias"
        assert api.sites.match("", ["https://en.wikipedia.org/wiki/Ada_Lovelace"]).task.id == "article"
