"""`routing.trace`: the answer says how it came about, whole and streamed, and the costs in it add up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.api.raw import HELLO, get
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODELS = """
models:
  twice: {{use: fake/e500, fallback: [fake/ok]}}
"""
TRACE = {"routing": {"trace": True}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder: Path = tmp_path_factory.mktemp("trace")
    async with serving(write_files(folder, upstream_of_module.url, ROUTING + MODELS)) as running:
        yield running


def leaf_costs(nodes: Iterable[dict[str, Any]]) -> float:
    return sum(leaf_costs(node["attempts"]) if "attempts" in node else node["cost_usd"] for node in nodes)


def check(routing: dict[str, Any], cost: float) -> None:
    """What both kinds of answers say of the same call."""
    assert {"requested", "rule", "strategy", "candidates", "attempts", "downgraded_from"} <= routing.keys()
    assert (routing["requested"], routing["step"], routing["rule"]) == ("twice", "named", None)
    assert [(each["model"], each["order"]) for each in routing["candidates"]] == [("fake/e500", 1), ("fake/ok", 2)]
    assert [(each["model"], each["outcome"]) for each in routing["attempts"]] == [
        ("fake/e500", "upstream_error"),
        ("fake/ok", "ok"),
    ]
    assert leaf_costs(routing["attempts"]) == pytest.approx(cost)


async def test_a_whole_answer(traced: Server) -> None:
    """Next to `usage`."""
    answer: Any = await traced.client.chat.completions.create(model="twice", messages=HELLO, extra_body=TRACE)
    assert answer.usage.cost > 0
    check(answer.routing, answer.usage.cost)


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
async def test_a_stream(traced: Server, options: dict[str, Any]) -> None:
    """In the usage chunk, which a trace asks for too."""
    chunks: list[Any] = []
    stream: Any = await traced.client.chat.completions.create(
        model="twice", messages=HELLO, stream=True, extra_body=TRACE, **options
    )
    async for chunk in stream:
        chunks.append(chunk)
    assert [getattr(chunk, "routing", None) for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    check(chunks[-1].routing, chunks[-1].usage.cost)
    assert chunks[-1].routing["attempts"][1]["first_token_ms"] > 0


async def test_the_trace_is_what_the_request_shows_later(traced: Server) -> None:
    """The same tree, from the database."""
    raw = await traced.client.chat.completions.with_raw_response.create(
        model="twice", messages=HELLO, extra_headers={"x-proxy-trace": "true"}
    )
    later = (await get(traced.port, "/v1/requests/" + raw.headers["x-request-id"])).json
    answer: Any = raw.parse()
    assert later["attempts"] == answer.routing["attempts"]


async def test_without_the_hint_there_is_no_trace(traced: Server) -> None:
    """Clients that validate answers strictly see nothing new."""
    answer = await traced.client.chat.completions.create(model="twice", messages=HELLO)
    assert not hasattr(answer, "routing")
    stream = await traced.client.chat.completions.create(model="twice", messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices != []


async def test_parts_of_one_answer_are_leaves_that_add_up(traced: Server) -> None:
    """Choices that were asked for together have their seats."""
    answer: Any = await traced.client.chat.completions.create(model="fake/ok", messages=HELLO, n=3, extra_body=TRACE)
    assert leaf_costs(answer.routing["attempts"]) == pytest.approx(answer.usage.cost)


async def test_embeddings_are_traced_too(traced: Server) -> None:
    """A hint is never ignored."""
    answer: Any = await traced.client.embeddings.create(model="fake/ok", input="one two", extra_body=TRACE)
    assert answer.routing["requested"] == "fake/ok"
    assert leaf_costs(answer.routing["attempts"]) == pytest.approx(answer.usage.cost)
