"""The bound of a plan: known before any request is built, and never below what one pass through it may cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.metering.pricing import ModelPrice, Tier
from proxy.metering.tokens import input_bound
from proxy.pipeline.emulate import seats
from proxy.providers.base.contract import Provider
from proxy.providers.cohere import Cohere
from proxy.providers.openai import OpenAI
from proxy.routing.deployment import Deployment, Route
from proxy.routing.plan import ask_bound, attempt_bound, plan
from proxy.schema.chat import ChatRequest
from proxy.server.formats.chat import decode_chat
from proxy.server.formats.completions import decode_completion

CHEAP = Deployment("a", OpenAI(), "m", ModelPrice(input=1, output=2, max_output=100))
DEAR = Deployment("b", OpenAI(), "m", ModelPrice(input=3, output=9, max_output=50))
UNPRICED = Deployment("c", OpenAI(), "m", None)


def request(**fields: Any) -> ChatRequest:
    body = {"model": "x", "messages": [{"role": "user", "content": "hi"}], **fields}
    return decode_chat(json.dumps(body).encode())


def test_of_what_is_asked_one_after_the_other_the_dearest_counts() -> None:
    """Whatever the order, fallbacks for long and filtered requests included."""
    asked = request()
    dearest = attempt_bound(asked, DEAR)
    assert dearest is not None
    for route in (
        Route("x", (CHEAP, DEAR)),
        Route("x", (DEAR, CHEAP)),
        Route("x", (CHEAP,), context_fallback=(DEAR,)),
        Route("x", (CHEAP,), content_fallback=(DEAR,)),
    ):
        assert plan(route, asked).bound_nano == dearest
    assert plan(Route("x", (CHEAP,)), asked).bound_nano == attempt_bound(asked, CHEAP)


def test_what_runs_side_by_side_is_added_up() -> None:
    """A vendor with one choice a request reads the prompt once for each; the answers are bounded either way."""
    price = ModelPrice(input=1, output=2, max_output=100)
    one_each, together = (Deployment("d", kind(), "command-r7b-12-2024", price) for kind in (Cohere, OpenAI))
    asked = request(n=4, max_tokens=10)
    prompt_nano = input_bound(asked) * 1_000
    assert plan(Route("x", (together,)), asked).bound_nano == prompt_nano + 4 * 10 * 2_000
    assert plan(Route("x", (one_each,)), asked).bound_nano == 4 * prompt_nano + 4 * 10 * 2_000


@pytest.mark.parametrize("kind", [Cohere, OpenAI])
def test_questions_of_their_own_are_added_up(kind: type[Provider]) -> None:
    """The plan covers what the requests of each question may cost: by one pass, and by each ask."""
    here = Deployment("d", kind(), "command-r7b-12-2024", DEAR.price)
    body = {"model": "x", "prompt": ["one " * 500, "two", "three"], "n": 2, "max_tokens": 10}
    asked = decode_completion(json.dumps(body).encode())
    made = seats(asked, here.provider.choices_per_call(asked, here.model))
    assert len(made) == (6 if kind is Cohere else 3)
    bound = sum(attempt_bound(each, here) or 0 for each in made)
    assert plan(Route("x", (here,)), asked).bound_nano == ask_bound(asked, here) == bound
    assert plan(Route("x", (CHEAP, here)), asked).bound_nano == bound
    assert plan(Route("x", (here, UNPRICED)), asked).bound_nano is None


def test_a_limit_that_the_vendor_raises_counts_as_it_is_sent() -> None:
    """OpenAI's Responses API, which takes tools of models that think, has no limit below 16."""
    price = ModelPrice(input=1, output=2, max_output=100)
    tools = [{"type": "function", "function": {"name": "f"}}]
    for model, least in (("gpt-6-sol", 16), ("gpt-4.1", 3)):
        asked = request(max_tokens=3, n=2, tools=tools)
        seats = 2 if least == 16 else 1
        bound = plan(Route("x", (Deployment("d", OpenAI(), model, price),)), asked).bound_nano
        assert bound == seats * input_bound(asked) * 1_000 + 2 * least * 2_000


@pytest.mark.parametrize("route", [Route("x", (UNPRICED,)), Route("x", (CHEAP, UNPRICED))])
def test_a_plan_with_an_unknown_price_has_no_bound(route: Route) -> None:
    """Unknown is not zero."""
    assert plan(route, request()).bound_nano is None


@pytest.mark.parametrize(
    "price", [ModelPrice(input=1, output=0, image_output=30), ModelPrice(0, 0, tiers=[Tier(9, output=4)])]
)
def test_output_without_a_limit_has_no_bound_if_any_of_it_costs(price: ModelPrice) -> None:
    """Also if text is free: its own limit makes a bound again."""
    deployment = Deployment("d", OpenAI(), "m", price)
    assert attempt_bound(request(), deployment) is None
    assert attempt_bound(request(max_tokens=5), deployment) is not None
