"""The shipped catalog: what it must have, and that it fits itself."""

from __future__ import annotations

import os
import re

import msgspec
import pytest

from proxy.config import ConfigError
from proxy.config.sites import JSON, YAML, read_catalog, shipped_sites
from proxy.schema.errors import ProxyError
from proxy.schema.json_check import JSONCheck
from proxy.sites.address import host_of
from proxy.sites.answers import task_of
from proxy.sites.catalog import Catalog
from proxy.sites.match import Matcher
from proxy.sites.template import Site, SiteTask

SITES = shipped_sites()
MATCHER = Matcher(Catalog(SITES))
TASKS = [(site_id, name) for site_id, site in SITES.items() for name in site.tasks]
REWRITE = "WRITE_DOCS=1 scripts/test tests/sites/test_catalog.py"


def test_the_json_is_made_of_the_yaml() -> None:
    """WRITE_DOCS=1 makes it anew."""
    made = msgspec.json.format(msgspec.json.encode(read_catalog(YAML.read_bytes(), YAML.name)), indent=1) + b"\n"
    if os.environ.get("WRITE_DOCS"):
        JSON.write_bytes(made)
        return
    assert JSON.read_bytes() == made, f"catalog.json is out of date; make it anew with: {REWRITE}"


def test_there_are_many_sites_of_many_kinds() -> None:
    """More than 60 sites with domains of their own, more than 12 categories, every one with sites."""
    assert len({site.domains[0] for site in SITES.values()}) == len(SITES) >= 60
    assert len(Catalog(SITES).categories) >= 12
    wanted = {
        "communities",
        "code",
        "shops",
        "news",
        "encyclopaedias",
        "video",
        "music",
        "jobs",
        "travel",
        "real-estate",
    }
    wanted |= {"finance", "science", "government", "maps", "sports", "weather"}
    assert wanted <= Catalog(SITES).categories.keys()


def test_no_two_sites_share_a_domain_or_a_name() -> None:
    """Else one of them could never be found."""
    domains = [domain for site in SITES.values() for domain in site.domains]
    assert sorted(set(domains)) == sorted(domains)
    names = [name.lower() for site in SITES.values() for name in {site.name.lower(), *site.aliases}]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("site_id", SITES)
def test_a_schema_is_one_of_strict_mode(site_id: str) -> None:
    """Closed objects whose fields are all required; our own checker takes it, a page without facts, and no other."""
    for task in SITES[site_id].tasks.values():
        schema = task.schema()
        inner = schema["properties"][task.items]["items"] if task.items else schema
        for each in (schema, inner):
            assert (each["type"], each["additionalProperties"]) == ("object", False)
            assert each["required"] == list(each["properties"])
        check = JSONCheck({"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}})
        empty = dict.fromkeys(task.fields)
        assert check.wrong(msgspec.json.encode({task.items: [empty]} if task.items else empty).decode()) is None
        more = {**empty, "more": 1}
        assert check.wrong(msgspec.json.encode({task.items: [more]} if task.items else more).decode()) is not None


def url_of(site: Site, pattern: str) -> str:
    """An address of the form of a pattern."""
    path = re.sub(r"\{[a-z_]+\}", "zq7", pattern).replace("/**", "/zq7/zq8")
    host = site.domains[0].removeprefix("=").partition("/")[0]
    return f"https://{host}{path}" if path.startswith("/") else f"https://{path}"


def test_every_pattern_leads_to_its_own_task() -> None:
    """An address made of it, without any words, finds site and task."""
    wrong = []
    for site_id, site in SITES.items():
        for name, patterns in site.urls.items():
            for pattern in patterns:
                match = MATCHER.match("", [url_of(site, pattern)])
                if (match.site.id, match.task.id) != (site_id, name):
                    wrong.append((site_id, name, pattern, match.task.id))
    assert wrong == []


def test_every_instruction_leads_to_its_own_task() -> None:
    """With a bare domain; of instructions that two tasks of a site could have, the other one may win."""
    said = [(site_id, name, text) for site_id, name in TASKS for text in SITES[site_id].tasks[name].say]
    wrong = []
    for site_id, name, text in said:
        match = MATCHER.match(text, [f"https://{SITES[site_id].domains[0].removeprefix('=')}"])
        if (match.site.id, match.task.id) != (site_id, name):
            wrong.append((site_id, name, text, match.task.id))
    print(f"{len(wrong)} of {len(said)}: {wrong}")
    assert len(wrong) <= 0.02 * len(said)


def test_every_task_says_what_a_chat_needs() -> None:
    """A prompt that names the site and every field, a route, the name of a prompt; domains as browsers send them."""
    for site_id, name in TASKS:
        site = SITES[site_id]
        task = task_of(site, name)
        assert site.name in task.prompt and all(field in task.prompt for field in site.tasks[name].fields)
        assert (task.model, task.prompt_template) == ("auto:extraction", "extraction_v1")
        assert "\n- " not in task.prompt and len(task.prompt) < 1500
    for site in SITES.values():
        for domain in site.domains:
            host = domain.removeprefix("=").partition("/")[0]
            assert (host_of(host) == host and not host.startswith("www.")) or host == "www.gov.uk"


def test_an_unknown_site_has_near_names() -> None:
    """404 with the ids like it."""
    with pytest.raises(ProxyError, match="Did you mean reddit") as unknown:
        Catalog(SITES).site("redit")
    assert (unknown.value.status, unknown.value.code) == (404, "not_found")


def test_mistakes_in_a_catalog_are_named_with_their_lines() -> None:
    """All at once."""
    text = b"version: 1\nsites:\n  a:\n    name: A\n    nmae: B\n  B!: {}\n"
    with pytest.raises(ConfigError) as bad:
        read_catalog(text, "mine.yaml")
    told = str(bad.value)
    assert "mine.yaml:5:5: sites.a.nmae: unknown key" in told
    assert "mine.yaml:6:3: sites.B!: a site id has at most 64 lower case letters" in told
    assert "mine.yaml:4:5: sites.a.domains: is missing" in told


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tasks": {}}, "tasks: must not be empty"),
        ({"domains": []}, "domains: must not be empty"),
        ({"domains": ["https://a.example"]}, "domains"),
        ({"urls": {"other": ["/a"]}}, "none of its tasks"),
        ({"category": "Big Shops"}, "category"),
        ({"description": "two\nlines"}, "on one line"),
    ],
)
def test_a_template_that_cannot_work_is_refused(change: dict[str, object], why: str) -> None:
    """When it is made, wherever it comes from."""
    task = SiteTask(about="One", say=["one"], fields={"a": "text"})
    whole = {"name": "A", "category": "shops", "domains": ["a.example"], "description": "A.", "tasks": {"one": task}}
    with pytest.raises(ValueError, match=why):
        Site(**{**whole, **change})  # type: ignore[arg-type]
    for field in ({"A": "text"}, {"a": "texts"}, {}):
        with pytest.raises(ValueError, match="field"):
            SiteTask(about="One", say=["one"], fields=field)
