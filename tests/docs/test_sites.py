"""Runs the snippets of docs/sites.md, and holds its figures against the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from proxy.config import Source, configure
from proxy.sites.address import MAX_URL
from proxy.sites.answers import AssetSite, Candidate, SiteCard, SiteMatch, TaskTemplate
from proxy.sites.catalog import Catalog
from proxy.sites.match import MAX_ASSETS, MAX_INSTRUCTIONS, RUNNERS_UP, Matcher
from tests.cli.commands import environment
from tests.serving import Spawned, spawned, write_files
from tests.sites.pairs import read_pairs
from tests.upstream import spawn
from tests.upstream.modes import says

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sites.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
MATCH, CATALOG = [text for language, text in BLOCKS if language == "bash"]
(PYTHON,) = [text for language, text in BLOCKS if language == "python"]
(YAML,) = [text for language, text in BLOCKS if language == "yaml"]
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers: {{fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null}}}}
tasks: {{default: fake/page}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawned]:
    with spawn() as upstream:
        upstream.set_modes({"page": says('{"posts": []}')})
        with spawned(write_files(tmp_path_factory.mktemp("page"), upstream.url, ROUTING)) as running:
            yield running


def run(command: list[str], text: str, server: Spawned) -> str:
    text = text.replace("http://127.0.0.1:8000", server.base_url.removesuffix("/v1"))
    scripts = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [*command, text], capture_output=True, text=True, timeout=60, check=False, env=environment(PATH=scripts)
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_match_finds_reddit(server: Spawned) -> None:
    """Its trending task, with the fields that the page names."""
    found = json.loads(run(["bash", "-c"], MATCH, server))
    assert (found["site"]["id"], found["task"]["id"]) == ("reddit", "trending")
    assert msgspec.convert(found, SiteMatch).task.schema["required"] == ["posts"]


@pytest.mark.slow
def test_the_chat_uses_the_template(server: Spawned) -> None:
    """With the unmodified SDK."""
    assert run([sys.executable, "-c"], PYTHON, server).splitlines() == ["reddit/trending", '{"posts": []}']


@pytest.mark.slow
def test_the_catalog_is_shown(server: Spawned) -> None:
    """By the routes and by the commands."""
    out = run(["bash", "-c"], CATALOG.replace("\ncurl", "\necho; curl").replace("\nproxy", "\necho; proxy"), server)
    listed, template, *table = [line for line in out.splitlines() if line]
    assert {card["category"] for card in json.loads(listed)["data"]} == {"weather"}
    assert json.loads(template)["id"] == "arxiv"
    assert any(line.startswith("pubmed ") for line in table)
    assert any(line.startswith("arxiv/listing ") for line in table)


def test_the_own_site_matches() -> None:
    """The example of the page, by each of its addresses."""
    whole = f"{YAML}version: 1\nproviders: {{}}\n"
    matcher = Matcher(Catalog(configure(Source("routing_rules.yaml", whole.encode()), None, {}).sites))
    for url in ("https://www.acme.example/p/7", "https://acme.example/tools/anvil-p7.html", "https://example.com/acme"):
        assert matcher.match("get the price", [url]).site.id == "acme-shop"


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    """Limits, fields, the number of pairs."""
    text = " ".join(PAGE.split())
    assert f"{MAX_INSTRUCTIONS} characters of instructions, {MAX_ASSETS} assets of {MAX_URL} characters" in text
    assert f"up to {RUNNERS_UP} others" in text
    assert f"On the {len(read_pairs('pairs'))} pairs" in text and f"on {len(read_pairs('unseen'))} others" in text
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert rows.keys() == set(SiteMatch.__struct_fields__)
    for row, kind in (("site", SiteCard), ("task", TaskTemplate), ("runners_up", Candidate), ("assets", AssetSite)):
        assert set(re.findall(r"`(\w+)`", rows[row])) - {"null"} == set(kind.__struct_fields__)
