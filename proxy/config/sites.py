"""Performs I/O: the shipped catalog of sites. Translates the section `sites` and the catalog's YAML.

The catalog is written as `proxy/sites/catalog.yaml` and read from `catalog.json` beside it, which a test generates from
it: JSON takes 3 ms where YAML takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Struct

import proxy.sites
from proxy.config.problems import ConfigError, Problem
from proxy.config.reader import INVALID, Reader
from proxy.config.tree import Entry, parse
from proxy.schema.constraints import one_of
from proxy.sites.template import Site, check_id

FOLDER = Path(proxy.sites.__file__).parent
YAML, JSON = FOLDER / "catalog.yaml", FOLDER / "catalog.json"


class CatalogFile(Struct, forbid_unknown_fields=True):
    """catalog.yaml as written."""

    version: Annotated[int, one_of(1)]
    sites: dict[str, Any]


def read_sites(section: Entry | None, reader: Reader) -> dict[str, Site]:
    """The sites of a section, without those that have a problem."""
    found: dict[str, Site] = {}
    for site_id, entry in reader.mapping(section, ("sites",)).entries.items():
        path = ("sites", site_id)
        try:
            check_id(site_id)
        except ValueError as error:
            reader.note(entry.mark, path, str(error))
        if (site := reader.struct(entry.node, Site, path)) is not INVALID:
            found[site_id] = site
    return found


def read_catalog(data: bytes, name: str) -> dict[str, Site]:
    """The sites of a catalog's YAML. Raises ConfigError with every problem and its line."""
    problems: list[Problem] = []
    root = parse(data, name, problems)
    found: dict[str, Site] = {}
    if root is not None:
        reader = Reader(problems, {})
        reader.fields(root, CatalogFile, (), without=("sites",))
        found = read_sites(root.entries.get("sites"), reader)
    if problems:
        raise ConfigError(problems)
    return found


@cache
def shipped_sites() -> dict[str, Site]:
    """The catalog of the package, read once. Must not be changed."""
    return msgspec.json.decode(JSON.read_bytes(), type=dict[str, Site])


def merged(own: MappingOf[str, Site]) -> dict[str, Site]:
    """The shipped sites and the configuration's own, which come first and replace those with the same id."""
    return {**own, **{site_id: site for site_id, site in shipped_sites().items() if site_id not in own}}
