"""Translates: the templates of all sites into look-ups: by id, by host and path, by filters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cached_property

from msgspec import Struct

from proxy.schema.errors import ProxyError
from proxy.sites.address import Address, host_of, parents
from proxy.sites.patterns import Pattern, read_pattern
from proxy.sites.template import Site, SiteTask


class Place(Struct, frozen=True):
    """A domain of a site. `path`: the segments that its addresses begin with; `is_exact`: not its sub-domains."""

    site_id: str
    domain: str
    path: tuple[str, ...]
    is_exact: bool


class Catalog:
    """All sites by id. Immutable; the data for matching is built at first use."""

    def __init__(self, sites: Mapping[str, Site]) -> None:
        self.sites = sites

    @cached_property
    def _places(self) -> dict[str, list[Place]]:
        found: dict[str, list[Place]] = {}
        for site_id, site in self.sites.items():
            for domain in site.domains:
                host, _, path = domain.removeprefix("=").partition("/")
                segments = tuple(segment for segment in path.lower().split("/") if segment)
                place = Place(site_id, host_of(host), segments, domain.startswith("="))
                found.setdefault(place.domain, []).append(place)
        return found

    @cached_property
    def patterns(self) -> dict[str, list[tuple[str, Pattern]]]:
        """Site -> task and pattern, the most literal first."""
        made = {
            site_id: [(task, read_pattern(text)) for task, texts in site.urls.items() for text in texts]
            for site_id, site in self.sites.items()
        }
        return {site_id: sorted(pairs, key=lambda pair: -pair[1].weight) for site_id, pairs in made.items()}

    def at(self, address: Address) -> list[Place]:
        """The places that an address belongs to: those with the longest domain, and among them the longest path."""
        for domain in parents(address.host):
            fitting = [
                place
                for place in self._places.get(domain, ())
                if address.segments[: len(place.path)] == place.path and (domain == address.host or not place.is_exact)
            ]
            if fitting:
                longest = max(len(place.path) for place in fitting)
                return [place for place in fitting if len(place.path) == longest]
        return []

    def site(self, site_id: str) -> Site:
        """Raises ProxyError 404, which names similar ids."""
        site = self.sites.get(site_id)
        if site is None:
            close = difflib.get_close_matches(site_id[:64].lower(), self.sites, n=3, cutoff=0.6)
            hint = f" Did you mean {' or '.join(close)}?" if close else " GET /api/sites lists all of them."
            raise ProxyError(f"There is no site {site_id[:64]!r}.{hint}", status=404, code="not_found", param="site")
        return site

    def find(self, category: str | None = None, domain: str | None = None) -> dict[str, Site]:
        """The sites of a category, and those that serve a domain. Raises ValueError for an invalid domain."""
        found = self.sites
        if domain is not None:
            ids = {place.site_id for place in self.at(Address(host_of(domain.strip())))}
            ids |= {place.site_id for place in self._places.get(host_of(domain.strip()), ())}
            found = {site_id: site for site_id, site in found.items() if site_id in ids}
        return {site_id: site for site_id, site in found.items() if category in (None, site.category)}

    @property
    def categories(self) -> dict[str, int]:
        """Category -> its number of sites."""
        counts: dict[str, int] = {}
        for site in self.sites.values():
            counts[site.category] = counts.get(site.category, 0) + 1
        return counts

    def tasks(self) -> list[tuple[str, str, SiteTask]]:
        return [(site_id, name, task) for site_id, site in self.sites.items() for name, task in site.tasks.items()]
