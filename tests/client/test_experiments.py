"""`api.experiments` of the Python client, at a server and with the whole proxy in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy import APISettings, SyncMultiModelAPI
from proxy.client.errors import BadRequest, NotFound
from tests.client.scene import IN_PROCESS, SERVER, Scene, scene
from tests.serving import write_files
from tests.upstream import FakeUpstream


@pytest_asyncio.fixture(params=[SERVER, IN_PROCESS])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(request.param, tmp_path) as found:
        yield found


async def test_an_experiment_from_its_creation_to_its_winner(here: Scene) -> None:
    """A variant is its name, and knows whom it was chosen for."""
    experiments = here.api.experiments
    made = await experiments.create(
        "own", ["a", {"name": "b", "parameters": {"top_p": 0.5}, "weight": 2}], minimum_samples=5, minimum_effect=0.5
    )
    assert (made["status"], [each["weight"] for each in made["variants"]]) == ("draft", [1, 2])
    assert (await experiments.start("own"))["status"] == "running"
    assert await experiments.winner("own") is None
    for number in range(30):
        variant = await experiments.variant("own", f"user {number}")
        assert variant in ("a", "b")
        assert variant.parameters == ({"top_p": 0.5} if variant == "b" else {})
        assert (variant.experiment, variant.unit, variant.model) == ("own", f"user {number}", None)
        await experiments.track("own", variant, success=variant == "b", score=0.5)
    assert await experiments.winner("own") == "b"
    results = await experiments.results("own")
    assert sum(each["units"] for each in results["variants"]) == 30
    assert [each["id"] for each in await experiments.list()] == ["own"]
    assert (await experiments.stop("own"))["status"] == "stopped"
    assert (await experiments.get("own"))["winner"] == "b"


async def test_wrong_arguments_are_named(here: Scene) -> None:
    """Before anything is sent, or by the server."""
    experiments = here.api.experiments
    with pytest.raises(ValueError, match="success"):
        await experiments.track("own", "a")
    with pytest.raises(ValueError, match="unit"):
        await experiments.variant("own", "")
    with pytest.raises(ValueError, match="id"):
        await experiments.get(" ")
    with pytest.raises(ValueError, match="variants"):
        await experiments.create("own", "ab")
    with pytest.raises(TypeError, match="asignment"):
        await experiments.create("own", ["a", "b"], asignment="random")  # type: ignore[call-arg]
    with pytest.raises(BadRequest, match="variants"):
        await experiments.create("own", ["a"])
    with pytest.raises(NotFound, match="There is no experiment 'own'"):
        await experiments.winner("own")


async def test_the_same_without_await(tmp_path: Path) -> None:
    """Arguments and results are those of the other client."""
    async with FakeUpstream() as upstream:
        await asyncio.to_thread(use_without_await, APISettings.load(write_files(tmp_path, upstream.url)))


def use_without_await(settings: APISettings) -> None:
    with SyncMultiModelAPI(settings) as api:
        api.experiments.create("own", ["a", "b"], minimum_samples=5, minimum_effect=0.5, assignment="round_robin")
        api.experiments.start("own")
        for _ in range(24):
            variant = api.experiments.variant("own")
            api.experiments.track("own", variant, variant == "a")
        assert api.experiments.winner("own") == "a"
        assert api.experiments.results("own")["verdict"] == "winner"
        assert api.experiments.get("own")["winner"] == api.experiments.list()[0]["winner"] == "a"
        assert api.experiments.stop("own")["status"] == "stopped"
        for refused in (api.experiments.promote, api.experiments.revert):
            with pytest.raises(BadRequest) as error:
                refused("own")
            assert (error.value.status, error.value.is_retryable) == (409, False)  # an SDK would come again
