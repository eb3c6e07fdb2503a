"""Values: the routes of experiments for the OpenAPI document."""

from __future__ import annotations

from typing import Any, TypedDict

from proxy.prompts.results import Results
from proxy.schema.experiments import Assignment, Experiment, Metric, OutcomeRule, VariantSpec
from proxy.server.api.described import JSON, Described
from proxy.server.api.experiment_bodies import ASSIGNMENT, OutcomeBody


class ExperimentAnswer(TypedDict):
    """The definition and the state. `status`: draft, running or stopped."""

    object: str
    id: str
    variants: list[VariantSpec]
    prompt: str | None
    name: str
    assignment: Assignment
    metric: Metric
    outcome_rule: OutcomeRule
    alpha: float
    minimum_effect: float
    minimum_samples: int
    floor: float
    promote: bool
    label: str
    status: str
    revision: int
    winner: str | None
    promoted_version: int | None
    promoted_from: int | None
    created_at: str | None
    started_at: str | None
    stopped_at: str | None
    decided_at: str | None
    promoted_at: str | None
    reverted_at: str | None


class ExperimentList(TypedDict):
    object: str
    data: list[ExperimentAnswer]


class ResultsAnswer(Results):
    """The figures of each variant, and the verdict."""

    object: str


class VariantPrompt(TypedDict):
    id: str
    version: int | None


class VariantAnswer(TypedDict):
    """The values for a program to apply. Null: the experiment does not vary this field."""

    experiment: str
    variant: str
    prompt: VariantPrompt | None
    model: str | None
    parameters: dict[str, Any]
    ensemble: dict[str, Any] | None


class OutcomeAnswer(TypedDict):
    """An outcome as it was stored."""

    experiment: str
    variant: str
    unit: str | None
    success: bool | None
    score: float | None
    timestamp: str


class DeletedExperiment(TypedDict):
    id: str
    deleted: bool


_ETAG = {
    "etag": "Counts the changes of the experiment. A change with `If-Match` is refused (412) if it has changed since."
}
_READ = (400, 401, 404, 429, 503)
_CHANGE = (400, 401, 403, 404, 409, 412, 503)
_BODY = (413, 415)
_ONE = {"200": {JSON: ExperimentAnswer}}


def _step(summary: str) -> Described:
    return Described(summary, _ONE, headers=_ETAG, errors=_CHANGE)


EXPERIMENTS: dict[tuple[str, str], Described] = {
    ("GET", "/experiments"): Described(
        "All experiments, by id.", {"200": {JSON: ExperimentList}}, errors=(401, 429, 503)
    ),
    ("POST", "/experiments"): Described(
        "Creates an experiment; it takes no calls before it is started.",
        {"201": {JSON: ExperimentAnswer}},
        body=Experiment,
        headers=_ETAG,
        errors=(*_CHANGE, *_BODY),
    ),
    ("GET", "/experiments/{experiment_id}"): Described("One experiment.", _ONE, headers=_ETAG, errors=_READ),
    ("PUT", "/experiments/{experiment_id}"): Described(
        "Another definition, until the experiment has started. The body may leave out `id`.",
        _ONE,
        body=Experiment,
        headers=_ETAG,
        errors=(*_CHANGE, *_BODY),
    ),
    ("DELETE", "/experiments/{experiment_id}"): Described(
        "Deletes an experiment that is not running. The rows of its calls stay.",
        {"200": {JSON: DeletedExperiment}},
        errors=_CHANGE,
    ),
    ("GET", "/experiments/{experiment_id}/results"): Described(
        "The figures of each variant, and the verdict: `winner`, or `undecided` with the leader named.",
        {"200": {JSON: ResultsAnswer}},
        errors=_READ,
    ),
    ("GET", "/experiments/{experiment_id}/variant"): Described(
        "The variant of a unit, for programs that apply it themselves. Calls name the experiment instead.",
        {"200": {JSON: VariantAnswer}},
        query=ASSIGNMENT,
        errors=(*_READ, 409),
    ),
    ("POST", "/experiments/{experiment_id}/outcomes"): Described(
        "Stores an outcome that belongs to no call: `variant`, and `success` or `score`; `unit` says whose.",
        {"201": {JSON: OutcomeAnswer}},
        body=OutcomeBody,
        errors=(*_READ, 409, *_BODY),
    ),
    ("POST", "/experiments/{experiment_id}/start"): _step("Calls take part from now on."),
    ("POST", "/experiments/{experiment_id}/stop"): _step(
        "Calls no longer take part. Ratings of its calls still count."
    ),
    ("POST", "/experiments/{experiment_id}/promote"): _step("Moves the label to the winner's version of the prompt."),
    ("POST", "/experiments/{experiment_id}/revert"): _step("Moves the label back to where it was before."),
}
