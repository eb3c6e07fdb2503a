"""The cheapest for this request first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.pricing import ModelPrice
from proxy.providers.openai import OpenAI
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Facts
from proxy.routing.health import State
from proxy.routing.order import Pool
from tests.routing.fleet import order, pool

USD = st.sampled_from([0.0, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 75.0])


def test_the_price_of_this_request_decides() -> None:
    """A model with cheap input and dear output wins for a long prompt with a short answer, and only there."""
    names = ("google/gemini-3.5-flash-lite", "together/openai/gpt-oss-120b", "openai/gpt-6-sol")
    written = pool("cost_optimized", *names)
    assert order(written, Facts(task="code", input_tokens_estimate=1000)) == [names[1], names[0], names[2]]

    reader = Deployment("a", OpenAI(), "reader", ModelPrice(input=0.1, output=10))
    writer = Deployment("a", OpenAI(), "writer", ModelPrice(input=1, output=1))
    chosen = Pool((writer, reader), "cost_optimized")
    assert order(chosen, Facts(task="classification", input_tokens_estimate=50_000))[0] == "a/reader"
    assert order(chosen, Facts(task="reasoning", input_tokens_estimate=100))[0] == "a/writer"
    assert order(chosen, Facts(task="reasoning", input_tokens_estimate=100, output_tokens_limit=1))[0] == "a/reader"


def test_a_long_prompt_is_priced_in_its_tier() -> None:
    """Above 272,000 tokens the price of gpt-6-sol doubles, and that of claude-sonnet-5-5 does not."""
    chosen = pool("cost_optimized", "openai/gpt-6-sol", "anthropic/claude-sonnet-5-5")
    assert order(chosen, Facts(input_tokens_estimate=300_000))[0] == "anthropic/claude-sonnet-5-5"
    assert order(chosen, Facts(input_tokens_estimate=1000))[0] == "anthropic/claude-sonnet-5-5"  # same cost, better


def test_an_unknown_price_comes_last() -> None:
    """In the order of the file, after the dearest known one."""
    chosen = pool("cost_optimized", "vllm/own-model", "openai/gpt-6-astra", "openai/gpt-6-luna")
    expected = ["openai/gpt-6-luna", "openai/gpt-6-astra", "vllm/own-model"]
    assert order(chosen, Facts(session="s", input_tokens_estimate=10)) == expected


def test_a_fee_for_searches_counts() -> None:
    """Sonar's tokens are cheaper than gemini's; its search costs more than both."""
    chosen = pool("cost_optimized", "perplexity/perplexity/sonar", "google/gemini-3.5-flash-lite")
    assert order(chosen, Facts(input_tokens_estimate=100))[0] == "google/gemini-3.5-flash-lite"


def test_the_cached_rate_counts_where_the_conversation_is_warm() -> None:
    """30,000 tokens at sonnet's cached rate are cheaper than the same tokens at gemini-3.5-flash-lite's full one."""
    chosen = pool("cost_optimized", "google/gemini-3.5-flash-lite", "anthropic/claude-sonnet-5-5")
    facts = Facts(task="classification", input_tokens_estimate=30_000, session="s")
    warm = State(warm={"s": ("anthropic/claude-sonnet-5-5", 29_500)})
    assert order(chosen, facts)[0] == "google/gemini-3.5-flash-lite"
    assert order(chosen, facts, warm)[0] == "anthropic/claude-sonnet-5-5"


@given(
    st.lists(st.tuples(USD, USD), min_size=1, max_size=12),
    st.integers(0, 1_000_000),
    st.sampled_from(["chat", "code", "classification"]),
)
def test_no_candidate_stands_behind_one_that_is_dearer_in_every_part(
    prices: list[tuple[float, float]], tokens: int, task: str
) -> None:
    """Whatever the request."""
    deployments = tuple(
        Deployment("a", OpenAI(), f"m{place}", ModelPrice(input=read, output=written))
        for place, (read, written) in enumerate(prices)
    )
    ordered = order(Pool(deployments, "cost_optimized"), Facts(task=task, input_tokens_estimate=tokens))
    by_name = {each.name: pair for each, pair in zip(deployments, prices, strict=True)}
    ranked = [by_name[name] for name in ordered]
    for place, (read, written) in enumerate(ranked):
        assert not any(read > later[0] and written > later[1] for later in ranked[place:])
