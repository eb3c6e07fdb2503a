"""Rate limits as callers meet them: of a key, of callers without one, and of all together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from proxy.config import load
from proxy.pipeline.limits import RateLimit
from tests.server.api.end_to_end import HELLO
from tests.server.api.raw import chat, post
from tests.serving import ROUTING, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENVIRON = {"PROXY_API_KEY": "canary-of-the-environment", "PROXY_ADMIN_KEY": "canary-of-its-admin"}


def limited(text: str) -> str:
    """The section, as `write_files` wants it."""
    return ROUTING + "\nrate_limits: " + text.replace("{", "{{").replace("}", "}}") + "\n"


async def test_the_shipped_file_has_limits() -> None:
    """60 requests a minute for each key; agents on a laptop have room."""
    config = load(Path(__file__).parents[3] / "routing_rules.yaml", None, {})
    assert config.rate_limits is not None
    assert config.rate_limits.default == RateLimit(requests_per_minute=60)
    assert (config.rate_limits.keyless.requests_per_minute or 0) >= 6000


@pytest.mark.slow
async def test_the_sdk_waits_as_long_as_it_is_told(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Unmodified, with its retries: it comes again when there is room, and reads OpenAI's headers."""
    routing = write_files(tmp_path, upstream.url, limited("{default: {requests_per_minute: 60}}"))
    async with serving(routing, ENVIRON) as server:
        base_url, key = server.base_url, ENVIRON["PROXY_API_KEY"]
        async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
            raw = await client.chat.completions.with_raw_response.create(model="fake/ok", messages=HELLO)
            assert raw.headers["x-ratelimit-limit-requests"] == "60"
            assert raw.headers["x-ratelimit-remaining-requests"] == "59"
            bodies = [client.chat.completions.create(model="fake/ok", messages=HELLO) for _ in range(70)]
            done = await asyncio.gather(*bodies, return_exceptions=True)
            refused = [error for error in done if isinstance(error, openai.RateLimitError)]
            assert len(refused) >= 5
            assert refused[0].code == "rate_limit_exceeded"
            assert int(refused[0].response.headers["retry-after"]) >= 1
        async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=5) as client:
            assert (await client.chat.completions.create(model="fake/ok", messages=HELLO)).choices


async def test_callers_without_a_key_are_not_held_to_the_limit_of_a_key(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Their own limits hold, for all of them together."""
    routing = write_files(
        tmp_path, upstream.url, limited("{default: {requests_per_minute: 1}, keyless: {concurrent: 2}}")
    )
    async with serving(routing) as server:
        answers = await asyncio.gather(*(post(server.port, chat("fake/delay_whole(s=0.5)")) for _ in range(3)))
        assert sorted(answer.status for answer in answers) == [200, 200, 429]
        (refused,) = [answer.error() for answer in answers if answer.status == 429]
        assert refused["metadata"]["limiter"] == "concurrent"
        assert [(await post(server.port, chat())).status for _ in range(5)] == [200] * 5


async def test_the_limit_of_all_callers_refuses_whoever_comes_too_late(upstream: FakeUpstream, tmp_path: Path) -> None:
    """And what it refused has used nothing of the key's own limit."""
    routing = write_files(
        tmp_path, upstream.url, limited("{default: {requests_per_minute: 10}, global: {concurrent: 1}}")
    )
    async with serving(routing, ENVIRON) as server:
        keys = {name: f"Bearer {key}" for name, key in ENVIRON.items()}
        body = chat("fake/delay_whole(s=1)")
        first = asyncio.create_task(post(server.port, body, authorization=keys["PROXY_API_KEY"]))
        await upstream.until(lambda: bool(upstream.ledger))
        for _ in range(3):
            refused = await post(server.port, chat(), authorization=keys["PROXY_ADMIN_KEY"])
            assert refused.error()["metadata"]["limiter"] == "concurrent"
            assert "all callers together" in refused.error()["message"]
        assert (await first).status == 200
        answer = await post(server.port, chat(), authorization=keys["PROXY_ADMIN_KEY"])
        assert (answer.status, answer.headers("x-ratelimit-remaining-requests")) == (200, ["9"])
    assert len(upstream.ledger) == 2


async def test_a_repeat_uses_nothing_of_the_limits(upstream: FakeUpstream, tmp_path: Path) -> None:
    """It buys nothing: a client that asks again gets its answer, though its minute is used up."""
    routing = write_files(tmp_path, upstream.url, limited("{keyless: {requests_per_minute: 1}}"))
    async with serving(routing) as server:
        answers = [await post(server.port, chat(), idempotency_key="k") for _ in range(3)]
        other = await post(server.port, chat())
    assert [answer.status for answer in (*answers, other)] == [200, 200, 200, 429]
    assert answers[0].headers("x-ratelimit-remaining-requests") == ["0"]
    assert answers[1].headers("x-ratelimit-remaining-requests") == []
