"""The Python client both ways: at a server on a real socket, and with the whole proxy in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from proxy import APISettings, MultiModelAPI
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.modes import says

SERVER, IN_PROCESS = "server", "in process"
ROUTING = """
# the file of both
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models: {{small: fake/a, big: fake/b}}
aliases: {{gpt-4o-mini: small}}
router: {{default_model: fake/ok, max_retries: 0}}
tasks: {{reasoning: big, default: small}}
rules:
  - {{name: urgent, when: {{priority: high}}, use: big}}
ensembles:
  careful: {{strategy: voting, members: [fake/a, fake/b], min_agreement: 1.0}}
"""
VERDICT = '{"correct": true, "complete": true, "confidence": 0.93, "issues": []}'


class Scene:
    """`api` asks; `upstream` is the provider. Its models say what their names in `MODES` tell."""

    def __init__(self, api: MultiModelAPI, upstream: FakeUpstream) -> None:
        self.api = api
        self.upstream = upstream


MODES = {
    "a": says("$49.99"),
    "b": says("49.99 USD"),
    "c": says("$12.00"),
    "x": says('{"name": "Rex", "price": 5}'),
    "y": says('{"name": "Rex", "price": 5, "colour": "red"}'),
    "checks": says(VERDICT),
}


@asynccontextmanager
async def scene(how: str, folder: Path, routing: str = ROUTING, **options: Any) -> AsyncIterator[Scene]:
    """A client of one of the two kinds, which is closed at the end."""
    async with FakeUpstream(modes=MODES) as upstream:
        path = write_files(folder, upstream.url, routing)
        if how == IN_PROCESS:
            async with MultiModelAPI(settings=APISettings.load(path), **options) as api:
                yield Scene(api, upstream)
            return
        async with serving(path) as server, MultiModelAPI(base_url=server.base_url, **options) as api:
            yield Scene(api, upstream)
