"""Performs I/O: the spend of the budgets, for commands that run without a server."""

from __future__ import annotations

from proxy.config import Config
from proxy.metering.standing import Spending
from proxy.storage.sqlite import SqliteStore, sqlite_path


def spending_of(config: Config) -> Spending:
    """The spend in the database; empty if there is no budget or no database. Raises StoreError."""
    path = sqlite_path(config.storage.url)
    return SqliteStore(path).spending() if config.budget is not None and path.is_file() else {}
