"""Values: how an operation is described in the OpenAPI document, and the descriptions of site templates."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.server.api.sites import SITES, MatchBody
from proxy.sites.answers import SiteList, SiteMatch, SiteTemplate

JSON = "application/json"


class Described(Struct, frozen=True):
    """One operation. `answers`: status -> media type -> its Struct or TypedDict, None for text that has no schema."""

    summary: str
    answers: dict[str, dict[str, Any]]
    body: Any = None
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    errors: tuple[int, ...] = ()


OF_SITES: dict[tuple[str, str], Described] = {
    ("GET", "/api/sites"): Described(
        "The catalog of site templates, one line for each site.",
        {"200": {JSON: SiteList}},
        query=SITES,
        errors=(400, 401),
    ),
    ("GET", "/api/sites/{site_id}"): Described(
        "One site template: its tasks with schemas, prompts and addresses.",
        {"200": {JSON: SiteTemplate}},
        errors=(401, 404),
    ),
    ("POST", "/api/sites/match"): Described(
        "Which site and task fit instructions and URLs, why, and what else was near; 404 if none fits.",
        {"200": {JSON: SiteMatch}},
        body=MatchBody,
        errors=(400, 401, 404, 413),
    ),
}
