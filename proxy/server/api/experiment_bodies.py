"""Translates: requests about the outcomes and units of experiments, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from proxy.config.problems import near
from proxy.prompts.assignment import unit_hash
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.experiments import Experiment, Tracked
from proxy.schema.prompts import Variant
from proxy.server.api.periods import iso
from proxy.server.formats.body import view_of

CheckModel = Callable[[str], object]  # raises ProxyError for a model that nobody can call
MAX_BODY = 512 * 1024  # bytes: ten variants with parameters
MAX_UNIT = 512  # characters
ASSIGNMENT = {"unit": "Whom the variant is for: a user, a session. The same unit gets the same variant."}


class OutcomeBody(Struct, frozen=True, kw_only=True):
    """At least one of `success` and `score`. `unit`: the unit that `variant` was assigned to."""

    variant: str
    unit: str | None = None
    success: bool | None = None
    score: Annotated[float, Meta(ge=0, le=1)] | None = None


def check_models(experiment: Experiment, check_model: CheckModel) -> Experiment:
    """The same experiment. Raises BadRequest for a variant with a model that does not exist."""
    for place, variant in enumerate(experiment.variants):
        if variant.model is None:
            continue
        try:
            check_model(variant.model)
        except ProxyError as error:
            if error.status == 404:  # others exist, and may not be available now
                where = f"variants.{place}.model"
                raise BadRequest(f"{where}: {error.message}", param=where) from None
    return experiment


def tracked_of(fields: dict[str, Any], experiment: Experiment) -> Tracked:
    """The outcome. Raises BadRequest, which names the field."""
    known = OutcomeBody.__struct_fields__
    for name in fields:
        if name not in known:
            message = f"Unknown parameter {name[:64]!r}. Known: {', '.join(known)}{near(name, known) or '.'}"
            raise BadRequest(message, param=name[:64])
    given = view_of(fields, OutcomeBody)
    if given.success is None and given.score is None:
        message = "Give the outcome: success (true or false) or score (from 0 to 1)."
        raise BadRequest(message, param="success")
    if experiment.variant(given.variant) is None:
        names = ", ".join(experiment.weights)
        message = f"variant: {experiment.id} has no variant {given.variant[:64]!r}. Variants: {names}."
        raise BadRequest(message, param="variant")
    unit = unit_of(given.unit)
    hashed = None if unit is None else unit_hash(experiment.id, unit)
    return Tracked(experiment.id, given.variant, hashed, given.success, given.score)


def unit_of(text: str | None) -> str | None:
    """Raises BadRequest."""
    if text is not None and not 0 < len(text) <= MAX_UNIT:
        raise BadRequest(f"unit: expected 1 to {MAX_UNIT} characters.", param="unit")
    return text


def shown_variant(variant: Variant) -> dict[str, Any]:
    """The fields that a program needs to apply the variant itself."""
    prompt = None if variant.prompt is None else {"id": variant.prompt, "version": variant.version}
    return {
        "experiment": variant.experiment,
        "variant": variant.name,
        "prompt": prompt,
        "model": variant.model,
        "parameters": variant.parameters,
        "ensemble": variant.ensemble,
    }


def shown_outcome(tracked: Tracked, unit: str | None, now_ns: int) -> dict[str, Any]:
    """An outcome as it was stored."""
    return {
        "experiment": tracked.experiment,
        "variant": tracked.variant,
        "unit": unit,
        "success": tracked.success,
        "score": tracked.score,
        "timestamp": iso(now_ns, "UTC"),
    }
