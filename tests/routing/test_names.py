"""Rules of the one flat namespace of model names."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.pricing import ModelPrice
from proxy.providers.base.contract import Provider
from proxy.providers.embedded import Embedded
from proxy.providers.openai import OpenAI
from proxy.routing.names import AUTO_NAMES, Names
from proxy.routing.settings import ModelEntry, RouterConfig
from proxy.schema.errors import ProxyError
from tests.slowness import usual_s

PRICES = {
    "openai/gpt-a": ModelPrice(input=1, output=2, context=1000),
    "openai/gpt-old": ModelPrice(input=1, output=2, retired="2026-01-05", successor="openai/gpt-a"),
    "groq/openai/oss": ModelPrice(input=0.1, output=0.2),
    "groq/shared": ModelPrice(input=0.1, output=0.2),
    "openai/shared": ModelPrice(input=1, output=2),
}
GROQ = OpenAI(models={"default": "openai/oss", "fast": "openai/oss"})
LISTED = {
    "openai": ("gpt-a", "shared"),
    "groq": ("openai/oss", "shared"),
    "local": ("smollm2-135m",),
    "anthropic": ("claude", "gpt-a"),  # off, so its ids are nobody's
}


def names(**changes: Any) -> Names:
    providers: dict[str, Provider] = {"openai": OpenAI(), "groq": GROQ, "local": Embedded()}
    defaults: dict[str, Any] = {
        "providers": providers,
        "disabled": {"anthropic": "set ANTHROPIC_API_KEY to enable it"},
        "models": {
            "best": ModelEntry(use="openai/gpt-a"),
            "smart": ModelEntry(use="best", fallback=["groq/openai/oss", "anthropic/claude"]),
            "far": ModelEntry(use="anthropic/claude"),
            "split": ModelEntry(weighted={"best": 90, "groq/openai/oss": 10}),
            "long": ModelEntry(use="best", context_fallback=["groq/default"]),
        },
        "aliases": {"gpt-4-turbo": "best", "old": "gpt-4-turbo"},
        "router": RouterConfig(default_model="best", fallback=["groq/default", "local/smollm2-135m"]),
        "listed": LISTED,
        "price_of": lambda name: (PRICES.get(name), "test"),
    }
    return Names(**{**defaults, **changes})


def found(name: str, draw: float = 0.0, **changes: Any) -> list[str]:
    return [deployment.name for deployment in names(**changes).resolve(name, draw).candidates]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai/gpt-a", ["openai/gpt-a"]),
        ("openai/anything-new", ["openai/anything-new"]),
        ("groq/openai/oss", ["groq/openai/oss"]),
        ("groq/default", ["groq/openai/oss"]),
        ("groq/fast", ["groq/openai/oss"]),
        ("gpt-a", ["openai/gpt-a"]),
        ("best", ["openai/gpt-a"]),
        ("gpt-4-turbo", ["openai/gpt-a"]),
        ("old", ["openai/gpt-a"]),
        ("smart", ["openai/gpt-a", "groq/openai/oss"]),
        ("auto", ["openai/gpt-a", "groq/openai/oss"]),
        ("auto:reasoning", ["openai/gpt-a", "groq/openai/oss"]),
        ("local/smollm2-135m", ["local/smollm2-135m"]),
    ],
)
def test_a_name_resolves_to_its_deployments(name: str, expected: list[str]) -> None:
    """Direct names, roles, bare ids, entries, aliases and routes."""
    assert found(name) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gpt-b", "Did you mean"),
        ("zzzzzzzzzz", "GET /v1/models"),
        ("shared", "openai/shared or groq/shared"),
        ("anthropic/claude", "set ANTHROPIC_API_KEY"),
        ("far", "set ANTHROPIC_API_KEY"),
        ("claude", "set ANTHROPIC_API_KEY"),
        ("openai/gpt-old", "retired on 2026-01-05. Its successor is 'openai/gpt-a'"),
        ("auto:nonsense", "auto:reasoning"),
        ("ensemble:voting", "no ensemble"),
        ("openai/", "does not exist"),
        ("", "does not exist"),
    ],
)
def test_a_name_that_nobody_answers_to_is_a_404_that_helps(name: str, words: str) -> None:
    """Near names, the missing key, the successor, or what exists."""
    with pytest.raises(ProxyError) as caught:
        names().resolve(name)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert words in caught.value.message


def test_the_embedded_model_answers_auto_only_where_nothing_else_is_on() -> None:
    """An outage must not be answered by a toy."""
    alone: dict[str, Provider] = {"local": Embedded()}
    assert found("auto", providers=alone) == ["local/smollm2-135m"]
    assert found("auto:code", providers=alone, router=RouterConfig()) == ["local/smollm2-135m"]
    assert "local/smollm2-135m" not in found("auto")
    off = RouterConfig(default_model="far", fallback=["local/smollm2-135m"])
    assert found("auto", router=off) == ["openai/gpt-a", "groq/openai/oss"]


def test_the_embedded_model_answers_auto_where_it_is_named_as_the_default() -> None:
    """Who writes it there wants it."""
    assert found("auto", router=RouterConfig(default_model="local/smollm2-135m")) == ["local/smollm2-135m"]


def test_the_embedded_model_is_never_a_fallback_of_others() -> None:
    """Even where a list names it behind another model."""
    entry = ModelEntry(use="openai/gpt-a", fallback=["local/smollm2-135m"])
    assert found("x", models={"x": entry}) == ["openai/gpt-a"]
    with pytest.raises(ProxyError, match="ANTHROPIC_API_KEY"):
        found("x", models={"x": ModelEntry(use="anthropic/claude", fallback=["local/smollm2-135m"])})


def test_auto_without_a_usable_default_takes_a_providers_own_default() -> None:
    """One key is enough to use `auto`, whichever it is."""
    assert found("auto", router=RouterConfig(default_model="far")) == ["openai/gpt-a", "groq/openai/oss"]
    assert found("auto", providers={"groq": GROQ}) == ["groq/openai/oss"]


def test_auto_with_no_provider_at_all_says_which_keys_to_set() -> None:
    """503 no_capable_model, and no client should try again."""
    with pytest.raises(ProxyError) as caught:
        names(providers={}).resolve("auto")
    assert (caught.value.status, caught.value.code) == (503, "no_capable_model")
    assert "ANTHROPIC_API_KEY" in caught.value.message
    assert caught.value.headers["x-should-retry"] == "false"


def test_weighted_names_share_by_the_draw() -> None:
    """The same draw gives the same route."""
    assert [found("split", draw) for draw in (0.0, 0.89, 0.91, 0.999)] == [["openai/gpt-a"]] * 2 + [
        ["groq/openai/oss"]
    ] * 2


def test_an_entry_lends_its_context_fallback() -> None:
    """Who is asked when the request is too long."""
    route = names().resolve("long")
    assert [deployment.name for deployment in route.context_fallback] == ["groq/openai/oss"]


def test_the_list_has_only_what_can_be_called() -> None:
    """Virtual names first, nothing of providers that are off, nothing retired."""
    listed = names().names()
    assert listed[: len(AUTO_NAMES)] == list(AUTO_NAMES)
    assert {"best", "smart", "gpt-4-turbo", "openai/gpt-a", "groq/openai/oss", "local/smollm2-135m"} <= set(listed)
    assert not {"far", "openai/gpt-old"} & set(listed)
    assert all(names().resolve(name).candidates for name in listed)


def test_self_hosted_models_are_free_unless_priced() -> None:
    """An unknown price is null; a server of one's own costs nothing."""
    own = OpenAI(base_url="http://localhost:1/v1", allow_private=True)
    changed = names(providers={"own": own, "openai": OpenAI()})
    assert changed.resolve("own/x").candidates[0].price == ModelPrice(input=0, output=0)
    assert changed.resolve("openai/x").candidates[0].price is None


