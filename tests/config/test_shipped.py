"""The two files that come with the product, and the examples of every key."""

from __future__ import annotations

from datetime import date
from itertools import combinations
from pathlib import Path

import pytest

from proxy.config import Config, check, load
from proxy.prices import find_price

TOP = Path(__file__).parents[2]
KEYS = ["OPENAI_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY", "TOGETHER_API_KEY"]


def shipped(environ: dict[str, str]) -> Config:
    return load(TOP / "routing_rules.yaml", TOP / "pricing.yaml", environ)


@pytest.mark.parametrize("keys", [keys for count in range(len(KEYS) + 1) for keys in combinations(KEYS, count)])
def test_the_shipped_files_work_with_any_keys(keys: tuple[str, ...]) -> None:
    """No key, one, or all: each provider is on exactly where its key is set, and the embedded model always."""
    config = shipped(dict.fromkeys(keys, "k"))
    on = {name for name in config.providers if name not in config.disabled}
    assert on == {key.partition("_")[0].lower() for key in keys} | {"local"}
    assert (set(config.secrets), config.notices) == (on - {"local"}, [])


def test_the_shipped_files_name_nothing_that_is_going_away() -> None:
    """No error and no warning on the day they were written."""
    assert check(shipped({}), date(2026, 11, 22)) == []


def test_every_model_that_can_be_called_by_name_has_a_price() -> None:
    """Whatever the shipped names lead to on the providers of this version."""
    config = shipped({})
    targets = {name for entry in config.models.values() for name in (entry.use, *entry.fallback) if name}
    targets = (targets | set(config.aliases.values())) - set(config.models)
    ours = {name for name in targets if name.partition("/")[0] in ("openai", "groq", "mistral", "together", "local")}
    assert len(ours) >= 8
    assert [name for name in ours if find_price(config.pricing, name) is None] == []


def test_every_row_of_the_price_list_is_whole() -> None:
    """Two prices, a context, no price above its successor tier, and days in order."""
    rows = {name: row for name, row in shipped({}).pricing.models.items() if not name.endswith("/*")}
    assert len(rows) > 60
    for name, row in rows.items():
        assert row.input is not None, name
        assert row.output is not None, name
        assert row.context, name
        assert (row.cached_input or 0) <= row.input, name
        assert all(tier.input and tier.output and tier.input > row.input for tier in row.tiers), name
        assert row.successor is None or row.successor in rows, name


def test_the_shipped_aliases_are_retired_ids() -> None:
    """An alias for a live model would hide it; each leads to the successor in the price list."""
    config = shipped({})
    for name, target in config.aliases.items():
        row = config.pricing.models[name if "/" in name else f"openai/{name}"]
        assert (row.retired is not None, row.successor) == (True, target)
