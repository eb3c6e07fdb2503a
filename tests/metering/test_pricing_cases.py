"""Usage as vendors report it, prices, and the exact cost in nano-USD: cases from the bug lists of other gateways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.metering.prices import Rates
from proxy.metering.pricing import ModelPrice
from proxy.metering.service_terms import terms_of
from proxy.providers.anthropic.usage import usage_of as anthropic_usage
from proxy.providers.base.usage import read
from proxy.providers.cohere.usage import usage_of as cohere_usage
from proxy.providers.google.usage import usage_of as google_usage
from proxy.schema.records import Tokens
from proxy.schema.usage import UNSAID, Service, UsageReport

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "pricing.json").read_text())
EXACT = [case for case in CASES if "cost_nano_usd" in case]


def report_of(case: dict[str, Any]) -> UsageReport:
    report = anthropic_usage(case["usage"]) if case["provider"] == "anthropic" else read(case["usage"])
    assert report is not None
    return report


@pytest.mark.parametrize("case", EXACT, ids=[case["name"] for case in EXACT])
def test_the_cost_is_exact(case: dict[str, Any]) -> None:
    """To the nano-USD."""
    found = Rates.of(ModelPrice(**case["usd_per_million"])).cost(report_of(case).billed)
    assert found is not None
    assert found.total == case["cost_nano_usd"]
    assert found.total == found.input + found.cache_read + found.cache_write + found.output


def test_every_case_is_tested() -> None:
    """By its exact value here, or by a test of its rule: here, in test_attempt and in test_ledger."""
    assert len(EXACT) == 6
    assert len(CASES) == 12


def test_googles_own_shape_costs_the_same() -> None:
    """The first case as the vendor's native API reports it."""
    meta = {
        "promptTokenCount": 262960,
        "candidatesTokenCount": 1744,
        "totalTokenCount": 264704,
        "cachedContentTokenCount": 257955,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 262960}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 257955}],
    }
    report = google_usage(meta, 0)
    assert report is not None
    found = Rates.of(ModelPrice(1.25, 10, cached_input=0.625)).cost(report.billed)
    assert found is not None
    assert found.total == 184918125


ODD_COSTS: list[Any] = [-1, "1", True, None, 1e300, float("nan"), [], {}]
XAI = next(case for case in CASES if "provider_cost_nano_usd" in case)


