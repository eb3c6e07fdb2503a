"""docs/metering.md matches the code: the dimensions, the parameters, and the figures it promises."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from ruamel.yaml import YAML

from proxy.metering.savings import UsageConfig
from proxy.schema.dimensions import DIMENSIONS
from proxy.schema.records import Caller
from proxy.server.api.outcome_queries import MAX_COMMENT, FeedbackBody, rating_of
from proxy.server.api.queries import DEFAULT_DAYS, MOST_DAYS, REQUESTS, USAGE, log_query, parameters_of, usage_query
from proxy.server.api.shapes import UsageSums
from proxy.storage.feedback import MOST_PER_CALL
from proxy.storage.histograms import ERROR
from proxy.storage.rollups import AT_ONCE
from proxy.storage.usage import MAX_GROUPS

PAGE = Path(__file__).parents[2] / "docs" / "metering.md"
TABLE = re.compile(r"(?<=<!-- dimensions: begin -->\n).*?(?=<!-- dimensions: end -->)", re.DOTALL)
REWRITE = "WRITE_DOCS=1 scripts/test tests/docs/test_metering.py"


def test_every_dimension_is_in_the_document() -> None:
    """The table is generated from the one list."""
    lines = ["| name | groups by | read from |", "|---|---|---|"]
    for each in DIMENSIONS.values():
        lines.append(f"| `{each.name}` | {each.about} | {'rollups' if each.in_rollups else 'single calls'} |")
    table = "\n".join(lines) + "\n"
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(TABLE.sub(lambda _: table, PAGE.read_text()))
    assert TABLE.findall(PAGE.read_text()) == [table], f"run {REWRITE}"


def test_every_parameter_and_figure_is_in_the_document() -> None:
    """Also the limits."""
    text = " ".join(PAGE.read_text().split())
    named = set(re.findall(r"`(\w+)`", text))
    assert {*USAGE, *REQUESTS, *UsageSums.__annotations__} <= named
    for said in (f"{ERROR:.1%}".replace("%", " %"), f"{MAX_GROUPS:,} groups", f"{AT_ONCE} at a time"):
        assert said in text
    assert (DEFAULT_DAYS, MOST_DAYS) == (7, 31) and "seven days" in text and f"{MOST_DAYS} days" in text


@pytest.mark.parametrize("url", re.findall(r'^curl "(.*)"$', PAGE.read_text(), re.MULTILINE))
def test_every_query_is_one_that_the_server_takes(url: str) -> None:
    """Names and values, read as the server reads them."""
    parts = urlsplit(url)
    items, caller = parse_qsl(parts.query), Caller("ann")
    if parts.path == "/v1/usage":
        assert usage_query(parameters_of(items, USAGE), caller, 2 * 10**18).group_by == ("day", "model")
    else:
        assert log_query(parameters_of(items, REQUESTS), caller).filters["tag"] == "nightly"


def test_the_rating_is_one_that_the_server_takes() -> None:
    """Its fields and limits are in the table."""
    text = PAGE.read_text()
    (body,) = re.findall(r"^curl .*/v1/feedback .* -d '(.*)'$", text, re.MULTILINE)
    rating = rating_of(body.encode(), Caller("ann"))
    assert (rating.call_id, rating.success) == ("0661640e3cbcdb1a2d4436eb39", False)
    for said in (*(f"`{name}`" for name in FeedbackBody.__struct_fields__), f"{MAX_COMMENT:,} characters"):
        assert said in text
    assert f"may have {MOST_PER_CALL} ratings" in text


def test_the_snippet_is_a_section_of_the_configuration() -> None:
    """It is read as the server reads it."""
    (text,) = re.findall(r"^```yaml\n# routing_rules.yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    section = YAML(typ="safe").load(text)["usage"]
    assert msgspec.convert(section, UsageConfig).baseline == "smart"
