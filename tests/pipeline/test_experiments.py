"""Experiments in a running server: workers agree, calls survive a dead database, and every step can be repeated."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.pipeline.experiments import FRESH_S, SHARES_S, LiveExperiments
from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.stored_prompts import StoredPrompts
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.experiments import Experiment, StoredExperiment, Tracked, VariantSpec, VariantSums
from proxy.schema.prompts import LabelMove, PromptHead, PromptUse, PromptVersion, Unit
from proxy.storage.base import StoreError
from proxy.storage.experiments import ExperimentStore
from proxy.storage.prompts import PromptStore

ALICE = Unit(user="alice")
USE = PromptUse("p")


class Failing(ExperimentStore):
    """Counts its reads, and fails on demand."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.is_down = False
        self.reads = 0

    def all(self) -> list[StoredExperiment]:
        self.reads += 1
        if self.is_down:
            raise StoreError("it is down")
        return super().all()

    def sums(self, stored: StoredExperiment) -> dict[str, VariantSums]:
        if self.is_down:
            raise StoreError("it is down")
        return super().sums(stored)


class World:
    """Two workers on one database, with one clock."""

    def __init__(self, path: Path) -> None:
        self.now_s = 100.0
        self.off_loop = OffLoop()
        self.warned: list[str] = []
        self.store = Failing(path)
        self.prompt_store = PromptStore(path)
        self.prompts: list[StoredPrompts] = []
        self.workers = [self._worker(self.store), self._worker(ExperimentStore(path))]

    def _worker(self, store: ExperimentStore) -> LiveExperiments:
        def warn(event: str, **fields: Any) -> None:
            self.warned.append(event)

        def clock_s() -> float:
            return self.now_s

        prompts = StoredPrompts(self.prompt_store, self.off_loop, warn, 10_000)
        self.prompts.append(prompts)
        return LiveExperiments(store, prompts, warn, lambda: 0.5, clock_s)

    def create(self, name: str = "e", **fields: Any) -> None:
        variants = fields.pop("variants", None) or (
            VariantSpec("old", prompt_version=1),
            VariantSpec("new", prompt_version=2),
        )
        self.store.create(Experiment(id=name, variants=variants, prompt="p", **fields), 1)
        self.store.start(name, None, 2)

    def track(self, name: str, variant: str, outcomes: int, *, success: bool) -> None:
        for _ in range(outcomes):
            self.store.track(Tracked(name, variant, None, success), 3)

    async def close(self) -> None:
        for worker in self.workers:
            await worker.close()
        for prompts in self.prompts:
            await prompts.close()
        self.off_loop.close()


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "usage.db")
    messages = [{"role": "user", "content": "hi"}]
    version = PromptVersion(version=1, template="hi", messages=messages)
    made.prompt_store.create(PromptHead(id="p", name="p", labels={"production": 1}), version)
    made.prompt_store.add_version("p", version, None)
    yield made
    await made.close()


async def test_workers_agree_on_every_unit(world: World) -> None:
    """Without talking to each other; user goes before session, session before conversation."""
    world.create()
    seen: Counter[str] = Counter()
    for number in range(100):
        unit = Unit(user=f"user {number}", session="s", conversation="c")
        first, second = [await worker.choose(None, USE, unit) for worker in world.workers]
        assert first is not None
        assert first == second
        seen[first.name] += 1
    assert min(seen.values()) > 30
    by_session = [await world.workers[0].choose(None, USE, Unit(session="s", conversation=each)) for each in "xyz"]
    assert len({each.name for each in by_session if each}) == 1


async def test_calls_read_the_database_once_a_second_at_most(world: World) -> None:
    """Whatever number of calls; a stop is seen after that second."""
    world.create()
    worker = world.workers[0]
    for _ in range(20):
        assert await worker.choose(None, USE, ALICE) is not None
    assert world.store.reads == 1
    world.store.stop("e", None, 9)
    assert await worker.choose(None, USE, ALICE) is not None
    world.now_s += FRESH_S
    assert await worker.choose(None, USE, ALICE) is None
    assert world.store.reads == 2


async def test_an_experiment_that_another_worker_started_just_now_is_found(world: World) -> None:
    """By its name at once."""
    worker = world.workers[0]
    with pytest.raises(ProxyError, match="There is no experiment 'e'"):
        await worker.choose("e", None, ALICE)
    world.create()
    assert await worker.choose("e", None, ALICE) is not None


