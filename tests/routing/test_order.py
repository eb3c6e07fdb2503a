"""The order of candidates: capability, health, strategy, the conversation, exploration."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.capabilities import refusal
from proxy.routing.costs import estimated, expected_output, warm_tokens
from proxy.routing.decision import Candidate
from proxy.routing.facts import Facts
from proxy.routing.health import NO_STATE, DeploymentHealth, State
from proxy.routing.order import Pool, arrange
from proxy.routing.settings import STRATEGIES as NAMES
from proxy.routing.settings import TASKS, RouterConfig
from proxy.routing.strategies import STRATEGIES
from tests.routing.fleet import DEPLOYMENTS, ROWS, names_of, order, pool

LUNA, SOL, SONNET = "openai/gpt-6-luna", "openai/gpt-6-sol", "anthropic/claude-sonnet-5-5"
OSS = "groq/openai/gpt-oss-20b"
MS = st.one_of(st.none(), st.floats(1, 60_000))
HEALTH = st.builds(
    DeploymentHealth,
    first_token_ms=MS,
    tokens_per_s=st.one_of(st.none(), st.floats(0, 5000)),
    error_rate=st.floats(0, 1),
    breaker=st.sampled_from(["closed", "open", "half_open"]),
    rests_until=st.sampled_from([0.0, 500.0, 1000.0, 1000.5, 1001.0, 2000.0]),
    named_until=st.sampled_from([0.0, 1000.5]),
    failed_at=st.sampled_from([0.0, 500.0, 990.0]),
    tool_errors=st.floats(0, 1),
)
STATES = st.builds(
    State,
    now=st.just(1000.0),
    deployments=st.dictionaries(st.sampled_from(list(ROWS)), HEALTH),
    warm=st.dictionaries(st.just("s"), st.tuples(st.sampled_from(list(ROWS)), st.integers(0, 500_000)), max_size=1),
)
FACTS = st.builds(
    Facts,
    task=st.sampled_from(TASKS),
    input_tokens_estimate=st.integers(0, 2_000_000),
    output_tokens_limit=st.one_of(st.none(), st.integers(0, 200_000)),
    has_images=st.booleans(),
    has_audio=st.booleans(),
    has_tools=st.booleans(),
    has_json_schema=st.booleans(),
    needs_web_search=st.booleans(),
    preferred_model=st.sampled_from([None, SOL]),
    session=st.sampled_from(["", "s", "t"]),
)
SOME = st.lists(st.sampled_from(list(ROWS)), unique=True).map(lambda names: tuple(DEPLOYMENTS[name] for name in names))
POOLS = st.builds(Pool, SOME, st.sampled_from(NAMES), st.sampled_from([None, "reliable_tools"]), SOME)
SETTINGS = st.builds(RouterConfig, exploration=st.sampled_from([0.0, 0.3, 1.0]))
SEED = st.floats(0, 1, exclude_max=True)


def rests(state: State, name: str) -> bool:
    health = state.of(name)
    return health.rests_until > state.now or (health.breaker == "open" and health.rests_until == 0)


def test_every_strategy_of_the_settings_exists() -> None:
    """And none that cannot be named."""
    assert tuple(STRATEGIES) == NAMES


@given(POOLS, FACTS, STATES, SEED, SETTINGS)
def test_every_candidate_is_either_in_the_order_or_rejected(
    chosen: Pool, facts: Facts, state: State, seed: float, settings: RouterConfig
) -> None:
    """Once. Rejected is exactly what lacks a capability: ill health never removes a candidate."""
    ordered, rejected = arrange(chosen, facts, state, seed, settings)
    every = {each.name: each for each in (*chosen.deployments, *chosen.fallback)}
    assert Counter(names_of([*ordered, *rejected])) == Counter(list(every))
    assert all(each.rejected is None for each in ordered)
    assert {each.deployment.name: each.rejected for each in rejected} == {
        name: why for name, each in every.items() if (why := refusal(facts, each)) is not None
    }


@given(POOLS, FACTS, STATES, SEED, SETTINGS)
def test_what_rests_comes_last_the_one_that_failed_longest_ago_first(
    chosen: Pool, facts: Facts, state: State, seed: float, settings: RouterConfig
) -> None:
    """Behind the fallback too, and it says why. Those whose vendors named a time come last, the soonest first."""
    ordered, _ = arrange(chosen, facts, state, seed, settings)
    resting = [rests(state, name) for name in names_of(ordered)]
    assert resting == sorted(resting)
    assert [bool(each.rests) for each in ordered] == resting
    waiting = [each.must_wait for each in ordered]
    assert waiting == sorted(waiting)
    healths = [state.of(each.deployment.name) for each in ordered if each.rests]
    failed = [health.failed_at for health in healths if health.named_until <= state.now]
    until = [health.named_until for health in healths if health.named_until > state.now]
    assert (failed, until) == (sorted(failed), sorted(until))


@given(POOLS, FACTS, STATES, SEED, SETTINGS)
def test_the_fallback_stays_behind_what_was_chosen(
    chosen: Pool, facts: Facts, state: State, seed: float, settings: RouterConfig
) -> None:
    """In its own order."""
    ordered, _ = arrange(chosen, facts, state, seed, settings)
    awake = [each.deployment.name for each in ordered if not each.rests]
    first = {each.name for each in chosen.deployments}
    assert [name in first for name in awake] == sorted((name in first for name in awake), reverse=True)
    behind = [name for name in awake if name not in first]
    assert behind == [each.name for each in chosen.fallback if each.name in behind]


@given(POOLS, FACTS, STATES, SEED, SETTINGS)
def test_equal_inputs_give_equal_orders(
    chosen: Pool, facts: Facts, state: State, seed: float, settings: RouterConfig
) -> None:
    """Explain and route ask the same question and get the same answer."""
    assert arrange(chosen, facts, state, seed, settings) == arrange(chosen, facts, state, seed, settings)


@given(st.permutations(list(ROWS)[:-1]), st.sampled_from(["cost_optimized", "speed_optimized", "quality_optimized"]))
def test_within_a_conversation_the_order_of_the_file_does_not_matter(names: list[str], strategy: str) -> None:
    """Where everything is known, a ranking strategy has one order: every worker finds the same."""
    facts = Facts(task="code", input_tokens_estimate=1000, session="s")
    assert order(pool(strategy, *names), facts) == order(pool(strategy, *list(ROWS)[:-1]), facts)


def test_all_rest_and_all_stay() -> None:
    """The one that failed longest ago first, those whose vendors named a time last; with the reasons."""
    state = State(
        now=1000.0,
        deployments={
            LUNA: DeploymentHealth(rests_until=1060, named_until=1060, why="rate_limit_exceeded"),
            SOL: DeploymentHealth(rests_until=1012.5, failed_at=990, breaker="open", why="upstream_timeout"),
            SONNET: DeploymentHealth(failed_at=980, breaker="open"),
        },
    )
    ordered, rejected = arrange(pool("cost_optimized", LUNA, SOL, SONNET), Facts(), state, 0.5, RouterConfig())
    assert rejected == []
    assert [(each.deployment.name, each.rests) for each in ordered] == [
        (SONNET, "its breaker is open"),
        (SOL, "its breaker is open for 13 s: upstream_timeout"),
        (LUNA, "it rests for 60 s: rate_limit_exceeded"),
    ]


def test_a_rest_that_is_over_is_over() -> None:
    """Also where the breaker has not been probed yet: somebody has to be the first. Half open is not resting."""
    for health in (
        DeploymentHealth(rests_until=1000, breaker="open"),
        DeploymentHealth(rests_until=999),
        DeploymentHealth(breaker="half_open"),
    ):
        state = State(now=1000.0, deployments={LUNA: health})
        assert order(pool("task_based", LUNA, SOL), Facts(), state) == [LUNA, SOL]


def test_a_healthy_fallback_goes_before_a_resting_choice() -> None:
    """It can answer now."""
    state = State(now=1000.0, deployments={LUNA: DeploymentHealth(rests_until=1060)})
    assert order(pool("task_based", LUNA, SOL, fallback=(SONNET,)), Facts(), state) == [SOL, SONNET, LUNA]


@given(FACTS, STATES)
def test_a_candidate_costs_what_the_estimate_says(facts: Facts, state: State) -> None:
    """In every size tier, cached or not, with searches and without."""
    ordered, rejected = arrange(pool("task_based", *ROWS), facts, state, 0.5, RouterConfig())
    for each in (*ordered, *rejected):
        warm = warm_tokens(each.deployment.name, facts, state)
        found = estimated(each.deployment, facts, warm, expected_output(facts))
        costs = (each.cost_low_nano, each.cost_nano, each.cost_high_nano)
        assert costs == ((None,) * 3 if found is None else (found.low, found.expected, found.high))
        assert each.warm_tokens == warm
        assert each.rejected == refusal(facts, each.deployment)


def test_candidates_carry_their_costs() -> None:
    """For the explanation: the range, what is expected, and what is warm; None where the price is unknown."""
    state = State(warm={"s": (SOL, 800)})
    facts = Facts(task="code", input_tokens_estimate=1000, session="s")
    sol, own = arrange(pool("task_based", SOL, "vllm/own-model"), facts, state, 0.5, RouterConfig())[0]
    low, high = (750 - 750) * 2000 + 750 * 200 + 10_000, 1500 * 2500 + 7200 * 10_000
    assert sol == Candidate(DEPLOYMENTS[SOL], None, low, high, 800, 200 * 2000 + 800 * 200 + 900 * 10_000)
    assert own == Candidate(DEPLOYMENTS["vllm/own-model"])


def test_reliable_tools_go_first_where_tools_are_used() -> None:
    """The fewest broken tool calls first; within one percent the strategy decides."""
    errors = {LUNA: 0.2, SOL: 0.0, SONNET: 0.004}
    state = State(deployments={name: DeploymentHealth(tool_errors=share) for name, share in errors.items()})
    chosen = pool("cost_optimized", LUNA, SOL, SONNET, prefer="reliable_tools")
    by_cost = order(chosen, Facts(input_tokens_estimate=1000))
    assert by_cost == [LUNA, SONNET, SOL]  # the same cost, the better one first
    assert order(chosen, Facts(input_tokens_estimate=1000, has_tools=True), state) == [SONNET, SOL, LUNA]
    assert order(chosen, Facts(input_tokens_estimate=1000), state) == by_cost
    assert order(pool("cost_optimized", LUNA, SOL), Facts(has_tools=True), state)[0] == LUNA


def test_nothing_is_explored_unless_it_is_wanted() -> None:
    """The order does not depend on the seed."""
    chosen = pool("cost_optimized")
    assert len({tuple(order(chosen, Facts(), seed=number / 500)) for number in range(500)}) == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_exploration_puts_another_affordable_candidate_first(share: float) -> None:
    """As often as it says, each of them, and none that costs more than twice the best or whose price is unknown."""
    facts = Facts(task="chat", input_tokens_estimate=1000)
    best, *rest = order(pool("cost_optimized"), facts)
    firsts = Counter(order(pool("cost_optimized"), facts, seed=n / 4999, exploration=share)[0] for n in range(4999))
    explored = 1 - firsts.pop(best, 0) / 4999
    assert explored == pytest.approx(share, abs=0.02)
    assert set(firsts) == {"groq/openai/gpt-oss-120b", "together/openai/gpt-oss-120b", LUNA} - {best} & set(rest)


def test_exploration_does_not_depend_on_the_draw_of_weighted_names() -> None:
    """Else only the first of the weighted names would ever be explored."""
    chosen = pool("task_based", LUNA, OSS)
    for low in (0.0, 0.5, 0.9):
        seeds = [low + number / 10_000 for number in range(1000)]
        firsts = Counter(order(chosen, Facts(), seed=seed, exploration=0.3)[0] for seed in seeds)
        assert firsts[OSS] / 1000 == pytest.approx(0.3, abs=0.05)


def test_exploration_leaves_warm_conversations_and_wishes_alone() -> None:
    """A moved conversation pays for its history again; a preferred model is preferred."""
    warm = State(warm={"s": (LUNA, 900)})
    names = (LUNA, OSS)
    for facts, state in (
        (Facts(session="s", input_tokens_estimate=1000), warm),
        (Facts(preferred_model=LUNA, input_tokens_estimate=1000), NO_STATE),
    ):
        assert {order(pool("task_based", *names), facts, state, n / 100, exploration=1.0)[0] for n in range(100)} == {
            LUNA
        }


def test_exploration_asks_nobody_who_rests() -> None:
    """Or who cannot answer."""
    state = State(now=1.0, deployments={OSS: DeploymentHealth(rests_until=9.0)})
    chosen = pool("cost_optimized", LUNA, OSS, "groq/openai/gpt-oss-120b")
    facts = Facts(has_images=True)
    assert {order(chosen, facts, state, n / 100, exploration=1.0)[0] for n in range(100)} == {LUNA}


@pytest.mark.parametrize("strategy", NAMES)
def test_a_decision_takes_microseconds(strategy: str) -> None:
    """Twelve candidates, all measured, in a conversation: 40 us of CPU on an idle machine."""
    measured = {name: DeploymentHealth(300.0 + place, 900.0, 80.0) for place, name in enumerate(ROWS)}
    state = State(now=1000.0, deployments=measured, warm={"s": (SOL, 9000)})
    facts = Facts(task="code", input_tokens_estimate=12_000, has_tools=True, session="s")
    chosen, settings = pool(strategy), RouterConfig()
    rounds = []
    for _ in range(40):
        started = time.process_time_ns()
        for _ in range(50):
            arrange(chosen, facts, state, 0.5, settings)
        rounds.append((time.process_time_ns() - started) / 50_000)
    print(f"{strategy}: {min(rounds):.1f} us")
    assert min(rounds) < 120
