"""Values: what an ensemble call stores for reports, and queries over such calls. Never the text of an answer."""

from __future__ import annotations

from typing import TypedDict

from msgspec import Struct


class SeatRecord(Struct, frozen=True, omit_defaults=True):
    """A member in one call. `answer` numbers the different answers of the call: equal ones share a number; None: the
    member gave none. `outcome`: ok, cancelled, or the code of its error. `model`: the deployment that answered.
    `cost_nano` None: the price is unknown.
    """

    name: str
    outcome: str
    answer: int | None = None
    weight: float = 1.0
    model: str | None = None
    cost_nano: int | None = 0
    latency_ms: float = 0.0


class EnsembleRecord(Struct, frozen=True, omit_defaults=True):
    """What an ensemble decided. `answer`: the number of its answer among those of the members, or one that none of them
    has; None: it cannot be compared with theirs, or there is none. `escalation`: the stronger model that was asked
    after them.
    """

    name: str
    strategy: str
    members: tuple[SeatRecord, ...] = ()
    answer: int | None = None
    confidence: float | None = None
    agreed: bool = False
    escalation: SeatRecord | None = None


class EnsembleCall(Struct, frozen=True):
    """A stored call of an ensemble. `cost_nano` covers all its attempts. `rating`: its latest rating, from 0 to 1;
    None: it has none.
    """

    record: EnsembleRecord
    success: bool
    cost_nano: int | None = 0
    latency_ms: float = 0.0
    rating: float | None = None


class EnsembleQuery(Struct, frozen=True):
    """The last `limit` calls of an ensemble in a period. Times are Unix nanoseconds; `key_id` None: of every key."""

    name: str
    since_ns: int
    until_ns: int
    key_id: str | None
    limit: int


class Rating(Struct, frozen=True):
    """Feedback on the answer of a call: whether it was a success, how good it was from 0 to 1, or why.

    `source`: where it was given. `key_id`: the name of the key that gave it.
    """

    call_id: str
    success: bool | None = None
    score: float | None = None
    comment: str | None = None
    source: str = "api"
    key_id: str | None = None


class StoredRating(TypedDict):
    """A rating as it is stored, and shown. `id`: that of the call."""

    id: str
    success: bool | None
    score: float | None
    comment: str | None
    source: str
    key_id: str | None
    timestamp: str
