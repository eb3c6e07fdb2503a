"""Translates: instructions and URLs into the site and the task that fit best, with the reasons.

URLs, if given, decide the site: a page of another host is another site, whatever the words say. Without URLs the words
decide: the name of a site, or else the tasks that they resemble. The task follows from the words and from the pattern
that an address fits; if neither helps, it is the site's first one.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import islice

from msgspec import Struct

from proxy.schema.errors import BadRequest, NoSiteFits
from proxy.sites.address import Address, read_address
from proxy.sites.answers import AssetSite, Candidate, SiteMatch, card_of, task_of
from proxy.sites.catalog import Catalog, Place
from proxy.sites.words import COMMON, POINTING, meaning, spelled, words_of

MAX_INSTRUCTIONS = 4_000  # characters
MAX_ASSETS = 20
RUNNERS_UP = 4
MAX_REASONS = 12
_SHOWN_WORDS = 8
_LEAST = 0.42  # how well words must fit a task if nothing else names its site
_MOST_ALIKE = 4  # sites whose tasks fit words equally well: if there are more, the words single out none
_ALIKE = 0.95
_NAMED, _HOSTED = 0.55, 0.6  # confidence in the site alone: the instructions name it, an asset is of it
_ADDRESS = 0.7  # weight of a fitting pattern; the words have a weight of 1
_LIKENESS = 0.5  # share of the closest instruction in the weight of the words
_ROOT = 0.12  # ... of a front page, where people start whatever they want
_KNOWN = 0.25  # the minimum share of words for which the first task of a site is not a guess


class _Task(Struct, frozen=True):
    """A task and its words: word -> weight. `phrases`: those of each instruction that it knows."""

    site_id: str
    name: str
    words: dict[str, float]
    phrases: list[frozenset[str]]


class _Asset(Struct, frozen=True):
    """The address of an asset, and the places in the catalog that it belongs to."""

    address: Address
    places: list[Place]


class _Asked(Struct, frozen=True):
    """The words of the instructions: word -> its significance. `known`: those that occur in any task."""

    words: dict[str, float]
    known: frozenset[str]
    weight: float
    known_weight: float


class _Found(Struct):
    """The evidence for one task. `words`, `address`: 0 to 1. `by`: the pattern that an address fits."""

    task: _Task
    site_sure: float
    words: float = 0.0
    address: float = 0.0
    matched: frozenset[str] = frozenset()

    @property
    def strength(self) -> float:
        return self.words + self.address

    @property
    def confidence(self) -> float:
        if not self.site_sure:
            return round(0.75 * self.words, 2)
        return round(min(0.99, self.site_sure + (1 - self.site_sure) * min(1.0, self.strength)), 2)


class Matcher:
    """Matches against one catalog. Its index is built at first use, in about 20 ms."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.is_ready = False

    def prepare(self) -> None:
        """Builds the index."""
        if self._lengths and self._names and self.catalog.patterns:
            self.is_ready = True

    def match(self, instructions: str, assets: Sequence[str] = ()) -> SiteMatch:
        """Raises BadRequest, which names the field, and NoSiteFits."""
        if len(instructions) > MAX_INSTRUCTIONS:
            message = f"instructions: expected at most {MAX_INSTRUCTIONS} characters."
            raise BadRequest(message, param="instructions")
        if not instructions.strip() and not assets:
            raise BadRequest("instructions: say what to extract, or give assets.", param="instructions")
        given = [_Asset(address, self.catalog.at(address)) for address in _addresses(assets)]
        written = spelled(instructions)
        named = self._named(written)
        if given:
            of_assets = [place.site_id for asset in given for place in asset.places]
            sure = {site_id: _HOSTED + 0.1 * (site_id in named) for site_id in of_assets}
        else:
            sure = {site_id: _NAMED + 0.05 * min(3, len(name.split())) for site_id, name in named.items()}
        names = set(meaning([word for name in named.values() for word in name.split()]))
        ranked = self._ranked(written, given, sure, names)
        if not ranked or not (sure or (not given and _single_out(ranked))):
            raise self._nothing(given, named, ranked)
        best, task = ranked[0], ranked[0].task
        site = self.catalog.sites[task.site_id]
        return SiteMatch(
            site=card_of(task.site_id, site),
            task=task_of(site, task.name),
            confidence=best.confidence,
            reasons=self._reasons(best, given, named, written),
            runners_up=_others(ranked),
            assets=[AssetSite(each.address.host, each.places[0].site_id if each.places else None) for each in given],
            politeness=site.politeness,
        )

    def task_for(self, site_id: str, instructions: str) -> str:
        """The task of a site that the words fit best; its first one if they give no hint."""
        written = spelled(instructions[:MAX_INSTRUCTIONS])
        return self._ranked(written, (), {site_id: _HOSTED}, set())[0].task.name

    # --- what speaks for a task ---------------------------------------------------------------------------------------

    def _ranked(
        self, written: list[str], given: Sequence[_Asset], sure: dict[str, float], names: set[str]
    ) -> list[_Found]:
        """The tasks of the sites in `sure`, of all sites if there are none; the best first. `names`: words that name a
        site and reveal nothing about the task.
        """
        asked = self._asked([word for word in meaning(written) if word in self._counts or word not in names])
        tasks = [task for site_id in sure for task in self._by_site[site_id]] if sure else self._tasks
        found = [self._found(task, asked, sure.get(task.site_id, 0.0)) for task in tasks]
        shares = self._address_shares(given)
        for each in found:
            each.address = shares.get((each.task.site_id, each.task.name), 0.0)
        return sorted(found, key=lambda each: -each.site_sure - each.strength)

    def _asked(self, words: list[str]) -> _Asked:
        weights = {word: self._rarity(word) for word in words}
        known = frozenset(word for word in words if word in self._counts)
        return _Asked(weights, known, sum(weights.values()), sum(weights[word] for word in known))

    def _found(self, task: _Task, asked: _Asked, site_sure: float) -> _Found:
        matched = asked.known & task.words.keys()
        found = _Found(task, site_sure, matched=matched)
        if matched:
            share = sum(asked.words[word] * task.words[word] for word in matched) / asked.weight
            closest = max(self._likeness(asked, phrase) for phrase in task.phrases)
            found.words = min(1.0, (1 - _LIKENESS) * share + _LIKENESS * closest)
        return found

    def _likeness(self, asked: _Asked, phrase: frozenset[str]) -> float:
        """The cosine of the known words and those of one instruction."""
        common = sum(map(asked.words.__getitem__, phrase & asked.known))
        return common / math.sqrt(asked.known_weight * self._lengths[phrase]) if common else 0.0

    def _address_shares(self, given: Sequence[_Asset]) -> dict[tuple[str, str], float]:
        """How well the addresses fit each task: an address counts for the most literal pattern of its
        site.
        """
        shares: dict[tuple[str, str], float] = {}
        for asset in given:
            address = asset.address
            for place in asset.places:
                is_front = len(address.segments) == len(place.path) and not address.query
                share = _ROOT if is_front else _ADDRESS
                patterns = self.catalog.patterns[place.site_id]
                task = next((task for task, pattern in patterns if pattern.fits(address)), None)
                if task is not None:
                    shares[place.site_id, task] = max(share, shares.get((place.site_id, task), 0.0))
        return shares

    def _rarity(self, word: str) -> float:
        """The significance of a word: low if it occurs in many tasks. Words of no task count as common ones."""
        count = self._counts.get(word, 0)
        return math.log(1 + len(self._tasks) / count) if count else 1.5

    # --- names --------------------------------------------------------------------------------------------------------

    def _named(self, written: list[str]) -> dict[str, str]:
        """Site -> the name that the text uses. Of overlapping names the longest counts."""
        found: dict[str, str] = {}
        place = 0
        while place < len(written):
            longest = self._longest_name if written[place] in self._first_words else 0
            for length in range(min(longest, len(written) - place), 0, -1):
                name = " ".join(written[place : place + length])
                if name in self._names and (name not in COMMON or _is_pointed_at(written, place)):
                    found.setdefault(self._names[name], name)
                    place += length - 1
                    break
            place += 1
        return found

    @cached_property
    def _names(self) -> dict[str, str]:
        """Name, alias or domain as spelled -> site."""
        names: dict[str, str] = {}
        for site_id, site in self.catalog.sites.items():
            domains = [domain.removeprefix("=") for domain in site.domains if "/" not in domain]
            for text in (site.name, *site.aliases, *domains, site_id.replace("-", " ")):
                name = " ".join(spelled(text))
                if len(name) > 1:  # a single letter names nothing
                    names.setdefault(name, site_id)
        return names

    @cached_property
    def _first_words(self) -> frozenset[str]:
        return frozenset(name.partition(" ")[0] for name in self._names)

    @cached_property
    def _longest_name(self) -> int:
        return max((len(name.split()) for name in self._names), default=0)

    # --- the index ----------------------------------------------------------------------------------------------------

    @cached_property
    def _tasks(self) -> list[_Task]:
        made = []
        for site_id, name, task in self.catalog.tasks():
            site = self.catalog.sites[site_id]
            phrases = [frozenset(words_of(text)) for text in task.say]
            words = dict.fromkeys(words_of(f"{site.description} {site.category}"), 0.4)
            words |= dict.fromkeys(words_of(" ".join(task.fields)), 0.6)
            words |= dict.fromkeys((*words_of(task.about), *words_of(task.items or "")), 0.8)
            words |= dict.fromkeys((*words_of(name), *(word for phrase in phrases for word in phrase)), 1.0)
            made.append(_Task(site_id, name, words, phrases))
        return made

    @cached_property
    def _by_site(self) -> dict[str, list[_Task]]:
        found: dict[str, list[_Task]] = {site_id: [] for site_id in self.catalog.sites}
        for task in self._tasks:
            found[task.site_id].append(task)
        return found

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter(word for task in self._tasks for word in task.words)

    @cached_property
    def _lengths(self) -> dict[frozenset[str], float]:
        """The total significance of a phrase's words."""
        return {phrase: sum(map(self._rarity, phrase)) for task in self._tasks for phrase in task.phrases}

    # --- what to say --------------------------------------------------------------------------------------------------

    def _reasons(self, best: _Found, given: Sequence[_Asset], named: dict[str, str], written: list[str]) -> list[str]:
        task = best.task
        site = self.catalog.sites[task.site_id]
        told = []
        for asset in given:
            for place in asset.places:
                host, domain = asset.address.host, "/".join([place.domain, *place.path])
                if place.site_id == task.site_id:
                    what = f"{domain} is" if place.domain == host else f"{host} is below {domain},"
                    told.append(f"{what} a domain of {site.name}.")
        if task.site_id in named:
            told.append(f"The instructions name {site.name}: {named[task.site_id]!r}.")
        if best.address:
            told.append(f"An address has the form of those of the task {task.name}.")
        if best.matched:
            fitting = (word for word in dict.fromkeys(written) if not best.matched.isdisjoint(meaning([word])))
            told.append(f"Words of the task {task.name}: {', '.join(islice(fitting, _SHOWN_WORDS))}.")
        if not best.address and best.words < _KNOWN:
            told.append(f"The words hardly fit a task of {site.name}.")
        return list(dict.fromkeys(told))[:MAX_REASONS]

    def _nothing(self, given: Sequence[_Asset], named: dict[str, str], ranked: list[_Found]) -> NoSiteFits:
        """The error, with sites whose domain or name has a similar spelling, that are named, or whose tasks fit."""
        domains = {
            domain.removeprefix("="): site_id for site_id, site in self.catalog.sites.items() for domain in site.domains
        }
        near = [
            domains[close]
            for asset in given[:2]
            for close in difflib.get_close_matches(_bare(asset.address), domains, n=2, cutoff=0.75)
        ]
        near += [*named, *(found.task.site_id for found in ranked[: 2 * RUNNERS_UP] if found.matched)]
        return NoSiteFits(tuple(dict.fromkeys(near))[:RUNNERS_UP], has_assets=bool(given))


