"""The reasoning store around a call: what is kept, when it is read, and that its failures fail no call."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, cast

import msgspec
import pytest
from msgspec import structs

from proxy.pipeline.reasoning_state import MAX_COMPARED, MAX_ID, MAX_STATE_BYTES, ReasoningState
from proxy.providers.base.contract import Provider
from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatRequest, KeptReasoning, Message, ResponseMessage
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.records import Caller, JsonObject
from proxy.storage.base import StoreError
from proxy.storage.reasoning_states import ReasoningStates

HOUR = 3600 * 10**9
MOBILE = Caller("mobile")


class Thinker(Provider, frozen=True, kw_only=True):
    """A dialect whose messages carry a `thought` for all their tool calls."""

    type: ClassVar[str] = "thinker"

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        thought = cast("dict[str, Any]", message).get("thought")
        return {call["id"]: {"thought": thought} for call in message.get("tool_calls") or []} if thought else {}


class Counting(Thinker, frozen=True, kw_only=True):
    """Its ids repeat in every conversation."""

    counts_call_ids: ClassVar[bool] = True


THINKER = Deployment("one", Thinker(), "deep", None)


class Watched(ReasoningStates):
    """A store in memory that counts its calls and runs `before` first."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        super().__init__(None)
        self.puts = 0
        self.finds = 0
        self.expired: list[int] = []
        self.before = before

    def put(self, caller: str, states: Mapping[str, bytes], now_ns: int) -> None:
        self.puts += 1
        self.before()
        super().put(caller, states, now_ns)

    def find(self, caller: str, tool_call_ids: Iterable[str], now_ns: int) -> dict[str, bytes]:
        self.finds += 1
        self.before()
        return super().find(caller, tool_call_ids, now_ns)

    def expire(self, now_ns: int) -> int:
        self.expired.append(super().expire(now_ns))
        return self.expired[-1]


class Time:
    """Unix nanoseconds that a test moves."""

    def __init__(self) -> None:
        self.ns = 1_795_000_000 * 10**9

    def __call__(self) -> int:
        return self.ns


class Log:
    """What was said: events with their errors."""

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def __call__(self, event: str, **fields: object) -> None:
        self.said.append((event, fields.get("error")))


@asynccontextmanager
async def vault_on(
    store: ReasoningStates | None, clock: Time | None = None, log: Log | None = None, **waits: float
) -> AsyncIterator[ReasoningState]:
    vault = ReasoningState(store, log or Log(), clock or Time(), **waits)
    try:
        yield vault
    finally:
        await vault.close()


def answer(*ids: str, thought: Any = "because") -> ResponseMessage:
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids]
    return cast(ResponseMessage, {"role": "assistant", "content": None, "tool_calls": calls, "thought": thought})


def asking(*ids: str, role: str = "assistant") -> ChatRequest:
    """A request that comes back with results of these tool calls."""
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": "{}"}} for each in ids]
    results = [Message("tool", "done", tool_call_id=each) for each in ids]
    return ChatRequest(
        model="m", messages=[Message("user", "go"), Message(role, tool_calls=calls), *results], fields={}
    )


async def kept(vault: ReasoningState, request: ChatRequest, caller: Caller = MOBILE) -> Mapping[str, KeptReasoning]:
    restored = await vault.restore(caller, request)
    assert isinstance(restored, ChatRequest)
    return restored.kept


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_what_was_kept_comes_back_with_its_writer() -> None:
    """By tool call id: the dialect, the model, and the provider's state."""
    async with vault_on(ReasoningStates(None)) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1", "call_2", thought={"deep": [1, None, "é"]})])
        state = KeptReasoning("thinker", "deep", {"thought": {"deep": [1, None, "é"]}})
        assert await kept(vault, asking("call_2", "call_9")) == {"call_2": state}


