"""Orchestrates: experiments in the Python client: `api.experiments`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from proxy.client.errors import UnexpectedAnswer
from proxy.client.sending import Sender

_EXPERIMENTS = "experiments"
Variants = Sequence[str | Mapping[str, Any]]


class ExperimentOptions(TypedDict, total=False):
    """Further fields of an experiment; docs/experiments.md describes them. None means: not given."""

    prompt: str | None
    name: str | None
    assignment: str | None
    metric: str | None
    outcome_rule: str | None
    alpha: float | None
    minimum_effect: float | None
    minimum_samples: int | None
    floor: float | None
    promote: bool | None
    label: str | None


class AssignedVariant(str):
    """The name of a variant, with the values that it varies. `unit`: the unit that it was chosen for.
    `prompt`: `id` and `version`.
    """

    experiment: str
    unit: str | None
    prompt: dict[str, Any] | None
    model: str | None
    parameters: dict[str, Any]
    ensemble: dict[str, Any] | None


class Experiments:
    """The experiments of one proxy. All methods raise MultiModelError, and ValueError for a wrong argument."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def create(self, id: str, variants: Variants, **fields: Unpack[ExperimentOptions]) -> dict[str, Any]:
        """A new experiment, not started. `variants`: names, or dictionaries with `name`, `weight`, `prompt_version`,
        `model`, `parameters`, `ensemble`.
        """
        for key in fields:
            if key not in ExperimentOptions.__annotations__:
                raise TypeError(f"unexpected argument {key!r}; known: {', '.join(ExperimentOptions.__annotations__)}")
        if isinstance(variants, str):
            raise ValueError("variants: expected a list of names or dictionaries")
        listed = [{"name": each} if isinstance(each, str) else dict(each) for each in variants]
        given = {key: value for key, value in fields.items() if value is not None}
        return (await self._sender.post(_EXPERIMENTS, {"id": _id(id), "variants": listed, **given})).data

    async def start(self, id: str) -> dict[str, Any]:
        """Calls take part from now on."""
        return (await self._sender.post(f"{_path(id)}/start", {})).data

    async def stop(self, id: str) -> dict[str, Any]:
        """Calls no longer take part; their ratings still count."""
        return (await self._sender.post(f"{_path(id)}/stop", {})).data

    async def get(self, id: str) -> dict[str, Any]:
        """The experiment as it is stored."""
        return (await self._sender.get(_path(id), {})).data

    async def list(self) -> list[dict[str, Any]]:
        """All experiments, by id."""
        return list((await self._sender.get(_EXPERIMENTS, {})).data["data"])

    async def results(self, id: str) -> dict[str, Any]:
        """The figures of each variant, and the verdict."""
        return (await self._sender.get(f"{_path(id)}/results", {})).data

    async def variant(self, id: str, unit: str | None = None) -> AssignedVariant:
        """The variant of a unit: the same one each time. Without a unit, or if it is not sticky, it is drawn anew."""
        if unit is not None and not (isinstance(unit, str) and unit):
            raise ValueError(f"unit: expected text that is not empty, got {unit!r}")
        data = (await self._sender.get(f"{_path(id)}/variant", {} if unit is None else {"unit": unit})).data
        try:
            variant = AssignedVariant(data["variant"])
            for field in ("experiment", "prompt", "model", "parameters", "ensemble"):
                setattr(variant, field, data[field])
        except KeyError as error:
            raise UnexpectedAnswer(f"The answer has another shape than this client expects: {error}.") from None
        variant.unit = unit
        return variant

    async def track(
        self, id: str, variant: str, success: bool | None = None, score: float | None = None, unit: str | None = None
    ) -> None:
        """Stores an outcome that belongs to no call of the proxy; rate its calls with `api.feedback`.

        `unit`: the unit of the outcome; not needed with a result of `variant`.
        """
        if success is None and score is None:
            raise ValueError("success: give at least one of success and score")
        if unit is None and isinstance(variant, AssignedVariant):
            unit = variant.unit
        fields = {"variant": str(variant), "unit": unit, "success": success, "score": score}
        body = {key: value for key, value in fields.items() if value is not None}
        await self._sender.post(f"{_path(id)}/outcomes", body)

    async def winner(self, id: str) -> str | None:
        """The name of the winner; None as long as there is no verdict."""
        found = (await self.results(id)).get("winner")
        return None if found is None else str(found)

    async def promote(self, id: str) -> dict[str, Any]:
        """Moves the label of the prompt to the version of the winner."""
        return (await self._sender.post(f"{_path(id)}/promote", {})).data

    async def revert(self, id: str) -> dict[str, Any]:
        """Moves the label back."""
        return (await self._sender.post(f"{_path(id)}/revert", {})).data


def _path(id: Any) -> str:
    return f"{_EXPERIMENTS}/{quote(_id(id), safe='')}"


def _id(id: Any) -> str:
    if not isinstance(id, str) or not id.strip():
        raise ValueError(f"id: expected the id of an experiment, got {id!r}")
    return id
