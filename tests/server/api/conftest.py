"""One running product and its fake upstream a module; each test starts with an upstream that has seen nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.api.end_to_end import KEYS, PRICING, routing
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vendors(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Keyless, with a provider for each of `VENDORS`, by its name."""
    written = routing(upstream_of_module.url.removesuffix("/v1"))
    files = write_files(tmp_path_factory.mktemp("vendors"), upstream_of_module.url, written, PRICING)
    async with serving(files, KEYS) as running:
        yield running


@pytest.fixture
def sdk(vendors: Server, upstream: FakeUpstream) -> Any:
    """The SDK's client of `vendors`, without its types: the tests read what the types call optional."""
    return vendors.client