async def test_an_answer_is_there_for_its_caller_and_apart_from_reasoning() -> None:
    """By name, for another hour after each use; what is too large is not kept."""
    clock = Time()
    async with vault_on(ReasoningStates(None), clock) as vault:
        await vault.keep_answer(MOBILE, "call_1", b"[1]")
        await vault.keep_answer(MOBILE, "large", bytes(MAX_STATE_BYTES + 1))
        clock.ns += HOUR - 1
        assert await vault.answers(MOBILE, ["call_1", "large"]) == {"call_1": b"[1]"}
        clock.ns += HOUR - 1
        assert await vault.answers(MOBILE, ["call_1"]) == {"call_1": b"[1]"}
        assert await vault.answers(Caller("laptop"), ["call_1"]) == {}
        assert await kept(vault, asking("call_1")) == {}
    async with vault_on(None) as off:
        await off.keep_answer(MOBILE, "call_1", b"[1]")
        assert await off.answers(MOBILE, ["call_1"]) == {}


async def test_every_choice_of_an_answer_counts() -> None:
    async with vault_on(ReasoningStates(None)) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1"), answer("call_2")])
        assert set(await kept(vault, asking("call_1", "call_2"))) == {"call_1", "call_2"}


@pytest.mark.parametrize("size", [10, 3 * MAX_COMPARED])
@pytest.mark.parametrize("differs", ["nothing", "question", "arguments"])
async def test_ids_that_repeat_are_told_apart_by_question_and_arguments(size: int, differs: str) -> None:
    """Long ones by their ends and length: hashing all of them would take the loop's time."""

    def talk(question: str, text: str) -> tuple[ChatRequest, ResponseMessage]:
        function = {"name": "f", "arguments": json.dumps({"x": text})}
        call = {"id": "functions.f:0", "type": "function", "function": function}
        messages = [Message("user", question), Message("assistant", tool_calls=[call])]
        said = {"role": "assistant", "content": None, "tool_calls": [call], "thought": "because"}
        return ChatRequest(model="m", messages=messages, fields={}), cast(ResponseMessage, said)

    question, text = "q" * size, "é" * size
    first, said = talk(question, text)
    asked = structs.replace(first, messages=first.messages[:1])
    again, _ = talk(question + "q" * (differs == "question"), text + "é" * (differs == "arguments"))
    async with vault_on(ReasoningStates(None)) as vault:
        await vault.keep(MOBILE, Deployment("one", Counting(), "deep", None), [said], asked)
        assert bool(await kept(vault, again)) is (differs == "nothing")


async def test_nobody_reads_what_another_caller_left() -> None:
    """The same tool call id, another key; callers without a key are one caller."""
    async with vault_on(ReasoningStates(None)) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1")])
        await vault.keep(Caller(), THINKER, [answer("call_2")])
        assert await kept(vault, asking("call_1", "call_2"), Caller("batch")) == {}
        assert set(await kept(vault, asking("call_1", "call_2"), Caller(None, admin=True))) == {"call_2"}


async def test_after_an_hour_there_is_nothing() -> None:
    clock = Time()
    async with vault_on(ReasoningStates(None), clock) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1")])
        clock.ns += HOUR - 1
        assert set(await kept(vault, asking("call_1"))) == {"call_1"}
        clock.ns += 1
        assert await kept(vault, asking("call_1")) == {}


async def test_what_is_too_large_is_not_kept_and_the_rest_is() -> None:
    """A state, or an absurdly long tool call id."""
    long_id = "c" * (MAX_ID + 1)
    async with vault_on(ReasoningStates(None)) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1", thought="x" * MAX_STATE_BYTES), answer("call_2", long_id)])
        assert set(await kept(vault, asking("call_1", "call_2", long_id))) == {"call_2"}


async def test_what_another_version_wrote_is_not_there() -> None:
    """Encrypted with the right key, but in another format."""
    store = ReasoningStates(None)
    clock = Time()
    async with vault_on(store, clock) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1")])
        foreign = {"call_2": b"\xc1", "call_3": msgspec.msgpack.encode({"dialect": 7})}
        await asyncio.wrap_future(vault._thread.executor.submit(store.put, "mobile", foreign, clock.ns))
        assert set(await kept(vault, asking("call_1", "call_2", "call_3"))) == {"call_1"}


# --- when it is asked -------------------------------------------------------------------------------------------------


