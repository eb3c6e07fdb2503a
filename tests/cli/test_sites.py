"""`proxy sites`: the answers of `/api/sites` without a server, with the configuration's own sites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import proxy

ROUTING = """\
version: 1
providers: {}
sites:
  acme:
    name: Acme
    category: shops
    domains: [acme.example]
    description: Anvils.
    tasks:
      item: {about: One anvil, say: [weight of this anvil], fields: {weight_kg: number}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sites")
    (place / "routing_rules.yaml").write_text(ROUTING)
    return place


def test_the_best_task_is_printed_with_reasons(folder: Path) -> None:
    """Then the runners-up."""
    done = proxy("sites", "match", "get trending communities", "https://reddit.com", cwd=folder)
    assert done.returncode == 0, done.stderr
    first, *reasons = done.stdout.split("\n\n")[0].splitlines()
    assert first.startswith("reddit/trending  0.9")
    assert "  reddit.com is a domain of Reddit." in reasons
    assert done.stdout.split("\n\n")[1].startswith("SITE    TASK")


def test_json_is_the_body_of_the_route(folder: Path) -> None:
    """Of a match, of the list, of a template."""
    match = json.loads(proxy("sites", "match", "weight of this anvil", "--json", cwd=folder).stdout)
    assert (match["site"]["id"], match["task"]["id"]) == ("acme", "item")
    listed = json.loads(proxy("sites", "list", "--domain", "shop.acme.example", "--json", cwd=folder).stdout)
    assert [card["id"] for card in listed["data"]] == ["acme"]
    shown = json.loads(proxy("sites", "show", "acme", "--json", cwd=folder).stdout)
    assert list(shown["tasks"][0]["schema"]["properties"]) == ["weight_kg"]


def test_the_catalog_is_a_table_and_a_template_is_text(folder: Path) -> None:
    """One line for each site; the fields of each task."""
    lines = proxy("sites", "list", "--category", "weather", cwd=folder).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", "weather-com", "weather-gov", "wetter-com"]
    shown = proxy("sites", "show", "arxiv", cwd=folder).stdout
    assert "paper: One paper" in shown and "  fields: title, authors, abstract" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("match", "trending", "https://redddit.com"), 1, "Nearest: reddit"),
        (("match", "x", "ht tp://a"), 2, "assets[0]: expected a URL"),
        (("show", "redit"), 1, "Did you mean reddit?"),
        (("list", "--category", "cats"), 2, "category: expected one of"),
    ],
)
@pytest.mark.sampled(3)
def test_what_is_not_found_or_wrong_says_so(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    """1: there is nothing; 2: the question is wrong."""
    done = proxy("sites", *arguments, cwd=folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
