"""Translates: rows into CSV that is safe to open in a spreadsheet: nothing in it is executed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec.json import encode

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: full width


def csv_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One line of names, then one line for each row. Lists and objects are JSON, unknown values are empty.

    Clients choose texts such as tags. One that a spreadsheet would take for a formula gets an apostrophe in front, as
    OWASP advises (https://owasp.org/www-community/attacks/CSV_Injection, checked in November 2026).
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")  # money to the nano-dollar, and no exponent
    if isinstance(value, list | dict):
        value = encode(value).decode()
    return "'" + value if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) else value
