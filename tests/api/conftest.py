"""One running product and its fake upstream a module; each test starts with an upstream that has seen nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream_of_module() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@pytest.fixture
def upstream(upstream_of_module: FakeUpstream) -> FakeUpstream:
    upstream_of_module.reset()
    upstream_of_module.modes.clear()
    return upstream_of_module


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of `server`."""
    return tmp_path_factory.mktemp("server") / "usage.db"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    """Keyless, with one provider `fake`."""
    async with serving(write_files(database.parent, upstream_of_module.url)) as running:
        yield running
