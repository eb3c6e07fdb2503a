"""Translates: the spend of a committed batch into the shares of budgets that it reached. Pure.

Only the ledger's writer thread calls `found`, after each commit that ended something.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.metering.standing import Spending, figures
from proxy.schema.records import Charge, Crossing
from proxy.storage.batch import Batch

_MAX_SEEN = 4096  # windows; a forgotten window is found again, and the database knows that it was reported


class Crossings:
    """The shares that this process has found already, by window and limit."""

    def __init__(self) -> None:
        self.shares: tuple[float, ...] = ()  # of a limit, ascending; empty: nothing is watched
        self._seen: dict[tuple[str, int, int], float] = {}

    def watch(self, shares: Iterable[float]) -> None:
        """Watches these shares from now on."""
        self.shares = tuple(sorted({*shares}))

    def found(self, batch: Batch, spending: Spending) -> list[Crossing]:
        """The shares reached in the windows of the batch that this process has not found before."""
        if not self.shares or not (batch.closed or batch.ended):
            return []
        charges = {id(each): each for each in (*batch.charges.values(), *batch.attempt_charges.values())}
        return [crossing for each in charges.values() for charge in each for crossing in self._of(charge, spending)]

    def _of(self, charge: Charge, spending: Spending) -> list[Crossing]:
        limit_nano = charge.hard_nano if charge.soft_nano is None else charge.soft_nano
        spent_nano, _ = figures(charge, spending)
        if spent_nano < self.shares[0] * limit_nano or not limit_nano:
            return []
        window = (charge.budget, charge.start_ns, limit_nano)
        seen = self._seen.get(window, -1.0)
        reached = [share for share in self.shares if share > seen and spent_nano >= share * limit_nano]
        if reached:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen[window] = reached[-1]
        return [
            Crossing(charge.budget, charge.start_ns, charge.since_ns, share, spent_nano, limit_nano, charge.resets_ns)
            for share in reached
        ]
