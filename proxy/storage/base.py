"""Values: the contract between the ledger and a store, so that another database can stand in for SQLite.

A store is synchronous. The ledger calls `open`, `write`, `sweep` and `close` from its writer thread only; `usage` may
be called from any thread, also while the writer is busy.
"""

from __future__ import annotations

from typing import Any, Protocol

from proxy.schema.records import UsageQuery
from proxy.storage.batch import Batch


class StoreError(Exception):
    """The store cannot be opened, read or written; nothing of the refused transaction was kept.

    The message is for the operator: it names the place and the fix. It is never shown to callers.
    """


class RowRefused(Exception):
    """One call's rows were refused (a used id, a value out of range) while the store itself works."""


class Store(Protocol):
    """Keeps calls and attempts, and knows which process owns the calls that are still open."""

    def open(self) -> None:
        """Connects, brings the schema up to date and takes this process's owner lock. Raises StoreError."""
        ...

    def write(self, batch: Batch) -> dict[str, str]:
        """Commits a batch in one transaction; returns the calls whose rows were refused, id to reason (normally none).

        All or nothing but for those calls. An empty batch writes too: it tells whether the store works again. A store
        that lost its connection connects anew. Raises StoreError within a bounded time.
        """
        ...

    def sweep(self, now_ns: int) -> int:
        """Closes the open calls of dead owners as `unknown`, at the cost of their holds; returns how many.

        Raises StoreError.
        """
        ...

    def usage(self, query: UsageQuery) -> dict[str, Any]:
        """`{"total": {...}, "groups": [...]}` as in `GET /v1/usage`.

        Raises StoreError, and BadRequest for an unknown group.
        """
        ...

    def close(self) -> None:
        """Disconnects and gives up the owner lock. Safe to call twice, or after `open` failed."""
        ...
