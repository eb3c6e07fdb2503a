"""A compressed request over a real socket is the request it was; a bomb costs neither memory nor the loop's time."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from backports import zstd

from proxy.schema.errors import ProxyError
from proxy.server.api.request import Bodies
from tests.server.api.raw import Answer, chat, request, send
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
PRESSES: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd.compress}
CAP = 2 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that takes bodies of 2 MB."""
    folder = tmp_path_factory.mktemp("small")
    routing = ROUTING + "server: {{max_body_mb: 2}}\n"
    async with serving(write_files(folder, upstream_of_module.url, routing)) as running:
        yield running


async def post(server: Server, body: bytes, encoding: str, path: str = "/v1/chat/completions") -> Answer:
    return await send(server.port, request(body, path=path, headers={"content-encoding": encoding}))


@pytest.mark.parametrize("encoding", PRESSES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/route/explain"])
async def test_a_compressed_request_is_answered(small: Server, encoding: str, path: str) -> None:
    """Small, and large enough for a thread."""
    for text in ("one two three", "word " * 200_000):
        body = chat(messages=[{"role": "user", "content": text}])
        assert (await post(small, PRESSES[encoding](body), encoding, path)).status == 200


async def test_an_empty_encoding_is_none(small: Server) -> None:
    """Some clients send the header without a value."""
    raw = request(chat()).replace(b"content-type:", b"content-encoding:\r\ncontent-type:")
    assert (await send(small.port, raw)).status == 200
    assert (await post(small, chat(), "identity")).status == 200


async def test_what_cannot_be_read_is_refused_in_openai_s_shape(small: Server) -> None:
    """With a status that tells who is to blame."""
    assert (await post(small, gzip.compress(chat())[:-9], "gzip")).error()["code"] == "invalid_value"
    assert (await post(small, chat(), "zstd")).status == 400
    answer = await post(small, chat(), "br")
    assert (answer.status, answer.headers("accept-encoding")) == (415, ["gzip, deflate, zstd"])


@pytest.mark.parametrize("encoding", PRESSES)
@pytest.mark.slow
async def test_a_bomb_is_a_413_and_the_server_goes_on(small: Server, encoding: str) -> None:
    """200 MB of blanks in a few kilobytes, many at once: the answer comes after 2 MB of each."""
    bomb = PRESSES[encoding](b" " * 200_000_000)
    assert len(bomb) < CAP
    answers = await asyncio.gather(*(post(small, bomb, encoding) for _ in range(8)))
    assert {answer.error()["code"] for answer in answers} == {"request_too_large"}
    assert (await post(small, PRESSES[encoding](chat()), encoding)).status == 200


async def test_all_bodies_together_have_a_limit() -> None:
    """Held until their requests have ended; then there is room again."""
    bodies, body = Bodies(1_000_000, max_inflated_bytes=1_500_000), gzip.compress(b"a" * 900_000)
    ready, let_go = asyncio.Event(), asyncio.Event()

    async def serve() -> int:
        size = len(await bodies.inflated(body, "gzip"))
        ready.set()
        await let_go.wait()
        return size

    first = asyncio.create_task(serve())
    await ready.wait()
    with pytest.raises(ProxyError) as refused:
        await asyncio.create_task(serve())
    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    let_go.set()
    assert await first == 900_000
    await asyncio.sleep(0)
    assert bodies.inflated_bytes == 0
    assert await asyncio.create_task(serve()) == 900_000
