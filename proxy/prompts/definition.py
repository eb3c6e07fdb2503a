"""Translates: the body of `/v1/experiments` into a checked experiment. Errors name the field and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any

import msgspec

from proxy.prompts.uses import id_of, label_of, version_of
from proxy.schema.errors import BadRequest
from proxy.schema.experiments import Experiment, VariantSpec

MAX_VARIANTS = 10
MAX_NAME = 200  # characters of a model, and of the name of an experiment
MAX_BYTES = 32 * 1024  # of the parameters of one variant
_MOST_SAMPLES = 1_000_000
# Fields of a request that are not parameters: they have a place of their own, or belong to the caller.
_NO_PARAMETERS = ("messages", "input", "stream", "stream_options", "user", "metadata", "routing", "n")
_ELSEWHERE = {"model": "`model` of the variant", "prompt": "`prompt_version` of the variant"}


def experiment_of(fields: Mapping[str, Any], name: str | None = None) -> Experiment:
    """The experiment in these fields. `name`: the id that the path names. Raises BadRequest."""
    given = dict(fields) if name is None else {"id": name, **fields}
    if name is not None and given["id"] != name:
        raise BadRequest(f"id: the path names {name}. An experiment keeps its id.", param="id")
    _check_names(given, Experiment.__struct_fields__, "")
    if not isinstance(given.get("variants"), list) or not 2 <= len(given["variants"]) <= MAX_VARIANTS:
        raise BadRequest(f"variants: expected a list of 2 to {MAX_VARIANTS} variants.", param="variants")
    for place, variant in enumerate(given["variants"]):
        where = f"variants.{place}"
        if not isinstance(variant, dict):
            raise BadRequest(f"{where}: expected an object with a name.", param=where)
        _check_names(variant, VariantSpec.__struct_fields__, where + ".")
    for field in ("id", "variants"):
        if field not in given:
            raise BadRequest(f"{field}: is missing.", param=field)
    try:
        experiment = msgspec.convert(given, Experiment)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        where = path.rstrip("`").replace("[", ".").replace("]", "").strip(".")
        raise BadRequest(f"{where or 'body'}: {text}.", param=where or None) from None
    _check(experiment)
    return experiment


def _check_names(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in known:
            close = get_close_matches(name[:64], known, n=1, cutoff=0.6)
            hint = f" Did you mean {close[0]}?" if close else ""
            message = f"{where}{name[:64]}: unknown field.{hint} Known: {', '.join(known)}."
            raise BadRequest(message, param=f"{where}{name[:64]}")


def _check(experiment: Experiment) -> None:
    id_of(experiment.id)
    if experiment.prompt is not None:
        id_of(experiment.prompt, "prompt")
    label_of(experiment.label)
    if len(experiment.name) > MAX_NAME or not experiment.name.isprintable():
        raise BadRequest(f"name: expected at most {MAX_NAME} printable characters.", param="name")
    _check_number("alpha", experiment.alpha, 0.0001, 0.5)
    _check_number("minimum_effect", experiment.minimum_effect, 0.001, 1)
    _check_number("minimum_samples", experiment.minimum_samples, 5, _MOST_SAMPLES)
    _check_number("floor", experiment.floor, 0, 1 / len(experiment.variants))
    names = [variant.name for variant in experiment.variants]
    for place, variant in enumerate(experiment.variants):
        where = f"variants.{place}"
        id_of(variant.name, f"{where}.name")
        if names.index(variant.name) != place:
            raise BadRequest(f"{where}.name: {variant.name} appears twice.", param=f"{where}.name")
        _check_variant(variant, where, experiment.prompt)
    if experiment.promote and any(variant.prompt_version is None for variant in experiment.variants):
        message = "promote: moves a label to the winner, so every variant needs a prompt_version."
        raise BadRequest(message, param="promote")


def _check_variant(variant: VariantSpec, where: str, prompt: str | None) -> None:
    _check_number(f"{where}.weight", variant.weight, 0.001, 1_000)
    if variant.prompt_version is not None:
        version_of(variant.prompt_version, f"{where}.prompt_version")
        if prompt is None:
            message = f"{where}.prompt_version: name the prompt that it is a version of in `prompt`."
            raise BadRequest(message, param="prompt")
    model = variant.model
    if model is not None and (not 0 < len(model.strip()) <= MAX_NAME or not model.isprintable()):
        message = f"{where}.model: expected 1 to {MAX_NAME} printable characters."
        raise BadRequest(message, param=f"{where}.model")
    for name in variant.parameters:
        field = f"{where}.parameters.{name[:64]}"
        if name in _NO_PARAMETERS:
            raise BadRequest(f"{field}: is not a parameter that an experiment can vary.", param=field)
        if name in _ELSEWHERE:
            raise BadRequest(f"{field}: write it as {_ELSEWHERE[name]}.", param=field)
    for part in ("parameters", "ensemble"):
        if len(msgspec.json.encode(getattr(variant, part))) > MAX_BYTES:
            message = f"{where}.{part}: expected at most {MAX_BYTES // 1024} kB."
            raise BadRequest(message, param=f"{where}.{part}")


def _check_number(field: str, value: float, least: float, most: float) -> None:
    if not isfinite(value) or not least <= value <= most:
        raise BadRequest(f"{field}: expected a number from {least:g} to {most:g}.", param=field)
