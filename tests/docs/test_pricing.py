"""docs/pricing.md is true: its rows are read as the server reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.config import Source, configure

PAGE = (Path(__file__).parents[2] / "docs" / "pricing.md").read_text()
SNIPPETS = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ROUTING = "version: 1\nproviders: {openai: {}, anthropic: {}}\n"


@pytest.mark.parametrize(("file", "text"), SNIPPETS)
def test_the_rows_on_the_page_load(file: str, text: str) -> None:
    """Each is a part of the file that its first line names."""
    routing = ROUTING + (text if file == "routing_rules.yaml" else "")
    pricing = "version: 1\n" + (text if file == "pricing.yaml" else "")
    config = configure(Source("routing_rules.yaml", routing.encode()), Source("pricing.yaml", pricing.encode()), {})
    assert config.notices == []
    if file == "pricing.yaml":
        assert config.pricing.models
