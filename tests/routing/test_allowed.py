"""A key's list of models holds for whatever answers, by whichever name it was asked for."""

from __future__ import annotations

import pytest

from proxy.metering.price_book import PriceBook
from proxy.metering.pricing import ModelPrice, Pricing
from proxy.routing.allowed import Allowed, Views
from proxy.routing.settings import ModelEntry, RouterConfig
from proxy.schema.errors import ProxyError
from tests.routing.test_names import names

MINI = {
    "gpt-mini": ModelEntry(use="openai/gpt-a", fallback=["gpt-big"]),
    "gpt-big": ModelEntry(use="groq/openai/oss"),
    "split": ModelEntry(weighted={"gpt-mini": 90, "gpt-big": 10}),
    "mixed": ModelEntry(weighted={"split": 50, "openai/other": 50}),
    "long": ModelEntry(use="openai/gpt-a", context_fallback=["gpt-big"], content_fallback=["gpt-mini"]),
}
MINI_ROUTER = RouterConfig(default_model="gpt-big", fallback=["gpt-mini"])
ALIASES = {"gpt-4": "gpt-mini", "gpt-3": "gpt-4"}


def views(**changes):
    return Views(names(**{"models": MINI, "router": MINI_ROUTER, "aliases": ALIASES, **changes}))


def allow(*lists):
    return Allowed("mobile", tuple(tuple(entries.split()) for entries in lists))


def answering(name, *lists, draw=0.0, **changes):
    route = views(**changes).resolve(name, draw, allow(*lists) if lists else None)
    return [deployment.name for deployment in route.candidates]


BIG, SMALL = "groq/openai/oss", "openai/gpt-a"


@pytest.mark.parametrize(
    ("name", "entries", "expected"),
    [
        ("gpt-mini", "gpt-mini", [SMALL]),  # not its fallback
        ("gpt-mini", "gpt-mini gpt-big", [SMALL, BIG]),
        ("gpt-mini", "gpt-*", [SMALL, BIG]),
        ("gpt-mini", "gpt-big", [BIG]),  # only what stands in for it
        ("gpt-mini", f"gpt-mini {BIG}", [SMALL, BIG]),
        ("gpt-mini", "openai/*", [SMALL]),
        ("gpt-mini", "*", [SMALL, BIG]),
        ("gpt-4", "gpt-mini", [SMALL]),  # asked by an alias
        ("gpt-3", "gpt-4", [SMALL]),  # an alias of an alias, the inner one on the list
        ("gpt-mini", "gpt-3", [SMALL]),  # on the list by an alias
        (SMALL, "gpt-mini", [SMALL]),  # asked by what it is
        ("gpt-a", SMALL, [SMALL]),  # asked by its bare id
        (SMALL, "gpt-a", [SMALL]),  # on the list by its bare id
        ("groq/fast", BIG, [BIG]),
        (BIG, "groq/fast", [BIG]),
        ("auto", "auto", [BIG]),  # what auto is set to mean, not what stands in for it
        ("auto", "auto*", [BIG]),
        ("auto:code", "auto", [BIG]),
        ("auto", "gpt-mini", [SMALL]),  # auto is no way around the list
        ("auto", "gpt-big gpt-mini", [BIG, SMALL]),
        ("split", "split", [SMALL, BIG]),  # it means both
        ("mixed", "split", [SMALL, BIG]),
        ("split", "openai/*", [SMALL]),
    ],
)
def test_only_models_that_the_list_means_answer(name, entries, expected):
    """Whatever the name that was asked for."""
    assert answering(name, entries) == expected


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("gpt-big", "gpt-mini"),
        (BIG, "gpt-mini"),
        ("groq/fast", "gpt-mini"),
        ("openai/gpt-ab", "openai/gpt-a"),
        ("openai/GPT-A", "openai/gpt-a"),
        ("groq/gpt-a", "gpt-a"),  # a bare id means one provider's model only
        ("auto", "openai/other"),
        ("gpt-4", "gpt-big-and-more openai/other"),
        ("gpt-4", "gpt"),
        ("split", "auto:nothing"),
    ],
)
def test_none_left_is_a_403_that_says_what_is_allowed(name, entries):
    """It names what was asked for, who would have answered and the list."""
    with pytest.raises(ProxyError) as caught:
        answering(name, entries)
    error = caught.value
    assert (error.status, error.code, error.param, error.type) == (
        403,
        "model_not_allowed",
        "model",
        "permission_error",
    )
    assert f"'mobile' may not use the model {name!r}" in error.message
    assert f"Allowed: {', '.join(entries.split())}." in error.message


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.6, 0.89, 0.91, 0.999])
def test_weighted_names_are_drawn_among_the_allowed(draw):
    """So a key that may use one of them is never refused by chance; one that may use all draws from all."""
    assert answering("split", "gpt-big", draw=draw) == [BIG]
    assert answering("split", "gpt-mini gpt-big", draw=draw) == ([SMALL, BIG] if draw < 0.9 else [BIG])
    assert answering("mixed", "openai/other", draw=draw) == ["openai/other"]


