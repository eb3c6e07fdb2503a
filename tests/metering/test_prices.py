"""Money is whole nano-USD, exact to half a unit per part, and unknown where a price is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from proxy.metering.prices import Rate, Rates, cost, find_price, rate, upper_bound
from proxy.metering.pricing import ModelPrice, Pricing, ServicePrice, Tier
from proxy.schema.records import Cost, Tokens

USD = st.integers(0, 200_000_000).map(lambda millionths: millionths / 1_000_000)
COUNT = st.integers(0, 3_000_000)
MAX_SEARCHES = 7
PARTS = ("input", "cache_read", "cache_write", "output")


@st.composite
def price_rows(draw: st.DrawFn) -> ModelPrice:
    """Rows whose tiers only make things dearer, as vendors' do."""
    base = [draw(USD) for _ in range(5)]
    steps = draw(
        st.lists(st.tuples(st.integers(1, 2_000_000), st.integers(1, 4)), max_size=3, unique_by=lambda step: step[0])
    )
    tiers, factor = [], 1
    for above, times in sorted(steps):
        factor *= times
        tiers.append(Tier(above, *(usd * factor for usd in base)))
    named = draw(st.sampled_from(["all", "no cache", "no tier cache"]))
    if named != "all":
        tiers = [Tier(tier.above_input_tokens, tier.input, tier.output) for tier in tiers]
    cached, written, hour = base[2:] if named != "no cache" else (None, None, None)
    fee, search = draw(st.none() | st.sampled_from([0.005, 0.012])), draw(st.sampled_from([0.0, 0.005, 0.012]))
    return ModelPrice(
        *(base[0], base[1], cached, written, hour),
        tiers=draw(st.permutations(tiers)),
        per_request=fee,
        per_search=search,
        max_searches=MAX_SEARCHES,
    )


@st.composite
def usage(draw: st.DrawFn) -> Tokens:
    """What vendors report; an hour's writes are a part of all writes."""
    written = draw(COUNT)
    return Tokens(
        input=draw(COUNT),
        cache_read=draw(COUNT),
        cache_write=written,
        cache_write_1h=draw(st.integers(0, written)),
        output=draw(COUNT),
        searches=draw(st.integers(0, MAX_SEARCHES)),
    )


TOKENS = usage()


@given(price_rows(), TOKENS)
def test_parts_sum_to_the_total(price: ModelPrice, tokens: Tokens) -> None:
    """All of them are integers; the fees per request and per search are parts too."""
    found = cost(price, tokens)
    assert found is not None
    total, *parts = astuple(found)
    assert total == sum(parts)
    assert found.requests == round((price.per_request or 0) * 10**9)
    assert found.searches == round((price.per_search or 0) * 10**9) * tokens.searches
    assert {type(number) for number in [total, *parts]} == {int}


@given(price_rows(), TOKENS)
def test_each_part_is_rounded_once_half_up(price: ModelPrice, tokens: Tokens) -> None:
    """A part is its tokens times its rate to the nearest nano-USD, whatever the tier."""
    found, each = cost(price, tokens), rate(price, tokens)
    assert found is not None
    for part in PARTS:
        pico = getattr(tokens, part) * getattr(each, part)
        if part == "cache_write":
            assert each.cache_write is not None and each.cache_write_1h is not None
            pico += tokens.cache_write_1h * (each.cache_write_1h - each.cache_write)
        assert getattr(found, part) == int(Fraction(pico, 1000) + Fraction(1, 2))


@given(price_rows(), TOKENS, TOKENS)
def test_more_tokens_never_cost_less(price: ModelPrice, some: Tokens, more: Tokens) -> None:
    """Also across tiers."""
    parts = (*PARTS, "cache_write_1h", "searches")
    sums = Tokens(**{part: getattr(some, part) + getattr(more, part) for part in parts})
    less, all_of_it = cost(price, some), cost(price, sums)
    assert less is not None
    assert all_of_it is not None
    assert less.total <= all_of_it.total


@given(price_rows(), TOKENS, COUNT, COUNT)
def test_no_usage_exceeds_its_bound(price: ModelPrice, tokens: Tokens, slack: int, output_slack: int) -> None:
    """However the prompt is split into cached, written and new tokens."""
    found, bound = cost(price, tokens), upper_bound(price, tokens.prompt + slack, tokens.output + output_slack)
    assert found is not None
    assert bound is not None
    assert type(bound) is int
    assert found.total <= bound


