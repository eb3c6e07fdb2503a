"""Values: the routes of site templates for the OpenAPI document."""

from __future__ import annotations

from proxy.server.api.described import JSON, Described
from proxy.server.api.sites import SITES, MatchBody
from proxy.sites.answers import SiteList, SiteMatch, SiteTemplate

SITE_TEMPLATES: dict[tuple[str, str], Described] = {
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
