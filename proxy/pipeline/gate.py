"""Orchestrates: the gate `COMMITTED` of one ask. The first content closes it; no other model answers after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.pipeline.attempt import Attempt


class CommitGate:
    """Decides which of the attempts of an ask wins. `outer` is the gate of the ask that this one is part of.

    `on_close` receives the winner at once.
    """

    def __init__(self, outer: CommitGate | None = None) -> None:
        self.attempt: Attempt | None = None
        self.on_close: Callable[[Attempt], None] | None = None
        self._outer = outer
        self._released: asyncio.Future[None] | None = None

    @property
    def is_closed(self) -> bool:
        return self.attempt is not None

    def hold(self) -> Callable[[], None]:
        """Blocks `claim` until the returned function is called."""
        released = self._released = asyncio.get_running_loop().create_future()

        def release() -> None:
            if not released.done():
                released.set_result(None)

        return release

    async def claim(self, attempt: Attempt) -> bool:
        """True if the attempt may send its content; False if another attempt of this ask came first.

        Waits while this gate or an outer one is held. An outer gate records the first attempt of all its asks.
        """
        gate: CommitGate | None = self
        while gate is not None:
            if gate._released is not None:
                await asyncio.shield(gate._released)
            gate = gate._outer
        gate = self
        while gate is not None and gate.attempt is None:
            gate.attempt = attempt
            if gate.on_close is not None:
                gate.on_close(attempt)
            gate = gate._outer
        return self.attempt is attempt
