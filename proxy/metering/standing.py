"""Translates: charges and the known figures of their windows into how much of each budget is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from proxy.metering.windows import BUCKET_S
from proxy.schema.records import NANO_PER_USD, Charge

Spending = Mapping[tuple[str, int], tuple[int, int]]  # by budget and start: spent, held


class Standing(Struct, frozen=True):
    """One window of a budget now. Money is nano-USD."""

    charge: Charge
    spent_nano: int
    held_nano: int

    @property
    def limit_nano(self) -> int:
        """The limit at which calls are downgraded, or refused."""
        return self.charge.hard_nano if self.charge.soft_nano is None else self.charge.soft_nano

    @property
    def left_nano(self) -> int:
        return max(0, self.limit_nano - self.spent_nano - self.held_nano)

    @property
    def share(self) -> float:
        """The share of the limit that is spent or held; may exceed 1."""
        return (self.spent_nano + self.held_nano) / self.limit_nano if self.limit_nano else 1.0


def standing(charges: Iterable[Charge], spending: Spending) -> list[Standing]:
    """Each window, by the latest figures that this process knows."""
    return [Standing(charge, *figures(charge, spending)) for charge in charges]


def figures(charge: Charge, spending: Spending) -> tuple[int, int]:
    """Spent and held in the charge's window."""
    if charge.since_ns == charge.start_ns:
        return spending.get((charge.budget, charge.start_ns), (0, 0))
    starts = range(charge.since_ns, charge.start_ns + 1, BUCKET_S * NANO_PER_USD)
    found = [spending.get((charge.budget, start), (0, 0)) for start in starts]
    return sum(spent for spent, _ in found), sum(held for _, held in found)


def shown(each: Standing, now_ns: int) -> dict[str, Any]:
    """A window in USD, for answers. `projected_usd`: the spend at its end if spending continues at this rate."""
    charge = each.charge
    return {
        "budget": charge.budget,
        "limit_usd": each.limit_nano / NANO_PER_USD,
        "hard_limit_usd": charge.hard_nano / NANO_PER_USD,
        "spent_usd": each.spent_nano / NANO_PER_USD,
        "held_usd": each.held_nano / NANO_PER_USD,
        "left_usd": each.left_nano / NANO_PER_USD,
        "projected_usd": _projected(each, now_ns),
        "resets_at": moment(charge.resets_ns),
    }


def windows(charges: Iterable[Charge], spending: Spending, now_ns: int) -> dict[str, Any] | None:
    """The budget of an answer about usage: each window. None: there is no budget."""
    found = [shown(each, now_ns) for each in standing(charges, spending)]
    return {"windows": found} if found else None


def moment(time_ns: int | None) -> str | None:
    """ISO 8601 in UTC."""
    if time_ns is None:
        return None
    return datetime.fromtimestamp(time_ns // NANO_PER_USD, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _projected(each: Standing, now_ns: int) -> float | None:
    """The projected spend; None: the window slides or never ends, or less than a hundredth of it has passed."""
    charge = each.charge
    if charge.resets_ns is None or charge.since_ns != charge.start_ns:
        return None
    length, elapsed = charge.resets_ns - charge.start_ns, now_ns - charge.start_ns
    if elapsed * 100 < length:
        return None
    return each.spent_nano / NANO_PER_USD * length / min(elapsed, length)


def share_spent(charges: Iterable[Charge], spending: Spending) -> float | None:
    """The share of the tightest budget that is spent or held, at most 1; None: no budget."""
    return max((min(1.0, each.share) for each in standing(charges, spending)), default=None)


def left_nano(charges: Iterable[Charge], spending: Spending) -> int | None:
    """What is left of the tightest budget; None: no budget."""
    return min((each.left_nano for each in standing(charges, spending)), default=None)
