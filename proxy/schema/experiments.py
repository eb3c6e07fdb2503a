"""Values: experiments: their variants, the rules of their verdict, and what was decided."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Assignment = Literal["sticky", "random", "round_robin", "auto"]
Metric = Literal["success", "score", "valid_json", "refusal"]
Status = Literal["draft", "running", "stopped"]
LOWER_IS_BETTER = ("refusal",)


class Variant(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of the ways that are compared. What it leaves out stays as the request and the prompt have it.

    `prompt_version`: of the experiment's prompt. `model`: any name that the proxy knows. `ensemble`: the name of one.
    `parameters`: fields of the request, like `temperature`.
    """

    name: str
    weight: float = 1.0
    prompt_version: int | None = None
    model: str | None = None
    ensemble: str | None = None
    parameters: dict[str, Any] = {}


class Experiment(Struct, frozen=True, forbid_unknown_fields=True):
    """What is compared, how variants are assigned, and when the verdict is out.

    `prompt`: every use of it takes part; None: only requests that name the experiment. `metric`: the outcome that
    decides. `outcome_rule`: what counts of several ratings of one call. `alpha`: the share of experiments without a
    difference that may name a winner. `minimum_effect`: the difference to be found fastest. `floor`: the least share
    of a variant under `auto`. `promote`: the label of the prompt that moves to the version of the winner.
    """

    name: str
    variants: tuple[Variant, ...]
    prompt: str | None = None
    notes: str = ""
    assignment: Assignment = "sticky"
    metric: Metric = "success"
    outcome_rule: Literal["last", "mean"] = "last"
    alpha: float = 0.05
    minimum_effect: float = 0.1
    minimum_samples: int = 30
    floor: float = 0.1
    promote: str | None = None

    @property
    def weights(self) -> dict[str, float]:
        return {variant.name: variant.weight for variant in self.variants}


class StoredExperiment(Struct, frozen=True):
    """An experiment as it is stored. `revision` counts its changes; `winner`: recorded when the verdict came out."""

    id: str
    experiment: Experiment
    status: Status
    revision: int
    created_ns: int
    started_ns: int | None = None
    stopped_ns: int | None = None
    winner: str | None = None
    promotions: tuple[dict[str, Any], ...] = ()


class VariantSums(Struct):
    """What is known of the calls of one variant: (count, sum, sum of squares) of each outcome.

    `units`: how many different users, sessions or conversations; of calls without one, the calls.
    """

    calls: int = 0
    units: int = 0
    errors: int = 0
    outcomes: dict[str, tuple[int, float, float]] = {}
