"""`proxy completion`: prints the script with which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_NAMES = ("proxy", "mmproxy")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the shell completion script.

    \b
    bash  eval "$(proxy completion bash)"      in ~/.bashrc
    zsh   eval "$(proxy completion zsh)"       in ~/.zshrc
    fish  proxy completion fish | source       in ~/.config/fish/config.fish
    """
    root = ctx.find_root()
    name = root.info_name if root.info_name in _NAMES else _NAMES[0]
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    click.echo(kind(root.command, {}, name, f"_{name.upper()}_COMPLETE").source())
