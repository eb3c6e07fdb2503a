"""Rate limits at every endpoint, in the shape and with the headers that its clients read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.server.api.raw import Answer, post
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITED = ROUTING + "rate_limits: {{default: {{requests_per_minute: 2}}, keyless: {{requests_per_minute: 2}}}}\n"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "/v1/completions": {"prompt": "hi"},
}


async def ask(server: Server, path: str, model: str = "fake/ok", **fields: Any) -> Answer:
    return await post(server.port, json.dumps({"model": model, **BODIES[path], **fields}).encode(), path=path)


def check_error(path: str, answer: Answer, code: str, kind: str = "rate_limit_error") -> dict[str, Any]:
    """The error, in the shape of the endpoint. `kind`: its type in OpenAI's shape."""
    body = answer.json
    if path == "/v1/messages":
        assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
        assert body["request_id"] and answer.headers("request-id") == [body["request_id"]]
        assert body["error"]["details"]["code"] == code
        return dict(body["error"]["details"])
    assert (body["error"]["type"], body["error"]["code"]) == (kind, code)
    return dict(body["error"])


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.sampled(3)
async def test_our_own_limit_says_when_to_come_again(upstream: FakeUpstream, tmp_path: Path, path: str) -> None:
    """Whole answers and streams tell what is left; the refusal names limiter, limit and time."""
    async with serving(write_files(tmp_path, upstream.url, LIMITED)) as server:
        whole = await ask(server, path)
        stream = await ask(server, path, stream=True)
        refused = [await ask(server, path), await ask(server, path, stream=True)]
    for left, answer in enumerate((stream, whole)):
        assert answer.status == 200
        assert answer.headers("x-ratelimit-limit-requests") == ["2"]
        assert answer.headers("x-ratelimit-remaining-requests") == [str(left)]
    for answer in refused:
        assert (answer.status, answer.headers("content-type")) == (429, ["application/json"])
        assert 1 <= int(answer.headers("retry-after")[0]) <= 60
        assert answer.headers("x-ratelimit-remaining-requests") == ["0"]
        assert check_error(path, answer, "rate_limit_exceeded")["metadata"]["limiter"] == "requests_per_minute"
    assert len(upstream.ledger) == 2


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.sampled(4)
async def test_a_vendors_limit_keeps_its_time(upstream: FakeUpstream, tmp_path: Path, path: str, stream: bool) -> None:
    """`retry-after` of the vendor goes on to the client, with our own headers beside it."""
    async with serving(write_files(tmp_path, upstream.url, LIMITED)) as server:
        answer = await ask(server, path, "fake/e429(retry_after=17)", stream=stream)
    assert (answer.status, answer.headers("retry-after")) == (429, ["17"])
    check_error(path, answer, "rate_limit_exceeded", "requests")  # OpenAI's own word for the kind


async def responses(client: AsyncOpenAI) -> Any:
    return await client.responses.create(model="fake/ok", input="hi")


async def completions(client: AsyncOpenAI) -> Any:
    return await client.completions.create(model="fake/ok", prompt="hi")


async def messages(client: AsyncAnthropic) -> Any:
    said: Any = [{"role": "user", "content": "hi"}]
    return await client.messages.create(model="fake/ok", max_tokens=9, messages=said)


@pytest.mark.parametrize(
    ("client", "call", "error"),
    [
        (AsyncOpenAI, responses, openai.RateLimitError),
        (AsyncOpenAI, completions, openai.RateLimitError),
        (AsyncAnthropic, messages, anthropic.RateLimitError),
    ],
    ids=["responses", "completions", "messages"],
)
async def test_the_vendors_sdks_raise_their_error_for_it(
    upstream: FakeUpstream,
    tmp_path: Path,
    client: type[Any],
    call: Callable[[Any], Awaitable[Any]],
    error: type[Exception],
) -> None:
    """Unmodified, without retries."""
    async with serving(write_files(tmp_path, upstream.url, LIMITED)) as server:
        address = server.base_url.removesuffix("/v1") if client is AsyncAnthropic else server.base_url
        async with client(base_url=address, api_key="any", max_retries=0) as sdk:
            assert (await call(sdk)) and (await call(sdk))
            with pytest.raises(error) as raised:
                await call(sdk)
    assert int(raised.value.response.headers["retry-after"]) >= 1  # type: ignore[attr-defined]
