"""Values: experiments: their variants, the rules of their verdict, and what is known of their outcomes."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from proxy.schema.prompts import PRODUCTION

Assignment = Literal["sticky", "random", "round_robin", "auto"]
Metric = Literal["success", "score", "valid_json", "refusal"]
OutcomeRule = Literal["last", "mean"]
METRICS: tuple[Metric, ...] = ("success", "score", "valid_json", "refusal")
LOWER_IS_BETTER = ("refusal",)
OUTCOMES = (*METRICS, "cost", "latency")


class VariantSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the compared variants. What it leaves out stays as in the request and the prompt.

    `prompt_version`: of the experiment's prompt. `model`: any name that the proxy knows. `parameters`: fields of the
    request, like `temperature`. `ensemble`: keys of an ensemble, as in `routing.ensemble`.
    """

    name: str
    weight: float = 1.0
    prompt_version: int | None = None
    model: str | None = None
    parameters: dict[str, Any] = {}
    ensemble: dict[str, Any] | None = None


class Experiment(Struct, frozen=True, forbid_unknown_fields=True):
    """What is compared, how variants are assigned, and when the verdict is out.

    `prompt`: requests that use it take part; None: only those that name the experiment. `metric`: the outcome that
    decides. `outcome_rule`: which of several ratings of one call counts. `alpha`: the share of experiments without a
    difference that may name a winner. `minimum_effect`: the difference to be found fastest. `minimum_samples`: of each
    variant. `floor`: the minimum share of a variant under `auto`. `promote`: the label `label` of the prompt moves to
    the winner.
    """

    id: str
    variants: tuple[VariantSpec, ...]
    prompt: str | None = None
    name: str = ""
    assignment: Assignment = "sticky"
    metric: Metric = "success"
    outcome_rule: OutcomeRule = "last"
    alpha: float = 0.05
    minimum_effect: float = 0.1
    minimum_samples: int = 30
    floor: float = 0.1
    promote: bool = False
    label: str = PRODUCTION

    @property
    def weights(self) -> dict[str, float]:
        return {variant.name: variant.weight for variant in self.variants}

    def variant(self, name: str) -> VariantSpec | None:
        return next((variant for variant in self.variants if variant.name == name), None)


class ExperimentState(Struct, frozen=True):
    """The mutable part of an experiment. Times are Unix nanoseconds.

    `status`: draft, running or stopped. `revision` counts the changes. `winner`: recorded when the verdict came out.
    `promoted_version`: where the label was moved for the winner; `promoted_from` (None: nowhere): where it was before.
    `reverted_ns`: when the promotion was reverted.
    """

    status: str = "draft"
    revision: int = 1
    created_ns: int = 0
    started_ns: int | None = None
    stopped_ns: int | None = None
    winner: str | None = None
    decided_ns: int | None = None
    promoted_version: int | None = None
    promoted_from: int | None = None
    promoted_ns: int | None = None
    reverted_ns: int | None = None


class StoredExperiment(Struct, frozen=True):
    """An experiment as it is stored."""

    experiment: Experiment
    state: ExperimentState

    @property
    def id(self) -> str:
        return self.experiment.id

    @property
    def is_running(self) -> bool:
        return self.state.status == "running"


Sums = tuple[int, float, float]  # of outcomes: their number, sum, and sum of squares


class VariantSums(Struct, frozen=True):
    """The data on one variant. `units`: different users, sessions or conversations; a call without one is a unit
    of its own. `outcomes`: by outcome, the sums over units; a unit counts with the mean of its calls.
    """

    calls: int = 0
    units: int = 0
    errors: int = 0
    outcomes: dict[str, Sums] = {}


class Steps(Struct, frozen=True):
    """The outcomes of an experiment over time: `count` intervals of `width_ns`, starting at `start_ns`.

    `sums`: variant, interval, and what this interval adds to the sums of the deciding metric.
    """

    start_ns: int
    width_ns: int
    count: int
    sums: list[tuple[str, int, Sums]]


class Tracked(Struct, frozen=True):
    """An outcome that belongs to no call of this proxy. `unit`: a hash, or None."""

    experiment: str
    variant: str
    unit: str | None = None
    success: bool | None = None
    score: float | None = None
