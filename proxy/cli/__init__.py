"""The command line: `proxy`, also installed as `mmproxy`.

Each command is a module here, loaded when it is called: help, completion and light commands do not wait for the web
framework.
Exit codes: 0 done; 1 the command ran and found a problem; 2 it could not run (bad option, bad file, port in use).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

from proxy import __version__

COMMANDS = {  # the first sentence of each, so that a list of them loads none of them
    "ask": "Ask QUESTION and stream the answer.",
    "check": "Check routing_rules.yaml and pricing.yaml without serving.",
    "completion": "Print the script that completes commands and options.",
    "conformance": "Check what a model, or a server, does of OpenAI's wire.",
    "init": "Write routing_rules.yaml and pricing.yaml to start from.",
    "keys": "Make, list and revoke the keys of this proxy.",
    "models": "List the names that can be called, as /v1/models does.",
    "prices": "Compare pricing.yaml with the bundled price list.",
    "providers": "List the providers: which are on, and why the others are off.",
    "schema": "Print the JSON Schema of a file, for editors.",
    "serve": "Serve the OpenAI-compatible endpoint.",
    "usage": "Say what was used, and what it cost.",
}


class Deferred(click.Command):
    """A command that is known by its name and its first sentence until somebody calls it."""

    def loaded(self) -> click.Command:
        """The command itself: of the module that has its name, what has its name."""
        command: click.Command = getattr(import_module(f"{__name__}.{self.name}"), str(self.name))
        return command

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        return self.loaded().make_context(*arguments, **extra)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    commands={name: Deferred(name, help=summary) for name, summary in COMMANDS.items()},
)
@click.version_option(__version__, prog_name="proxy")
@click.pass_context
def main(ctx: click.Context) -> None:
    """One OpenAI-compatible endpoint in front of every provider, metered from the first request."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