@pytest.mark.parametrize(
    ("row", "tokens", "nano"),
    [
        (ModelPrice(0, 0, image_output=30), Tokens(output=10, output_image=10), 300_000),
        (ModelPrice(0, 0, audio_input=3), Tokens(10, input_audio=10), 30_000),
        (ModelPrice(0, 0, cache_write_1h=2), Tokens(cache_write=10, cache_write_1h=10), 20_000),
        (ModelPrice(0, 0, tiers=[Tier(5, output=4)]), Tokens(9, output=10), 40_000),
        (ModelPrice(0, 0, service_tiers={"fast": ServicePrice(0, 6)}), Tokens(output=10, terms=("fast",)), 60_000),
        (ModelPrice(0, 0, service_tiers={"fast": ServicePrice(0, 0)}), Tokens(output=10, terms=("slow",)), 0),
    ],
)
def test_text_for_nothing_makes_no_other_part_free(row: ModelPrice, tokens: Tokens, nano: int) -> None:
    """A row is free, and passes every budget, if nothing in it has a price."""
    found, rates = cost(row, tokens), Rates.of(row)
    assert found is not None
    assert found.total == nano
    assert rates.is_free == (nano == 0)


@given(TOKENS)
def test_free_is_free(tokens: Tokens) -> None:
    """Zero is a price, and its bound is zero."""
    free = ModelPrice(0, 0)
    assert (cost(free, tokens), upper_bound(free, tokens.prompt, tokens.output)) == (Cost(), 0)


def test_an_answer_of_openai_costs_what_the_bill_says() -> None:
    """Cached tokens at their own price, half a nano-USD up: 2.50, 1.25 and 10 USD per 1M."""
    price = ModelPrice(2.5, 10, cached_input=1.25)
    assert cost(price, Tokens(input=1000, cache_read=500, output=20)) == Cost(3_325_000, 2_500_000, 625_000, 0, 200_000)
    assert cost(ModelPrice(0.0375, 0.0005), Tokens(input=1, output=1)) == Cost(39, 38, 0, 0, 1)


def test_cache_prices_default_to_input() -> None:
    """Unless the row or its tier says otherwise."""
    tiers = [Tier(100, input=4), Tier(1000, input=8, cached_input=1)]
    price = ModelPrice(2, 10, tiers=tiers)
    assert rate(price, Tokens(input=100)) == Rate(2_000_000, 2_000_000, 2_000_000, 2_000_000, 10_000_000)
    assert rate(price, Tokens(input=101)) == Rate(4_000_000, 4_000_000, 4_000_000, 4_000_000, 10_000_000)
    assert rate(price, Tokens(cache_read=1001)) == Rate(8_000_000, 1_000_000, 8_000_000, 8_000_000, 10_000_000)
    assert rate(ModelPrice(2, 10, cached_input=0.5, tiers=tiers), Tokens(input=101)).cache_read == 500_000


def test_an_hour_in_the_cache_has_a_price_of_its_own() -> None:
    """A part of what was written (Anthropic: 5 minutes 1.25 times, an hour 2 times the price of input)."""
    price = ModelPrice(2, 10, cache_write=2.5, cache_write_1h=4)
    written = Tokens(cache_write=1000, cache_write_1h=400)
    assert cost(price, written) == Cost(3_100_000, 0, 0, 3_100_000, 0)
    assert cost(ModelPrice(2, 10, cache_write=2.5), written) == Cost(2_500_000, 0, 0, 2_500_000, 0)
    assert cost(ModelPrice(2, 10), written) == Cost(2_000_000, 0, 0, 2_000_000, 0)
    assert cost(price, Tokens(cache_write=1000, cache_write_1h=5000)) == Cost(4_000_000, 0, 0, 4_000_000, 0)
    assert (written.prompt, written.total) == (1000, 1000)


def test_searches_are_billed_one_by_one() -> None:
    """They are no tokens."""
    price = ModelPrice(0.25, 2.5, per_search=0.0025, max_searches=10, per_request=0.001)
    assert cost(price, Tokens(input=1000, searches=3)) == Cost(
        8_750_000, 250_000, requests=1_000_000, searches=7_500_000
    )
    assert Tokens(searches=3).total == 0


