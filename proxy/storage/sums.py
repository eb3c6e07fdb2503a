"""Performs I/O: triggers that maintain the number and the bytes of a table's rows. Migrations use it: never edit it."""

from __future__ import annotations

from sqlite_utils import Database

_SUM_TRIGGER = """
    CREATE TRIGGER {table}_after_{event} AFTER {event} ON {table}
    BEGIN
        INSERT INTO {sums} (scope, {count}, bytes) VALUES ('of ' || {row}.caller, {rows}, {size})
        ON CONFLICT (scope) DO UPDATE SET {count} = {count} + excluded.{count}, bytes = bytes + excluded.bytes;
        UPDATE {sums} SET {count} = {count} + {rows}, bytes = bytes + {size} WHERE scope = 'all';
    END
"""
_EMPTY_TRIGGER = """
    CREATE TRIGGER {sums}_empty AFTER UPDATE ON {sums}
    WHEN NEW.{count} = 0 AND NEW.scope <> 'all'
    BEGIN DELETE FROM {sums} WHERE scope = NEW.scope; END
"""


def keep_sums(db: Database, table: str, sums: str, count: str) -> None:
    """Maintains number and size of rows, in total and per caller, by triggers.

    Rows are written by upsert: `INSERT OR REPLACE` would replace a row without firing the triggers.
    """
    for event, row, rows, size in (
        ("INSERT", "NEW", "1", "NEW.size"),
        ("DELETE", "OLD", "-1", "-OLD.size"),
        ("UPDATE", "NEW", "0", "NEW.size - OLD.size"),
    ):
        parts = {"{event}": event, "{row}": row, "{rows}": rows, "{size}": size}
        _execute(db, _SUM_TRIGGER, {**parts, "{table}": table, "{sums}": sums, "{count}": count})
    _execute(db, _EMPTY_TRIGGER, {"{sums}": sums, "{count}": count})


def _execute(db: Database, statement: str, parts: dict[str, str]) -> None:
    for place, text in parts.items():
        statement = statement.replace(place, text)
    db.execute(statement)
