"""Performs I/O: the pages of site templates: the catalog with its filters, the one that fits, and a whole template."""

from __future__ import annotations

import json

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Template

from proxy.pipeline.site import ready
from proxy.schema.errors import ProxyError
from proxy.server.api.queries import parameters_of
from proxy.server.api.sites import SITES, found_in
from proxy.server.web.doors import PageRequest
from proxy.server.web.reports import Page
from proxy.server.web.shown import Shown
from proxy.server.web.words import plain, query
from proxy.sites.answers import SiteMatch, card_of, template_of

_MATCH = {"instructions": "What to extract, in words.", "asset": "The URL to extract it from."}


class SitePages:
    """The routes. `page` renders."""

    def __init__(self, seen: Shown, page: Page) -> None:
        self._seen = seen
        self._page = page

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @get("/sites", role="page")
        async def sites(request: PageRequest) -> Template:
            given = parameters_of([each for each in request.query_params.multi_items() if each[1]], {**SITES, **_MATCH})
            catalog = self._seen.live().sites.catalog
            found = found_in(catalog, {name: given[name] for name in SITES if name in given})
            match, problem = await self._match(given)
            return self._page(
                "sites",
                request,
                given=given,
                filters=[name for name in SITES if name in given],
                sites=[card_of(site_id, site) for site_id, site in found.items()],
                all=len(catalog.sites),
                categories=catalog.categories,
                match=match,
                problem=problem,
                query=query,
            )

        @get("/sites/{site_id:str}", role="page", sync_to_thread=False)
        def site(request: PageRequest, site_id: FromPath[str]) -> Template:
            template = template_of(site_id, self._seen.live().sites.catalog.site(site_id))
            schemas = {task.id: json.dumps(task.schema, indent=2, ensure_ascii=False) for task in template.tasks}
            return self._page("sites_one", request, site=template, schemas=schemas, query=query)

        return [sites, site]

    async def _match(self, given: dict[str, str]) -> tuple[SiteMatch | None, str]:
        """What fits the words and the address that are asked for, or why nothing does."""
        asset, matcher = given.get("asset", "").strip(), self._seen.live().sites
        if not asset and not given.get("instructions"):
            return None, ""
        await ready(matcher)
        try:
            return matcher.match(given.get("instructions", ""), [asset] if asset else []), ""
        except ProxyError as error:
            return None, plain(error.message, 600)
