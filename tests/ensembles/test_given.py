"""`routing.ensemble` of a request: keys over a configured ensemble, or an ensemble of its own."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.ensembles.base import Ensemble, Member
from proxy.ensembles.given import overridden
from proxy.schema.errors import BadRequest
from tests.ensembles.first import STRATEGIES, First


class Second(Ensemble, frozen=True, kw_only=True, tag_field="strategy", tag="second"):
    """Another strategy, with a key of its own."""

    style: str = "plain"


KINDS: dict[str, type[Ensemble]] = {**STRATEGIES, "second": Second}
BASE = First(members=["a", Member("b", weight=2)], min_answers=2, enough=2, max_cost_usd=0.5)


def over(base: Ensemble | None = BASE, name: str = "ensemble:x", **given: Any) -> Ensemble:
    return overridden(base, given, KINDS, name)


def test_what_is_not_given_stays() -> None:
    assert over(timeout_s=5) == First(
        members=["a", Member("b", weight=2)], min_answers=2, enough=2, max_cost_usd=0.5, timeout_s=5
    )
    assert over(enough=None) == BASE


def test_models_is_another_word_for_members() -> None:
    """Each a name, or a name with parameters."""
    assert over(models=["c", {"use": "d", "temperature": 1}]).panelists() == [Member("c"), Member("d", temperature=1)]


def test_another_strategy_keeps_only_what_all_have() -> None:
    found = over(strategy="second", style="fancy")
    assert found == Second(members=BASE.members, min_answers=2, max_cost_usd=0.5, style="fancy")


def test_the_limit_of_the_cost_can_only_be_lowered() -> None:
    """The file's is the operator's."""
    assert [over(max_cost_usd=usd).max_cost_usd for usd in (9, 0.1, None)] == [0.5, 0.1, 0.5]


def test_a_model_has_all_seats_of_an_ensemble_of_its_own() -> None:
    """Where the request names a model; for `auto` the router picks."""
    assert over(None, "smart", strategy="first", size=2) == First(members=["smart", "smart"], size=2)
    assert over(None, "smart", strategy="first", models=["a"]).panelists() == [Member("a")]
    assert over(None, "", strategy="first", size=2) == First(members=[], size=2)


@pytest.mark.parametrize(
    ("given", "param", "message"),
    [
        ({"strategy": "secnod"}, "routing.ensemble.strategy", "Did you mean second?"),
        ({"strategy": 3}, "routing.ensemble.strategy", "expected one of first, second"),
        ({"style": "x"}, "routing.ensemble.style", "is not a key of first"),
        ({"enoug": 1}, "routing.ensemble.enoug", "Did you mean enough?"),
        ({"enough": "two"}, "routing.ensemble.enough", "expected `int | null`, got `str`."),
        ({"timeout_s": 0}, "routing.ensemble.timeout_s", "> 0"),
        ({"members": ["a", {"use": "b", "weight": -1}]}, "routing.ensemble.members.1.weight", ">= 0.001"),
        ({"members": [{"weight": 1}]}, "routing.ensemble.members.0", "missing required field `use`"),
        ({"members": "a"}, "routing.ensemble.members", "expected `array`"),
        ({"models": ["a"], "members": ["a"]}, "routing.ensemble.models", "a synonym for members"),
        ({"models": ["a"] * 17}, "routing.ensemble.models", "models: has 17 names; at most 16"),
        ({"models": "a"}, "routing.ensemble.models", "models: expected `array`"),
        ({"models": [{"use": "a", "weight": 1e308}]}, "routing.ensemble.models.0.weight", "<= 1000"),
        ({"models": ["a", " "]}, "routing.ensemble.models.1", "must not be empty"),
        ({"models": ["a"], "timeout_s": 0}, "routing.ensemble.timeout_s", "> 0"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_by_name(given: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        over(**given)
    assert caught.value.param == param
    assert message in caught.value.message


def test_without_a_configured_ensemble_a_strategy_is_needed() -> None:
    with pytest.raises(BadRequest, match="strategy: is missing; name one, or ask an ensemble:<name>"):
        over(None, "smart", size=2)
