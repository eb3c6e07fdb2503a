"""decide(): which models answer a request, in which order, and what decided it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.config import load
from proxy.config.namespace import build_names
from proxy.metering.price_book import PriceBook
from proxy.routing.decide import decide
from proxy.routing.decision import Decision
from proxy.routing.facts import Facts
from proxy.routing.health import NO_STATE, DeploymentHealth, State
from proxy.routing.names import Names
from proxy.routing.panelists import Panelists
from proxy.routing.settings import STRATEGIES, ModelEntry, RouterConfig, Rule
from proxy.schema.errors import ProxyError
from tests.routing.fleet import ROWS, deployment
from tests.routing.reference import first_match
from tests.routing.rule_sets import random_facts

TOP = Path(__file__).parents[2]
LUNA, SOL, ASTRA = "openai/gpt-6-luna", "openai/gpt-6-sol", "openai/gpt-6-astra"
SONNET, ARGON, LITE = "anthropic/claude-sonnet-5-5", "google/gemini-4-argon", "google/gemini-3.5-flash-lite"
OSS, SONAR, LOCAL = "groq/openai/gpt-oss-20b", "perplexity/perplexity/sonar", "local/toy"
MODELS = {
    "smart": ModelEntry(use=SOL, fallback=[SONNET], context_fallback=[ARGON], content_fallback=[LITE]),
    "cheap": ModelEntry(use=LUNA, fallback=[OSS]),
    "away": ModelEntry(use="mistral/gone"),
    "split": ModelEntry(weighted={LUNA: 50, OSS: 50}),
}


def rules(*entries: dict[str, Any]) -> tuple[Rule, ...]:
    return tuple(msgspec.convert(entry, Rule) for entry in entries)


def names(**changes: Any) -> Names:
    owners = {name.partition("/")[0] for name in ROWS} - {"vllm"}
    defaults: dict[str, Any] = {
        "providers": {owner: deployment(next(n for n in ROWS if n.startswith(owner))).provider for owner in owners},
        "disabled": {"mistral": "set MISTRAL_API_KEY to enable it"},
        "models": MODELS,
        "aliases": {"old": "smart"},
        "router": RouterConfig(default_model="cheap", fallback=["smart", LITE]),
        "rules": rules({"name": "code", "when": {"task": "code"}, "use": [SONNET, "old"]}),
        "tasks": {"reasoning": ("smart", "cheap")},
        "listed": {},
        "price_of": lambda name: (ROWS.get(name), "test"),
    }
    return Names(**{**defaults, **changes})


def decided(facts: Facts | None = None, state: State = NO_STATE, seed: float = 0.0, **changes: Any) -> Decision:
    return decide(names(**changes), facts or Facts(), state, seed, "v1")


def order(decision: Decision) -> list[str]:
    return [each.name for each in decision.route.candidates]


def rejected(decision: Decision) -> dict[str, str]:
    return {each.deployment.name: each.rejected for each in decision.candidates if each.rejected}


def resting(*deployments: str) -> State:
    ill = DeploymentHealth(rests_until=100.0, why="rate_limit_exceeded")
    return State("s7", 50.0, dict.fromkeys(deployments, ill))


# --- what decides -----------------------------------------------------------------------------------------------------


def test_the_default_model_decides_where_nothing_else_does() -> None:
    """Then the fallback order, each deployment once."""
    found = decided(Facts(requested="old-auto", input_tokens_estimate=10))
    assert (found.step, found.rule, found.strategy, found.snapshot) == ("default", None, "task_based", "v1.0")
    assert order(found) == [LUNA, OSS, SOL, SONNET, LITE]
    assert found.route.requested == "old-auto"
    assert [(each.name, each.matched, each.why) for each in found.rules] == [("code", False, "task is chat, not code")]


def test_the_models_of_the_task_come_before_the_default_model() -> None:
    """`default` is the task of all tasks without an entry."""
    found = decided(Facts(task="reasoning"))
    assert (found.step, order(found)) == ("task", [SOL, SONNET, LUNA, OSS, LITE])
    found = decided(Facts(task="vision"), tasks={"default": (LITE,)})
    assert (found.step, order(found)[0]) == ("task", LITE)


def test_the_first_rule_that_matches_comes_before_the_task() -> None:
    """The second one that matches is not looked at."""
    two = rules(
        {"name": "one", "when": {"has_tools": True}, "use": SONNET},
        {"name": "two", "when": {"task": "reasoning"}, "use": ARGON},
        {"name": "three", "when": {}, "use": LITE},
    )
    found = decided(Facts(task="reasoning"), rules=two)
    assert (found.step, found.rule, order(found)) == ("rule", "two", [ARGON, SOL, SONNET, LITE])
    assert [(each.name, each.matched) for each in found.rules] == [("one", False), ("two", True)]


def test_a_rule_chooses_an_ensemble_only_where_that_is_enabled() -> None:
    """Else the next rule decides, and the explanation says why. The candidates are the models that it asks."""
    chosen = rules(
        {"name": "panel", "when": {}, "use": {"ensemble": "pair"}}, {"name": "next", "when": {}, "use": "cheap"}
    )
    pair = {"pair": Panelists((LITE, OSS))}
    on = decided(rules=chosen, ensembles=pair, routes_to_ensembles=True)
    assert (on.rule, on.route.ensemble, order(on)) == ("panel", "pair", [LITE, OSS])
    off = decided(rules=chosen, ensembles=pair)
    assert (off.rule, off.route.ensemble) == ("next", "")
    assert off.rules[0].why == "uses an ensemble, and ensembles.enabled is false"


def test_the_preferred_model_comes_before_the_rules() -> None:
    """With its own fallbacks, then the general ones; no rule is tried."""
    found = decided(Facts(task="code", preferred_model="smart"))
    assert (found.step, found.rule, found.rules) == ("preferred_model", None, ())
    assert order(found) == [SOL, SONNET, LITE]


@pytest.mark.parametrize(
    ("state", "facts", "why"),
    [
        (resting(ARGON), {}, "it rests for 50 s: rate_limit_exceeded"),
        (NO_STATE, {"needs_web_search": True}, "does not search the web"),
    ],
)
def test_a_preferred_model_that_cannot_answer_leaves_it_to_the_rules(
    state: State, facts: dict[str, Any], why: str
) -> None:
    """Ill health or a missing capability; the decision says which."""
    search = rules({"name": "all", "when": {}, "use": SONAR})
    found = decided(Facts(preferred_model=ARGON, **facts), state, rules=search)
    assert (found.step, found.rule, order(found)[0]) == ("rule", "all", SONAR)
    assert rejected(found)[ARGON] == why


def test_a_choice_takes_the_best_of_its_names() -> None:
    """The fallbacks of each name come later, in the order of the file."""
    choice = {"strategy": "cost_optimized", "among": ["smart", "cheap", ARGON]}
    found = decided(Facts(), rules=rules({"name": "best", "when": {}, "use": choice}))
    assert (found.strategy, order(found)) == ("cost_optimized", [LUNA, ARGON, SOL, SONNET, OSS, LITE])
    found = decided(Facts(strategy="quality_optimized"), rules=rules({"name": "best", "when": {}, "use": choice}))
    assert (found.strategy, order(found)[0]) == ("quality_optimized", ARGON)


def test_a_strategy_of_the_client_ranks_what_the_rule_offers() -> None:
    """`auto:cost` runs the rules too."""
    found = decided(Facts(requested="auto:cost", task="code", strategy="cost_optimized"))
    assert (found.rule, found.strategy) == ("code", "cost_optimized")
    assert order(found)[:2] == [SONNET, SOL]  # of equal price: the better one first
    assert set(order(found)[:2]) == {SONNET, SOL}


def test_a_strategy_ranks_the_task_the_default_and_the_fallback_where_no_rule_matches() -> None:
    """Whether the client or the file names it."""
    by_name = decided(Facts(strategy="cost_optimized"))
    by_file = decided(router=RouterConfig(strategy="cost_optimized", default_model="smart", fallback=["cheap"]))
    assert (by_name.step, by_name.strategy, by_file.step) == ("strategy", "cost_optimized", "strategy")
    assert order(by_name)[:2] == order(by_file)[:2] == [OSS, LUNA]


# --- what is left out -------------------------------------------------------------------------------------------------


def test_models_that_lack_what_the_request_needs_are_left_out() -> None:
    """After the rules: the next candidate takes their place, and the decision says why."""
    found = decided(Facts(task="code", has_audio=True))
    assert (found.rule, order(found)) == ("code", [LITE])
    assert rejected(found) == {SONNET: "does not take audio", SOL: "does not take audio"}


def test_the_default_model_is_the_last_resort() -> None:
    """If neither the rule nor the fallback can take the request."""
    found = decided(Facts(task="code", needs_web_search=True), router=RouterConfig(default_model=SONAR))
    assert order(found) == [SONAR]


def test_a_request_that_no_model_can_take_is_refused() -> None:
    """503, naming each candidate and what it lacks; with no model at all, what to do."""
    with pytest.raises(ProxyError, match=r"gpt-6-luna does not search the web; .*oss-20b does not") as caught:
        decided(Facts(needs_web_search=True))
    assert (caught.value.status, caught.value.code) == (503, "no_capable_model")
    with pytest.raises(ProxyError, match="No model can answer 'auto': mistral: set MISTRAL_API_KEY") as caught:
        decided(providers={}, router=RouterConfig())
    assert (caught.value.status, caught.value.code) == (503, "no_capable_model")


def test_a_deployment_that_rests_comes_last() -> None:
    """It is never left out: the last healthy candidate may fail too."""
    found = decided(Facts(task="code"), resting(SONNET))
    assert (order(found), found.snapshot) == ([SOL, LITE, SONNET], "v1.s7")


def test_names_without_a_provider_are_skipped() -> None:
    """A rule for a vendor without a key falls back."""
    found = decided(rules=rules({"name": "far", "when": {}, "use": "away"}))
    assert (found.rule, order(found)) == ("far", [SOL, SONNET, LITE])


def test_the_embedded_model_is_no_fallback() -> None:
    """It answers where a rule names it first, or where nothing else is configured."""
    local = {"local": deployment(LOCAL).provider}
    listed = {"local": ("toy",)}
    more = {**names().providers, **local}
    behind = rules({"name": "all", "when": {}, "use": [LUNA, LOCAL]})
    ahead = rules({"name": "all", "when": {}, "use": [LOCAL, LUNA]})
    assert LOCAL not in order(decided(providers=more, listed=listed, rules=behind))
    assert order(decided(providers=more, listed=listed, rules=ahead))[0] == LOCAL
    assert order(decided(providers=local, listed=listed)) == [LOCAL]


# --- the client's own fallback ----------------------------------------------------------------------------------------


def test_the_clients_fallback_replaces_every_other() -> None:
    """Behind the first candidate; the decision names those that are left out."""
    found = decided(Facts(task="code", fallback=(OSS, SONNET, LUNA)))
    assert order(found) == [SONNET, OSS, LUNA]
    assert rejected(found)[SOL] == "is not tried: the request names its own fallback"
    assert order(decided(Facts(task="code", fallback=()))) == [SONNET]
    assert order(decided(Facts(task="code", fallback=(ARGON,), has_audio=True))) == [ARGON]


def test_no_fallback_leaves_one_candidate() -> None:
    """Also none for long requests or filtered content."""
    found = decided(Facts(task="reasoning", no_fallback=True))
    assert order(found) == [SOL]
    assert (found.route.context_fallback, found.route.content_fallback) == ((), ())
    assert rejected(found)[LUNA] == "is not tried: the request says no_fallback"


def test_the_lists_of_the_first_name_go_with_the_route() -> None:
    """For requests that turn out too long, or that a vendor filters."""
    route = decided(Facts(task="reasoning")).route
    assert [each.name for each in route.context_fallback] == [ARGON]
    assert [each.name for each in route.content_fallback] == [LITE]


# --- pure -------------------------------------------------------------------------------------------------------------


def test_a_weighted_name_is_drawn_once_for_a_conversation() -> None:
    """Without a conversation the seed decides."""
    split = rules({"name": "all", "when": {}, "use": "split"})
    by_seed = {order(decided(seed=seed, rules=split))[0] for seed in (0.1, 0.9)}
    assert by_seed == {LUNA, OSS}
    talks = [Facts(session=f"s{number}") for number in range(50)]
    firsts = [{order(decided(talk, seed=seed, rules=split))[0] for seed in (0.1, 0.9)} for talk in talks]
    assert all(len(first) == 1 for first in firsts)
    assert {model for first in firsts for model in first} == {LUNA, OSS}


def shipped() -> Names:
    keys = ("OPENAI", "ANTHROPIC", "GEMINI", "GROQ", "PERPLEXITY")
    config = load(TOP / "routing_rules.yaml", TOP / "pricing.yaml", {f"{key}_API_KEY": "k" for key in keys})
    return build_names(config, PriceBook(config.pricing, {}), {})


@pytest.mark.slow
def test_equal_inputs_give_equal_decisions() -> None:
    """10,000 random requests over a frozen snapshot, decided twice, the second time on another copy of the names, in
    another order: what an explanation says is what a call takes, since both are this function.
    """
    one, other = shipped(), shipped()
    draw = random.Random(7)
    requests = [(more_of(facts, draw), draw.random()) for facts in random_facts(11, 10_000)]
    first = [outcome(one, facts, seed) for facts, seed in requests]
    shuffled = list(enumerate(requests))
    draw.shuffle(shuffled)
    assert all(outcome(other, facts, seed) == first[place] for place, (facts, seed) in shuffled)
    assert len({tuple(found[0]) for found in first}) > 50


def more_of(facts: Facts, draw: random.Random) -> Facts:
    """With what clients say about routing."""
    return msgspec.structs.replace(
        facts,
        strategy=draw.choice([None, None, *STRATEGIES]),
        preferred_model=draw.choice([None, None, None, "best", ARGON]),
        fallback=draw.choice([None, None, (SONNET, "cheap")]),
        no_fallback=draw.random() < 0.1,
        session=draw.choice(["", "a", "b"]),
    )


def outcome(snapshot: Names, facts: Facts, seed: float) -> tuple[list[str], str | None, str]:
    try:
        found = decide(snapshot, facts, NO_STATE, seed, "v")
    except ProxyError as error:
        return [], None, error.message
    assert found.rule == (None if found.step == "preferred_model" else first_match(snapshot.rules, facts))
    return order(found), found.rule, found.step


# --- the shipped file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "rule", "model"),
    [
        ({"task": "reasoning", "priority": "high"}, "reasoning with high priority", "anthropic/claude-opus-5-5"),
        ({"task": "reasoning", "input_tokens_estimate": 60_000}, "long reasoning", SONNET),
        ({"task": "reasoning", "budget_mode": True}, "reasoning on a budget", LITE),
        ({"task": "extraction", "latency_critical": True}, "fast extraction", "groq/openai/gpt-oss-120b"),
        ({"task": "extraction", "budget_mode": True}, "extraction on a budget", LUNA),
        ({"task": "extraction", "accuracy_critical": True}, "accurate extraction", SONNET),
        ({"task": "classification", "input_tokens_estimate": 4999}, "short classification", OSS),
        ({"task": "long_context", "input_tokens_estimate": 100_001}, "long context", "google/gemini-3.8-flash"),
        ({"task": "vision", "has_images": True}, "pictures", SOL),
        ({"task": "web_search", "needs_web_search": True}, "web search", SONAR),
        ({"task": "reasoning", "difficulty": 0.9}, "hard reasoning", "anthropic/claude-opus-5-5"),
        ({"task": "reasoning", "difficulty": 0.3}, None, SOL),
        ({"task": "chat", "difficulty": 0.2}, "easy chat", LUNA),
        ({"task": "chat", "difficulty": 0.9}, None, SOL),
        ({"task": "code"}, None, SOL),
        # the order of the table wins from the top
        (
            {"task": "reasoning", "priority": "high", "input_tokens_estimate": 60_000},
            "reasoning with high priority",
            None,
        ),
        ({"task": "extraction", "latency_critical": True, "budget_mode": True}, "fast extraction", None),
        ({"task": "extraction", "latency_critical": True, "input_tokens_estimate": 10_000}, None, OSS),
    ],
)
@pytest.mark.sampled(4)
def test_the_shipped_rules_are_the_table(facts: dict[str, Any], rule: str | None, model: str | None) -> None:
    """Each line of it, with the models of today."""
    found = decide(shipped(), Facts(**facts), NO_STATE, 0.0, "v")
    assert found.rule == rule
    assert model is None or order(found)[0] == model


def test_the_fallback_order_of_the_shipped_file() -> None:
    """The best of four vendors, from the most capable to the fastest."""
    found = decide(shipped(), Facts(task="web_search", preferred_model=SONAR), NO_STATE, 0.0, "v")
    assert order(found) == [SONAR, SONNET, LUNA, LITE, "groq/openai/gpt-oss-120b"]
