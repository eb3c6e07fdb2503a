"""Performs I/O: the schema of the SQLite store, forward only. A step is a function `mNNN_what(db)`, never edited later.

All pending steps and the new version number (`PRAGMA user_version`) are one transaction. So a crash or a full disk
leaves the schema unchanged, and if several processes start together, one migrates and the others find it done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from sqlite_utils import Database

from proxy.storage.base import StoreError
from proxy.storage.experiment_tables import m027_experiments
from proxy.storage.outcome_tables import m023_ensemble_calls, m024_feedback
from proxy.storage.prompt_tables import m026_prompts
from proxy.storage.rollup_table import m018_rollups, m025_charges, sum_all
from proxy.storage.sums import keep_sums
from proxy.storage.upkeep_tables import m019_clean_ups, m020_alerts, m021_call_texts, m022_use_of_spending


def m001_calls(db: Database) -> None:
    """One row per call."""
    # Rows are appended in time order, so a time range is a page range. STRICT: a text is never a number.
    db.table("calls").create(
        {
            "id": str,
            "opened_ns": int,
            "closed_ns": int,
            "owner": str,
            "key_id": str,
            "requested_model": str,
            "provider": str,
            "model": str,
            "stream": int,
            "task_type": str,
            "config_version": str,
            "outcome": str,
            "status": int,
            "error_code": str,
            "input_tokens": int,
            "output_tokens": int,
            "total_tokens": int,
            "cached_tokens": int,
            "cache_write_tokens": int,
            "reasoning_tokens": int,
            "cost_nano": int,
            "hold_nano": int,
            "estimated": int,
            "latency_ms": float,
            "first_token_ms": float,
            "fallback": int,
            "attempts": int,
            "success": int,
            "dropped": str,
        },
        pk="id",
        not_null={"id", "opened_ns", "owner", "requested_model", "stream", "outcome"},
        defaults=dict.fromkeys(_COUNTS, 0),
        strict=True,
    )
    db.table("calls").create_index(["opened_ns"])
    # For sweeps, by owner. It contains only open calls, so it stays a page or two.
    db.execute("CREATE INDEX calls_open ON calls (owner) WHERE closed_ns IS NULL")


def m002_attempts(db: Database) -> None:
    """Attempts, and the view `usage_log` for use in a database shell."""
    # One b-tree, no other index: attempts are only reached through their calls. No foreign key: one writer writes both
    # rows in one transaction, and enforcement would cost a look-up per row.
    db.execute(
        """
        CREATE TABLE attempts (
            call_id TEXT NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
            opened_ns INTEGER NOT NULL, closed_ns INTEGER, hold_nano INTEGER, price_version TEXT, outcome TEXT NOT NULL,
            status INTEGER, error_code TEXT, input INTEGER NOT NULL DEFAULT 0, cache_read INTEGER NOT NULL DEFAULT 0,
            cache_write INTEGER NOT NULL DEFAULT 0, output INTEGER NOT NULL DEFAULT 0,
            reasoning INTEGER NOT NULL DEFAULT 0, usage_source TEXT, cost_nano INTEGER, duration_ms REAL,
            first_token_ms REAL, upstream_request_id TEXT,
            PRIMARY KEY (call_id, seq)
        ) STRICT, WITHOUT ROWID
        """
    )
    db.create_view(
        "usage_log",
        """
        SELECT strftime('%Y-%m-%dT%H:%M:%fZ', opened_ns / 1e9, 'unixepoch') AS timestamp,
            id, key_id, requested_model, model, provider, input_tokens, output_tokens, total_tokens, cached_tokens,
            reasoning_tokens, cost_nano / 1e9 AS cost_usd, latency_ms, first_token_ms, task_type, stream, attempts,
            fallback, success, outcome, status, error_code
        FROM calls ORDER BY opened_ns
        """,
    )


def m003_keys(db: Database) -> None:
    """Keys made by `proxy keys`, by SHA-256. Revoked keys stay, so that their names keep their meaning."""
    # The only index needed is that of `digest`; listing reads all rows.
    db.execute(
        """
        CREATE TABLE keys (
            id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, last4 TEXT NOT NULL, models TEXT,
            created_ns INTEGER NOT NULL, expires_ns INTEGER, revoked_ns INTEGER, digest BLOB NOT NULL UNIQUE
        ) STRICT
        """
    )


def m004_parts_of_usage(db: Database) -> None:
    """Further billed units, so that an attempt can be priced again from its row."""
    # SQLite adds a column with a constant default without touching a row.
    for column in ("cache_write_1h", "searches"):
        db.execute("ALTER TABLE attempts ADD COLUMN " + column + " INTEGER NOT NULL DEFAULT 0")


def m005_reasoning_states(db: Database) -> None:
    """Models' reasoning before tool calls, encrypted, for an hour (storage/reasoning_states.py)."""
    db.execute(
        """
        CREATE TABLE reasoning_states (
            caller TEXT NOT NULL, tool_call_id TEXT NOT NULL, kept_ns INTEGER NOT NULL, size INTEGER NOT NULL,
            sealed BLOB NOT NULL, PRIMARY KEY (caller, tool_call_id)
        ) STRICT
        """
    )
    # Counting and dropping the oldest read these indexes only, never the states.
    db.execute("CREATE INDEX reasoning_states_by_caller ON reasoning_states (caller, kept_ns, size)")
    db.execute("CREATE INDEX reasoning_states_by_age ON reasoning_states (kept_ns, size)")


