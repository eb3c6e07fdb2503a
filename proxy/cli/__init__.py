"""The command line: `proxy`, also installed as `mmproxy`.

Exit codes: 0 done; 1 the command ran and found a problem; 2 it could not run (bad option, bad file, port in use).
"""

from __future__ import annotations

import click

from proxy import __version__
from proxy.cli.ask import ask
from proxy.cli.check import check
from proxy.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="proxy")
def main() -> None:
    """One OpenAI-compatible endpoint in front of every provider, metered from the first request."""


main.add_command(serve)
main.add_command(ask)
main.add_command(check)
