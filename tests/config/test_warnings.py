"""What loads, and cannot have been meant: each doubt is one warning, at its place."""

from __future__ import annotations

from datetime import date

import pytest
from msgspec import structs

from proxy.config import Severity, Source, configure
from proxy.config.warnings import find_warnings
from proxy.metering.pricing import ModelPrice, Pricing
from proxy.providers.anthropic import Anthropic
from tests.config.files import PRICES, config_of
from tests.slowness import usual_s

SERVERS = "ollama: {enabled: false, allow_private: true}, local: {type: embedded, price: free}"
HEAD = f"version: 1\nproviders: {{openai: {{}}, groq: {{}}, {SERVERS}}}\n"
TODAY = date(2026, 11, 22)
LISTED = {"openai/listed": ModelPrice(input=1, output=2)}


def lines(text: str, pricing: str = PRICES) -> list[str]:
    found = find_warnings(config_of(HEAD + text, pricing), TODAY, LISTED.get)
    assert {problem.severity for problem in found} <= {Severity.WARNING}
    return [str(problem).removeprefix("routing_rules.yaml:") for problem in found]


NEVER = "never called"
DOUBTS: list[tuple[str, str, list[str]]] = [
    (
        "a provider that is switched off",
        "models: {a: {use: gpt-6-sol, fallback: [ollama/x]}}\naliases: {b: ollama/y}\n",
        [
            f"3:41: warning: models.a.fallback.0: {NEVER}: providers.ollama is switched off (enabled: false)",
            f"4:14: warning: aliases.b: {NEVER}: providers.ollama is switched off (enabled: false)",
        ],
    ),
    (
        "a fallback that is the model itself",
        "models: {a: {use: gpt-6-sol, fallback: [openai/gpt-6-sol]}}\n",
        [f'3:41: warning: models.a.fallback.0: {NEVER}: "openai/gpt-6-sol" has already been tried'],
    ),
    (
        "a fallback that is given twice, once by an alias",
        "router: {default_model: gpt-6-sol, fallback: [gpt-6-luna, cheap]}\naliases: {cheap: gpt-6-luna}\n",
        [f'3:59: warning: router.fallback.1: {NEVER}: "cheap" has already been tried'],
    ),
    (
        "a context_fallback that is the model itself",
        "models: {a: {use: gpt-6-sol, context_fallback: [gpt-6-sol]}}\n",
        [f'3:49: warning: models.a.context_fallback.0: {NEVER}: "gpt-6-sol" has already been tried'],
    ),
    (
        "the embedded model as a fallback",
        "router: {default_model: gpt-6-sol, fallback: [local/smollm2-135m]}\n",
        [f"3:47: warning: router.fallback.0: {NEVER}: the embedded model is not a fallback for other models"],
    ),
    (
        "a key that has expired",
        "keys: {app: {expires: 2026-11-22}}\n",
        ["3:23: warning: keys.app.expires: expired on 2026-11-22"],
    ),
    (
        "a pattern that no model has",
        "keys: {app: {models: ['gpt-6*', 'openai/gpt-6*', 'groq/x*', 'gr*', '*-luna']}}\n",
        ['3:23: warning: keys.app.models.0: no model matches "gpt-6*"'],
    ),
    (
        "what follows a limit that is hard",
        "budget: {daily_usd: 1, when_spent: reject, hard_daily_usd: 2, per_key: {app: {downgrade_to: gpt-6-luna}}}\n",
        [
            "3:60: warning: budget.hard_daily_usd: never used: without when_spent: downgrade, the limit itself is hard",
            "3:93: warning: budget.per_key.app.downgrade_to: never used:"
            " without when_spent: downgrade, the limit itself is hard",
        ],
    ),
    (
        "a model without a price",
        "models: {a: openai/new, b: openai/listed}\n",
        ["3:13: warning: models.a: openai/new has no price; add a row to pricing.yaml"],
    ),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in DOUBTS], ids=[case[0] for case in DOUBTS])
def test_a_doubt_has_one_exact_line(text: str, expected: list[str]) -> None:
    """Place, path and message, and nothing else."""
    assert lines(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "models: {a: {use: gpt-6-sol, fallback: [gpt-6-luna, groq/shared]}}\n",
        "models: {a: {use: local/smollm2-135m}}\nrouter: {default_model: a}\n",
        "budget: {daily_usd: 1, when_spent: downgrade, hard_daily_usd: 2, downgrade_to: gpt-6-luna}\n",
        "budget: {when_spent: reject, per_key: {app: {daily_usd: 1, when_spent: downgrade, hard_daily_usd: 2}}}\n",
        "keys: {app: {expires: 2026-11-23, models: [gpt-6-sol, 'auto:*', '*']}}\n",
        "keys: {app: {models: [openai/whatever]}}\n",
    ],
)
def test_what_may_be_meant_is_not_doubted(text: str) -> None:
    """Each is a way to write what takes effect."""
    assert lines(text) == []