async def test_a_dead_database_changes_no_variant(world: World) -> None:
    """Known experiments go on. A worker that never read any leaves prompts alone, and refuses named experiments."""
    world.create()
    worker = world.workers[0]
    before = await worker.choose(None, USE, ALICE)
    world.store.is_down = True
    world.now_s += 60
    assert await worker.choose(None, USE, ALICE) == before
    assert await worker.choose("e", None, ALICE) == before
    assert "experiments_degraded" in world.warned
    fresh = world._worker(world.store)
    assert await fresh.choose(None, USE, ALICE) is None
    with pytest.raises(ProxyError) as refused:
        await fresh.choose("e", None, ALICE)
    assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
    await fresh.close()


async def test_a_named_experiment_is_about_its_prompt(world: World) -> None:
    """Another prompt beside it is a mistake of the client; a pinned version gives way to what is named."""
    world.create()
    with pytest.raises(BadRequest, match="uses the prompt p, not other"):
        await world.workers[0].choose("e", PromptUse("other"), ALICE)
    chosen = await world.workers[0].choose("e", PromptUse("p", version=1), Unit(user="x"))
    assert chosen is not None
    assert (chosen.experiment, chosen.prompt) == ("e", "p")


async def test_auto_follows_outcomes_without_making_calls_wait(world: World) -> None:
    """The first call gets even shares; some seconds later the better variant gets nearly all."""
    world.create(assignment="auto", floor=0.05)
    world.track("e", "old", 12, success=False)
    world.track("e", "new", 12, success=True)
    worker = world.workers[0]

    async def share() -> float:
        chosen = [await worker.choose(None, USE, Unit(user=str(number))) for number in range(200)]
        return sum(each is not None and each.name == "new" for each in chosen) / 200

    await worker.choose(None, USE, ALICE)
    await next(iter(worker._updates.values()))
    assert await share() > 0.85
    world.track("e", "old", 30, success=True)
    world.track("e", "new", 30, success=False)
    assert await share() > 0.85
    world.now_s += SHARES_S
    await worker.choose(None, USE, ALICE)
    await next(iter(worker._updates.values()))
    assert await share() < 0.15


async def test_a_verdict_moves_the_label_once_whoever_sees_it(world: World) -> None:
    """Both workers look; a third look after a revert does not move it again."""
    world.create(promote=True, minimum_samples=10)
    world.track("e", "old", 14, success=False)
    world.track("e", "new", 14, success=True)
    for worker in (*world.workers, *world.workers):
        await worker.look()
    stored = world.store.get("e")
    assert (stored.state.winner, stored.state.promoted_version, stored.state.promoted_from) == ("new", 2, 1)
    assert [move.version for move in world.prompt_store.moves("p", 10)] == [2, 1]
    await world.workers[1].revert(stored)
    await world.workers[0].look()
    assert world.prompt_store.heads(["p"])["p"].labels == {"production": 1}


async def test_a_promotion_that_broke_off_is_completed(world: World) -> None:
    """After the verdict was recorded, and after the label was moved: where it was before is not forgotten."""
    world.create(promote=True, minimum_samples=10)
    world.track("e", "old", 14, success=False)
    world.track("e", "new", 14, success=True)
    world.store.decide("e", "new", 5)
    world.prompt_store.move_label("p", LabelMove("production", 2, 6, None, "experiment e: new won"), None)
    await world.workers[0].look()
    state = world.store.get("e").state
    assert (state.promoted_version, state.promoted_from) == (2, 1)
    assert len(world.prompt_store.moves("p", 10)) == 2


async def test_a_label_that_somebody_moved_since_is_left_alone(world: World) -> None:
    """The revert says where it is."""
    world.create(promote=True, minimum_samples=10)
    world.track("e", "old", 14, success=False)
    world.track("e", "new", 14, success=True)
    await world.workers[0].look()
    version = PromptVersion(version=1, template="hi", messages=[{"role": "user", "content": "hi"}])
    world.prompt_store.add_version("p", version, None, ["production"])
    with pytest.raises(ProxyError, match="was moved since, to version 3") as refused:
        await world.workers[0].revert(world.store.get("e"))
    assert refused.value.status == 409


async def test_nothing_is_promoted_without_a_winner(world: World) -> None:
    """By hand either."""
    world.create()
    with pytest.raises(ProxyError, match="has no winner"):
        await world.workers[0].promote(world.store.get("e"))
