"""Values: the contract between the ledger and a store, so that another database can replace SQLite.

A store is synchronous. The ledger calls `open`, `write`, `sweep` and `close` from its writer thread only; reads and
`rate` may be called from any thread, even while the writer is busy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct, field

from proxy.schema.ensembles import EnsembleCall, EnsembleQuery, Rating, StoredRating
from proxy.schema.queries import CallDetails, LogQuery, UsageQuery
from proxy.schema.records import AttemptOpen, Charge, PastCall
from proxy.storage.batch import Batch


class StoreError(Exception):
    """The store cannot be opened, read or written.

    A write that raises it may or may not be committed, so the same batch may be written again. The message is for the
    operator: it names the place and the fix. Callers never see it.
    """


class StoreBusy(StoreError):
    """Another process has locked the store, temporarily."""


class TooSlow(StoreError):
    """A query was cancelled because it took too long."""


class Refusal(Exception):
    """The store works, but did not admit an attempt. Subclasses give the reason."""


class RowRefused(Refusal):
    """A row that no store accepts: a used id, a value out of range."""


class Room(Struct, frozen=True):
    """A budget window without room for an attempt. Money is nano-USD; `bound_nano`: the amount that the attempt would
    add.

    `is_soft`: the limit of calls that are not downgraded. `is_of_attempt`: a budget of the provider or the model.
    """

    charge: Charge
    limit_nano: int
    spent_nano: int
    held_nano: int
    bound_nano: int
    is_soft: bool
    is_of_attempt: bool

    @property
    def left_nano(self) -> int:
        return self.limit_nano - self.spent_nano - self.held_nano


class BudgetRefused(Refusal):
    """The attempt does not fit a budget."""

    def __init__(self, room: Room) -> None:
        super().__init__(f"the budget {room.charge.budget} has no room")
        self.room = room


class Answers(Struct):
    """The refused parts of a batch, normally none. Everything else is committed.

    `admissions`, by attempt id: the attempt has no row and must not be sent. `calls`, by call id: the end of the call,
    or all of its rows, could not be written. `spending`: (spent, reserved) in nano-USD of the budget windows that the
    batch changed, by budget and start.
    """

    admissions: dict[str, Refusal] = field(default_factory=dict)
    calls: dict[str, Refusal] = field(default_factory=dict)
    spending: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    def to(self, attempt: AttemptOpen) -> Refusal | None:
        """The answer to one admission; None: it is committed."""
        return self.admissions.get(attempt.id) or self.calls.get(attempt.call_id)


class Store(Protocol):
    """Stores calls and attempts, and tracks which process owns the open calls."""

    def open(self) -> None:
        """Connects, brings the schema up to date and registers this process as an owner. Raises StoreError."""
        ...

    def write(self, batch: Batch) -> Answers:
        """Commits a batch in one transaction; returns the refused parts.

        Idempotent: the same batch may be written twice. An empty batch writes too, to test whether the store works
        again. A store that lost its connection reconnects. Raises StoreError within a bounded time.
        """
        ...

    def spending(self, give_up: Callable[[], bool]) -> dict[tuple[str, int], tuple[int, int]]:
        """(spent, reserved) in nano-USD of all budget windows, by budget and start. Raises as `usage` does."""
        ...

    def sweep(self, now_ns: int) -> int:
        """Closes the open calls of dead owners as `unknown`, charged with their holds; returns their number.

        Raises StoreError.
        """
        ...

    def usage(self, query: UsageQuery, give_up: Callable[[], bool]) -> dict[str, Any]:
        """`{"total": {...}, "groups": [...]}` as in `GET /v1/usage`. `give_up` is polled while the query runs.

        Raises TooSlow once `give_up` returns true, StoreError, and BadRequest for an unknown group.
        """
        ...

    def call(self, call_id: str, key_id: str | None, give_up: Callable[[], bool]) -> dict[str, Any] | None:
        """One call with the rows of its attempts; None if there is none, or it belongs to another key (None: any key).

        Raises TooSlow and StoreError, as `usage` does.
        """
        ...

    def details(self, call_id: str, give_up: Callable[[], bool]) -> CallDetails:
        """What is kept of a call besides its row; empty if there is none. Raises as `call` does."""
        ...

    def log(self, query: LogQuery, give_up: Callable[[], bool]) -> list[dict[str, Any]]:
        """The calls that match the query, newest first, each with `opened_ns`; one more than its limit if there are
        more. Raises as `call` does.
        """
        ...

    def latest(self, count: int, give_up: Callable[[], bool]) -> list[PastCall]:
        """The last `count` calls that reached a provider, newest first. Raises as `call` does."""
        ...

    def ensemble_calls(self, query: EnsembleQuery, give_up: Callable[[], bool]) -> list[EnsembleCall]:
        """The last calls of an ensemble, newest first; one more than the limit if there are more. Raises as `call`
        does.
        """
        ...

    def rate(self, rating: Rating, key_id: str | None, now_ns: int) -> StoredRating | None:
        """Stores a rating of a call of this key (None: any key). Returns it as stored; None: there is no such call.

        Raises RowRefused if the call has too many, and StoreError within a bounded time.
        """
        ...

    def close(self) -> None:
        """Disconnects and unregisters as an owner. Safe to call twice, or after `open` failed."""
        ...