@pytest.mark.parametrize(
    ("price", "tokens", "expected"),
    [
        (None, Tokens(), None),
        (None, Tokens(input=1), None),
        (ModelPrice(), Tokens(), Cost()),
        (ModelPrice(), Tokens(input=1), None),
        (ModelPrice(input=1), Tokens(input=1), Cost(1000, 1000)),
        (ModelPrice(input=1), Tokens(input=1, output=1), None),
        (ModelPrice(output=1), Tokens(cache_read=1), None),
        (ModelPrice(output=1, cached_input=1), Tokens(cache_read=1), Cost(1000, 0, 1000)),
        (ModelPrice(1, 1, per_request=0.005), Tokens(), Cost(5_000_000, requests=5_000_000)),
        (ModelPrice(1, 1, per_search=0.005, max_searches=2), Tokens(input=1), Cost(1000, 1000)),
        (ModelPrice(1, 1), Tokens(input=1, searches=1), None),
        (ModelPrice(1, 1, per_search=0), Tokens(input=1, searches=1), Cost(1000, 1000)),
        (ModelPrice(0, 0), Tokens(input=1, searches=1), Cost()),
        (ModelPrice(0, 0, per_request=0.01), Tokens(searches=1), None),
        (ModelPrice(cache_write_1h=2), Tokens(cache_write=1, cache_write_1h=1), Cost(2000, 0, 0, 2000)),
        (ModelPrice(cache_write_1h=2), Tokens(cache_write=2, cache_write_1h=1), None),
    ],
)
def test_what_is_not_known_is_not_zero(price: ModelPrice | None, tokens: Tokens, expected: Cost | None) -> None:
    """None as soon as a part that was used has no price."""
    assert cost(price, tokens) == expected


HAIKU = ModelPrice(0.1, 0.5, 0.01, 0.125, 0.2, tiers=[Tier(100_000, 0.5, 2.5, 0.05, 0.625, 1)])


@pytest.mark.parametrize(
    ("price", "bounds", "expected"),
    [
        (None, (0, 0), None),
        (ModelPrice(), (0, 0), 0),
        (ModelPrice(input=1), (10, 0), 10_000),
        (ModelPrice(input=1), (10, 1), None),
        (ModelPrice(1, 2, cache_write=3, cache_write_1h=5), (10, 10), 70_000),
        (HAIKU, (100_000, 0), 20_000_000),
        (HAIKU, (100_001, 0), 100_001_000),
        (ModelPrice(1, 2, tiers=[Tier(10, output=4)]), (10, 10), 30_000),
        (ModelPrice(1, 2, tiers=[Tier(10, output=4)]), (11, 10), 51_000),
        (ModelPrice(4, 2, tiers=[Tier(10, input=1)]), (11, 0), 44_000),
        (ModelPrice(1, 1, per_search=0.005), (1, 1), None),
        (ModelPrice(1, 1, per_search=0.005, max_searches=2, per_request=0.001), (0, 0), 11_000_000),
    ],
)
def test_a_bound_takes_the_dearest_way(price: ModelPrice | None, bounds: tuple[int, int], expected: int | None) -> None:
    """The dearest cache price, every tier within reach, every search that is allowed."""
    assert upper_bound(price, *bounds) == expected


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openai/gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("openai/gpt-4o-mini-2024-07-18", "openai/*"),
        ("openai/gpt-4o-2024-08", "openai/*"),
        ("anthropic/claude-3-opus-20240229", "anthropic/claude-3-opus-20240229"),
        ("anthropic/claude-3-opus-20250101", None),
        ("local/smollm2-135m", "local/*"),
        ("together/openai/gpt-oss-120b", "together/openai/*"),
        ("together/other", None),
        ("gpt-4o", None),
        ("", None),
    ],
)
def test_a_row_is_found_by_name_date_or_prefix(name: str, row: str | None) -> None:
    """The closest row wins; a date is only taken off where that leaves a listed name."""
    names = ["openai/gpt-4o", "openai/*", "anthropic/claude-3-opus-20240229", "local/*", "together/openai/*"]
    models = {name: ModelPrice(input=place) for place, name in enumerate(names)}
    assert find_price(Pricing(models=models), name) == (models[row] if row else None)
