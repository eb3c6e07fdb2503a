"""A conversation stays where it is warm, unless moving is cheaper."""

from __future__ import annotations

from collections import Counter

import pytest

from proxy.routing.facts import Facts
from proxy.routing.health import UNKNOWN, DeploymentHealth, State
from proxy.routing.settings import Sticky
from proxy.routing.sticky import draw
from tests.routing.fleet import order, pool

SOL, SONNET, LUNA = "openai/gpt-6-sol", "anthropic/claude-sonnet-5-5", "openai/gpt-6-luna"
OPUS = "anthropic/claude-opus-5-5"
AGENT = Facts(task="code", input_tokens_estimate=40_000, session="s", has_tools=True)


def warm_at(name: str, health: DeploymentHealth = UNKNOWN, tokens: int = 39_000) -> State:
    return State(now=1000.0, warm={"s": (name, tokens)}, deployments={name: health})


@pytest.mark.parametrize("strategy", ["task_based", "quality_optimized", "speed_optimized"])
def test_a_warm_conversation_stays(strategy: str) -> None:
    """On every strategy, where the best one would cost more."""
    chosen = pool(strategy, OPUS, SOL, SONNET)
    cold = order(chosen, AGENT)
    ordered = order(chosen, AGENT, warm_at(SONNET))
    assert ordered == [SONNET, *(name for name in cold if name != SONNET)]


def test_it_moves_where_that_is_really_cheaper() -> None:
    """40,000 tokens at luna's full price cost less than at opus's cached rate; at sol's full price they do not."""
    assert order(pool("task_based", LUNA, OPUS), AGENT, warm_at(OPUS))[0] == LUNA
    assert order(pool("task_based", SOL, OPUS), AGENT, warm_at(OPUS))[0] == OPUS


def test_the_same_cost_is_not_cheaper() -> None:
    """Two deployments without cached rates, as free servers of one's own are."""
    groq, together = "groq/openai/gpt-oss-120b", "together/openai/gpt-oss-120b"
    assert order(pool("task_based", groq, together), AGENT, warm_at(together, tokens=0))[0] == together


@pytest.mark.parametrize(("ratio", "first"), [(1.0, LUNA), (0.1, OPUS), (0.0, OPUS)])
def test_the_ratio_says_how_much_cheaper(ratio: float, first: str) -> None:
    """Luna costs a sixth of what opus costs here. 0: it never moves for money."""
    chosen = pool("task_based", LUNA, OPUS)
    assert order(chosen, AGENT, warm_at(OPUS), sticky=Sticky(max_switch_cost_ratio=ratio))[0] == first


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (AGENT, warm_at(SONNET, DeploymentHealth(rests_until=1001))),
        (AGENT, warm_at(SONNET, DeploymentHealth(breaker="open", rests_until=1030))),
        (Facts(task="code", input_tokens_estimate=10, session="s", has_audio=True), warm_at(SONNET)),
        (Facts(task="code", input_tokens_estimate=1_000_001, session="s"), warm_at(SONNET)),
        (Facts(task="code", input_tokens_estimate=40_000, session="other"), warm_at(SONNET)),
        (Facts(task="code", input_tokens_estimate=40_000), warm_at(SONNET)),
        (Facts(task="code", input_tokens_estimate=40_000, session="s", preferred_model=SOL), warm_at(SONNET)),
        (AGENT, warm_at("mistral/elsewhere")),
    ],
    ids=["rests", "breaker", "audio", "too_long", "other_session", "no_session", "preferred", "not_a_candidate"],
)
def test_it_does_not_stay(facts: Facts, state: State) -> None:
    """Ill health, a missing capability, another conversation, a model that the client prefers."""
    assert order(pool("task_based", "google/gemini-4-argon", SONNET), facts, state)[0] == "google/gemini-4-argon"


def test_it_does_not_stay_on_a_fallback() -> None:
    """A rule that names another model is obeyed: only what the rule offers can hold the conversation."""
    assert order(pool("task_based", OPUS, fallback=(LUNA,)), AGENT, warm_at(LUNA)) == [OPUS, LUNA]


def test_an_unknown_price_neither_moves_nor_is_left() -> None:
    """Nobody can say that it would be cheaper."""
    own = "vllm/own-model"
    assert order(pool("task_based", own, SONNET), AGENT, warm_at(SONNET))[0] == SONNET
    assert order(pool("task_based", LUNA, own), AGENT, warm_at(own))[0] == own


def test_twenty_turns_stay_on_one_model() -> None:
    """The prompt grows, the first answer decides, whatever the speed measured in between."""
    chosen = pool("speed_optimized", SOL, SONNET, OPUS)
    used: set[str] = set()
    warm: dict[str, tuple[str, int]] = {}
    for turn in range(20):
        measured = {
            name: DeploymentHealth(100.0 * (1 + (turn + place) % 3)) for place, name in enumerate((SOL, SONNET))
        }
        facts = Facts(task="code", input_tokens_estimate=2000 * (turn + 1), session="s")
        first = order(chosen, facts, State(deployments=measured, warm=warm))[0]
        warm = {"s": (first, facts.input_tokens_estimate)}
        used.add(first)
    assert len(used) == 1


def test_equals_share_the_conversations_and_each_keeps_its_own() -> None:
    """The same everywhere, since it depends on the session alone; about half each; without one the file's order."""
    names = ("together/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b")  # same price, same quality
    chosen, other_way = pool("cost_optimized", *names), pool("cost_optimized", *names[::-1])
    firsts = Counter(order(chosen, Facts(input_tokens_estimate=100, session=f"{n}"))[0] for n in range(400))
    assert set(firsts) == set(names)
    assert min(firsts.values()) > 120
    for number in range(50):
        facts = Facts(input_tokens_estimate=100, session=f"{number}")
        assert order(chosen, facts) == order(other_way, facts)
    assert order(chosen, Facts(input_tokens_estimate=100)) == list(names)


def test_if_one_equal_goes_only_its_own_conversations_move() -> None:
    """The others keep their cache."""
    names = ("together/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b")
    gone = State(now=1.0, deployments={names[0]: DeploymentHealth(rests_until=9.0)})
    for number in range(50):
        facts = Facts(input_tokens_estimate=100, session=f"{number}")
        before = order(pool("cost_optimized", *names), facts)[0]
        after = order(pool("cost_optimized", *names), facts, gone)[0]
        assert after == (names[1] if before == names[0] else before)


def test_the_draw_of_a_conversation_is_the_same_for_all_its_turns() -> None:
    """And evenly spread over [0, 1); without a session it is the seed."""
    assert draw("s", 0.1) == draw("s", 0.9)
    draws = [draw(f"{number}", 0.0) for number in range(1000)]
    assert all(0 <= each < 1 for each in draws)
    assert 400 < sum(each < 0.5 for each in draws) < 600
    assert draw("", 0.25) == 0.25