def _bare(address: Address) -> str:
    """The part of the host that is compared by spelling."""
    return address.host.removeprefix("www.")[:64]


def _is_pointed_at(written: list[str], place: int) -> bool:
    """True if a common word is used as a name: `from Nature`, `on Indeed`."""
    return place > 0 and written[place - 1] in POINTING


def _addresses(assets: Sequence[str]) -> list[Address]:
    if len(assets) > MAX_ASSETS:
        raise BadRequest(f"assets: expected at most {MAX_ASSETS} URLs, got {len(assets)}.", param="assets")
    found = []
    for place, asset in enumerate(assets):
        try:
            found.append(read_address(asset))
        except ValueError as error:
            raise BadRequest(f"assets[{place}]: {error}.", param=f"assets[{place}]") from None
    return found


def _single_out(ranked: list[_Found]) -> bool:
    """True if words alone point to a few sites."""
    least = _ALIKE * ranked[0].words
    alike = {found.task.site_id for found in ranked if found.words >= least}
    return ranked[0].words >= _LEAST and len(alike) <= _MOST_ALIKE


def _others(ranked: list[_Found]) -> list[Candidate]:
    """The runners-up: the next task of the best site, and the best tasks of other sites."""
    best, seen, found = ranked[0].task.site_id, Counter[str](), []
    for each in ranked[: 20 * RUNNERS_UP]:
        site_id = each.task.site_id
        seen[site_id] += 1
        if each is not ranked[0] and each.confidence and seen[site_id] <= (2 if site_id == best else 1):
            found.append(Candidate(site_id, each.task.name, each.confidence))
    return found[:RUNNERS_UP]
