"""Rules of the price of any model: the file first, the list when it is needed, nothing for addresses of one's own."""

from __future__ import annotations

import asyncio
import threading

from proxy.metering.price_book import PriceBook
from proxy.metering.pricing import ModelPrice, Pricing
from tests.waiting import eventually

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


async def test_what_was_published_never_changes() -> None:
    """A snapshot gives a name the same price before and after the list is read."""
    book = PriceBook(PRICING, {"openai": "openai"}, List())
    before = book.current
    assert before.find("openai/gpt-b")[0] is None
    await book.load()
    assert book.current is not before
    assert (before.find("openai/gpt-b")[0], book.current.find("openai/gpt-b")[0]) == (None, LISTED)


async def test_calls_wait_for_the_list_together_and_not_without_end() -> None:
    """It is read once; a list that does not come leaves a model without a price."""
    may_end = threading.Event()
    asked: list[str] = []

    def slow(name: str) -> ModelPrice | None:
        asked.append(name)
        may_end.wait(10)
        return LISTED

    book = PriceBook(PRICING, {"openai": "openai"}, slow)
    await asyncio.gather(*(book.load(wait_s=0.01) for _ in range(3)))
    assert (len(asked), book.find("openai/gpt-b")[0], book.may_find("openai/gpt-b")) == (1, None, True)
    may_end.set()
    await book.load()
    assert (asked, book.may_find("openai/gpt-b")) == (["openai/gpt-4o"], False)
    assert book.find("openai/gpt-b")[0] == LISTED


async def test_a_list_that_does_not_come_is_waited_for_once() -> None:
    """A look-up that hangs delays the first calls, no later one, and is said once."""
    may_end = threading.Event()
    said: list[tuple[str, object]] = []

    def warn(event: str, **fields: object) -> None:
        said.append((event, fields["after_s"]))

    book = PriceBook(PRICING, {"openai": "openai"}, lambda name: LISTED if may_end.wait(60) else None, warn)
    await asyncio.gather(*(book.load(wait_s=0.05) for _ in range(3)))
    waiting = [asyncio.ensure_future(book.load(wait_s=0.05)) for _ in range(3)]
    await asyncio.sleep(0)
    assert all(each.done() for each in waiting)
    assert said == [("price_list_unread", 0.05)]
    assert await asyncio.to_thread(lambda: 1) == 1  # the threads of others are free
    may_end.set()
    await eventually(lambda: book.find("openai/gpt-b")[0] == LISTED)