async def test_requests_without_tool_calls_ask_nothing() -> None:
    """The hot path stays lean: no look-up, and the same request object."""
    store = Watched()
    plain = ChatRequest(model="m", messages=[Message("user", "hi"), Message("assistant", "ho")], fields={})
    embeddings = EmbeddingsRequest(model="m", inputs=["a"], fields={})
    of_user = asking("call_1", role="user")
    nameless = ChatRequest(model="m", messages=[Message("assistant", tool_calls=[{"id": 7}, {}])], fields={})
    async with vault_on(store) as vault:
        for request in (plain, embeddings, of_user, nameless):
            assert await vault.restore(MOBILE, request) is request
    assert store.finds == 0


async def test_a_request_asks_once() -> None:
    """However many tool calls its messages hold."""
    store = Watched()
    many = asking(*(f"call_{place}" for place in range(500)))
    async with vault_on(store) as vault:
        assert await vault.restore(MOBILE, many) is many
    assert store.finds == 1


async def test_answers_without_tool_calls_or_state_write_nothing() -> None:
    store = Watched()
    text = cast(ResponseMessage, {"role": "assistant", "content": "hi", "thought": "because"})
    async with vault_on(store) as vault:
        await vault.keep(MOBILE, THINKER, [text, answer("call_1", thought=None)])
        await vault.keep(MOBILE, Deployment("two", Provider(), "plain", None), [answer("call_2")])
    assert store.puts == 0


async def test_off_keeps_nothing() -> None:
    async with vault_on(None) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1")])
        assert await kept(vault, asking("call_1")) == {}


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_a_store_that_fails_fails_no_call() -> None:
    """The failure is logged once and counted, and the store is not used for a while."""
    store = Watched(before=lambda: (_ for _ in ()).throw(StoreError("the disk is full")))
    log = Log()
    async with vault_on(store, log=log, pause_s=60) as vault:
        for _ in range(3):
            await vault.keep(MOBILE, THINKER, [answer("call_1")])
            assert await kept(vault, asking("call_1")) == {}
        assert vault.failures == 6
    assert (store.puts, store.finds) == (1, 0)
    assert log.said == [("vault_degraded", "the disk is full")]


async def test_it_is_used_again_when_it_works_again() -> None:
    """And that is said too."""
    failing = True

    def fail() -> None:
        if failing:
            raise StoreError("locked")

    log = Log()
    async with vault_on(Watched(fail), log=log, pause_s=0) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1")])
        failing = False
        await vault.keep(MOBILE, THINKER, [answer("call_1")])
        assert set(await kept(vault, asking("call_1"))) == {"call_1"}
    assert [event for event, _ in log.said] == ["vault_degraded", "vault_recovered"]


async def test_a_store_that_hangs_holds_no_call_up() -> None:
    """The work continues unattended; other calls do not queue behind it."""
    go_on = threading.Event()

    def hang() -> None:
        go_on.wait(10)

    store = Watched(hang)
    async with vault_on(store, wait_s=0.05, pause_s=60) as vault:
        async with asyncio.timeout(20):
            await vault.keep(MOBILE, THINKER, [answer("call_1")])
            assert await kept(vault, asking("call_1")) == {}
        assert (store.puts, store.finds, vault.failures) == (1, 0, 2)
        go_on.set()


async def test_a_caller_that_leaves_leaves_no_trouble() -> None:
    """Work in progress is committed, and the store stays usable."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(10)

    async with vault_on(Watched(wait), wait_s=10) as vault:
        keeping = asyncio.create_task(vault.keep(MOBILE, THINKER, [answer("call_1")]))
        await asyncio.to_thread(begun.wait, 10)
        keeping.cancel()
        await asyncio.wait({keeping})
        assert keeping.cancelled()
        go_on.set()
        assert set(await kept(vault, asking("call_1"))) == {"call_1"}


async def test_what_is_too_old_goes_at_a_quiet_moment() -> None:
    """Without any write or read by a caller."""
    store, clock = Watched(), Time()
    async with vault_on(store, clock) as vault:
        await vault.keep(MOBILE, THINKER, [answer("call_1")])
        clock.ns += HOUR
        expiring = asyncio.create_task(vault.expire())
        async with asyncio.timeout(20):
            while not store.expired:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)
        expiring.cancel()
        await asyncio.wait({expiring})
    assert store.expired == [1]
    async with vault_on(None) as off:
        await off.expire()
