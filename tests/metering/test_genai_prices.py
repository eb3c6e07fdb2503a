"""Models without a row of their own are looked up in the price list of genai-prices, offline and not at start."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

from proxy.metering.genai_prices import lookup_price, lookup_version
from proxy.metering.prices import cost
from proxy.metering.pricing import Tier
from proxy.providers import PROVIDERS
from proxy.schema.records import Cost, Tokens

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_a_listed_model_is_priced() -> None:
    """USD per 1M tokens, cache prices and tiers included."""
    price = lookup_price("openai/gpt-4o", NOW)
    assert price is not None
    assert (price.input, price.cached_input, price.output, price.context) == (2.5, 1.25, 10.0, 128000)
    assert cost(price, Tokens(input=1000, output=100)) == Cost(3_500_000, 2_500_000, 0, 0, 1_000_000)
    tiered = lookup_price("anthropic/claude-sonnet-4-5", NOW)
    assert tiered is not None
    assert tiered.tiers == [Tier(200_000, 6.0, 22.5, 0.6, 7.5, 12.0)]


def test_a_fee_per_request_is_kept() -> None:
    """The list has it per thousand."""
    price = lookup_price("perplexity/sonar", NOW)
    assert price is not None
    assert price.per_request == 0.012


def test_what_cannot_be_told_apart_has_no_price() -> None:
    """Hours of audio are no tokens; free tiers without prices are not free."""
    assert [lookup_price(name, NOW) for name in ("openai/whisper-1", "google/gemma-4-31b-it")] == [None, None]


def test_audio_images_and_searches_have_their_listed_prices() -> None:
    """Per 1M tokens; searches are listed per thousand."""
    speaking, painting = lookup_price("openai/gpt-audio", NOW), lookup_price("google/gemini-3-pro-image-preview", NOW)
    assert speaking is not None
    assert painting is not None
    assert (speaking.input, speaking.audio_input, speaking.audio_output) == (2.5, 32.0, 64.0)
    assert (painting.image_output, painting.per_search) == (120.0, 0.014)


def test_an_unknown_name_has_no_price() -> None:
    """Nor has a vendor the list does not have, or one that is no vendor."""
    names = ["openai/no-such-model", "vllm/gpt-4o", "openai/", "gpt-4o", ""]
    assert [lookup_price(name, NOW) for name in names] == [None] * len(names)


def test_every_vendor_is_in_the_list() -> None:
    """A vendor renamed there would lose its prices silently."""
    ids = {
        "anthropic": "claude-opus-4-5",
        "cohere": "command-r",
        "google": "gemini-2.5-pro",
        "groq": "openai/gpt-oss-20b",
    }
    ids |= {"mistral": "mistral-large-2512", "openai": "o3", "perplexity": "sonar", "together": "moonshotai/Kimi-K3"}
    assert ids.keys() == {kind.catalogue for kind in PROVIDERS.values()} - {None}
    assert [vendor for vendor, model in ids.items() if lookup_price(f"{vendor}/{model}", NOW) is None] == []


def test_a_price_that_changes_changes_on_its_day() -> None:
    """The list knows prices to come."""
    now, later = (lookup_price("google/gemini-3.8-flash", day) for day in (NOW, datetime(2027, 2, 1, tzinfo=UTC)))
    assert now is not None
    assert later is not None
    assert (now.input, later.input) == (0.75, 1.5)


def test_the_version_names_the_list() -> None:
    """It goes into the rows."""
    assert lookup_version().startswith("genai-prices-")


def test_the_list_is_not_loaded_at_start() -> None:
    """Importing the module imports no price."""
    code = "import sys, proxy.metering.genai_prices; print('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
