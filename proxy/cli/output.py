"""Performs I/O: prints command output, as tables for people and pipes or as JSON for programs. Never wraps or cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from msgspec.json import encode
from msgspec.json import format as indented

_COLOURS = {"on": "green", "ok": "green", "off": "bright_black", "failed": "red"}
_RIGHT = (int, float)


def json_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print only JSON on standard output.")(command)


def print_json(value: object) -> None:
    click.echo(indented(encode(value), indent=2).decode())


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns separated by two spaces, numbers right-aligned, `-` for unknown values.

    Put text that contains spaces in the last column, so that `awk` can find the others. Colours are for terminals only.
    """
    texts = [list(map(format_cell, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
    right = [any(isinstance(row[place], _RIGHT) for row in rows) for place in range(len(headings))]
    click.echo(_line(headings, widths, right))
    for row in texts:
        click.echo(_line(row, widths, right))


def print_budget(windows: Sequence[Mapping[str, Any]]) -> None:
    """One row per window, as `proxy.metering.standing` shows it."""
    names = ("limit_usd", "spent_usd", "held_usd", "left_usd", "projected_usd", "resets_at", "budget")
    print_table([name.upper() for name in names], [[window[name] for name in names] for window in windows])


def amount(count: int, word: str) -> str:
    """`1 warning`, `2 warnings`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def format_cell(value: object) -> str:
    """One table cell on one line, whatever text a server or a file provides; money to the nano-dollar."""
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in str(value))


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if is_right else cell.ljust(width)
        for cell, width, is_right in zip(cells, widths, right, strict=True)
    ]
    padded[-1] = padded[-1].rstrip()
    return "  ".join(
        click.style(text, fg=_COLOURS[cell]) if cell in _COLOURS else text
        for text, cell in zip(padded, cells, strict=True)
    )
