"""Orchestrates: stores the reasoning behind tool calls between requests, for clients that do not send it back.

    answer with tool calls -> Provider.reasoning_state -> store, by caller and tool call id, before the answer ends
    next request           -> one look-up of its tool call ids -> ChatRequest.kept -> the provider restores it

It also keeps whole answers that clients may refer to by name (`Call.referable`, `Request.references`).
Nothing here fails a call: while the store is down, providers work without stored reasoning, as they do after an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from proxy.pipeline.side_thread import SideThread
from proxy.routing.deployment import Deployment
from proxy.schema.chat import KeptReasoning, ResponseMessage
from proxy.schema.endpoints import AnyRequest
from proxy.schema.records import Caller
from proxy.storage.base import StoreError
from proxy.storage.reasoning_states import ReasoningStates

MAX_STATE_BYTES = 512 * 1024
MAX_COMPARED = 256 * 1024  # characters at each end of a longer text that identify it
MAX_ID = 1024  # characters of a tool call id
WAIT_S = 1.0  # how long a call waits for the store
PAUSE_S = 5.0  # pause after a failure of the store
EXPIRE_EVERY_S = 60.0

T = TypeVar("T")
_decode = msgspec.msgpack.Decoder(KeptReasoning).decode


class ReasoningState:
    """One per process. `store` None: reasoning is not kept. `warn` logs an event with fields."""

    def __init__(
        self,
        store: ReasoningStates | None,
        warn: Callable[..., object],
        clock_ns: Callable[[], int] = time.time_ns,
        wait_s: float = WAIT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._store = store
        self._clock_ns = clock_ns
        self._thread = SideThread("vault", warn, wait_s, pause_s)

    @property
    def failures(self) -> int:
        """Failed writes and look-ups."""
        return self._thread.failures

    async def restore(self, caller: Caller, request: AnyRequest) -> AnyRequest:
        """The request with the stored reasoning for the tool calls in its messages."""
        if self._store is None:
            return request
        names = _names(request)
        if not names:
            return request
        found = await self._on_thread(partial(self._store.find, caller.key_id or "", names, self._clock_ns()))
        kept = {names[name]: state for name, data in (found or {}).items() if (state := _decode_state(data))}
        size = request.size + sum(map(len, (found or {}).values()))
        return structs.replace(request, kept=kept, size=size) if kept else request

    async def keep(
        self,
        caller: Caller,
        deployment: Deployment,
        messages: Iterable[ResponseMessage],
        request: AnyRequest | None = None,
    ) -> None:
        """Stores the states of the answer's tool calls. Returns once they are committed, or the store has failed."""
        if self._store is None:
            return
        provider = deployment.provider
        states: dict[str, bytes] = {}
        for message in messages:
            if not message.get("tool_calls"):
                continue
            calls = {call.get("id"): call for call in reversed(message["tool_calls"])}  # the first wins if ids repeat
            for tool_call_id, state in provider.reasoning_state(message).items():
                data = msgspec.msgpack.encode(KeptReasoning(provider.type, deployment.model, state))
                if len(data) <= MAX_STATE_BYTES and len(tool_call_id) <= MAX_ID:
                    called = calls.get(tool_call_id) if provider.counts_call_ids else None
                    states[_store_name(called, _question_digest(request)) if called else tool_call_id] = data
        if states:
            await self._on_thread(partial(self._store.put, caller.key_id or "", states, self._clock_ns()))

    async def keep_answer(self, caller: Caller, name: str, content: bytes) -> None:
        """Stores an answer that later requests may name. Returns once it is committed, or the store has failed."""
        if self._store is not None and len(content) <= MAX_STATE_BYTES:
            await self._on_thread(partial(self._store.put, _answers_of(caller), {name: content}, self._clock_ns()))

    async def answers(self, caller: Caller, names: Iterable[str]) -> dict[str, bytes]:
        """Name -> answer, for the caller's own answers that are still stored. Renews them for another hour."""
        if self._store is None:
            return {}
        find = partial(self._store.find_again, _answers_of(caller), names, self._clock_ns())
        return await self._on_thread(find) or {}

    async def expire(self) -> None:
        """Drops expired states periodically until cancelled. Otherwise only writes would drop them."""
        while self._store is not None:
            await self._on_thread(partial(self._store.expire, self._clock_ns()))
            await asyncio.sleep(EXPIRE_EVERY_S)

    async def close(self) -> None:
        """Closes the store after its pending work."""
        await self._thread.close(None if self._store is None else self._store.close)

    async def _on_thread(self, work: Callable[[], T]) -> T | None:
        """The result of `work`; None if the store fails, or takes too long."""
        with suppress(StoreError):
            return await self._thread.run(work)
        return None


def _answers_of(caller: Caller) -> str:
    """The store's owner of answers. They have limits of their own, so that many of them crowd out no reasoning."""
    return f"{caller.key_id or ''} answers"


def _names(request: AnyRequest) -> dict[str, str]:
    """Maps the store's names for the request's tool calls to the calls' ids."""
    if not any(message.tool_calls for message in request.messages):
        return {}
    names: dict[str, str] = {}
    asked = b""
    for message, text in zip(request.messages, request.texts(), strict=True):
        if message.role == "user":
            asked = _digest(_ends(text))
        elif message.role == "assistant":
            for call in message.tool_calls or []:
                if isinstance(call.get("id"), str):
                    names |= {call["id"]: call["id"], _store_name(call, asked): call["id"]}
    return names


def _question_digest(request: AnyRequest | None) -> bytes:
    """A digest of the last user message."""
    question = request.question() if request is not None else None
    return b"" if question is None else _digest(_ends(question))


def _store_name(call: Mapping[str, Any], asked: bytes) -> str:
    """The store's name for a tool call: its id, its function and the user's question.

    The id alone is not enough: some vendors count ids, or send none, so two conversations of one caller may share it.
    """
    said = call.get("function") or call.get("custom")
    function: dict[str, Any] = said if isinstance(said, dict) else {}
    text = function.get("arguments", function.get("input"))
    if isinstance(text, str) and len(text) > MAX_COMPARED:
        return f"{call.get('id')}\n{_digest(asked + _ends(text)).hex()}"
    try:  # clients may re-encode the arguments
        arguments = msgspec.json.decode(text) if isinstance(text, str) else text
        data = msgspec.json.encode([function.get("name"), arguments], order="sorted")
    except (msgspec.DecodeError, RecursionError):
        data = text.encode() if isinstance(text, str) else b""
    return f"{call.get('id')}\n{_digest(asked + data).hex()}"


def _ends(text: str) -> bytes:
    """The parts of a text to compare. Hashing tens of megabytes would block the loop."""
    if len(text) > 2 * MAX_COMPARED:
        text = f"{text[:MAX_COMPARED]}{len(text)}{text[-MAX_COMPARED:]}"
    return text.encode("utf-8", "replace")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _decode_state(data: bytes) -> KeptReasoning | None:
    """The decoded state; None if another version of this program wrote it in another format."""
    try:
        return _decode(data)
    except msgspec.DecodeError:
        return None
