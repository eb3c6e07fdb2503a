"""`proxy import`: turns the configuration of another gateway into the two files of this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from msgspec import convert, to_builtins

from proxy.cli.import_litellm import Imported, import_litellm
from proxy.cli.import_source import ACTION, KINDS, LOST
from proxy.cli.init import next_step
from proxy.cli.output import amount, json_option, print_json
from proxy.cli.settings import fail
from proxy.config import ConfigError, Problem, Source, configure
from proxy.config.files import PRICING, ROUTING, read_file, shipped, write_file
from proxy.config.load import read_pricing
from proxy.config.price_file import with_prices
from proxy.config.tree import Mapping as Tree
from proxy.config.tree import Scalar, Sequence, parse
from proxy.config.yaml_text import flow
from proxy.metering.pricing import ModelPrice

_MOST_FILES = 100


@click.group()
def import_config() -> None:
    """Turn another gateway's configuration into one of ours."""


@import_config.command()
@click.argument("config", metavar="CONFIG.yaml")
@click.option("--dir", "folder", metavar="DIR", default=".", help="Target directory (default: the current one).")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if anything does not carry over.")
@json_option
def litellm(config: str, folder: str, force: bool, strict: bool, as_json: bool) -> None:
    """Turn a LiteLLM configuration into routing_rules.yaml.

    Each key that does not carry over is reported with its line. Keys in plain text are never copied.
    """
    routing, pricing = (Path(folder) / name for name in (ROUTING, PRICING))
    made = import_litellm(_trees(Path(config)))
    text = made.text(Path(config).name).encode()
    prices = _priced(made.rows) if made.rows else None
    files = {routing: text} | ({} if prices is None else {pricing: prices})
    there = [str(path) for path in files if path.exists() or path.is_symlink()]
    if there and not force:
        fail(f"{' and '.join(there)} would be overwritten. --force replaces them, --dir selects another folder.")
    problems = _problems(text, prices)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            write_file(path, data)
    except OSError as error:
        fail(f"cannot write to {folder}: {(error.strerror or type(error).__name__).lower()}")
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    step = next_step(routing, None if prices is None else pricing, "check")
    if as_json:
        print_json(_report(made, files, problems, step))
    else:
        _print(made, files, problems, step)
    if problems or (strict and any(each.kind == LOST for each in made.findings)):
        sys.exit(1)


def _trees(path: Path) -> list[Tree]:
    """The file and those that it includes. Exits if one cannot be read."""
    trees: list[Tree] = []
    waiting, seen = [path], set[Path]()
    while waiting:
        each = waiting.pop(0)
        if each.resolve() in seen or len(seen) >= _MOST_FILES:
            continue
        seen.add(each.resolve())
        problems: list[Problem] = []
        try:
            tree = parse(read_file(each), str(each), problems, merge_keys=True)
        except ConfigError as error:
            click.echo(str(error), err=True)
            sys.exit(2)
        problems = [problem for problem in problems if tree is None or "duplicate key" not in problem.message]
        if problems or tree is None:
            for problem in problems:
                click.echo(str(problem).replace("; it must start with `version: 1`", ""), err=True)
            sys.exit(2)
        trees.append(tree)
        waiting += [each.parent / name for name in _included(tree)]
    return trees


def _included(tree: Tree) -> list[str]:
    entry = tree.entries.get("include")
    items = entry.node.items if entry and isinstance(entry.node, Sequence) else [entry.node] if entry else []
    return [item.value for item in items if isinstance(item, Scalar) and isinstance(item.value, str)]


def _priced(rows: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The shipped pricing.yaml with these rows: prices of known models are replaced, new rows come last."""
    path = shipped(PRICING)
    if path is None:
        fail("the installed package lacks its pricing.yaml. Reinstall it.")
    source = Source(PRICING, path.read_bytes())
    pricing = read_pricing(source, [], {})
    known = {} if pricing is None else pricing.models
    changed = {
        name: convert({**_builtins(known[name]), **row}, ModelPrice) for name, row in rows.items() if name in known
    }
    today = datetime.now(UTC).date()
    try:
        data = with_prices(source, {name: row for name, row in changed.items() if row != known[name]}, today)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    new = [f"  {flow(name)}: {flow(row)}\n" for name, row in rows.items() if name not in known]
    return data if not new else data.rstrip() + b"\n\n  # Of the imported configuration\n" + "".join(new).encode()


def _builtins(row: ModelPrice) -> dict[str, Any]:
    return {name: value for name, value in to_builtins(row).items() if value is not None}


def _problems(routing: bytes, prices: bytes | None) -> list[Problem]:
    """The problems that would prevent a server from starting with these files."""
    path = shipped(PRICING)
    if prices is None and path is not None:
        prices = path.read_bytes()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PROXY_")}
    try:
        configure(Source(ROUTING, routing), None if prices is None else Source(PRICING, prices), environ)
    except ConfigError as error:
        return error.problems
    return []


def _report(made: Imported, files: Mapping[Path, bytes], problems: list[Problem], step: str) -> dict[str, Any]:
    counts = {kind: sum(each.kind == kind for each in made.findings) for kind in KINDS}
    return {
        "written": [str(path) for path in files],
        "findings": made.findings,
        "counts": counts,
        "variables": made.variables,
        "problems": problems,
        "next": step,
    }


def _print(made: Imported, files: Mapping[Path, bytes], problems: list[Problem], step: str) -> None:
    for finding in made.findings:
        click.echo(str(finding), err=True)
    for problem in problems:
        click.echo(f"{problem} (fix this in the new file)", err=True)
    for path in files:
        click.echo(f"wrote {path}")
    counts = {kind: sum(each.kind == kind for each in made.findings) for kind in KINDS}
    models = len(made.routing.get("models", {}))
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    providers = amount(len(made.routing["providers"]), "provider")
    click.echo(f"{providers}, {amount(models, 'model')}; {told or 'everything carried over'}")
    if made.variables:
        unset = [name for name in made.variables if not os.environ.get(name)]
        click.echo(f"\nnot set in this environment: {', '.join(unset) or 'nothing'}")
    if counts[ACTION]:
        click.echo("lines with `to do` say what to set")
    click.echo(f"\nnext:\n  {step}")
