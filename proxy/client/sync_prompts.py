"""Orchestrates: stored prompts for programs without asyncio: `api.prompts` of `SyncMultiModelAPI`."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar, Unpack

from proxy.client.prompts import Prompts, RenderedPrompt, StoredPrompt, Template, VersionOptions

T = TypeVar("T")


class Runs(Protocol):
    """Runs a coroutine to its end."""

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...


class SyncPrompts:
    """`Prompts` without `await`: the same arguments, results and errors."""

    def __init__(self, prompts: Prompts, loop: Runs) -> None:
        self._prompts = prompts
        self._loop = loop

    def register(
        self,
        id: str,
        template: Template,
        variables: Sequence[str] | None = None,
        name: str | None = None,
        **fields: Unpack[VersionOptions],
    ) -> StoredPrompt:
        """As `Prompts.register`."""
        return self._loop.run(self._prompts.register(id, template, variables, name, **fields))

    def create_version(
        self,
        id: str,
        template: Template,
        variables: Sequence[str] | None = None,
        **fields: Unpack[VersionOptions],
    ) -> StoredPrompt:
        """As `Prompts.create_version`."""
        return self._loop.run(self._prompts.create_version(id, template, variables, **fields))

    def get(self, id: str, version: int | str | None = None, label: str | None = None) -> StoredPrompt:
        """As `Prompts.get`."""
        return self._loop.run(self._prompts.get(id, version, label))

    def list(self) -> list[dict[str, Any]]:
        """As `Prompts.list`."""
        return self._loop.run(self._prompts.list())

    def render(
        self, id: str, variables: Mapping[str, Any], version: int | None = None, label: str | None = None
    ) -> RenderedPrompt:
        """As `Prompts.render`."""
        return self._loop.run(self._prompts.render(id, variables, version, label))

    def set_label(self, id: str, label: str, version: int, note: str | None = None) -> dict[str, int]:
        """As `Prompts.set_label`."""
        return self._loop.run(self._prompts.set_label(id, label, version, note))

    def archive(self, id: str) -> None:
        """As `Prompts.archive`."""
        self._loop.run(self._prompts.archive(id))
