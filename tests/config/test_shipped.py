"""The two files that come with the product, and the examples of every key."""

from __future__ import annotations

import re
from datetime import date
from itertools import combinations
from pathlib import Path

import pytest

from proxy.config import Config, Source, check, configure, load
from proxy.config.server import ServerConfig
from proxy.metering.prices import find_price
from proxy.storage.settings import StorageConfig
from tests.slowness import usual_s

TOP = Path(__file__).parents[2]
TIMEOUTS = {  # seconds for a whole answer; 900 where nothing is said
    "openai": 900,
    "anthropic": 900,
    "google": 900,
    "groq": 300,
    "mistral": 900,
    "cohere": 900,
    "perplexity": 900,
    "together": 900,
}
LOCAL_SERVERS = ["ollama", "vllm", "lmstudio", "localai"]
# No price is published for the first; those of 2024 are lost.
UNPRICED = {"cohere/command-a-plus-05-2026", "perplexity/pplx-70b-online", "perplexity/pplx-7b-online"}
# What programs call -> the row it stands for.
OLD_IDS = {
    row.partition("/")[2]: row
    for row in (
        *("openai/gpt-4-turbo", "openai/gpt-4o", "openai/gpt-4o-mini", "openai/gpt-3.5-turbo"),
        *("anthropic/claude-3-opus-20240229", "anthropic/claude-3-sonnet-20240229"),
        *("anthropic/claude-3-haiku-20240307", "anthropic/claude-3-5-sonnet-20240620"),
        *("google/gemini-1.5-pro", "google/gemini-1.5-flash", "google/gemini-1.0-pro"),
        *("groq/llama-3.1-405b", "groq/llama-3.1-70b-versatile", "groq/llama-3.1-8b-instant"),
        *("groq/mixtral-8x7b-32768", "mistral/mixtral-8x22b"),
        *("mistral/mistral-large-latest", "mistral/mistral-medium-latest", "mistral/mistral-small-latest"),
        *("cohere/command-r-plus", "cohere/command-r", "cohere/command-light"),
        *("perplexity/pplx-70b-online", "perplexity/pplx-7b-online"),
    )
}
PRICES_OF_MARCH_2026 = {
    "openai/gpt-4-turbo": (10, 30),
    "openai/gpt-4o": (5, 15),
    "openai/gpt-4o-mini": (0.15, 0.60),
    "anthropic/claude-3-opus-20240229": (15, 75),
    "anthropic/claude-3-5-sonnet-20240620": (3, 15),
    "anthropic/claude-3-haiku-20240307": (0.25, 1.25),
    "google/gemini-1.5-pro": (3.50, 10.50),
    "google/gemini-1.5-flash": (0.35, 1.05),
    "groq/llama-3.1-70b-versatile": (0.59, 0.79),
    "groq/llama-3.1-8b-instant": (0.05, 0.08),
}
KEYS = ["OPENAI_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY", "TOGETHER_API_KEY"]


def shipped(environ: dict[str, str]) -> Config:
    return load(TOP / "routing_rules.yaml", TOP / "pricing.yaml", environ)


@pytest.mark.parametrize("keys", [keys for count in range(len(KEYS) + 1) for keys in combinations(KEYS, count)])
@pytest.mark.sampled(4)
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
    """Two prices, a context, no tier below its own row, a successor that is listed and live."""
    rows = {name: row for name, row in shipped({}).pricing.models.items() if not name.endswith("/*")}
    assert len(rows) > 100
    for name, row in rows.items():
        assert (row.input is None, row.output is None) == (name in UNPRICED, name in UNPRICED), name
        assert row.context, name
        assert (row.cached_input or 0) <= (row.input or 0), name
        assert all(tier.input and tier.output and tier.input > (row.input or 0) for tier in row.tiers), name
        assert row.retired is None or row.successor, name
        assert row.successor is None or rows[row.successor].retired is None, name
        assert row.successor is None or row.successor.partition("/")[0] == name.partition("/")[0], name


