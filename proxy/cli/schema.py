"""`proxy schema`: the JSON Schema with which editors complete and explain the keys of the two files."""

from __future__ import annotations

import click

from proxy.cli.output import print_json
from proxy.config.files import key_texts
from proxy.config.json_schema import pricing_schema, routing_schema
from proxy.providers import PROVIDERS


@click.command()
@click.argument("file", type=click.Choice(["routing", "pricing"]))
def schema(file: str) -> None:
    """Print the JSON Schema of a configuration file, for editors.

    \b
    proxy schema routing > routing_rules.schema.json
    Then make this the first line of routing_rules.yaml:
    # yaml-language-server: $schema=routing_rules.schema.json
    """
    texts = key_texts()
    print_json(routing_schema(PROVIDERS, texts) if file == "routing" else pricing_schema(texts))
