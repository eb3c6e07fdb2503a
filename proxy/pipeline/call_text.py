"""Orchestrates: stores the prompts and answers of calls whose key asks for it (`keys.<name>.store_text`).

    admission -> CallText (the request) -> messages, or chunks, of the answer -> end of the call -> store, in background

No call waits for the store. While it is down, texts are lost and the loss is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from msgspec import DecodeError

from proxy.pipeline.call import Call
from proxy.pipeline.side_thread import CLOSE_S, SideThread
from proxy.routing.ask import Sink
from proxy.schema.chat import ChatChunk, ResponseMessage, TextChunk
from proxy.schema.endpoints import AnyRequest
from proxy.schema.fold import Fold
from proxy.schema.json import decode, encode
from proxy.storage.base import StoreError
from proxy.storage.call_texts import CallTexts

MAX_BYTES = 512 * 1024  # of JSON, for a request and for an answer each
MAX_HEAD = 4096  # characters that are kept of each long text in a request or an answer that is larger
MAX_PENDING = 64 * 1024 * 1024  # bytes of requests and answers that wait for the store
_MAX_VALUES = 20_000  # of a request or an answer that is larger than MAX_BYTES
WAIT_S = 30.0
PAUSE_S = 5.0


class CallText:
    """The request of one call as its client sent it, and its answer. `is_stored`: its key asks for storage."""

    def __init__(self, request: AnyRequest, *, is_stored: bool = True) -> None:
        self.is_stored = is_stored
        self._request = request
        self._messages: list[ResponseMessage] = []
        self._fold: Fold | None = None
        self._folded = 0

    @property
    def size(self) -> int:
        """Its approximate size in bytes."""
        return self._request.size + self._folded

    def note_whole(self, messages: Iterable[ResponseMessage], size: int) -> None:
        """The messages of an answer that was not streamed; `size`: of its body."""
        self._messages, self._folded = list(messages), size

    def folding(self, sink: Sink) -> Sink:
        """A sink that folds each batch before it passes it to `sink`."""
        fold = self._fold = Fold()

        def pass_on(batch: list[ChatChunk]) -> Awaitable[None] | None:
            for chunk in batch:
                self._folded += len(chunk.text) if isinstance(chunk, TextChunk) else len(encode(chunk))
                if self._folded <= MAX_BYTES:
                    fold.add(chunk)
            return sink(batch)

        return pass_on

    def judged(self) -> tuple[bool, bool] | None:
        """Whether the answer is JSON, and whether it is a refusal; None: there is none, or it is too large to look."""
        if self._folded > MAX_BYTES:
            return None
        if self._fold is not None:
            self._messages = [choice["message"] for choice in self._fold.response()["choices"]]
        if not self._messages:
            return None
        return all(map(_is_json, self._messages)), any(message.get("refusal") for message in self._messages)

    def encoded(self, failures: dict[str, str]) -> bytes:
        """The stored form. `cut` names fields that were too large and are shortened or null. `failures`: attempt id ->
        the provider's error message.
        """
        if self._fold is not None:
            self._messages = [choice["message"] for choice in self._fold.response()["choices"]]
        request, is_cut = _part(self._request.fields, self._request.size)
        answer, is_answer_cut = _part(self._messages, self._folded)
        cut = [name for name, cut in (("request", is_cut), ("answer", is_answer_cut)) if cut]
        return encode({"request": request, "answer": answer, "errors": failures, "cut": cut})


class StoredTexts:
    """One per process. `warn` logs an event with fields."""

    def __init__(self, store: CallTexts, warn: Callable[..., object], pause_s: float = PAUSE_S) -> None:
        self._store = store
        self._thread = SideThread("texts", warn, WAIT_S, pause_s)
        self._warn = warn
        self.pending = 0  # bytes that wait for the store
        self._is_full = False
        self._writes: set[asyncio.Task[None]] = set()

    def keep(self, call: Call) -> None:
        """Stores the text of a call that has ended, if its key asks for it and a model was asked."""
        text = call.text
        if text is None or not text.is_stored or not call.attempts:
            return
        was_full, self._is_full = self._is_full, self.pending + text.size > MAX_PENDING
        if self._is_full:
            if not was_full:
                self._warn("texts_dropped", error=f"more than {MAX_PENDING} bytes wait to be stored")
            return
        self.pending += text.size
        write = asyncio.get_running_loop().create_task(self._write(call, text))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def find(self, caller: str, call_id: str) -> dict[str, Any] | None:
        """The text of a call with this caller's key; None: there is none, or it cannot be read."""
        with suppress(StoreError, DecodeError):  # after the pending writes, so a client finds what it just received
            found = await self._thread.run(partial(self._store.find, caller, call_id))
            return None if found is None else decode(found)
        return None

    async def close(self) -> None:
        """Closes the store after the pending writes."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=CLOSE_S)
        await self._thread.close(self._store.close)

    async def _write(self, call: Call, text: CallText) -> None:
        def put() -> str | None:
            try:
                encoded = text.encoded({each.id: each.failure[:MAX_HEAD] for each in call.attempts if each.failure})
            except (ValueError, TypeError, RecursionError) as error:  # not the store's fault: it goes on
                return type(error).__name__
            self._store.put(call.caller.key_id or "", call.id, call.opened_ns, encoded)
            return None

        try:
            with suppress(StoreError):  # the thread reports it
                if (fault := await self._thread.run(put)) is not None:
                    self._warn("text_not_stored", request_id=call.id, error=fault)
        finally:
            self.pending -= text.size


def _is_json(message: ResponseMessage) -> bool:
    content = message.get("content")
    try:
        return isinstance(content, str) and isinstance(decode(content.encode()), dict | list)
    except (DecodeError, UnicodeEncodeError):
        return False


def _part(value: Any, size: int) -> tuple[Any, bool]:
    """The stored form of a value, and whether it was cut."""
    if size <= MAX_BYTES:
        return value, False
    head = _Heads().of(value)
    return (head if len(encode(head)) <= MAX_BYTES else None), True


class _Heads:
    """Copies a JSON value up to _MAX_VALUES values, with the heads of its texts."""

    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def of(self, value: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            return None
        if isinstance(value, str) and len(value) > MAX_HEAD:
            return f"{value[:MAX_HEAD]} [{len(value) - MAX_HEAD} more characters]"
        # Loops, since a comprehension would be a frame of its own, and bodies may be nested 512 levels deep.
        if isinstance(value, dict):
            members = {}
            for name, each in value.items():
                members[name] = self.of(each)
            return members
        if isinstance(value, list):
            items = []
            for each in value:
                items.append(self.of(each))
            return items
        return value
