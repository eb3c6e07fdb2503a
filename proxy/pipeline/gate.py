"""Orchestrates: the gate `COMMITTED` of one ask. The first content closes it; after that no other model answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.pipeline.attempt import Attempt


class CommitGate:
    """Which attempt of an ask won. Several may run; `outer` is the gate of the ask that this one is a part of."""

    def __init__(self, outer: CommitGate | None = None) -> None:
        self.attempt: Attempt | None = None
        self._outer = outer
        self._held: asyncio.Future[None] | None = None

    @property
    def is_closed(self) -> bool:
        return self.attempt is not None

    def hold(self) -> Callable[[], None]:
        """From now on an attempt waits with its first delta, until the function that this returns is called."""
        held = self._held = asyncio.get_running_loop().create_future()

        def release() -> None:
            if not held.done():
                held.set_result(None)

        return release

    async def claim(self, attempt: Attempt) -> bool:
        """True where the attempt's content may leave; False where another attempt of this ask was first.

        It waits while this gate or an outer one is held. An outer gate keeps the first attempt of all its asks.
        """
        gate: CommitGate | None = self
        while gate is not None:
            if gate._held is not None:
                await asyncio.shield(gate._held)
            gate = gate._outer
        gate = self
        while gate is not None and gate.attempt is None:
            gate.attempt = attempt
            gate = gate._outer
        return self.attempt is attempt
