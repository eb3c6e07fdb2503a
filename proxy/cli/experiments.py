"""`proxy experiments`: experiments in the database. No server need be running; a running one follows within a
second.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from proxy.cli.output import json_option, print_json, print_table
from proxy.cli.settings import configuration_options, read_config, store_problem
from proxy.pipeline.experiments import LiveExperiments
from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.stored_prompts import StoredPrompts
from proxy.prompts.definition import experiment_of
from proxy.prompts.results import Mean, Results, ShownDifference, VariantResult, shown_experiment
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.experiments import Experiment, StoredExperiment, VariantSpec
from proxy.schema.json import decode_object, encode
from proxy.server.api.experiment_bodies import shown_outcome, shown_variant, tracked_of, unit_of
from proxy.server.api.periods import iso
from proxy.storage.base import StoreError
from proxy.storage.experiments import ExperimentRefused, ExperimentStore
from proxy.storage.prompts import PromptStore
from proxy.storage.sqlite import sqlite_path

MAX_FILE = 512 * 1024
MAX_CHARS = 32 * 1024 * 1024  # of a rendered prompt; nothing is rendered here
_FIELDS = (
    *("id", "name", "status", "prompt", "label", "assignment", "metric", "outcome_rule", "alpha", "minimum_effect"),
    *("minimum_samples", "floor", "promote", "created_at", "started_at", "stopped_at", "winner", "decided_at"),
    *("promoted_version", "promoted_from", "promoted_at", "reverted_at"),
)
_VARIANTS = ("VARIANT", "SHARE", "CALLS", "UNITS", "SUCCESS", "SCORE", "COST_USD", "LATENCY_MS", "BEST", "BEHIND_BY")
T = TypeVar("T")


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
    with _store(flags) as store:
        experiment = _definition(file, None)
        stored = store.create(experiment, time.time_ns())
        if is_started:
            stored = store.start(experiment.id, None, time.time_ns())
    _print(stored, as_json)


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@json_option
@configuration_options
def show(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Show the definition of an experiment, and its state."""
    with _store(flags) as store:
        stored = store.get(experiment_id)
    if as_json:
        print_json(_shown(stored))
        return
    shown, given = _shown(stored), stored.experiment
    print_table(("FIELD", "VALUE"), [(name, str(shown[name])) for name in _FIELDS if shown[name] not in (None, "")])
    click.echo()
    names = ("VARIANT", "WEIGHT", "VERSION", "MODEL", "PARAMETERS", "ENSEMBLE")
    print_table(
        names, [(each.name, each.weight, each.prompt_version, each.model, *_options(each)) for each in given.variants]
    )


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@click.argument("file", type=click.File("rb"), metavar="FILE")
@json_option
@configuration_options
def replace(experiment_id: str, file: Any, as_json: bool, **flags: Any) -> None:
    """Give an experiment that has not started the definition in FILE; - is standard input."""
    with _store(flags) as store:
        stored = store.replace(_definition(file, experiment_id), None)
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
    """Print the figures of each variant, and the verdict. A verdict that is out is recorded."""
    with _store(flags) as store:
        found = _live(store, experiment_id, lambda live: live.results(experiment_id))
    if as_json:
        print_json(found)
        return
    click.echo(_verdict(found))
    if (ratio := found["sample_ratio"]) is not None and ratio["mismatch"]:
        click.echo("The variants did not get their shares: look for a fault before you trust these figures.")
    click.echo()
    print_table(_VARIANTS, [_figures(variant) for variant in found["variants"]])


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@json_option
@configuration_options
def promote(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Move the label of the prompt to the winner's version."""

    async def work(live: LiveExperiments) -> StoredExperiment:
        await live.results(experiment_id)  # records a verdict that has been reached
        return await live.promote(await live.get(experiment_id))

    with _store(flags) as store:
        stored = _live(store, experiment_id, work)
    _print_label(stored, stored.state.promoted_version, as_json)


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@json_option
@configuration_options
def revert(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Move the label back to where it was before the promotion."""

    async def work(live: LiveExperiments) -> StoredExperiment:
        return await live.revert(await live.get(experiment_id))

    with _store(flags) as store:
        stored = _live(store, experiment_id, work)
    _print_label(stored, stored.state.promoted_from, as_json)


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@click.argument("unit", metavar="UNIT")
@json_option
@configuration_options
def variant(experiment_id: str, unit: str, as_json: bool, **flags: Any) -> None:
    """Print the variant of UNIT: a user, a session, whatever the program compares."""
    with _store(flags) as store:
        found = _live(store, experiment_id, lambda live: live.variant(experiment_id, unit_of(unit)))
    if as_json:
        print_json(shown_variant(found))
    else:
        click.echo(found.name)


@experiments.command()
@click.argument("experiment_id", metavar="ID")
@click.argument("variant", metavar="VARIANT")
@click.option("--unit", metavar="UNIT", help="Whose outcome it is, as `variant` was asked.")
@click.option("--success/--failure", default=None, help="Whether it did what it was for.")
@click.option("--score", type=float, metavar="NUMBER", help="How good it was, from 0 to 1.")
@json_option
@configuration_options
def track(experiment_id: str, as_json: bool, **flags: Any) -> None:
    """Store an outcome of VARIANT that belongs to no call. `proxy feedback` rates calls."""
    names = ("variant", "unit", "success", "score")
    given = {name: value for name in names if (value := flags.pop(name)) is not None}
    now_ns = time.time_ns()
    with _store(flags) as store:
        tracked = tracked_of(given, store.get(experiment_id).experiment)
        store.track(tracked, now_ns)
    if as_json:
        print_json(shown_outcome(tracked, given.get("unit"), now_ns))
    else:
        click.echo(f"Stored an outcome of {tracked.variant}.")


def _definition(file: Any, name: str | None) -> Experiment:
    """The experiment in a file. Raises BadRequest."""
    data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise BadRequest(f"the file is larger than {MAX_FILE // 1024} kB")
    return experiment_of(decode_object(data), name)


def _options(variant: VariantSpec) -> tuple[str | None, ...]:
    return tuple(encode(each).decode() if each else None for each in (variant.parameters, variant.ensemble))


def _print_label(stored: StoredExperiment, version: int | None, as_json: bool) -> None:
    if as_json:
        print_json(_shown(stored))
        return
    experiment = stored.experiment
    where = "on no version" if version is None else f"on version {version}"
    click.echo(f"The label {experiment.label} of {experiment.prompt} is {where}.")


def _print(stored: StoredExperiment, as_json: bool) -> None:
    if as_json:
        print_json(_shown(stored))
    else:
        click.echo(f"{stored.id} is {'a draft' if stored.state.status == 'draft' else stored.state.status}.")


def _verdict(found: Results) -> str:
    if found["winner"] is not None:
        return f"Winner: {found['winner']}, by {found['metric']}."
    needed = f"To prove the minimum effect, each variant still needs outcomes: {found['samples_needed']}."
    return f"Undecided: {found['reason']}. {needed}"


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
    """The store of the configured database. A refusal by it or by a check ends the command with exit code 1."""
    config = read_config(flags, os.environ)
    try:
        path: Path = sqlite_path(config.storage.url)
        yield ExperimentStore(path)
    except StoreError as error:
        store_problem(error)
    except (ExperimentRefused, ProxyError) as refusal:
        click.echo(f"proxy: {refusal}", err=True)
        sys.exit(1)


def _live(store: ExperimentStore, experiment: str, work: Callable[[LiveExperiments], Awaitable[T]]) -> T:
    """Runs `work` on the experiments as a server would, including the record of verdicts. Raises as the store does,
    and ProxyError.
    """
    store.get(experiment)  # fails early if the database cannot be read

    async def run() -> T:
        off_loop = OffLoop()
        prompts = StoredPrompts(PromptStore(store.path), off_loop, _ignore, MAX_CHARS)
        live = LiveExperiments(store, prompts, _ignore, random.random)
        try:
            return await work(live)
        finally:
            await live.close()
            await prompts.close()
            off_loop.close()

    return asyncio.run(run())


def _ignore(event: str, **fields: object) -> None:
    """Discards warnings, because the error itself is printed."""
