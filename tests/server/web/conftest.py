"""Fixtures of the tests of pages: one fake upstream a module."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.upstream import FakeUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream_of_module() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake
