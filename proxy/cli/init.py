"""`proxy init`: writes the two starter files. They work unedited: a provider is on as soon as its API key is set."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from proxy.cli.output import json_option, print_json
from proxy.cli.provider_types import states
from proxy.cli.settings import fail
from proxy.config import Config, ConfigError, find_files, load
from proxy.config.files import PRICING, ROUTING, shipped, write_file


@click.command()
@click.option("--dir", "folder", metavar="DIR", default=".", help="Target directory (default: the current one).")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@json_option
def init(folder: str, force: bool, as_json: bool) -> None:
    """Write a starter routing_rules.yaml and pricing.yaml.

    These are the shipped files. A provider is on as soon as its API key is set in the environment.
    """
    routing, pricing = (Path(folder) / name for name in (ROUTING, PRICING))
    there = [str(path) for path in (routing, pricing) if path.exists() or path.is_symlink()]
    if there and not force:
        fail(f"{' and '.join(there)} would be overwritten. --force replaces them, --dir selects another folder.")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for path in (routing, pricing):
            write_file(path, _shipped(path.name))
        config = load(routing, pricing, os.environ)
    except OSError as error:
        fail(f"cannot write to {folder}: {(error.strerror or type(error).__name__).lower()}")
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    step = next_step(routing, pricing)
    if as_json:
        print_json({"written": [str(routing), str(pricing)], "providers": states(config), "next": step})
    else:
        _print(config, [routing, pricing], step)


def _shipped(name: str) -> bytes:
    source = shipped(name)
    if source is None:
        fail(f"the installed package lacks its {name}. Reinstall it.")
    return source.read_bytes()


def next_step(routing: Path, pricing: Path | None, command: str = "serve") -> str:
    """The command that uses these files, wherever it would otherwise look. Without `pricing`: with the shipped one."""
    found = find_files(None, None, os.environ, Path.cwd())
    expected = (Path.cwd() / routing, found[1] if pricing is None else Path.cwd() / pricing)
    if found == expected:
        return f"proxy {command}"
    prices = "" if pricing is None else f" --pricing {shlex.quote(str(pricing))}"
    return f"proxy {command} --config {shlex.quote(str(routing))}{prices}"


def _print(config: Config, written: list[Path], step: str) -> None:
    for path in written:
        click.echo(f"wrote {path}")
    found = states(config)
    on = [name for name, state in found.items() if state["state"] == "on"]
    click.echo(f"\non: {', '.join(on) or 'nothing'}")
    for name, state in found.items():
        if state["state"] == "off":
            click.echo(f"off: {name}: {state['why']}")
    click.echo(f"\nnext:\n  {step}")
