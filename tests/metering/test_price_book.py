"""Rules of the price of any model: the file first, the list when it is needed, nothing for addresses of one's own."""

from __future__ import annotations

from proxy.metering.price_book import PriceBook
from proxy.metering.pricing import ModelPrice, Pricing

ROW = ModelPrice(input=1, output=2)
LISTED = ModelPrice(input=3, output=4)
PRICING = Pricing(models={"openai/gpt-a": ROW}, version="file")


class List:
    """A price list that notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, name: str) -> ModelPrice | None:
        self.asked.append(name)
        return LISTED if name == "openai/gpt-b" else None


async def test_an_unlisted_model_is_priced_once_the_list_is_read() -> None:
    """Before that it has no price, and the book says that it may find one."""
    prices = List()
    book = PriceBook(PRICING, {"openai": "openai", "mine": "openai"}, prices)
    assert book.find("openai/gpt-a") == (ROW, "file")
    assert (book.find("openai/gpt-b"), book.may_find("openai/gpt-b")) == ((None, "file"), True)
    await book.load()
    found, version = book.find("openai/gpt-b")
    assert found == LISTED
    assert version.startswith("genai-prices-")
    assert book.find("mine/gpt-b")[0] == LISTED
    assert not book.may_find("openai/gpt-b")


async def test_the_list_is_asked_once_for_each_name() -> None:
    """Callers choose the names; the second time is from memory."""
    prices = List()
    book = PriceBook(PRICING, {"openai": "openai"}, prices)
    await book.load()
    prices.asked.clear()
    for _ in range(3):
        assert book.find("openai/nothing")[0] is None
    assert prices.asked == ["openai/nothing"]


async def test_a_provider_at_an_address_of_its_own_has_no_list_price() -> None:
    """Somebody else's server does not cost what the vendor asks."""
    book = PriceBook(PRICING, {}, List())
    await book.load()
    assert book.find("own/gpt-b")[0] is None
    assert not book.may_find("own/gpt-b")


def test_the_list_is_not_read_where_the_file_says_so() -> None:
    """`lookup: null` turns it off."""
    assert not PriceBook(Pricing(lookup=None), {"openai": "openai"}, List()).may_find("openai/gpt-b")
