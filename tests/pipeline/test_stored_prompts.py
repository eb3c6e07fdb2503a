"""The cache of stored prompts: what is read again, what is kept, and what happens without the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.stored_prompts import FRESH_S, StoredPrompts
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.hints import Hints
from proxy.schema.prompts import LabelMove, PromptHead, PromptUse, PromptVersion, Unit, UsedPrompt, Variant
from proxy.schema.records import NO_LABELS, Labels
from proxy.storage.base import StoreError
from proxy.storage.prompts import PromptStore


class Counting(PromptStore):
    """Counts what is read, and fails on demand."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: list[Any] = []
        self.is_down = False

    def heads(self, ids: Sequence[str]) -> dict[str, PromptHead]:
        self._note(*ids)
        return super().heads(ids)

    def version(self, prompt: str, version: int) -> PromptVersion | None:
        self._note(version)
        return super().version(prompt, version)

    def ids(self, limit: int) -> list[str]:
        self._note()
        return super().ids(limit)

    def _note(self, *what: Any) -> None:
        if self.is_down:
            raise StoreError("it is down")
        self.read += what


class Always:
    """An experiment that chooses one variant; it keeps what it was asked."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.asked: list[tuple[str | None, PromptUse | None, Unit]] = []

    async def choose(self, experiment: str | None, use: PromptUse | None, unit: Unit) -> Variant | None:
        self.asked.append((experiment, use, unit))
        return self.variant


class World:
    def __init__(self, path: Path) -> None:
        self.now_s = 0.0
        self.store = Counting(path)
        self.warnings: list[str] = []
        self.off_loop = OffLoop()
        self.prompts = StoredPrompts(
            self.store, self.off_loop, lambda event, **_: self.warnings.append(event), 1_000, clock_s=lambda: self.now_s
        )
        self.store.create(PromptHead(id="p", name="P"), text("one"))
        self.store.add_version("p", text("two"), None)

    async def text(self, use: PromptUse | None, said: Labels = NO_LABELS, **fields: Any) -> tuple[Any, UsedPrompt]:
        request = ChatRequest(model="m", messages=[], stored=use, fields={"messages": []}, **fields)
        found, used = await self.prompts.applied(request, said, "ann", {})
        return found.messages[0].content if found.messages else None, used


def text(template: str) -> PromptVersion:
    return PromptVersion(version=1, template=template, messages=[{"role": "user", "content": template}])


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "usage.db")
    yield world
    await world.prompts.close()
    world.off_loop.close()


async def test_labels_are_read_again_after_a_second_and_versions_never(here: World) -> None:
    """So every worker follows a move within that time."""
    assert await here.text(PromptUse("p")) == ("two", UsedPrompt("p", 2))
    other = PromptStore(here.store._path)  # another worker
    other.move_label("p", LabelMove("production", 1, 9), None)
    assert await here.text(PromptUse("p")) == ("two", UsedPrompt("p", 2))
    assert here.store.read == ["p", 2]
    here.now_s += FRESH_S
    assert await here.text(PromptUse("p")) == ("one", UsedPrompt("p", 1, "production"))
    here.now_s += FRESH_S
    await here.text(PromptUse("p"))
    assert here.store.read == ["p", 2, "p", 1, "p"]


async def test_a_change_of_this_process_is_seen_at_once(here: World) -> None:
    """Whoever moved a label may ask in the next moment."""
    await here.text(PromptUse("p"))
    move = LabelMove("production", 1, 9)
    await here.prompts.change(lambda: here.store.move_label("p", move, None), "p")
    assert await here.text(PromptUse("p")) == ("one", UsedPrompt("p", 1, "production"))


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (PromptUse("p"), ("two", UsedPrompt("p", 2))),
        (PromptUse("p", 1), ("one", UsedPrompt("p", 1))),
        (PromptUse("p", label="latest"), ("two", UsedPrompt("p", 2))),
        (PromptUse("p", label="old"), ("one", UsedPrompt("p", 1, "old"))),
    ],
)
async def test_a_use_means_one_version(here: World, use: PromptUse, expected: Any) -> None:
    """The row says which, and by which label it was found."""
    here.store.move_label("p", LabelMove("old", 1, 9), None)
    assert await here.text(use) == expected


@pytest.mark.parametrize(
    ("use", "says", "param"),
    [
        (PromptUse("q"), "There is no prompt 'q'. Prompts: p.", "prompt.id"),
        (PromptUse("p", 3), "p has no version 3. Versions: 1, 2.", "prompt.version"),
        (PromptUse("p", label="a"), "p has no label 'a'. Labels: latest.", "prompt.label"),
    ],
)
async def test_an_unknown_name_says_what_exists(here: World, use: PromptUse, says: str, param: str) -> None:
    """404."""
    with pytest.raises(ProxyError) as refused:
        await here.text(use)
    assert (refused.value.status, refused.value.message, refused.value.param) == (404, says, param)


async def test_without_the_database_known_prompts_work(here: World) -> None:
    """Others get a 503, since they may exist."""
    await here.text(PromptUse("p"))
    here.store.is_down = True
    here.now_s += 3_600
    assert await here.text(PromptUse("p")) == ("two", UsedPrompt("p", 2))
    for use in (PromptUse("q"), PromptUse("p", 1)):
        with pytest.raises(ProxyError) as refused:
            await here.text(use)
        assert (refused.value.status, refused.value.code) == (503, "storage_unavailable")
    assert here.warnings == ["prompts_degraded"]


async def test_an_experiment_decides_what_it_varies(here: World) -> None:
    """The version stands above the label of the request, and the row names experiment and variant."""
    variant = Variant("e", "b", version=1)
    here.prompts.experiments = always = Always(variant)
    used = UsedPrompt("p", 1, None, "e", "b")
    assert await here.text(PromptUse("p"), Labels(session="s")) == ("one", used)
    ((experiment, use, unit),) = always.asked
    assert (experiment, use, unit.key, unit.session) == (None, PromptUse("p"), "ann", "s")


async def test_an_experiment_may_bring_its_own_prompt(here: World) -> None:
    """For requests that name the experiment alone; without a prompt it varies only the rest."""
    here.prompts.experiments = Always(Variant("e", "a", prompt="p"))
    assert await here.text(None, hints=Hints(experiment="e")) == ("two", UsedPrompt("p", 2, None, "e", "a"))
    here.prompts.experiments = Always(Variant("e", "a", model="other"))
    assert await here.text(None, hints=Hints(experiment="e")) == (None, UsedPrompt(experiment="e", variant="a"))


async def test_other_requests_have_no_prompts(here: World) -> None:
    """They have no messages."""
    from proxy.schema.embeddings import EmbeddingsRequest

    request = EmbeddingsRequest(model="m", inputs=["a"], fields={}, hints=Hints(experiment="e"))
    with pytest.raises(BadRequest, match="are for chats"):
        await here.prompts.applied(request, NO_LABELS, None, {})