def test_the_vendors_own_cost_stands_beside_ours() -> None:
    """And parts that overlap are never more than the prompt in all: 29 tokens are new, so 29 are of the image."""
    report = report_of(XAI)
    assert report.cost_nano == XAI["provider_cost_nano_usd"]
    assert report.billed == Tokens(input=29, cache_read=2432, output=10, input_image=29)
    assert report.billed.prompt == 2461


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        ({"cost": 0.00495}, 4_950_000),
        ({"cost": 0}, 0),
        ({"cost": {"total_cost": 0.006, "currency": "USD"}}, 6_000_000),
        ({"estimated_cost": 1.5e-07}, 150),
        ({"cost_in_usd_ticks": 5}, 1),
        ({"cost_in_usd_ticks": 4}, 0),
        ({"cost": 0.1 + 0.2}, 300_000_000),
        *(({"cost": odd}, None) for odd in ODD_COSTS),
        ({"cost_in_usd_ticks": -1}, None),
    ],
)
def test_a_reported_cost_is_read_in_the_vendors_unit(usage: dict[str, Any], nano: int | None) -> None:
    """OpenRouter's credits are dollars, a tick of xAI is a tenth of a nano-dollar. What cannot be a cost is none."""
    report = read({"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10, **usage})
    assert report is not None
    assert report.cost_nano == nano
    assert report.billed == Tokens(input=9, output=1)


# --- service tiers, fast modes, regions -------------------------------------------------------------------------------

ROW = ModelPrice(
    input=2,
    output=10,
    service_tiers={"flex": 0.5, "priority": 2, "fast": 2, "us": 1.1},
)
USED = Tokens(input=1000, output=100)
STANDARD_NANO = 3_000_000


@pytest.mark.parametrize(
    ("terms", "nano"),
    [
        ((), STANDARD_NANO),
        (("flex",), STANDARD_NANO // 2),
        (("priority",), STANDARD_NANO * 2),
        (("us",), STANDARD_NANO * 11 // 10),
        (("fast", "us"), STANDARD_NANO * 22 // 10),
        (("scale",), None),
        (("flex", "eu"), None),
    ],
)
def test_terms_multiply_the_price_and_one_without_a_price_is_null(terms: tuple[str, ...], nano: int | None) -> None:
    """Never the standard price."""
    found = Rates.of(ROW).cost(Tokens(input=1000, output=100, terms=terms))
    assert (None if found is None else found.total) == nano


@pytest.mark.parametrize(
    ("said", "asked", "region", "terms"),
    [
        (UNSAID, UNSAID, None, ()),
        (Service("default"), Service("priority"), None, ()),
        (Service("flex"), Service("priority"), None, ("flex",)),
        (UNSAID, Service("flex"), None, ("flex",)),
        (UNSAID, Service("auto"), None, ()),
        (Service("priority"), Service("fast"), None, ("priority",)),
        (UNSAID, Service("fast"), None, ("priority",)),
        (Service("on_demand"), UNSAID, None, ()),
        (Service("performance"), UNSAID, None, ("priority",)),
        (Service("standard", "fast", "us"), UNSAID, None, ("fast", "us")),
        (Service("standard", "standard", "global"), Service(None, "fast", "us"), None, ()),
        (Service(None, None, "not_available"), UNSAID, None, ()),
        (UNSAID, UNSAID, "eu", ("eu",)),
        (Service("SCALE"), UNSAID, None, ("scale",)),
    ],
)
def test_the_answer_decides_the_terms_and_else_the_request(
    said: Service, asked: Service, region: str | None, terms: tuple[str, ...]
) -> None:
    """A vendor may serve a request on other terms than it asked for."""
    assert terms_of(said, asked, region) == terms


def test_a_factor_is_exact_where_a_rate_is_no_whole_number() -> None:
    """0.0375 USD per 1M tokens at 1.1 times: 41.25 pico-USD a token, not 41."""
    price = ModelPrice(input=0.000037, output=1, service_tiers={"us": 1.1})
    found = Rates.of(price).cost(Tokens(input=10_000_000, terms=("us",)))
    assert found is not None
    assert found.total == 407_000


def test_own_prices_of_a_tier_hold_for_what_they_name() -> None:
    """OpenAI's priority prices of GPT-5.5 exclude long prompts, so these have none."""
    own = {"input": 12.5, "output": 75, "cached_input": 1.25}
    row = json.dumps(
        {
            "input": 5,
            "output": 30,
            "cached_input": 0.5,
            "tiers": [{"above_input_tokens": 272000, "input": 10}],
            "service_tiers": {"priority": own},
        }
    )
    rates = Rates.of(msgspec.json.decode(row, type=ModelPrice))
    assert rates.cost(Tokens(input=1000, cache_read=1000, output=10, terms=("priority",))) == Rates.of(
        ModelPrice(12.5, 75, 1.25)
    ).cost(Tokens(input=1000, cache_read=1000, output=10))
    assert rates.cost(Tokens(input=272_001, terms=("priority",))) is None


def test_a_free_model_is_free_on_all_terms() -> None:
    """A server of one's own may answer any tier, and any kind of content."""
    used = Tokens(input=9, output=9, input_audio=4, output_audio=5, terms=("turbo",))
    found = Rates.of(ModelPrice(0, 0)).cost(used)
    assert found is not None
    assert found.total == 0


# --- audio and images -------------------------------------------------------------------------------------------------

AUDIO = ModelPrice(input=2.5, output=10, audio_input=32, audio_output=64, cached_input=1.25, cached_audio_input=2.5)


def test_audio_costs_what_audio_costs() -> None:
    """In, out and from the cache."""
    usage = {
        "prompt_tokens": 300,
        "completion_tokens": 120,
        "total_tokens": 420,
        "prompt_tokens_details": {
            "cached_tokens": 100,
            "audio_tokens": 250,
            "cached_tokens_details": {"audio_tokens": 80, "text_tokens": 20},
        },
        "completion_tokens_details": {"audio_tokens": 100, "text_tokens": 20},
    }
    report = read(usage)
    assert report is not None
    tokens = report.billed
    assert (tokens.input, tokens.input_audio, tokens.cache_read, tokens.cache_read_audio) == (200, 170, 100, 80)
    assert (tokens.output, tokens.output_audio) == (120, 100)
    found = Rates.of(AUDIO).cost(tokens)
    assert found is not None
    assert found.input == 30 * 2_500 + 170 * 32_000
    assert found.cache_read == 20 * 1_250 + 80 * 2_500
    assert found.output == 20 * 10_000 + 100 * 64_000


def test_audio_without_a_price_is_null_and_images_read_cost_as_text() -> None:
    """Speech costs up to 25 times as much as text; images that are read are part of the prompt everywhere."""
    rates = Rates.of(ModelPrice(1, 2))
    assert rates.cost(Tokens(input=10, input_audio=4)) is None
    assert rates.cost(Tokens(output=10, output_audio=4)) is None
    assert rates.cost(Tokens(output=10, output_image=4)) is None
    assert rates.cost(Tokens(input=10, input_image=4)) == rates.cost(Tokens(input=10))


@pytest.mark.parametrize(
    ("usage", "reader"),
    [
        ({"prompt_tokens": -5, "completion_tokens": 7}, read),
        ({"prompt_tokens": 10**18, "completion_tokens": 7}, read),
        ({"total_tokens": "many"}, read),
        ({"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": -1}}, read),
        ({"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": {"audio_tokens": "x"}}, read),
        ({"input_tokens": -1, "output_tokens": "many"}, anthropic_usage),
        ({"input_tokens": 5, "output_tokens": 10**18}, anthropic_usage),
        ({"promptTokenCount": "many"}, lambda raw: google_usage(raw, 0)),
        ({"promptTokenCount": 5, "candidatesTokenCount": -3}, lambda raw: google_usage(raw, 0)),
        ({"tokens": {"input_tokens": -1, "output_tokens": "two"}}, cohere_usage),
    ],
)
def test_a_count_that_cannot_be_one_is_kept_as_it_came(usage: dict[str, Any], reader: Any) -> None:
    """The report is flagged, whatever else it counts."""
    report = reader(usage)
    assert report is not None
    assert report.absurd == usage
