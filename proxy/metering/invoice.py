"""Translates: a vendor's bill in CSV and our own costs into the differences per day and model.

Column names are those of the cost exports of OpenAI's and Anthropic's consoles as known in November 2026, or plain
`date, model, cost`. Columns that only detail the rows are listed and ignored; any other is an error, because ignoring
it could mean adding up the wrong numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

from msgspec import Struct

from proxy.schema.records import NANO_PER_USD

DATE = ("date", "day", "usage_date_utc", "usage_date", "start_time_iso", "start_time")
MODEL = ("model", "model_name", "line_item")
COST = ("cost", "cost_usd", "amount_value", "amount_usd", "amount")
CURRENCY = ("currency", "amount_currency")
_DETAILS = frozenset(
    (
        *("end_time", "end_time_iso", "start_time", "organization_id", "organization_name", "project_id"),
        *("project_name", "user_id", "user_email", "quantity", "workspace", "workspace_id", "api_key", "api_key_id"),
        *("usage_type", "token_type", "context_window", "cost_type", "service_tier", "inference_geo", "description"),
        *("list_price_usd", "input_tokens", "output_tokens", "requests", "num_model_requests"),
    )
)
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|20\d{6})$")


class BadInvoice(Exception):
    """The file cannot be read as a bill; the message says where and why."""


class Difference(Struct, frozen=True):
    """One day and model: nano-USD by our rows and by the bill. None: only the other side has it."""

    day: str
    model: str
    ours_nano: int | None
    billed_nano: int | None

    @property
    def nano(self) -> int:
        return (self.billed_nano or 0) - (self.ours_nano or 0)


def read_invoice(data: bytes) -> dict[tuple[str, str], int]:
    """Nano-USD by UTC day and model, summed. Raises BadInvoice."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        date, model, cost = (_column(columns, names) for names in (DATE, MODEL, COST))
        unknown = sorted(columns.keys() - {*DATE, *MODEL, *COST, *CURRENCY, *_DETAILS})
        if unknown:
            raise BadInvoice(f"unknown columns: {', '.join(unknown)}. Remove them, or name them date, model, cost.")
        currency = next((columns[name] for name in CURRENCY if name in columns), None)
        billed: dict[tuple[str, str], int] = {}
        for row in reader:
            if currency is not None and (row[currency] or "usd").strip().lower() != "usd":
                raise BadInvoice(f"line {reader.line_num}: expected US dollars, not {row[currency]!r}.")
            key = (_day(row[date], reader.line_num), (row[model] or "").partition(",")[0].strip())
            billed[key] = billed.get(key, 0) + _nano(row[cost], reader.line_num)
        return billed
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInvoice(f"not a CSV file: {error}.") from None


def compared(
    ours: Mapping[tuple[str, str, str], int | None], billed: Mapping[tuple[str, str], int]
) -> list[Difference]:
    """Every day and model of the bill or of our rows. A model may be named with its provider, and with a date."""
    undated = {(day, _DATED.sub("", name)): name for day, name in billed}
    sums: dict[tuple[str, str], int] = {}
    for (day, provider, model), cost_nano in ours.items():
        named = (name for name in (f"{provider}/{model}", model) if (day, name) in billed)
        name = next(named, undated.get((day, _DATED.sub("", model)), model))
        sums[day, name] = sums.get((day, name), 0) + (cost_nano or 0)
    return [Difference(*key, sums.get(key), billed.get(key)) for key in sorted(sums.keys() | billed.keys())]


def _column(columns: Mapping[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in columns:
            return columns[name]
    raise BadInvoice(f"there is no column for the {names[0]}. Known names: {', '.join(names)}.")


def _day(text: str | None, line: int) -> str:
    given = (text or "").strip()
    try:
        if given.isdecimal():
            return datetime.fromtimestamp(int(given), UTC).date().isoformat()
        moment = datetime.fromisoformat(given.replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError):
        raise BadInvoice(f"line {line}: expected a date like 2026-11-22, not {given[:40]!r}.") from None
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date().isoformat()


def _nano(text: str | None, line: int) -> int:
    given = (text or "").strip().removeprefix("$")
    try:
        value = Decimal(given)
        if not value.is_finite() or abs(value) > 10**9:
            raise InvalidOperation
    except InvalidOperation:
        raise BadInvoice(f"line {line}: expected an amount in US dollars, not {given[:40]!r}.") from None
    return round(value * NANO_PER_USD)
