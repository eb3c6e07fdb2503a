"""Performs I/O: completes model names in a shell, from the two files. Asks no server."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click


def complete_models(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The names with this prefix; none if the files do not load."""
    from proxy.cli.settings import config_files  # lazy: most completions need no names
    from proxy.config import ConfigError  # lazy: as above
    from proxy.config.namespace import build_names  # lazy: as above
    from proxy.metering.price_book import PriceBook  # lazy: as above

    try:
        config = config_files(ctx.params, os.environ).load()
    except ConfigError:
        return []
    return [
        name for name in build_names(config, PriceBook(config.pricing, {}), {}).names() if name.startswith(incomplete)
    ]


def model_option(**extra: Any) -> Callable[..., Any]:
    """`-m, --model`, whose values a shell completes."""
    return click.option("-m", "--model", shell_complete=complete_models, **extra)
