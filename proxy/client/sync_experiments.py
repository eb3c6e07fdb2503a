"""Orchestrates: experiments for programs without asyncio: `api.experiments` of `SyncMultiModelAPI`."""

from __future__ import annotations

from typing import Any, Unpack

from proxy.client.experiments import AssignedVariant, ExperimentOptions, Experiments, Variants
from proxy.client.sync_prompts import Runs


class SyncExperiments:
    """`Experiments` without `await`: the same arguments, results and errors."""

    def __init__(self, experiments: Experiments, loop: Runs) -> None:
        self._experiments = experiments
        self._loop = loop

    def create(self, id: str, variants: Variants, **fields: Unpack[ExperimentOptions]) -> dict[str, Any]:
        """As `Experiments.create`."""
        return self._loop.run(self._experiments.create(id, variants, **fields))

    def start(self, id: str) -> dict[str, Any]:
        """As `Experiments.start`."""
        return self._loop.run(self._experiments.start(id))

    def stop(self, id: str) -> dict[str, Any]:
        """As `Experiments.stop`."""
        return self._loop.run(self._experiments.stop(id))

    def get(self, id: str) -> dict[str, Any]:
        """As `Experiments.get`."""
        return self._loop.run(self._experiments.get(id))

    def list(self) -> list[dict[str, Any]]:
        """As `Experiments.list`."""
        return self._loop.run(self._experiments.list())

    def results(self, id: str) -> dict[str, Any]:
        """As `Experiments.results`."""
        return self._loop.run(self._experiments.results(id))

    def variant(self, id: str, unit: str | None = None) -> AssignedVariant:
        """As `Experiments.variant`."""
        return self._loop.run(self._experiments.variant(id, unit))

    def track(
        self, id: str, variant: str, success: bool | None = None, score: float | None = None, unit: str | None = None
    ) -> None:
        """As `Experiments.track`."""
        self._loop.run(self._experiments.track(id, variant, success, score, unit))

    def winner(self, id: str) -> str | None:
        """As `Experiments.winner`."""
        return self._loop.run(self._experiments.winner(id))

    def promote(self, id: str) -> dict[str, Any]:
        """As `Experiments.promote`."""
        return self._loop.run(self._experiments.promote(id))

    def revert(self, id: str) -> dict[str, Any]:
        """As `Experiments.revert`."""
        return self._loop.run(self._experiments.revert(id))
