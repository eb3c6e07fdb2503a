"""Orchestrates: the steps that the routes and the pages of stored prompts share."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from proxy.config.prompt_file import read_prompts
from proxy.pipeline.stored_prompts import StoredPrompts, resolve, unknown_prompt
from proxy.prompts.compare import Difference, difference
from proxy.prompts.presets import rendered
from proxy.schema.daemon_thread import DaemonThread
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode
from proxy.schema.prompts import PromptHead, PromptUse, PromptVersion
from proxy.server.api.prompt_bodies import MAX_BODY, MOST_ROWS, check_usable, refused
from proxy.storage.prompt_rows import PromptRefused, unknown_version

MAX_FILE = 1_000_000  # bytes, as for every YAML file
FILE_S = 60.0  # for one file, and those queued before it
SLOW = 16  # checking a text takes this many times as long as decoding it
Scores = Callable[[str], Awaitable[Mapping[int, float]]]
T = TypeVar("T")


class Rendered(Struct, frozen=True):
    """A version with values in place of its variables. `label`: the one that led to it."""

    version: PromptVersion
    label: str | None
    messages: list[dict[str, Any]]


class PromptSteps:
    """`lent` returns the prompts of the running server, `check_model` raises ProxyError for a model that a version
    cannot name. `scores`: the performance of each version of a prompt that has outcomes, from 0 to 1.
    """

    def __init__(self, lent: Callable[[], StoredPrompts], check_model: Callable[[str], object], scores: Scores) -> None:
        self._lent = lent
        self._check_model = check_model
        self.scores = scores
        self._files_thread = DaemonThread("prompt-files", FILE_S)

    @property
    def stored(self) -> StoredPrompts:
        return self._lent()

    async def head(self, prompt: str) -> PromptHead:
        """A prompt, read anew, archived or not. Raises ProxyError 404."""
        stored = self.stored
        found = (await stored.read(partial(stored.store.heads, [prompt]))).get(prompt)
        if found is None:
            raise unknown_prompt(prompt, await stored.read(partial(stored.store.ids, MOST_ROWS)))
        return found

    async def version_of(self, use: PromptUse) -> tuple[PromptHead, PromptVersion]:
        """The requested version, archived or not. Raises ProxyError 404."""
        head, stored = await self.head(use.id), self.stored
        number, _ = resolve(head, use)
        version = await stored.read(partial(stored.store.version, use.id, number))
        if version is None:
            raise ProxyError(unknown_version(head, number), status=404, code="not_found", param="version")
        return head, version

    async def render(self, use: PromptUse, size: int) -> Rendered:
        """The messages of a version, off the event loop if that may take long. `size`: the bytes of the values.

        Raises BadRequest for wrong variables, and ProxyError 404 and 413.
        """
        stored = self.stored
        preset, label = await stored.preset(use)
        limit = min(stored.max_chars, MAX_BODY)
        work = partial(rendered, preset, use.variables, limit, "variables", size)
        messages = await stored.off_loop.run(size + stored.weight(use, preset), work)
        return Rendered(preset.version, label, messages)

    async def compare(self, before: PromptVersion, after: PromptVersion) -> Difference:
        """The differences between two versions."""
        size = SLOW * (len(encode(before.messages)) + len(encode(after.messages)))
        return await self.stored.off_loop.run(size, partial(difference, before, after))

    async def change(self, work: Callable[[], T], *prompts: str) -> T:
        """Changes these prompts in the store. Raises ProxyError."""
        try:
            return await self.stored.change(work, *prompts)
        except PromptRefused as error:
            if error.kind == "unknown" and prompts:
                await self.head(prompts[0])  # raises 404 with the existing names if the prompt itself is unknown
            raise refused(error) from None

    async def bring(self, data: bytes, by: str | None) -> dict[str, list[int]]:
        """Stores the versions in a file of prompts. Returns their numbers by prompt. Raises ProxyError."""
        found = await self.on_files(partial(read_prompts, data, "the file", check_usable))
        for each in found:
            for version in each.versions:
                self.check(version, f"prompts.{each.id}.")
        bring = partial(self.stored.store.bring, found, time.time_ns(), by)
        return await self.change(bring, *(each.id for each in found))

    async def on_files(self, work: Callable[[], T]) -> T:
        """Reads or writes YAML: a megabyte takes seconds. Raises ProxyError 503."""
        try:
            return await self._files_thread.run(work)
        except TimeoutError:
            message = f"Other files kept the server busy for {FILE_S:g} s. Try again in a moment."
            raise ProxyError(message, status=503, code="overloaded") from None

    def check(self, version: PromptVersion, prefix: str = "") -> None:
        """Raises BadRequest for a version whose model does not exist."""
        if version.model is None:
            return
        try:
            self._check_model(version.model)
        except ProxyError as error:
            if error.status != 404:
                return  # it exists, but may not be available now
            raise BadRequest(f"{prefix}model: {error.message}", param=f"{prefix}model") from None
