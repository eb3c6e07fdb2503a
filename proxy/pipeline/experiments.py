"""Orchestrates: experiments of a running server: which variant a call gets, and the consequences of a verdict.

All workers read the same rows: running experiments are at most a second old, outcomes at most SHARES_S. No call waits
for the outcomes. A verdict is recorded once, by the first worker that sees it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from proxy.pipeline.side_thread import SideThread
from proxy.pipeline.stored_prompts import StoredPrompts
from proxy.prompts.assignment import Assigner, unit_hash
from proxy.prompts.results import Results, decision_on, results_of, shares_now
from proxy.routing.near import NearNames
from proxy.schema.errors import BadRequest, Conflict, ProxyError
from proxy.schema.experiments import Steps, StoredExperiment, Tracked
from proxy.schema.prompts import LabelMove, PromptUse, Unit, Variant
from proxy.storage.base import StoreError
from proxy.storage.experiments import ExperimentRefused, ExperimentStore
from proxy.storage.prompt_rows import PromptRefused

FRESH_S = 1.0
SHARES_S = 5.0  # of `auto`
LOOK_S = 10.0  # interval between checks of running experiments
_WAIT_S, _SUMS_WAIT_S = 2.0, 15.0
_MOVES = 50
_STATUS = {"unknown": 404, "exists": 409, "changed": 412, "conflict": 409, "full": 409}
_NO_SUMS: Mapping[str, float] = {}
T = TypeVar("T")


class LiveExperiments:
    """One per process. `warn` logs an event with fields. `random` returns numbers in [0, 1)."""

    def __init__(
        self,
        store: ExperimentStore,
        prompts: StoredPrompts,
        warn: Callable[..., object],
        random: Callable[[], float],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._prompts = prompts
        self._warn = warn
        self._clock_s = clock_s
        self._assigner = Assigner(random)
        self._thread = SideThread("experiments", warn, _WAIT_S, pause_s=1.0)
        self._summing = SideThread("experiment_outcomes", warn, _SUMS_WAIT_S, pause_s=5.0)
        self._known: dict[str, StoredExperiment] = {}
        self._known_at: float | None = None
        self._reading: asyncio.Task[dict[str, StoredExperiment]] | None = None
        self._shares: dict[str, tuple[dict[str, float], float]] = {}
        self._updates: dict[str, asyncio.Task[None]] = {}

    # --- calls --------------------------------------------------------------------------------------------------------

    async def choose(self, experiment: str | None, use: PromptUse | None, unit: Unit) -> Variant | None:
        """The variant for a request that names `experiment`, or uses a prompt, or both. None: it takes part in none.

        A request that pins a version, or another label than the experiment's, takes part only if it names the
        experiment. A stopped experiment gives its winner, or its first variant. Raises ProxyError.
        """
        if experiment is not None:
            stored = await self.named(experiment)
            if use is not None and stored.experiment.prompt not in (None, use.id):
                message = f"The experiment {stored.id} uses the prompt {stored.experiment.prompt}, not {use.id}."
                raise BadRequest(message, param="routing.experiment")
        elif use is None or (found := await self._varying(use)) is None:
            return None
        else:
            stored = found
        return self._variant(stored, unit.user or unit.session or unit.conversation or None)

    async def variant(self, experiment: str, unit: str | None) -> Variant:
        """The variant for a unit, outside of any call. Raises ProxyError."""
        return self._variant(await self.named(experiment), unit)

    async def named(self, experiment: str) -> StoredExperiment:
        """An experiment that has started. Raises ProxyError 404, 409 and 503."""
        known = await self._read(FRESH_S)
        if experiment not in known or not known[experiment].is_running:
            known = await self._read(0.0)  # another worker may have started it just now
        if (stored := known.get(experiment)) is None:
            raise _unknown(experiment, list(known))
        if stored.state.status == "draft":
            message = f"The experiment {experiment} has not started. An admin must start it."
            raise Conflict(message, param="experiment")
        return stored

    async def _varying(self, use: PromptUse) -> StoredExperiment | None:
        if use.version is not None:
            return None
        try:
            known = await self._read(FRESH_S)
        except ProxyError:  # a prompt in the cache works without the database
            return None
        for stored in known.values():
            experiment = stored.experiment
            if stored.is_running and experiment.prompt == use.id and use.label in (None, experiment.label):
                return stored
        return None

    def _variant(self, stored: StoredExperiment, unit: str | None) -> Variant:
        experiment, way = stored.experiment, stored.experiment.assignment
        is_sticky = way in ("sticky", "auto")
        hashed = unit_hash(experiment.id, unit) if unit is not None and is_sticky else None
        if stored.is_running:
            name = self._assigner.variant(way, experiment.id, hashed, self._shares_of(stored))
        else:
            name = stored.state.winner or experiment.variants[0].name
        spec = next(variant for variant in experiment.variants if variant.name == name)
        return Variant(
            experiment=experiment.id,
            name=name,
            unit=hashed,
            prompt=experiment.prompt,
            version=spec.prompt_version,
            model=spec.model,
            parameters=spec.parameters,
            ensemble=spec.ensemble,
        )

    def _shares_of(self, stored: StoredExperiment) -> dict[str, float]:
        """The current shares; for `auto` those of a few seconds ago, while newer ones are read."""
        if stored.experiment.assignment != "auto":
            return shares_now(stored.experiment, {})
        shares, at = self._shares.get(stored.id) or (shares_now(stored.experiment, {}), -SHARES_S)
        if self._clock_s() - at >= SHARES_S and stored.id not in self._updates:
            task = self._updates[stored.id] = asyncio.create_task(self._update_shares(stored))
            task.add_done_callback(lambda _: self._updates.pop(stored.id, None))
        return shares

    async def _update_shares(self, stored: StoredExperiment) -> None:
        shares = self._shares.get(stored.id, (shares_now(stored.experiment, {}), 0.0))[0]
        try:
            sums = await self._summing.run(partial(self.store.sums, stored))
            shares = shares_now(stored.experiment, sums)
        except StoreError:
            pass  # the thread reports it; the shares stay
        self._shares[stored.id] = (shares, self._clock_s())

    async def _read(self, max_age_s: float) -> dict[str, StoredExperiment]:
        """All experiments, at most `max_age_s` old; while the database fails, those last read."""
        if self._known_at is not None and self._clock_s() - self._known_at < max_age_s:
            return self._known
        if self._reading is None:  # concurrent look-ups share one
            self._reading = asyncio.create_task(self._read_anew())
            self._reading.add_done_callback(self._was_read)
        try:
            return await asyncio.shield(self._reading)
        except StoreError:
            if self._known_at is None:
                raise _unreadable() from None
            return self._known

    async def _read_anew(self) -> dict[str, StoredExperiment]:
        at = self._clock_s()
        found = await self._thread.run(self.store.all)
        self._known, self._known_at = {stored.id: stored for stored in found}, at
        self._shares = {name: shares for name, shares in self._shares.items() if name in self._known}
        return self._known

    def _was_read(self, reading: asyncio.Task[dict[str, StoredExperiment]]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # every caller that waited may be gone

    # --- experiments themselves ---------------------------------------------------------------------------------------

    async def all(self) -> list[StoredExperiment]:
        """All experiments by id, read anew. Raises ProxyError 503."""
        return await self._run(self.store.all)

    async def get(self, experiment: str, revision: int | None = None) -> StoredExperiment:
        """One experiment, read anew. Raises ProxyError 404 and 503, and 412 if it is no longer at this revision."""
        return await self._run(partial(self.store.get, experiment, revision))

    async def change(self, work: Callable[[], T]) -> T:
        """Changes an experiment in the store. This worker sees the change at once, others within a second.

        Raises ProxyError 404, 409, 412 and 503.
        """
        try:
            return await self._run(work)
        finally:
            self._known_at = None

    async def track(self, tracked: Tracked, now_ns: int) -> None:
        """Stores an outcome without a call. Raises ProxyError 404, 409 and 503."""
        await self._run(partial(self.store.track, tracked, now_ns))

    async def results(self, experiment: str) -> Results:
        """The current results. A verdict found here takes effect. Raises ProxyError."""
        stored = await self.get(experiment)
        try:
            sums = await self._summing.run(partial(self.store.sums, stored))
            stored = await self._conclude(stored, decision_on(stored.experiment, sums).winner)
        except StoreError:
            raise _unreadable() from None
        return results_of(stored, sums)

    async def steps(self, stored: StoredExperiment, now_ns: int, count: int) -> Steps | None:
        """The deciding outcomes over time; None: there are too many, or the database cannot be read."""
        try:
            return await self._summing.run(partial(self.store.steps, stored, now_ns, count))
        except StoreError:
            return None

    async def scores(self, prompt: str) -> dict[int, float]:
        """`performance_score` of each rated version of a prompt; empty while the database cannot be read."""
        try:
            return await self._summing.run(partial(self.store.scores, prompt))
        except StoreError:
            return {}

    async def follow(self) -> None:
        """Checks running experiments until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (StoreError, ProxyError):
                continue  # the thread reports it

    async def look(self) -> None:
        """Records verdicts that have been reached. Raises StoreError, and ProxyError 503."""
        for stored in (await self._read(0.0)).values():
            if stored.is_running and (stored.state.winner is None or _is_to_promote(stored)):
                sums = await self._summing.run(partial(self.store.sums, stored))
                try:
                    await self._conclude(stored, decision_on(stored.experiment, sums).winner)
                except ProxyError as error:  # a label that cannot be moved must not stop the others
                    self._warn("experiment_not_concluded", experiment=stored.id, error=error.message)

    async def _conclude(self, stored: StoredExperiment, winner: str | None) -> StoredExperiment:
        """Records a verdict, and moves the label if configured. Every step can be repeated."""
        if not stored.is_running:
            return stored
        if stored.state.winner is None and winner is not None:
            stored = await self.change(partial(self.store.decide, stored.id, winner, time.time_ns()))
        return await self.promote(stored) if _is_to_promote(stored) else stored

    async def promote(self, stored: StoredExperiment) -> StoredExperiment:
        """Moves the label to the winner's version. Raises ProxyError."""
        experiment, winner = stored.experiment, stored.state.winner
        spec = None if winner is None else experiment.variant(winner)
        if spec is None or spec.prompt_version is None or experiment.prompt is None:
            message = f"{experiment.id} has no winner with a version of a prompt that a label could move to."
            raise Conflict(message)
        note = f"experiment {experiment.id}: {winner} won"
        before = await self._before(experiment.prompt, experiment.label, note)
        await self._move(experiment.prompt, experiment.label, spec.prompt_version, note)
        noting = partial(self.store.note_promoted, experiment.id, spec.prompt_version, before, time.time_ns())
        return await self.change(noting)

    async def revert(self, stored: StoredExperiment) -> StoredExperiment:
        """Reverts the promotion. Raises ProxyError 409 if there is none, or the label was moved since."""
        experiment, state = stored.experiment, stored.state
        if experiment.prompt is None or state.promoted_ns is None or state.reverted_ns is not None:
            message = f"{experiment.id} has moved no label that could be moved back."
            raise Conflict(message)
        moves = await self._moves(experiment.prompt, experiment.label)
        at = moves[0].version if moves else None
        if at not in (state.promoted_version, state.promoted_from):
            message = f"The label {experiment.label} of {experiment.prompt} was moved since, to version {at}."
            raise Conflict(message)
        if at != state.promoted_from:
            note = f"experiment {experiment.id}: reverted"
            await self._move(experiment.prompt, experiment.label, state.promoted_from, note)
        return await self.change(partial(self.store.note_reverted, experiment.id, time.time_ns()))

    async def _before(self, prompt: str, label: str, note: str) -> int | None:
        """The label's version before this move, which may have happened already."""
        moves = await self._moves(prompt, label)
        if moves and moves[0].note == note:
            moves = moves[1:]
        return moves[0].version if moves else None

    async def _moves(self, prompt: str, label: str) -> list[LabelMove]:
        """The moves of a label, latest first. Raises ProxyError 503."""
        moves = await self._prompts.read(partial(self._prompts.store.moves, prompt, _MOVES))
        return [move for move in moves if move.label == label]

    async def _move(self, prompt: str, label: str, version: int | None, note: str) -> None:
        move = LabelMove(label, version, time.time_ns(), None, note)
        try:
            await self._prompts.change(partial(self._prompts.store.move_label, prompt, move, None), prompt)
        except PromptRefused as refusal:
            raise Conflict(str(refusal), param="label") from None

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._thread.run(work)
        except ExperimentRefused as refusal:
            code = "not_found" if refusal.kind == "unknown" else "conflict"
            headers = {"x-should-retry": "false"}  # SDKs retry a 409
            status = _STATUS[refusal.kind]
            raise ProxyError(str(refusal), status=status, code=code, param=refusal.param, headers=headers) from None
        except StoreError:
            raise _unreadable() from None

    async def close(self) -> None:
        for task in (*self._updates.values(), *([self._reading] if self._reading else [])):
            task.cancel()
        await self._thread.close(None)
        await self._summing.close(None)


def _is_to_promote(stored: StoredExperiment) -> bool:
    return stored.experiment.promote and stored.state.winner is not None and stored.state.promoted_ns is None


def _unknown(experiment: str, known: list[str]) -> ProxyError:
    near = NearNames(known).find(experiment, most=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    message = f"There is no experiment {experiment[:64]!r}.{hint} Experiments: {', '.join(known[:10]) or 'none'}."
    return ProxyError(message, status=404, code="not_found", param="experiment")


def _unreadable() -> ProxyError:
    message = "The experiments cannot be read from the database now. Try again later."
    return ProxyError(message, status=503, code="storage_unavailable", headers={"retry-after": "5"})
