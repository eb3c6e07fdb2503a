"""Performs I/O: the routes on site templates: `/api/sites`, `/api/sites/{site_id}` and `/api/sites/match`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from proxy.pipeline.site import ready
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.api.queries import parameters_of
from proxy.server.api.request import BodyTooLarge, ClientGone, discard_rest, read_body
from proxy.server.formats.body import view_of
from proxy.sites.answers import list_of, template_of
from proxy.sites.catalog import Catalog
from proxy.sites.match import Matcher
from proxy.sites.template import Site

MAX_BODY = 256 * 1024
_LINGER_BYTES = 16 * 1024 * 1024  # of a body that is too large
SITES = {
    "category": "Only sites of this category; `categories` of the answer lists them.",
    "domain": "Only the sites that serve this domain, like www.example.com.",
    "javascript": "true or false: only sites whose pages need JavaScript, or that do not.",
    "sign_in": "none, optional or required: only sites that ask for it like this.",
}
_SIGN_IN = ("none", "optional", "required")


class MatchBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`instructions`: what to extract, in words. `assets`: the URLs to extract it from, if they are known."""

    instructions: str = ""
    assets: list[str] = []


def site_routes(sites: Callable[[], Matcher]) -> list[HTTPRouteHandler]:
    """The Litestar handlers, each with and without `/v1`. `sites`: those of the running configuration."""

    @get(["/v1/api/sites", "/api/sites"], sync_to_thread=False, role="key")
    def list_sites(request: Request[Caller, Any, Any]) -> Response[bytes]:
        catalog = sites().catalog
        given = parameters_of(request.query_params.multi_items(), SITES)
        return _json(list_of(catalog, found_in(catalog, given)))

    @get(["/v1/api/sites/{site_id:str}", "/api/sites/{site_id:str}"], sync_to_thread=False, role="key")
    def get_site(site_id: FromPath[str]) -> Response[bytes]:
        return _json(template_of(site_id, sites().catalog.site(site_id)))

    @post(["/v1/api/sites/match", "/api/sites/match"], role="key")
    async def match_site(request: Request[Caller, Any, Any]) -> Response[bytes]:
        try:
            body = await read_body(request.receive, dict(request.headers), MAX_BODY)
        except BodyTooLarge as error:
            await discard_rest(request.receive, _LINGER_BYTES)
            message = f"The body is larger than {MAX_BODY // 1024} kB."
            raise ProxyError(message, status=413, code=error.code, headers=error.headers) from None
        except ClientGone:
            return Response(b"", status_code=499)
        asked = view_of(decode_object(body), MatchBody)
        matcher = sites()
        await ready(matcher)
        return _json(matcher.match(asked.instructions, asked.assets))

    return [list_sites, get_site, match_site]


def found_in(catalog: Catalog, given: dict[str, str]) -> dict[str, Site]:
    """The sites that pass the filters. Raises BadRequest, which names the filter."""
    category, sign_in, javascript = given.get("category"), given.get("sign_in"), given.get("javascript")
    if category is not None and category not in catalog.categories:
        raise BadRequest(f"category: expected one of {', '.join(catalog.categories)}.", param="category")
    if sign_in is not None and sign_in not in _SIGN_IN:
        raise BadRequest(f"sign_in: expected {', '.join(_SIGN_IN[:-1])} or {_SIGN_IN[-1]}.", param="sign_in")
    if javascript not in (None, "true", "false"):
        raise BadRequest("javascript: expected true or false.", param="javascript")
    try:
        found = catalog.find(category, given.get("domain"))
    except ValueError as error:
        raise BadRequest(f"domain: {error}.", param="domain") from None
    return {
        site_id: site
        for site_id, site in found.items()
        if sign_in in (None, site.sign_in) and javascript in (None, str(site.javascript).lower())
    }


def _json(value: object) -> Response[bytes]:
    headers = {**NO_STORE, "x-request-id": new_id()}
    return Response(encode(value), status_code=200, media_type="application/json", headers=headers)
