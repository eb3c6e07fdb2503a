"""Orchestrates: the stored prompt of a request, from a short-lived cache, and the variant that an experiment chose.

Versions never change, so they are kept until the cache is full. Labels are read again once a second, so that every
worker follows a move within that time. While the database cannot be read, known prompts keep working.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from msgspec import structs

from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.side_thread import SideThread
from proxy.prompts.presets import Preset, applied, preset_of
from proxy.prompts.templates import MAX_NAME, MAX_VARIABLES
from proxy.routing.facts import session_of
from proxy.routing.near import NearNames
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.prompts import LATEST, NOT_USED, PRODUCTION, PromptHead, PromptUse, Unit, UsedPrompt, Variant
from proxy.schema.records import Labels
from proxy.storage.base import StoreError
from proxy.storage.prompt_rows import unknown_version
from proxy.storage.prompts import PromptStore

FRESH_S = 1.0
WAIT_S = 2.0
MAX_HEADS = 10_000
MAX_BYTES = 32 * 1024 * 1024  # of texts of versions
MAX_VERSIONS = 5_000
MAX_NEAR = 1_000  # ids that an unknown one is compared with

T = TypeVar("T")


class Experiments(Protocol):
    """The pipeline's interface to experiments."""

    async def choose(self, experiment: str | None, use: PromptUse | None, unit: Unit) -> Variant | None:
        """The variant for a request that names `experiment`, or uses a prompt (`use`), or both. None: none applies.

        Raises ProxyError 404 for an experiment that is named and unknown.
        """
        ...


class NoExperiments:
    """No experiment runs."""

    async def choose(self, experiment: str | None, use: PromptUse | None, unit: Unit) -> Variant | None:
        return None


