"""Orchestrates: `api.sites` of the Python client: the catalog of site templates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from proxy.client.reading import site_list_of, site_match_of, site_template_of
from proxy.client.sending import Sender
from proxy.sites.answers import SiteCard, SiteMatch, SiteTemplate

_SITES = "api/sites"


class Sites:
    """The catalog of a proxy. A match names the site and the task that a question may use:

    found = await api.sites.match("get trending communities", ["https://reddit.com"])
    answer = await api.generate(page, extra_body={"site": {"id": found.site.id, "task": found.task.id}})
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def list(
        self,
        category: str | None = None,
        domain: str | None = None,
        javascript: bool | None = None,
        sign_in: str | None = None,
    ) -> list[SiteCard]:
        """All sites, or those that pass the filters. `sign_in`: none, optional or required."""
        needs = None if javascript is None else str(bool(javascript)).lower()
        given = {"category": category, "domain": domain, "javascript": needs, "sign_in": sign_in}
        received = await self._sender.get(_SITES, {name: value for name, value in given.items() if value is not None})
        return await self._sender.understood(partial(site_list_of, received.data))

    async def get(self, site_id: str) -> SiteTemplate:
        """One template. Raises NotFound for an unknown id."""
        if not isinstance(site_id, str) or not site_id.strip():
            raise ValueError("site_id: expected the id of a site, like reddit")
        received = await self._sender.get(f"{_SITES}/{quote(site_id.strip(), safe='')}", {})
        return await self._sender.understood(partial(site_template_of, received.data))

    async def match(self, instructions: str = "", assets: Sequence[str] = ()) -> SiteMatch:
        """The site and the task that fit best. `assets`: URLs. Raises NotFound, which names the nearest sites, if none
        fits.
        """
        if isinstance(assets, str) or not all(isinstance(asset, str) for asset in assets):
            raise ValueError("assets: expected a list of URLs")
        body = {"instructions": instructions, "assets": list(assets)}
        received = await self._sender.post(f"{_SITES}/match", body)
        return await self._sender.understood(partial(site_match_of, received.data))
