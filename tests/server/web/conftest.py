"""Fixtures of the tests of pages: one fake upstream a module, and a browser in which somebody has signed in.

A module has a fixture `server` of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.server.web.browser import Browser, browsing
from tests.serving import Server
from tests.upstream import FakeUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream_of_module() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module")
async def browser(server: Server) -> AsyncIterator[Browser]:
    """One for each test: what one signs out of, others are still in."""
    async with browsing(server.port) as opened:
        assert (await opened.sign_in()).status_code == 303
        yield opened
