"""`proxy sites`: the catalog of site templates, as `/api/sites` answers. No server need be running."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config
from proxy.config.sites import merged
from proxy.schema.errors import BadRequest, ProxyError
from proxy.server.api.sites import found_in
from proxy.sites.answers import SiteMatch, SiteTemplate, TaskTemplate, list_of, template_of
from proxy.sites.catalog import Catalog
from proxy.sites.match import Matcher

_SITES = ("ID", "CATEGORY", "JAVASCRIPT", "SIGN_IN", "DOMAINS")
_OTHERS = ("SITE", "TASK", "CONFIDENCE")


@click.group()
def sites() -> None:
    """List site templates, show one, and find the one that fits."""


@sites.command(name="list")
@click.option("--category", metavar="NAME", help="Only sites of this category.")
@click.option("--domain", metavar="HOST", help="Only the sites that serve this domain.")
@json_option
@configuration_options
def list_sites(category: str | None, domain: str | None, as_json: bool, **flags: Any) -> None:
    """List the sites of the catalog."""
    catalog = _catalog(flags)
    given = {name: value for name, value in (("category", category), ("domain", domain)) if value is not None}
    try:
        found = list_of(catalog, found_in(catalog, given))
    except BadRequest as error:
        fail(error.message)
    if as_json:
        print_json(found)
        return
    rows = [
        (card.id, card.category, _yes(card.javascript), card.sign_in, " ".join(card.domains)) for card in found.data
    ]
    print_table(_SITES, rows)


@sites.command()
@click.argument("site_id", metavar="ID")
@json_option
@configuration_options
def show(site_id: str, as_json: bool, **flags: Any) -> None:
    """Show the template of one site: its tasks with fields and addresses."""
    try:
        found = template_of(site_id, _catalog(flags).site(site_id))
    except ProxyError as error:
        _stop(error)
    if as_json:
        print_json(found)
    else:
        _print_template(found)


@sites.command()
@click.argument("instructions")
@click.argument("assets", metavar="[URL]...", nargs=-1)
@json_option
@configuration_options
def match(instructions: str, assets: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Find the site and the task that fit INSTRUCTIONS, and the URLs if there are any."""
    try:
        found = Matcher(_catalog(flags)).match(instructions, assets)
    except BadRequest as error:
        fail(error.message)
    except ProxyError as error:
        _stop(error)
    if as_json:
        print_json(found)
    else:
        _print_match(found)


def _catalog(flags: dict[str, Any]) -> Catalog:
    return Catalog(merged(read_config(flags, os.environ).sites))


def _stop(error: ProxyError) -> NoReturn:
    click.echo(f"proxy: {error.message}", err=True)
    sys.exit(1)


def _print_template(found: SiteTemplate) -> None:
    click.echo(f"{found.name} ({found.id}, {found.category}): {found.description}")
    click.echo(f"domains: {' '.join(found.domains)}")
    click.echo(f"JavaScript: {_yes(found.javascript)}; sign-in: {found.sign_in}")
    click.echo(f"care: {found.politeness}")
    for task in found.tasks:
        click.echo()
        _print_task(task)


def _print_task(task: TaskTemplate) -> None:
    click.echo(f"{task.id}: {task.about}")
    click.echo(f"  as in: {'; '.join(task.instructions)}")
    click.echo(f"  fields: {', '.join(_fields(task.schema))}")
    for name, text in (
        ("addresses", " ".join(task.url_patterns)),
        ("way", task.navigation),
        ("pages", task.pagination),
        ("model", f"{task.model}, prompt {task.prompt_template}"),
    ):
        if text:
            click.echo(f"  {name}: {text}")


def _print_match(found: SiteMatch) -> None:
    click.echo(f"{found.site.id}/{found.task.id}  {found.confidence:g}  {found.task.about}")
    for reason in found.reasons:
        click.echo(f"  {reason}")
    if found.runners_up:
        click.echo()
        print_table(_OTHERS, [(each.site, each.task, each.confidence) for each in found.runners_up])


def _fields(schema: dict[str, Any]) -> list[str]:
    properties = schema["properties"]
    if len(properties) == 1 and "items" in (inner := next(iter(properties.values()))):
        properties = inner["items"].get("properties", properties)
    return list(properties)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
