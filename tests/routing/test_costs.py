"""The estimated cost of one request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.pricing import ModelPrice, Tier
from proxy.providers.openai import OpenAI
from proxy.routing.costs import estimate, estimated, expected_output
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Facts
from proxy.routing.health import NO_STATE, State
from proxy.routing.settings import TASKS
from proxy.schema.records import Tokens
from tests.routing.fleet import DEPLOYMENTS, ROWS

USD = st.one_of(st.none(), st.sampled_from([0.0, 0.01, 0.1, 1.0, 2.5, 75.0]))
TIER = st.builds(Tier, st.integers(1, 400_000), USD, USD, USD, USD, USD)
PRICE = st.builds(
    ModelPrice,
    input=USD,
    output=USD,
    cached_input=USD,
    cache_write=USD,
    tiers=st.lists(TIER, max_size=2),
    per_request=USD,
    per_search=USD,
    max_searches=st.one_of(st.none(), st.integers(1, 10)),
    max_output=st.one_of(st.none(), st.integers(1, 100_000)),
)
FACTS = st.builds(
    Facts,
    task=st.sampled_from(TASKS),
    input_tokens_estimate=st.integers(0, 1_000_000),
    output_tokens_limit=st.one_of(st.none(), st.integers(0, 200_000)),
    needs_web_search=st.booleans(),
    session=st.just("s"),
)


def test_it_is_the_price_of_the_prompt_and_a_usual_answer() -> None:
    """10,000 tokens of code for gpt-6-sol: 2 cents of input, and 900 tokens of output for 0.9 cents."""
    facts = Facts(task="code", input_tokens_estimate=10_000)
    found = estimated(DEPLOYMENTS["openai/gpt-6-sol"], facts, 0, expected_output(facts))
    assert found is not None
    assert found.expected == 20_000_000 + 9_000_000
    assert found.low == 15_000_000 + 10_000
    assert found.high == 15_000 * 2500 + 7200 * 10_000  # written to the cache, a long answer


def test_warm_tokens_are_priced_at_the_cached_rate() -> None:
    """Where they are warm, and nowhere else."""
    facts = Facts(task="chat", input_tokens_estimate=10_000, session="s")
    state = State(warm={"s": ("anthropic/claude-sonnet-5-5", 9000), "t": ("openai/gpt-6-sol", 9000)})
    for name in ("anthropic/claude-sonnet-5-5", "openai/gpt-6-sol"):
        cold, warm = (estimate(DEPLOYMENTS[name], facts, each) for each in (NO_STATE, state))
        assert cold is not None
        assert warm is not None
        if name == "openai/gpt-6-sol":
            assert warm == cold
        else:
            assert warm == (7500 * 100 + 10_000, cold[1])
            assert cold[0] == 7500 * 2000 + 10_000


def test_more_warm_tokens_than_prompt_count_as_the_prompt() -> None:
    """A conversation that was shortened."""
    facts = Facts(input_tokens_estimate=100, session="s")
    warm = State(warm={"s": ("openai/gpt-6-sol", 1_000_000)})
    found = estimate(DEPLOYMENTS["openai/gpt-6-sol"], facts, warm)
    assert found is not None
    assert found[0] == 75 * 200 + 10_000


def test_a_long_prompt_is_priced_in_its_tier() -> None:
    """All its tokens; the low end may still be in the tier below."""
    facts = Facts(task="code", input_tokens_estimate=300_000)
    found = estimated(DEPLOYMENTS["openai/gpt-6-sol"], facts, 0, 900)
    assert found is not None
    assert found.low == 225_000 * 2000 + 10_000
    assert found.expected == 300_000 * 4000 + 900 * 15_000


def test_the_longest_answer_is_what_the_model_can_write() -> None:
    """Whatever limit the client sends."""
    facts = Facts(input_tokens_estimate=0, output_tokens_limit=1_000_000)
    found = estimate(DEPLOYMENTS["groq/openai/gpt-oss-20b"], facts, NO_STATE)
    assert found is not None
    assert found[1] == 65_536 * 300


def test_a_tier_that_is_cheaper_turns_no_range_around() -> None:
    """Three quarters of the prompt may be in a dearer tier than the whole."""
    each = Deployment("a", OpenAI(), "m", ModelPrice(input=10, output=0, tiers=[Tier(100, input=1)]))
    found = estimated(each, Facts(input_tokens_estimate=120), 0, 0)
    assert found is not None
    assert found.low == found.expected == 120 * 1000


@pytest.mark.parametrize(
    "price",
    [None, ModelPrice(), ModelPrice(input=1), ModelPrice(output=1)],
)
def test_what_is_not_known_is_not_zero(price: ModelPrice | None) -> None:
    """No row, a price missing."""
    assert estimate(Deployment("a", OpenAI(), "m", price), Facts(input_tokens_estimate=10), NO_STATE) is None


def test_a_search_counts_where_one_is_asked_for() -> None:
    """Then searches without a limit have no estimate."""
    searching = Deployment("a", OpenAI(), "m", ModelPrice(input=1, output=1, per_search=0.01))
    asked = Facts(input_tokens_estimate=10, needs_web_search=True)
    assert estimate(searching, asked, NO_STATE) is None
    assert estimate(searching, Facts(input_tokens_estimate=10), NO_STATE) is not None


def test_a_search_whose_price_nobody_knows_has_no_estimate() -> None:
    """A model without `per_search` costs a known amount until it is to search."""
    plain = DEPLOYMENTS["openai/gpt-6-sol"]
    assert estimate(plain, Facts(needs_web_search=True), NO_STATE) is None
    assert estimate(DEPLOYMENTS["perplexity/perplexity/sonar"], Facts(needs_web_search=True), NO_STATE) is not None


@given(PRICE, FACTS, st.integers(0, 1_000_000))
def test_the_range_is_a_range(price: ModelPrice, facts: Facts, tokens: int) -> None:
    """Nothing negative, low <= expected <= high, and a warm conversation never widens it upwards."""
    each = Deployment("a", OpenAI(), "m", price)
    warm = min(tokens, facts.input_tokens_estimate)
    found = estimated(each, facts, warm, expected_output(facts))
    if found is not None:
        assert 0 <= found.low <= found.expected <= found.high


@given(
    st.sampled_from([name for name, row in ROWS.items() if row is not None]),
    FACTS,
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.8, 1.4),
)
def test_what_a_request_costs_is_in_the_range(
    name: str, facts: Facts, cached: float, written: float, drift: float
) -> None:
    """If the estimate of the prompt is off by a fifth down or two fifths up, whatever is cached, within the limit."""
    each = DEPLOYMENTS[name]
    tokens = min(round(facts.input_tokens_estimate * drift), 1_000_000)
    limit = facts.output_tokens_limit
    output = round(written * (expected_output(facts) * 8 if limit is None else min(limit, 60_000)))
    warm = round(facts.input_tokens_estimate * cached)
    state = State(warm={"s": (name, warm)})
    found = estimate(each, facts, state)
    if found is None:
        return
    read = min(warm, tokens)
    paid = each.cost(Tokens(input=tokens - read, cache_read=read, output=max(output, min(1, limit or 1))))
    assert paid is not None
    low, high = found
    assert low <= paid.total <= high
