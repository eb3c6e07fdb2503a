"""The text of a call: bounded, whatever its shape, and never waited for."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from proxy.pipeline.call import Call
from proxy.pipeline.call_text import MAX_BYTES, MAX_HEAD, MAX_PENDING, CallText, StoredTexts
from proxy.schema.chat import ChatRequest
from proxy.schema.records import Caller
from proxy.storage.base import StoreError
from proxy.storage.call_texts import CallTexts
from tests.waiting import eventually

LARGE = MAX_BYTES + 1


def nested(levels: int) -> Any:
    value: Any = "x" * (MAX_HEAD + 7)
    for _ in range(levels):
        value = [value]
    return value


def text(fields: dict[str, Any], size: int = LARGE) -> CallText:
    return CallText(ChatRequest(model="m", messages=[], size=size, fields=fields))


@pytest.mark.parametrize(
    ("fields", "is_kept"),
    [
        ({"deep": nested(500)}, True),
        ({"many": [1] * 19_000}, True),
        ({"many": ["x" * 100] * 19_000}, False),  # their heads are still too much
        ({"very many": [[1]] * 200_000}, False),
        ({f"{number}": "x" * 10_000 for number in range(1_000)}, False),
    ],
)
def test_a_large_request_is_bounded(fields: dict[str, Any], is_kept: bool) -> None:
    """By the heads of its texts, or it is null; either way the text says so."""
    stored = text(fields).encoded({})
    assert len(stored) <= MAX_BYTES + 100
    found = msgspec.json.decode(stored)
    assert (found["request"] is not None, found["answer"], found["cut"]) == (is_kept, [], ["request"])


class Stuck(CallTexts):
    """A store that waits for `go`, and counts what it was given."""

    def __init__(self) -> None:
        super().__init__(None)
        self.go = threading.Event()
        self.put_count = 0

    def put(self, caller: str, call_id: str, opened_ns: int, text: bytes) -> None:
        self.go.wait(30)
        self.put_count += 1


def call(body: CallText, name: str = "c") -> Call:
    return cast(
        Call,
        SimpleNamespace(
            text=body, attempts=[SimpleNamespace(id="1", failure="")], caller=Caller("ann"), id=name, opened_ns=1
        ),
    )


async def test_what_waits_for_the_store_is_bounded() -> None:
    """Beyond that texts are dropped, the log says so once, and later ones are stored again."""
    store, events = Stuck(), []
    texts = StoredTexts(store, lambda event, **fields: events.append(event))
    for _ in range(7):
        texts.keep(call(text({}, size=MAX_PENDING // 4)))
    assert events == ["texts_dropped"]
    store.go.set()
    await eventually(lambda: store.put_count == 4)
    await asyncio.sleep(0)
    await eventually(lambda: texts.pending == 0)
    texts.keep(call(text({})))
    await texts.close()
    assert (store.put_count, events) == (5, ["texts_dropped"])


async def test_one_text_that_cannot_be_encoded_is_lost_alone() -> None:
    """The next one is stored, and nothing of the text is logged."""
    store, events = CallTexts(None), []
    texts = StoredTexts(store, lambda event, **fields: events.append((event, fields)))
    texts.keep(call(text({"canary": "\ud800"}, size=1), "odd"))
    texts.keep(call(text({"fine": True}, size=1), "even"))
    await asyncio.sleep(0)  # the response of a call comes after that
    assert (await texts.find("ann", "even") or {})["request"] == {"fine": True}
    assert await texts.find("ann", "odd") is None
    assert events == [("text_not_stored", {"request_id": "odd", "error": "UnicodeEncodeError"})]
    await texts.close()


async def test_a_store_that_fails_rests(caplog: pytest.LogCaptureFixture) -> None:
    """One line until it works again; asyncio reports nothing."""

    class Broken(CallTexts):
        def put(self, caller: str, call_id: str, opened_ns: int, text: bytes) -> None:
            raise StoreError("the disk is full")

    events: list[str] = []
    texts = StoredTexts(Broken(None), lambda event, **fields: events.append(event))
    for _ in range(3):
        texts.keep(call(text({})))
    await texts.close()
    assert events == ["texts_degraded"]
    assert caplog.records == []
