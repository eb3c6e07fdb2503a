"""Orchestrates: the reasoning that belongs to tool calls, kept between two requests of a client that drops it.

    answer with tool calls -> Provider.reasoning_state -> store, by caller and tool call id, before the answer ends
    next request           -> one look-up of its tool call ids -> ChatRequest.kept -> the provider puts it back

Nothing here fails a call: while the store does not work, providers do without what it holds, as they do after an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from proxy.routing.names import Deployment
from proxy.schema.chat import AnyRequest, ChatRequest, KeptReasoning, ResponseMessage
from proxy.schema.records import Caller
from proxy.storage.base import StoreError
from proxy.storage.reasoning_states import ReasoningStates

MAX_STATE_BYTES = 512 * 1024
MAX_ID = 1024  # characters of a tool call id
WAIT_S = 1.0  # how long a call waits for the store
CLOSE_S = 5.0  # how long the end of the process waits for it
PAUSE_S = 5.0  # after a failure, how long the store is left alone
EXPIRE_EVERY_S = 60.0

T = TypeVar("T")
_decode = msgspec.msgpack.Decoder(KeptReasoning).decode


class ReasoningState:
    """One per process. `store` None: nothing is kept. `warn` logs an event with fields."""

    def __init__(
        self,
        store: ReasoningStates | None,
        warn: Callable[..., object],
        clock_ns: Callable[[], int] = time.time_ns,
        wait_s: float = WAIT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.failures = 0  # states that could not be kept or looked for
        self._store = store
        self._warn = warn
        self._clock_ns = clock_ns
        self._wait_s = wait_s
        self._pause_s = pause_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vault")  # the one that uses the store's connection
        self._is_down = False
        self._again_at = 0.0

    async def restore(self, caller: Caller, request: AnyRequest) -> AnyRequest:
        """The request with what is kept for the tool calls in its messages."""
        if self._store is None or not isinstance(request, ChatRequest):
            return request
        names = _names(request)
        if not names:
            return request
        found = await self._on_thread(partial(self._store.find, caller.key_id or "", names, self._clock_ns()))
        kept = {names[name]: state for name, data in (found or {}).items() if (state := _read(data))}
        size = request.size + sum(map(len, (found or {}).values()))
        return structs.replace(request, kept=kept, size=size) if kept else request

    async def keep(
        self,
        caller: Caller,
        deployment: Deployment,
        messages: Iterable[ResponseMessage],
        request: AnyRequest | None = None,
    ) -> None:
        """Returns once the states of the tool calls in an answer to `request` are committed, or cannot be for now."""
        if self._store is None:
            return
        provider = deployment.provider
        states: dict[str, bytes] = {}
        for message in messages:
            if not message.get("tool_calls"):
                continue
            calls = {call.get("id"): call for call in reversed(message["tool_calls"])}  # of two with one id the first
            for tool_call_id, state in provider.reasoning_state(message).items():
                data = msgspec.msgpack.encode(KeptReasoning(provider.type, deployment.model, state))
                if len(data) <= MAX_STATE_BYTES and len(tool_call_id) <= MAX_ID:
                    called = calls.get(tool_call_id) if provider.counts_call_ids else None
                    states[_bound(called, _asked(request)) if called else tool_call_id] = data
        if states:
            await self._on_thread(partial(self._store.put, caller.key_id or "", states, self._clock_ns()))

    async def expire(self) -> None:
        """Drops what is too old, again and again, until it is cancelled: without it that is done when more is kept."""
        while self._store is not None:
            await self._on_thread(partial(self._store.expire, self._clock_ns()))
            await asyncio.sleep(EXPIRE_EVERY_S)

    async def close(self) -> None:
        """Lets the store go when its last work is done; a disk that hangs holds nobody up."""
        if self._store is not None:
            closing = asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
            await asyncio.wait({closing}, timeout=CLOSE_S)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _on_thread(self, work: Callable[[], T]) -> T | None:
        """What `work` returns; None while the store fails, or where it takes too long: then it goes on by itself."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._again_at:
            self.failures += 1
            return None
        working = loop.run_in_executor(self._thread, work)
        working.add_done_callback(_see)
        await asyncio.wait({working}, timeout=self._wait_s)
        if not working.done():
            self._note_failure(f"no answer within {self._wait_s:g} s", loop.time())
            return None
        try:
            result = working.result()
        except StoreError as error:
            self._note_failure(str(error), loop.time())
            return None
        self._note_working()
        return result

    def _note_failure(self, why: str, now_s: float) -> None:
        self.failures += 1
        self._again_at = now_s + self._pause_s
        if not self._is_down:
            self._is_down = True
            self._warn("vault_degraded", error=why)

    def _note_working(self) -> None:
        if self._is_down:
            self._is_down = False
            self._warn("vault_recovered", failures=self.failures)


def _names(request: ChatRequest) -> dict[str, str]:
    """Under what names the states of the request's tool calls may be kept, each with the call's id."""
    if not any(message.tool_calls for message in request.messages):
        return {}
    names: dict[str, str] = {}
    asked = b""
    for message, text in zip(request.messages, request.texts(), strict=True):
        if message.role == "user":
            asked = _digest(text.encode())
        elif message.role == "assistant":
            for call in message.tool_calls or []:
                if isinstance(call.get("id"), str):
                    names |= {call["id"]: call["id"], _bound(call, asked): call["id"]}
    return names


def _asked(request: AnyRequest | None) -> bytes:
    """What the user said last, in short."""
    if not isinstance(request, ChatRequest):
        return b""
    said = [text for message, text in zip(request.messages, request.texts(), strict=True) if message.role == "user"]
    return _digest(said[-1].encode()) if said else b""


def _bound(call: Mapping[str, Any], asked: bytes) -> str:
    """The id of a call with what it calls and what was asked: where ids are counted, or none are given, two
    conversations of one caller have the same, and must not get each other's thoughts.
    """
    said = call.get("function") or call.get("custom")
    function: dict[str, Any] = said if isinstance(said, dict) else {}
    text = function.get("arguments", function.get("input"))
    try:  # clients may write it anew
        arguments = msgspec.json.decode(text) if isinstance(text, str) else text
        data = msgspec.json.encode([function.get("name"), arguments], order="sorted")
    except (msgspec.DecodeError, RecursionError):
        data = text.encode() if isinstance(text, str) else b""
    return f"{call.get('id')}\n{_digest(asked + data).hex()}"


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _see(working: asyncio.Future[T]) -> None:
    """So that asyncio does not report the failure of work that nobody waits for any more."""
    if not working.cancelled():
        working.exception()


def _read(data: bytes) -> KeptReasoning | None:
    """None for what another version of this program wrote in another form."""
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return None
