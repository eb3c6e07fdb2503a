"""Values: templates and matches as the API answers them, for the server, the commands and the Python client."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.sites.catalog import Catalog
from proxy.sites.template import Site, prompt_of


class SiteCard(Struct, frozen=True):
    """One line of the catalog. `tasks`: their ids; the first one is the default."""

    id: str
    name: str
    category: str
    description: str
    domains: list[str]
    tasks: list[str]
    javascript: bool
    sign_in: str


class SiteList(Struct, frozen=True):
    """`categories`: category -> number of sites in the whole catalog."""

    data: list[SiteCard]
    categories: dict[str, int]
    object: str = "list"


class TaskTemplate(Struct, frozen=True):
    """One task. `schema`: a JSON schema of its fields, for OpenAI's strict mode. `prompt`: the system message that a
    chat with this task gets; `prompt_template`: the name of a suitable prompt, `model` that of a route.
    """

    id: str
    about: str
    instructions: list[str]
    url_patterns: list[str]
    schema: dict[str, Any]
    prompt: str
    prompt_template: str
    model: str
    javascript: bool
    sign_in: str
    navigation: str | None = None
    pagination: str | None = None


class SiteTemplate(Struct, frozen=True):
    """A whole template."""

    id: str
    name: str
    category: str
    description: str
    domains: list[str]
    aliases: list[str]
    tasks: list[TaskTemplate]
    javascript: bool
    sign_in: str
    politeness: str
    model: str
    prompt_template: str


class Candidate(Struct, frozen=True):
    """A site and one of its tasks. `confidence`: 0 to 1."""

    site: str
    task: str
    confidence: float


class AssetSite(Struct, frozen=True):
    """One of the given assets, by its host. `site`: None if the catalog has none for it."""

    host: str
    site: str | None


class SiteMatch(Struct, frozen=True):
    """The best match, the reasons, and other near matches."""

    site: SiteCard
    task: TaskTemplate
    confidence: float
    reasons: list[str]
    runners_up: list[Candidate]
    assets: list[AssetSite]
    politeness: str


def card_of(site_id: str, site: Site) -> SiteCard:
    return SiteCard(
        site_id,
        site.name,
        site.category,
        site.description,
        site.domains,
        list(site.tasks),
        site.javascript,
        site.sign_in,
    )


def list_of(catalog: Catalog, sites: dict[str, Site]) -> SiteList:
    return SiteList([card_of(site_id, site) for site_id, site in sites.items()], catalog.categories)


def task_of(site: Site, name: str) -> TaskTemplate:
    task = site.tasks[name]
    return TaskTemplate(
        id=name,
        about=task.about,
        instructions=task.say,
        url_patterns=site.urls.get(name, []),
        schema=task.schema(),
        prompt=prompt_of(site, task),
        prompt_template=task.prompt or site.prompt,
        model=task.model or site.model,
        javascript=site.javascript if task.javascript is None else task.javascript,
        sign_in=task.sign_in or site.sign_in,
        navigation=task.navigation,
        pagination=task.pagination,
    )


def template_of(site_id: str, site: Site) -> SiteTemplate:
    return SiteTemplate(
        id=site_id,
        name=site.name,
        category=site.category,
        description=site.description,
        domains=site.domains,
        aliases=site.aliases,
        tasks=[task_of(site, name) for name in site.tasks],
        javascript=site.javascript,
        sign_in=site.sign_in,
        politeness=site.politeness,
        model=site.model,
        prompt_template=site.prompt,
    )
