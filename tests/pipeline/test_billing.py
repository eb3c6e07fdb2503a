"""What an attempt is billed: on the terms and as the model that its answer names, and what of that its row keeps."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.metering.price_book import PriceBook
from proxy.metering.pricing import ModelPrice, Pricing
from proxy.pipeline.attempt import Attempt
from proxy.providers.base.usage import read
from proxy.providers.openai import OpenAI
from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatResponse
from proxy.schema.records import AttemptEnd, Outcome
from proxy.schema.request import Request
from tests.pipeline.calls import new_call

ROW = ModelPrice(1, 2, service_tiers={"flex": 0.5, "priority": 2, "eu": 1.1})
ROWS = {"v/a": ROW, "v/a-next": ModelPrice(10, 20)}
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
NANO = 1_200_000
HOLD_NANO = 5_000_000


def ended(
    usage: dict[str, Any] | None = None,
    *,
    fields: dict[str, Any] | None = None,
    provider: OpenAI | None = None,
    price: ModelPrice | None = ROW,
    hold_nano: int | None = HOLD_NANO,
    **answer: Any,
) -> AttemptEnd:
    call = new_call()
    book = PriceBook(Pricing(ROWS, lookup=None), {})
    deployment = Deployment("v", provider or OpenAI(), "a", price, "v1", book=book)
    request = Request(model="a", fields=fields or {}) if fields is not None else call.request
    attempt = Attempt(call, deployment, cast(Any, request))
    attempt.opening(hold_nano)
    attempt.note_granted()
    attempt.note_accepted(200, None)
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello there."}, "finish_reason": "stop"}
    attempt.note_whole(cast(ChatResponse, {"choices": [choice], "usage": read(usage or USAGE), **answer}))
    return attempt.end(Outcome.OK)


@pytest.mark.parametrize(
    ("answer", "fields", "terms", "nano"),
    [
        ({}, None, (), NANO),
        ({"service_tier": "default"}, {"service_tier": "priority"}, (), NANO),
        ({"service_tier": "flex"}, {"service_tier": "auto"}, ("flex",), NANO // 2),
        ({}, {"service_tier": "flex"}, ("flex",), NANO // 2),
        ({"service_tier": "priority"}, None, ("priority",), 2 * NANO),
        ({"service_tier": None, "native_service_tier": "turbo"}, None, ("turbo",), None),
        ({"service_tier": "scale"}, None, ("scale",), None),
        ({"service_tier": 7}, None, (), NANO),
    ],
)
def test_the_tier_of_the_answer_decides_and_else_the_one_sent(
    answer: dict[str, Any], fields: dict[str, Any] | None, terms: tuple[str, ...], nano: int | None
) -> None:
    """A tier without a price is null, never the standard price."""
    end = ended(fields=fields, **answer)
    assert end.tokens.terms == terms
    assert end.cost_nano == nano


def test_a_regional_address_has_a_price_of_its_own() -> None:
    """OpenAI's address in Europe."""
    end = ended(provider=OpenAI(base_url="https://eu.api.openai.com/v1"))
    assert (end.tokens.terms, end.cost_nano) == (("eu",), NANO * 11 // 10)
    assert ended(provider=OpenAI(base_url="https://jp.api.openai.com/v1")).cost_nano is None


@pytest.mark.parametrize(
    ("named", "noted", "nano"),
    [
        ("a", None, NANO),
        ("a-2026-01-01", None, NANO),
        ("a-next", "a-next", 10 * NANO),
        ("b", "b", None),
        (None, None, NANO),
        (7, None, NANO),
    ],
)
def test_another_model_is_billed_as_itself_and_kept(named: object, noted: str | None, nano: int | None) -> None:
    """So that its row can be priced again; unknown is null."""
    end = ended(model=named)
    assert (end.notes.answered_model, end.cost_nano) == (noted, nano)


def test_a_free_provider_may_name_what_it_likes() -> None:
    """Nothing is free of nothing."""
    end = ended(price=ModelPrice(0, 0), model="/srv/other.gguf", service_tier="turbo")
    assert (end.cost_nano, end.notes.answered_model) == (0, None)


REPORTED = {**USAGE, "cost": 0.002}


@pytest.mark.parametrize(
    ("trusts", "hold_nano", "price", "nano"),
    [
        (False, HOLD_NANO, ROW, NANO),
        (True, HOLD_NANO, ROW, 2_000_000),
        (True, 1_500_000, ROW, 1_500_000),
        (True, None, None, 2_000_000),
        (False, None, None, None),
    ],
)
def test_the_vendors_cost_is_kept_and_bills_only_where_trusted(
    trusts: bool, hold_nano: int | None, price: ModelPrice | None, nano: int | None
) -> None:
    """And never above the bound."""
    end = ended(REPORTED, provider=OpenAI(trust_cost=trusts), hold_nano=hold_nano, price=price)
    assert end.notes.provider_cost_nano == 2_000_000
    assert end.cost_nano == nano


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 7, "total_tokens": 2},
        {"prompt_tokens": 10**18, "completion_tokens": 10**18},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": "many", "completion_tokens": "few"},
        {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": -1}},
    ],
)
def test_an_absurd_usage_is_kept_raw_estimated_and_flagged(usage: dict[str, Any]) -> None:
    """Nothing absurd is billed."""
    end = ended(usage)
    assert end.usage_source == "estimated"
    assert end.notes.raw_usage is not None
    assert all(f'"{name}"' in end.notes.raw_usage for name in usage if not isinstance(usage[name], dict))
    assert end.cost_nano is not None
    assert 0 < end.cost_nano < NANO


def test_a_long_raw_usage_is_cut() -> None:
    """A vendor cannot fill the database."""
    end = ended({"prompt_tokens": -1, "completion_tokens": 2, "padding": "x" * 100_000})
    assert end.notes.raw_usage is not None
    assert len(end.notes.raw_usage) < 10_000
