"""The command line: `proxy`, also installed as `mmproxy`.

Each command is a module in this package, loaded only when it runs. Help, completion and light commands therefore do not
wait for the web framework.
Exit codes: 0 done; 1 the command ran and found a problem; 2 it could not run (bad option, bad file, port in use).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

from proxy import __version__

COMMANDS = {  # name -> first sentence of its help, so that listing the commands loads none of them
    "ask": "Ask QUESTION and stream the answer.",
    "check": "Check routing_rules.yaml and pricing.yaml without starting the server.",
    "completion": "Print the shell completion script.",
    "config": "List past configurations, show them, and restore one.",
    "conformance": "Check how well a model or server conforms to OpenAI's API.",
    "ensembles": "Tell whether an ensemble is worth it.",
    "experiments": "Compare prompts, models and parameters, with a verdict.",
    "explain": "Explain how QUESTION would be routed.",
    "feedback": "Rate the answer of a call.",
    "import": "Turn another gateway's configuration into one of ours.",
    "init": "Write a starter routing_rules.yaml and pricing.yaml.",
    "keys": "Create, list and revoke API keys for this proxy.",
    "models": "List the models you can call, like /v1/models.",
    "plan": "Show what NEW.yaml would change for the last calls: models, cost, capabilities.",
    "prices": "Compare pricing.yaml with the bundled price list.",
    "prompts": "Save, label, render and carry stored prompts.",
    "providers": "List the providers: which are on, and why the others are off.",
    "schema": "Print the JSON Schema of a configuration file, for editors.",
    "serve": "Serve the OpenAI-compatible endpoint.",
    "setup": "Point a coding agent or chat client here.",
    "sites": "List site templates, show one, and find the one that fits.",
    "usage": "Report usage and cost.",
}


_MODULES = {"import": "import_config"}  # a word of the language cannot be a module's name


class Deferred(click.Command):
    """A command whose module is loaded when the command runs; until then only its name and first sentence exist."""

    def loaded(self) -> click.Command:
        """The command itself, from the module of the same name."""
        module = _MODULES.get(str(self.name), str(self.name))
        command: click.Command = getattr(import_module(f"{__name__}.{module}"), module)
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