class StoredPrompts:
    """One per process. `warn` logs an event with fields. `max_chars`: of a rendered prompt."""

    def __init__(
        self,
        store: PromptStore,
        off_loop: OffLoop,
        warn: Callable[..., object],
        max_chars: int,
        experiments: Experiments | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.max_chars = max_chars
        self.experiments: Experiments = experiments or NoExperiments()
        self.off_loop = off_loop
        self._thread = SideThread("prompts", warn, WAIT_S, pause_s=1.0)
        self._clock_s = clock_s
        self._heads: dict[str, tuple[PromptHead | None, float]] = {}
        self._versions: dict[tuple[str, int], Preset] = {}
        self._bytes = 0
        self._asked: dict[str, asyncio.Task[PromptHead | None]] = {}

    async def applied(
        self, request: AnyRequest, said: Labels, key: str | None, headers: Mapping[str, str]
    ) -> tuple[AnyRequest, UsedPrompt]:
        """Resolves a request that uses a prompt or names an experiment: the new request, and what its row records.

        Raises BadRequest, and ProxyError 404 (unknown prompt, version, label or experiment), 413 and 503.
        """
        if not isinstance(request, ChatRequest):
            message = f"model: {request.model[:200]!r}: stored prompts are for chats."
            raise BadRequest(message, param="model")
        use, experiment = request.stored, request.hints.experiment
        variant = await self.experiments.choose(experiment, use, _unit(request, said, key, headers))
        if use is None and variant is not None and variant.prompt is not None:
            use = PromptUse(variant.prompt)
        used, preset = NOT_USED, None
        if use is not None:
            varied = None if variant is None else variant.version
            head = await self.head(use.id)
            version, label = (varied, None) if varied is not None else resolve(head, use)
            preset = await self._preset(head, version)
            used = UsedPrompt(use.id, version, label)
        if variant is not None:
            used = structs.replace(used, experiment=variant.experiment, variant=variant.name, unit=variant.unit)
        work = partial(applied, request, use, preset, variant, self.max_chars)
        size = request.size if use is None or preset is None else request.size + self.weight(use, preset)
        return await self.off_loop.run(size, work), used

    async def head(self, prompt: str) -> PromptHead:
        """A usable prompt, at most a second old. Raises ProxyError 404 and 503."""
        found = await self._look(prompt)
        if found is None:
            raise await self._unknown(prompt)
        if found.archived_ns is not None:
            message = f"The prompt {prompt} is archived. An admin can restore it."
            raise ProxyError(message, status=404, code="not_found", param="prompt.id")
        return found

    async def preset(self, use: PromptUse) -> tuple[Preset, str | None]:
        """The version that a use refers to, and its label. Raises as `head`."""
        head = await self.head(use.id)
        version, label = resolve(head, use)
        return await self._preset(head, version), label

    def weight(self, use: PromptUse, preset: Preset) -> int:
        """About how many characters the rendered prompt may have: a value may be used in many places."""
        if len(use.variables) > MAX_VARIABLES:  # they are refused
            return len(use.variables) * MAX_NAME
        places = sum(len(template.names) for template in preset.templates)
        longest = max((len(value) for value in use.variables.values() if isinstance(value, str)), default=0)
        return preset.text_bytes + places * (longest + MAX_NAME)

    async def read(self, work: Callable[[], T]) -> T:
        """What `work` reads from the store. Raises ProxyError 503."""
        try:
            return await self._thread.run(work)
        except StoreError:
            raise unreadable() from None

    async def change(self, work: Callable[[], T], *prompts: str) -> T:
        """Changes these prompts in the store. This worker sees the change at once, others within a second.

        Raises PromptRefused, and ProxyError 503.
        """
        try:
            return await self.read(work)
        finally:
            for prompt in prompts:
                self._heads.pop(prompt, None)

    async def close(self) -> None:
        await self._thread.close(None)

    async def _look(self, prompt: str) -> PromptHead | None:
        known = self._heads.get(prompt)
        if known is not None and self._clock_s() - known[1] < FRESH_S:
            return known[0]
        asked = self._asked.get(prompt)
        if asked is None:  # concurrent look-ups share one
            asked = self._asked[prompt] = asyncio.create_task(self._read(prompt))
            asked.add_done_callback(partial(self._looked, prompt))
        try:
            return await asyncio.shield(asked)
        except StoreError:
            if known is not None:
                return known[0]
            raise unreadable() from None

    def _looked(self, prompt: str, asked: asyncio.Task[PromptHead | None]) -> None:
        self._asked.pop(prompt, None)
        if not asked.cancelled():
            asked.exception()  # every caller that waited may be gone

    async def _read(self, prompt: str) -> PromptHead | None:
        found = (await self._thread.run(partial(self.store.heads, [prompt]))).get(prompt)
        self._heads.pop(prompt, None)
        while len(self._heads) >= MAX_HEADS:  # clients can invent ids
            del self._heads[next(iter(self._heads))]
        self._heads[prompt] = (found, self._clock_s())
        return found

    async def _preset(self, head: PromptHead, version: int) -> Preset:
        if version not in head.live:
            message = unknown_version(head, version)
            raise ProxyError(message, status=404, code="not_found", param="prompt.version")
        place = (head.id, version)
        if (known := self._versions.get(place)) is not None:
            return known
        preset = await self.read(partial(_read_preset, self.store, head.id, version))
        if preset is None:
            raise ProxyError(unknown_version(head, version), status=404, code="not_found", param="prompt.version")
        if place not in self._versions:
            self._bytes += preset.text_bytes
        self._versions[place] = preset
        while self._bytes > MAX_BYTES or len(self._versions) > MAX_VERSIONS:
            oldest = next(iter(self._versions))
            self._bytes -= self._versions.pop(oldest).text_bytes
        return preset

    async def _unknown(self, prompt: str) -> ProxyError:
        try:
            known = await self._thread.run(partial(self.store.ids, MAX_NEAR))
        except StoreError:
            known = []
        return unknown_prompt(prompt, known)


def _read_preset(store: PromptStore, prompt: str, version: int) -> Preset | None:
    found = store.version(prompt, version)
    return None if found is None else preset_of(found)


def resolve(head: PromptHead, use: PromptUse) -> tuple[int, str | None]:
    """The version that a use refers to, and the label that led to it. Raises ProxyError 404."""
    if use.version is not None:
        return use.version, None
    label = use.label
    if label is not None and label != LATEST:
        if (at := head.labels.get(label)) is None:
            known = ", ".join([*sorted(head.labels)[:20], LATEST])
            message = f"{head.id} has no label {label[:64]!r}. Labels: {known}."
            raise ProxyError(message, status=404, code="not_found", param="prompt.label")
        return at, label
    if use.label is None and (at := head.labels.get(PRODUCTION)) is not None:
        return at, PRODUCTION
    if head.latest is None:
        raise ProxyError(f"{head.id} has no version.", status=404, code="not_found", param="prompt.id")
    return head.latest, None


def unknown_prompt(prompt: str, known: list[str]) -> ProxyError:
    """404: names the prompts that exist."""
    near = NearNames(known).find(prompt, most=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    shown = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    message = f"There is no prompt {prompt[:64]!r}.{hint} Prompts: {shown or 'none'}."
    return ProxyError(message, status=404, code="not_found", param="prompt.id")


def unreadable() -> ProxyError:
    """503: the database cannot be read."""
    message = "The stored prompts cannot be read from the database now. Recently used ones still work."
    return ProxyError(message, status=503, code="storage_unavailable", headers={"retry-after": "5"})


def _unit(request: ChatRequest, said: Labels, key: str | None, headers: Mapping[str, str]) -> Unit:
    user = request.fields.get("user")
    conversation = session_of(request, key, headers, ("fingerprint",))
    return Unit(key, user if isinstance(user, str) else None, said.session, conversation)