def test_a_row_whose_price_is_null_has_no_price() -> None:
    """The row stands before the list, so the list is not asked."""
    pricing = "version: 1\nmodels: {openai/listed: {context: 1000}, openai/half: {input: 1}}\n"
    assert lines("models: {a: openai/listed, b: openai/half}\n", pricing) == [
        "3:13: warning: models.a: openai/listed has no price; add a row to pricing.yaml",
        "3:31: warning: models.b: openai/half has no price; add a row to pricing.yaml",
    ]


def test_marks_for_an_hour_need_their_price() -> None:
    """Without it they would be billed as other writes are; a provider that marks nothing needs none."""
    pricing = b"version: 1\nmodels: {a/x: {input: 1, output: 5}, a/y: {input: 1, output: 5, cache_write_1h: 2}}\n"
    routing = "version: 1\nproviders: {a: {type: anthropic, cache: %s}}\nmodels: {b: a/x, c: a/y}\n"
    found = []
    for mode in ("auto", "off"):
        files = Source("routing_rules.yaml", (routing % mode).encode()), Source("pricing.yaml", pricing)
        config = configure(*files, {"ANTHROPIC_API_KEY": "sk-ant"}, {"anthropic": Anthropic})
        found.append([str(each) for each in find_warnings(config, TODAY, LISTED.get)])
    what = "a/x has no cache_write_1h in pricing.yaml, which `cache: auto` pays: about twice the input"
    assert found == [[f"routing_rules.yaml:3:13: warning: models.b: {what}"], []]


def test_the_list_is_not_asked_where_it_is_turned_off() -> None:
    """`lookup: null`."""
    assert lines("models: {a: openai/listed}\n", "version: 1\nlookup: null\n") == [
        "3:13: warning: models.a: openai/listed has no price; add a row to pricing.yaml"
    ]


def test_a_provider_that_is_off_needs_no_price() -> None:
    """Its models are not called."""
    text = "version: 1\nproviders: {openai: {api_key_env: NOT_SET}}\nmodels: {a: openai/new}\n"
    assert find_warnings(config_of(text), TODAY, LISTED.get) == []


def test_a_successor_that_is_gone_is_doubted() -> None:
    """Who follows the advice would ask for the next model that is not there."""
    rows = "openai/a: {retired: 2026-01-01, successor: openai/b}, openai/b: {retired: 2026-02-01, successor: openai/c}"
    assert lines("", f"version: 1\nmodels: {{{rows}, openai/c: {{}}}}\n") == [
        "pricing.yaml:2:53: warning: models.openai/a.successor: openai/b was itself retired on 2026-02-01"
    ]


@pytest.mark.parametrize(
    ("successor", "said"),
    [
        ("openai/gpt-6-sol", None),
        ("openai/gpt-6-sol-2026-10-01", None),  # by its row without the date
        ("openai/listed", None),  # by the bundled list
        ("ollama/any", 'no row is named "ollama/any"'),
        ("mine", None),  # by routing_rules.yaml
        ("openai/gpt-6-sool", 'no row is named "openai/gpt-6-sool"; did you mean "openai/gpt-6-sol"?'),
    ],
)
def test_a_successor_that_nobody_knows_is_doubted(successor: str, said: str | None) -> None:
    """It is what callers of the retired id are told to use."""
    found = lines("models: {mine: gpt-6-sol}\n", f"{PRICES}  openai/old: {{successor: {successor}}}\n")
    assert found == ([f"pricing.yaml:10:27: warning: models.openai/old.successor: {said}"] if said else [])


def test_many_names_are_looked_through_in_linear_time() -> None:
    """Names that share a long chain, and successors that nobody has."""
    count = 5_000
    aliases = {f"m{n}": f"m{n + 1}" for n in range(count)} | {f"m{count}": "groq/x"}
    prices = Pricing(models={f"openai/{n}": ModelPrice(successor=f"openai/gone{n}") for n in range(count)}, lookup=None)
    config = structs.replace(config_of(HEAD), aliases=aliases, tasks={"reasoning": list(aliases)}, pricing=prices)
    assert usual_s(lambda: find_warnings(config, TODAY, LISTED.get), 1) < 2
    assert len(find_warnings(config, TODAY, LISTED.get)) == 2 * count + 1
