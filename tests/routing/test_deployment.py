"""What an answer costs at the deployment that gave it."""

from __future__ import annotations

from proxy.metering.pricing import ModelPrice
from proxy.providers.openai import OpenAI
from proxy.routing.deployment import Deployment
from proxy.schema.records import Tokens

PRICES = {"groq/oss": ModelPrice(input=0.1, output=0.2), "groq/shared": ModelPrice(input=0.1, output=0.2)}


def deployment(price: ModelPrice | None) -> Deployment:
    return Deployment("groq", OpenAI(), "oss", price, price_of=lambda name: (PRICES.get(name), "1"))


def test_what_other_models_did_for_an_answer_is_paid_at_their_own_price() -> None:
    """Each by its own row; one without a price makes the whole cost unknown."""
    cheap = deployment(PRICES["groq/oss"])
    used = Tokens(input=10, others=(("shared", Tokens(output=5)), ("shared", Tokens(input=20))))
    cost = cheap.cost(used)
    assert cost is not None
    assert (cost.total, cost.input, cost.output) == (10 * 100 + 5 * 200 + 20 * 100, 10 * 100 + 20 * 100, 5 * 200)
    assert cheap.cost(Tokens(input=10, others=(("nobody-knows", Tokens(output=5)),))) is None


def test_without_a_price_nobody_knows_the_cost() -> None:
    """Null is not zero."""
    assert deployment(None).cost(Tokens(input=1)) is None