def m006_attempt_tree(db: Database) -> None:
    """The attempt that caused an attempt, and its seat among concurrent ones."""
    # An attempt is only reached through its call, so a tree needs no index.
    db.execute("ALTER TABLE attempts ADD COLUMN parent TEXT")
    db.execute("ALTER TABLE attempts ADD COLUMN seat INTEGER NOT NULL DEFAULT 0")


def m007_owners(db: Database) -> None:
    """Writing processes, each with the time of its last heartbeat."""
    db.execute("CREATE TABLE owners (id TEXT PRIMARY KEY NOT NULL, renewed_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID")


def m008_sums_of_reasoning_states(db: Database) -> None:
    """Number and bytes of states, in total and per caller, maintained by triggers."""
    # So a write need not count rows under the write lock. Callers' scopes have a prefix, since a caller may be "all".
    db.execute(
        """
        CREATE TABLE reasoning_state_sums (
            scope TEXT PRIMARY KEY NOT NULL, states INTEGER NOT NULL, bytes INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute(
        """
        INSERT INTO reasoning_state_sums
        SELECT 'of ' || caller, COUNT(*), SUM(size) FROM reasoning_states GROUP BY caller
        UNION ALL SELECT 'all', COUNT(*), IFNULL(SUM(size), 0) FROM reasoning_states
        """
    )
    keep_sums(db, "reasoning_states", "reasoning_state_sums", "states")


def m009_decisions(db: Database) -> None:
    """How each call got its route."""
    for column in ("step", "rule", "strategy", "facts", "snapshot"):
        db.execute("ALTER TABLE calls ADD COLUMN " + column + " TEXT")


def m010_configurations(db: Database) -> None:
    """The configurations that servers have run; `applied_ns` null: replaced before any server ran it."""
    db.execute(
        """
        CREATE TABLE configurations (
            version TEXT PRIMARY KEY NOT NULL, applied_ns INTEGER, routing BLOB NOT NULL, pricing BLOB
        ) STRICT
        """
    )


def m011_labels(db: Database) -> None:
    """What clients say that calls belong to. `tags` is a JSON array."""
    for column in ("tags", "session", "agent", "parent_agent"):
        db.execute("ALTER TABLE calls ADD COLUMN " + column + " TEXT")


def m012_budgets(db: Database) -> None:
    """What is spent and held in each budget window; the windows of open calls and attempts."""
    db.execute(
        """
        CREATE TABLE spending (
            budget TEXT NOT NULL, start_ns INTEGER NOT NULL, spent_nano INTEGER NOT NULL,
            reserved_nano INTEGER NOT NULL, PRIMARY KEY (budget, start_ns)
        ) STRICT, WITHOUT ROWID
        """
    )
    for table, column in (("calls", "charges"), ("calls", "downgraded_from"), ("attempts", "charges")):
        db.execute("ALTER TABLE " + table + " ADD COLUMN " + column + " TEXT")
    db.execute("ALTER TABLE calls ADD COLUMN charged_nano INTEGER")


def m013_sticky_moves(db: Database) -> None:
    """Conversations that left their first choice, while they are warm (storage/sticky_moves.py)."""
    # AUTOINCREMENT: a number is never used twice, also after the newest row has been dropped.
    db.execute(
        """
        CREATE TABLE sticky_moves (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL UNIQUE, model TEXT NOT NULL,
            tokens INTEGER NOT NULL, until_ns INTEGER NOT NULL
        ) STRICT
        """
    )
    db.execute("CREATE INDEX sticky_moves_by_end ON sticky_moves (until_ns)")


def m014_candidates(db: Database) -> None:
    """The candidates of each decision, with their order, costs and reasons."""
    db.execute("ALTER TABLE calls ADD COLUMN candidates TEXT")


def m015_billed_parts(db: Database) -> None:
    """What the cost of an attempt follows from beside its tokens: terms of service, audio and images, another model."""
    for column in ("input_audio", "input_image", "cache_read_audio", "output_audio", "output_image"):
        db.execute("ALTER TABLE attempts ADD COLUMN " + column + " INTEGER NOT NULL DEFAULT 0")
    # `service_tier`: terms of the price, joined by "+". `others`: JSON, the parts of each further model. `raw_usage`:
    # JSON that was not believed.
    for column in ("service_tier", "answered_model", "others", "raw_usage"):
        db.execute("ALTER TABLE attempts ADD COLUMN " + column + " TEXT")
    db.execute("ALTER TABLE attempts ADD COLUMN provider_cost_nano INTEGER")


def m016_kept_answers(db: Database) -> None:
    """Answers that are kept for repeats, encrypted (storage/kept_answers.py), and which calls are such repeats."""
    db.execute(
        """
        CREATE TABLE kept_answers (
            caller TEXT NOT NULL, name BLOB NOT NULL, request BLOB NOT NULL, call_id TEXT NOT NULL,
            owner TEXT NOT NULL, state TEXT NOT NULL, kept_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
            size INTEGER NOT NULL, sealed BLOB, PRIMARY KEY (caller, name)
        ) STRICT
        """
    )
    # Dropping reads these indexes only, never the answers.
    db.execute("CREATE INDEX kept_answers_by_caller ON kept_answers (caller, kept_ns, size) WHERE state <> 'open'")
    db.execute("CREATE INDEX kept_answers_by_age ON kept_answers (kept_ns, size) WHERE state <> 'open'")
    db.execute("CREATE INDEX kept_answers_by_end ON kept_answers (expires_ns)")
    db.execute("CREATE INDEX kept_answers_open ON kept_answers (owner) WHERE state = 'open'")
    db.execute(
        """
        CREATE TABLE kept_answer_sums (
            scope TEXT PRIMARY KEY NOT NULL, answers INTEGER NOT NULL, bytes INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID
        """
    )
    db.execute("INSERT INTO kept_answer_sums VALUES ('all', 0, 0)")
    keep_sums(db, "kept_answers", "kept_answer_sums", "answers")


def m017_replays(db: Database) -> None:
    """The call whose answer a call got again, without a request to a provider."""
    db.execute("ALTER TABLE calls ADD COLUMN replay_of TEXT")


def m028_error_messages(db: Database) -> None:
    """What a provider said of a failed attempt, without texts of the request."""
    db.execute("ALTER TABLE attempts ADD COLUMN error_message TEXT")


_PATIENCE = "PRAGMA busy_timeout = 600000"  # for another process that migrates: a million calls take it seconds
_COUNTS = (
    *("input_tokens", "output_tokens", "total_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("estimated", "fallback", "attempts", "success"),
)

MIGRATIONS: tuple[Callable[[Database], None], ...] = (
    m001_calls,
    m002_attempts,
    m003_keys,
    m004_parts_of_usage,
    m005_reasoning_states,
    m006_attempt_tree,
    m007_owners,
    m008_sums_of_reasoning_states,
    m009_decisions,
    m010_configurations,
    m011_labels,
    m012_budgets,
    m013_sticky_moves,
    m014_candidates,
    m015_billed_parts,
    m016_kept_answers,
    m017_replays,
    m018_rollups,
    m019_clean_ups,
    m020_alerts,
    m021_call_texts,
    m022_use_of_spending,
    m023_ensemble_calls,
    m024_feedback,
    m025_charges,
    m026_prompts,
    m027_experiments,
    m028_error_messages,
)


def migrate(connection: sqlite3.Connection, steps: tuple[Callable[[Database], None], ...] = MIGRATIONS) -> None:
    """Brings the schema up to date. Raises StoreError for a newer schema than ours, and sqlite3.Error."""
    if _version(connection) == len(steps):
        return
    patience_ms = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute(_PATIENCE)
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)
        if version > len(steps):
            raise StoreError(f"it was made by a newer version of this program (schema {version}, known: {len(steps)})")
        db = Database(connection, recursive_triggers=False, execute_plugins=False)
        for step in steps[version:]:
            step(db)
        if m018_rollups in steps[version:]:
            sum_all(connection)
        # A pragma takes no parameters; the number is our own.
        connection.execute("PRAGMA user_version = " + str(len(steps)))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute("PRAGMA busy_timeout = " + str(patience_ms))


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