def test_an_alias_that_leads_nowhere_is_no_circle() -> None:
    """A bare id is nobody's while its provider is off; the hints of the 404 ask which names answer."""
    for name in ("lost", "nobodys-model", "lost-2"):
        with pytest.raises(ProxyError) as caught:
            names(aliases={"lost": "nobodys-model", "lost-2": "lost"}).resolve(name)
        assert caught.value.code == "model_not_found"


def test_the_embedded_server_answers_to_its_own_model_alone():
    """It would take any name for its one model: a typo must not be answered by a toy."""
    assert found("local/smollm2-135m") == ["local/smollm2-135m"]
    with pytest.raises(ProxyError) as caught:
        found("local/gpt-6-sol")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


WEIGHTED = {
    "best": ModelEntry(use="openai/gpt-a"),
    "split": ModelEntry(weighted={"best": 90, "inner": 10}, fallback=["far"]),
    "inner": ModelEntry(weighted={"groq/openai/oss": 50, "openai/other": 50}),
    "far": ModelEntry(use="openai/far", context_fallback=["inner"]),
}
CALLED = ["auto", "auto:code", "alias", "split", "inner", "far", "best", "gpt-a", "groq/fast", "openai/anything"]


@given(st.lists(st.tuples(st.sampled_from(CALLED), st.floats(0, 1, exclude_max=True)), max_size=40), st.booleans())
def test_a_route_that_was_kept_is_the_route_that_would_be_found(asked: list[tuple[str, float]], limited: bool) -> None:
    """Whatever was asked before: routes are kept for each name that a draw may pick."""
    changes: dict[str, Any] = {
        "models": WEIGHTED,
        "aliases": {"alias": "split"},
        "router": RouterConfig(default_model="split"),
    }
    if limited:
        changes["may"] = lambda name: name != "openai/gpt-a"
    kept = names(**changes)
    for name, draw in asked:
        fresh, route = names(**changes), None
        try:
            route = kept.resolve(name, draw)
        except ProxyError as error:
            with pytest.raises(ProxyError, match=re.escape(error.message)):
                fresh.resolve(name, draw)
            continue
        found = fresh.resolve(name, draw)
        assert [d.name for d in route.candidates] == [d.name for d in found.candidates]
        assert [d.name for d in route.context_fallback] == [d.name for d in found.context_fallback]