def test_every_live_row_says_what_a_router_asks() -> None:
    """Capabilities and quality for each model that can be called; nothing for one that is gone."""
    for name, row in shipped({}).pricing.models.items():
        assert (row.supports is None, row.quality is None) == (bool(row.retired), bool(row.retired)), name


def test_the_shipped_providers_are_those_of_the_product() -> None:
    """Eight vendors, four servers of one's own that wait to be enabled, the embedded model; time-outs as promised."""
    providers = shipped({}).providers
    assert list(providers) == [*TIMEOUTS, *LOCAL_SERVERS, "local"]
    assert {name: providers[name].timeout_s.total for name in TIMEOUTS} == TIMEOUTS
    assert [name for name in providers if not providers[name].enabled] == LOCAL_SERVERS
    assert all(providers[name].timeout_s.first_token <= providers[name].timeout_s.total for name in TIMEOUTS)


@pytest.mark.parametrize(("name", "row"), OLD_IDS.items())
@pytest.mark.sampled(4)
def test_an_old_id_has_its_row_and_its_successor(name: str, row: str) -> None:
    """Gone and mapped by an alias, or still there with what comes after it."""
    config = shipped({})
    price = config.pricing.models[row]
    assert price.successor in config.pricing.models
    if price.retired:
        assert config.aliases[name] == price.successor
    else:
        assert name not in config.aliases
        assert price.retires or row.endswith("-latest")


@pytest.mark.parametrize(("row", "march"), PRICES_OF_MARCH_2026.items())
@pytest.mark.sampled(4)
def test_the_prices_of_march_2026_are_kept(row: str, march: tuple[float, float]) -> None:
    """What is gone keeps them as its price, what lives on has them as the version that ended with that month."""
    price = shipped({}).pricing.models[row]
    if price.retired:
        assert (price.input, price.output) == march
    else:
        assert [(past.until, past.input, past.output) for past in price.history] == [("2026-03-31", *march)]


def test_the_shipped_aliases_are_ids_that_are_gone() -> None:
    """An alias for a live model would hide it; each leads to the successor of the row it stands for."""
    config = shipped({})
    for name, target in config.aliases.items():
        provider = target.partition("/")[0]
        old = name.removeprefix(f"{provider}/").removeprefix("open-")
        rows = [row for listed, row in config.pricing.models.items() if is_form_of(old, listed, provider)]
        assert target in {row.successor for row in rows if row.retired}, name
        own = config.pricing.models.get(f"{provider}/{old}")
        assert own is None or own.retired, name


def is_form_of(old: str, listed: str, provider: str) -> bool:
    """The id itself, a dated form of it, or its short form: claude-3-opus, llama-3.1-70b."""
    owner, _, model = listed.partition("/")
    return owner == provider and (model == old or model.startswith(f"{old}-") or old.startswith(f"{model}-"))


def test_every_id_that_is_gone_is_mapped() -> None:
    """By its bare name, which is what programs send."""
    config = shipped({})
    gone = {name.partition("/")[2] for name, row in config.pricing.models.items() if row.retired}
    assert gone - set(config.aliases) == set()


def test_the_sections_in_comments_show_the_defaults() -> None:
    """Taking the `# ` away changes nothing, and what stands there loads."""
    text = (TOP / "routing_rules.yaml").read_text()
    shown = re.sub(r"^# (server|storage):", r"\1:", text, flags=re.MULTILINE)
    config = configure(Source("routing_rules.yaml", shown.encode()), None, {})
    assert shown.count("\nserver:") + shown.count("\nstorage:") == 2
    assert (config.server, config.storage, config.notices) == (ServerConfig(), StorageConfig(), [])


def test_the_shipped_files_are_short_enough_to_read() -> None:
    """Lines that fit a screen, and few enough of them."""
    for name, most in (("routing_rules.yaml", 180), ("pricing.yaml", 320)):
        lines = (TOP / name).read_text().splitlines()
        assert max(map(len, lines)) <= 120, name
        assert len(lines) <= most, name


def test_both_files_load_quickly() -> None:
    """60 to 70 ms of CPU in November 2026."""
    assert usual_s(lambda: shipped({})) < 0.25
