"""Values: the contract between the ledger and a store, so that another database can replace SQLite.

A store is synchronous. The ledger calls `open`, `write`, `sweep` and `close` from its writer thread only; `usage` may
be called from any thread, also while the writer is busy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct, field

from proxy.schema.records import AttemptOpen, UsageQuery
from proxy.storage.batch import Batch


class StoreError(Exception):
    """The store cannot be opened, read or written.

    A write that raises it was not kept, or was kept although its answer was lost: the same batch may be written again.
    The message is for the operator: it names the place and the fix. It is never shown to callers.
    """


class TooSlow(StoreError):
    """A query was given up before it was done."""


class Refusal(Exception):
    """The store works, and did not admit one attempt. Its subclasses say why."""


class RowRefused(Refusal):
    """A row that no store can keep: a used id, a value out of range."""


class Answers(Struct):
    """What a store refused of a batch; normally nothing. Everything else is committed.

    `admissions`, by attempt id: this attempt must not be sent, and has no row. `calls`, by call id: the end of this
    call, or all of its rows, could not be written.
    """

    admissions: dict[str, Refusal] = field(default_factory=dict)
    calls: dict[str, Refusal] = field(default_factory=dict)

    def to(self, attempt: AttemptOpen) -> Refusal | None:
        """The answer to one admission; None: it is committed."""
        return self.admissions.get(attempt.id) or self.calls.get(attempt.call_id)


class Store(Protocol):
    """Keeps calls and attempts, and knows which process owns the calls that are still open."""

    def open(self) -> None:
        """Connects, brings the schema up to date and registers this process as an owner. Raises StoreError."""
        ...

    def write(self, batch: Batch) -> Answers:
        """Commits a batch in one transaction; says what was refused of it.

        Writing the same batch twice is writing it once. An empty batch writes too: it tells whether the store works
        again. A store that lost its connection connects anew. Raises StoreError within a bounded time.
        """
        ...

    def sweep(self, now_ns: int) -> int:
        """Closes the open calls of dead owners as `unknown`, at the cost of their holds; returns how many.

        Raises StoreError.
        """
        ...

    def usage(self, query: UsageQuery, give_up: Callable[[], bool]) -> dict[str, Any]:
        """`{"total": {...}, "groups": [...]}` as in `GET /v1/usage`. `give_up` is asked often while the query runs.

        Raises TooSlow once `give_up` says so, StoreError, and BadRequest for an unknown group.
        """
        ...

    def close(self) -> None:
        """Disconnects and signs off as an owner. Safe to call twice, or after `open` failed."""
        ...