def test_names_that_clients_make_up_are_not_kept_without_end() -> None:
    """Any `provider/model` is a name."""
    kept = names()
    for number in range(5_000):
        kept.resolve(f"openai/model-{number}")
    assert kept.memo is not None
    assert max(len(kept.memo.routes), len(kept.memo.weights)) <= 1_100


def test_an_unknown_name_costs_little() -> None:
    """270 wrong names a second filled a core."""
    listed = {**LISTED, "groq": tuple(f"family-{number % 20}/model-{number}-instruct" for number in range(3_000))}
    served = names(listed=listed)

    def refuse() -> None:
        with pytest.raises(ProxyError):
            served.resolve("model-33-instrukt-of-a-family")

    def refuse_many() -> None:
        for _ in range(50):
            refuse()

    refuse()
    assert usual_s(refuse_many) / 50 < 0.001


def test_an_order_of_several_names() -> None:
    """Each deployment once; the embedded model only where it comes first. A draw picks among weighted names."""
    ours = names()
    assert [d.name for d in ours.order(("far", "smart", "local/smollm2-135m", "best"), 0.0)] == [
        "openai/gpt-a",
        "groq/openai/oss",
    ]
    assert [d.name for d in ours.order(("local/smollm2-135m", "best"), 0.0)] == ["local/smollm2-135m", "openai/gpt-a"]
    assert [d.name for d in ours.order(("local/smollm2-135m", "best"), 0.0, is_fallback=True)] == ["openai/gpt-a"]
    assert [ours.order(("split",), draw)[0].name for draw in (0.0, 0.95)] == ["openai/gpt-a", "groq/openai/oss"]
    assert ours.order(("best",), 0.0) is ours.order(("best",), 0.7)
