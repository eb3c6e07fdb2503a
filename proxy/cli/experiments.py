"""`proxy experiments`: experiments, on the database. No server has to run; a running one follows within a second."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, read_config, store_problem
from proxy.prompts.definition import experiment_of
from proxy.prompts.results import Mean, Results, ShownDifference, VariantResult, results_of, shown_experiment
from proxy.schema.errors import BadRequest
from proxy.schema.experiments import StoredExperiment
from proxy.schema.json import decode_object
from proxy.server.api.periods import iso
from proxy.storage.base import StoreError
from proxy.storage.experiments import ExperimentRefused, ExperimentStore
from proxy.storage.sqlite import sqlite_path

MAX_FILE = 512 * 1024
_VARIANTS = ("VARIANT", "SHARE", "CALLS", "UNITS", "SUCCESS", "SCORE", "COST_USD", "LATENCY_MS", "BEST", "BEHIND_BY")


@click.group()
def experiments() -> None:
    """Compare prompts, models and parameters, with a verdict."""


@experiments.command("list")
@json_option
@configuration_options
def list_experiments(as_json: bool, **flags: Any) -> None:
    """List the experiments."""
    with _store(flags) as store:
        found = store.all()
    if as_json:
        print_json({"experiments": [_shown(stored) for stored in found]})
    elif not found:
        click.echo("No experiments. Create one: proxy experiments create FILE", err=True)
    else:
        print_table(("ID", "STATUS", "PROMPT", "VARIANTS", "WINNER"), [_row(stored) for stored in found])


@experiments.command()
@click.argument("file", type=click.File("rb"))
@click.option("--start", "is_started", is_flag=True, help="Start it at once.")
@json_option
@configuration_options
def create(file: Any, is_started: bool, as_json: bool, **flags: Any) -> None:
    """Create an experiment from FILE: JSON, as the API takes it; - is standard input."""
    data = file.read(MAX_FILE + 1)
    try:
        if len(data) > MAX_FILE:
            raise BadRequest(f"the file is larger than {MAX_FILE // 1024} kB")
        experiment = experiment_of(decode_object(data))
    except BadRequest as error:
        click.echo(f"proxy: {error.message}", err=True)
        sys.exit(1)
    with _store(flags) as store:
        stored = store.create(experiment, time.time_ns())
        if is_started:
            stored = store.start(experiment.id, None, time.time_ns())
    _print(stored, as_json)


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@json_option
@configuration_options
def start(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Let calls take part from now on."""
    with _store(flags) as store:
        stored = store.start(experiment_id, None, time.time_ns())
    _print(stored, as_json)


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@json_option
@configuration_options
def stop(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Let calls no longer take part. Ratings of its calls still count."""
    with _store(flags) as store:
        stored = store.stop(experiment_id, None, time.time_ns())
    _print(stored, as_json)


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@json_option
@configuration_options
def delete(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Delete an experiment that is not running. The rows of its calls stay."""
    with _store(flags) as store:
        store.delete(experiment_id, None)
    if as_json:
        print_json({"id": experiment_id, "deleted": True})
    else:
        click.echo(f"{experiment_id} is deleted.")


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@json_option
@configuration_options
def results(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Print the figures of each variant, and the verdict."""
    with _store(flags) as store:
        stored = store.get(experiment_id)
        found = results_of(stored, store.sums(stored))
    if as_json:
        print_json(found)
        return
    click.echo(_verdict(found))
    if (ratio := found["sample_ratio"]) is not None and ratio["mismatch"]:
        click.echo("The variants did not get their shares: look for a fault before you trust these figures.")
    click.echo()
    print_table(_VARIANTS, [_figures(variant) for variant in found["variants"]])


def _print(stored: StoredExperiment, as_json: bool) -> None:
    if as_json:
        print_json(_shown(stored))
    else:
        click.echo(f"{stored.id} is {'a draft' if stored.state.status == 'draft' else stored.state.status}.")


def _verdict(found: Results) -> str:
    if found["winner"] is not None:
        return f"Winner: {found['winner']}, by {found['metric']}."
    return f"Undecided: {found['reason']}. Outcomes that each variant still needs, at most: {found['samples_needed']}."


def _figures(variant: VariantResult) -> tuple[object, ...]:
    means = [_mean(variant["success"]), _mean(variant["score"]), _mean(variant["cost_usd"], 6)]
    counts = (variant["name"], f"{variant['share']:.0%}", variant["calls"], variant["units"])
    return (*counts, *means, _mean(variant["latency_ms"], 0), f"{variant['chance_best']:.0%}", _behind(variant))


def _mean(mean: Mean, digits: int = 3) -> str | None:
    return None if mean["mean"] is None else f"{mean['mean']:.{digits}f}"


def _behind(variant: VariantResult) -> str | None:
    found: ShownDifference | None = variant["difference"]
    return None if found is None else f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _row(stored: StoredExperiment) -> tuple[object, ...]:
    names = ",".join(stored.experiment.weights)
    return stored.id, stored.state.status, stored.experiment.prompt, names, stored.state.winner


def _shown(stored: StoredExperiment) -> Mapping[str, Any]:
    return shown_experiment(stored, partial(iso, tz="UTC"))


@contextmanager
def _store(flags: Mapping[str, Any]) -> Iterator[ExperimentStore]:
    """The store of the configured database. What it refuses ends the command."""
    config = read_config(flags, os.environ)
    try:
        path: Path = sqlite_path(config.storage.url)
        yield ExperimentStore(path)
    except StoreError as error:
        store_problem(error)
    except ExperimentRefused as refusal:
        click.echo(f"proxy: {refusal}", err=True)
        sys.exit(1)
