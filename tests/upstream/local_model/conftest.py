"""Models that are closed when their test ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.schema.records import LocalModelSpec
from proxy.upstream.local_model import Backoff, LocalModel
from tests.upstream.local_model.fakes import fake_child, installation

QUICK = Backoff(first_s=0.01, cap_s=0.02)


@pytest_asyncio.fixture
async def real_model() -> AsyncIterator[LocalModel]:
    """The model that comes with the product."""
    model = LocalModel(LocalModelSpec())
    yield model
    await model.close()


@pytest.fixture
def build_fake(tmp_path: Path) -> Callable[..., LocalModel]:
    """Makes a model of a fake child; whoever makes it closes it."""

    def build(body: str, start: str = "on_first_use", **options: Any) -> LocalModel:
        weights = tmp_path / "tiny.gguf"
        weights.touch()
        settings: dict[str, Any] = {"backoff": QUICK, "find_spec": installation("xllamacpp"), **options}
        return LocalModel(LocalModelSpec(str(weights), start=start), command=fake_child(body, tmp_path), **settings)

    return build


@pytest_asyncio.fixture
async def fake_model(build_fake: Callable[..., LocalModel]) -> AsyncIterator[Callable[..., LocalModel]]:
    """Makes models of fake children and closes them."""
    models: list[LocalModel] = []

    def make(body: str, **options: Any) -> LocalModel:
        models.append(build_fake(body, **options))
        return models[-1]

    yield make
    for model in models:
        await model.close()
