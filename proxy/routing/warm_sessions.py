"""Orchestrates: where conversations are warm, and which of them to share with other workers. Clocks are passed in.

All workers choose the same deployment for a new conversation, so they need to be told only of a *move*: a conversation
that is warm elsewhere, because its first choice was unwell or other workers would choose differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from proxy.routing.settings import RouterConfig
from proxy.schema.records import NANO_PER_USD, StickyMove

MAX_SESSIONS = 10_000
_TOLD_FOR = 0.25  # of its lifetime: a move is shared again after that, while the conversation goes on
_NS = NANO_PER_USD  # nanoseconds of a second


class _Warm(Struct, frozen=True):
    """`until`, `told_at`: seconds of the monotonic clock; `told_at` None: no worker needed to know."""

    name: str
    tokens: int
    until: float
    told_at: float | None


class WarmSessions:
    """The conversations that some deployment has in its prompt cache. `ttl_s`: for how long after an answer."""

    def __init__(self, now_s: Callable[[], float], unix_s: Callable[[], float]) -> None:
        self.ttl_s: float = RouterConfig().sticky.ttl_s
        self._now_s = now_s
        self._unix_s = unix_s
        self._warm: dict[str, _Warm] = {}
        self._untold: dict[str, StickyMove] = {}

    def of(self, session: str) -> tuple[str, int] | None:
        """The warm deployment, and the tokens that it has cached."""
        warm = self._warm.get(session)
        if warm is None:
            return None
        if self._now_s() >= warm.until:
            del self._warm[session]
            return None
        return warm.name, warm.tokens

    def note(self, session: str, name: str, tokens: int, *, is_home: bool = True) -> None:
        """Records that this deployment now has `tokens` of the conversation in its cache. `is_home`: every worker would
        choose it for a conversation that is warm nowhere.
        """
        now, before = self._now_s(), self._warm.get(session)
        if before is None or now >= before.until:
            is_moved, is_known = not is_home, False
        else:
            is_moved = before.told_at is not None or before.name != name
            told_at = before.told_at
            is_known = before.name == name and told_at is not None and now - told_at < _TOLD_FOR * self.ttl_s
        told_at = before.told_at if before is not None and is_known else now if is_moved else None
        self._put(session, _Warm(name, tokens, now + self.ttl_s, told_at))
        if is_moved and not is_known:
            self._tell(StickyMove(session, name, tokens, int((self._unix_s() + self.ttl_s) * _NS)))

    def take_untold(self) -> list[StickyMove]:
        """The moves that other workers do not know yet, each once."""
        moves = list(self._untold.values())
        self._untold.clear()
        return moves

    def give_back(self, moves: Iterable[StickyMove]) -> None:
        """Returns moves that could not be shared: they are shared later, unless there is newer news."""
        for move in moves:
            if move.session not in self._untold:
                self._tell(move)

    def learn(self, moves: Iterable[StickyMove]) -> None:
        """Takes the moves that other workers shared, oldest first. Moves that this one has yet to share are newer."""
        now, unix_s = self._now_s(), self._unix_s()
        for move in moves:
            until = now + min(move.until_ns / _NS - unix_s, self.ttl_s)
            if until <= now or move.session in self._untold:
                continue
            tokens, known = move.tokens, self._warm.get(move.session)
            if known is not None and known.name == move.model:
                until, tokens = max(until, known.until), max(tokens, known.tokens)
            self._put(move.session, _Warm(move.model, tokens, until, now))

    def _put(self, session: str, warm: _Warm) -> None:
        """Stores an entry. The last entry is the one that was warm most recently."""
        self._warm.pop(session, None)
        if len(self._warm) >= MAX_SESSIONS:
            del self._warm[next(iter(self._warm))]
        self._warm[session] = warm

    def _tell(self, move: StickyMove) -> None:
        self._untold.pop(move.session, None)
        if len(self._untold) >= MAX_SESSIONS:
            del self._untold[next(iter(self._untold))]
        self._untold[move.session] = move