def test_the_other_fallbacks_are_filtered_too():
    """A request that is too long, or filtered, is no way around the list."""
    route = views().resolve("long", 0.0, allow("gpt-mini"))
    assert [d.name for d in route.candidates] == [SMALL]
    assert route.context_fallback == ()
    assert [d.name for d in route.content_fallback] == [SMALL]


def test_two_lists_must_both_hold():
    """The configuration's, and the one that was given when the key was made."""
    assert answering("gpt-mini", "gpt-*", "openai/*") == [SMALL]
    with pytest.raises(ProxyError, match="Allowed: gpt-mini and groq"):
        answering("gpt-mini", "gpt-mini", "groq/*")


def test_an_empty_list_allows_nothing():
    """`models: []` is not the same as no list."""
    with pytest.raises(ProxyError) as caught:
        views().resolve("auto", 0.0, Allowed("mobile", ((),)))
    assert caught.value.code == "model_not_allowed"


def test_auto_without_a_default_means_each_providers_own():
    """Nobody stands in for anybody there."""
    changes = {"router": RouterConfig(), "models": {}, "aliases": {}}
    assert answering("auto", "auto", **changes) == answering("auto", **changes) == [SMALL, BIG]
    assert answering("auto", "groq/*", **changes) == [BIG]


def test_names_that_do_not_exist_stay_a_404_without_hints_of_what_is_forbidden():
    """A key learns nothing of models it may not use."""
    with pytest.raises(ProxyError) as caught:
        answering("gpt-bigg", "gpt-mini")
    assert caught.value.status == 404
    assert "gpt-big " not in caught.value.message.replace("gpt-bigg", "")
    with pytest.raises(ProxyError, match="retired"):
        answering("openai/gpt-old", "gpt-mini")


def test_the_list_of_names_is_what_can_be_called():
    """Each name that is shown answers, each that is not shown is refused, or asks for what no model can do."""
    everything = views()
    shown = everything.of(allow("gpt-mini")).names()
    assert "gpt-mini" in shown
    assert "auto" in shown
    assert "gpt-big" not in shown
    for name in everything.of(None).names():
        try:
            everything.resolve(name, 0.0, allow("gpt-mini"))
        except ProxyError as error:
            assert (error.status, name in shown) == (403, False), name
        else:
            assert name in shown or name.startswith("auto:")


def test_models_that_a_server_lists_later_count_by_their_bare_id():
    """The lists are read while the server runs: a new one is a new snapshot, in which entries mean what it lists."""
    published: list[dict[str, tuple[str, ...]]] = [{}]
    served = Views(names(models=MINI, router=MINI_ROUTER, aliases=ALIASES), found=lambda: published[-1])
    with pytest.raises(ProxyError):
        served.resolve("openai/new", 0.0, allow("new"))
    published.append({"openai": ("new",)})
    assert served.resolve("new", 0.0, allow("new")).candidates[0].name == "openai/new"
    assert served.resolve("openai/new", 0.0, allow("new")).candidates[0].name == "openai/new"


async def test_a_snapshot_stays_until_something_is_published():
    """Routes are kept in it, so that the same name is not worked out again for each request."""
    book = PriceBook(Pricing(), {"openai": "openai"}, lambda name: ModelPrice(input=1, output=2))
    found: dict[str, tuple[str, ...]] = {}
    served = Views(names(models=MINI, price_of=book.current.find), book, lambda: found)
    before = served.current()
    route = served.resolve("gpt-mini", 0.3, None)
    assert served.current() is before
    assert served.resolve("gpt-mini", 0.9, None) is route
    assert route.candidates[0].price is None
    await book.load()
    assert served.current() is not before
    assert served.resolve("gpt-mini", 0.3, None).candidates[0].price == ModelPrice(input=1, output=2)
    assert before.resolve("gpt-mini", 0.3).candidates[0].price is None
