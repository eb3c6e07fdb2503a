"""The retries of a client on top of ours: they do not multiply."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from tests.serving import ROUTING, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

RETRYING = ROUTING.replace("retries: 0", "retries: 2").replace("fake/ok}}", "fake/ok, retry_delay_s: 0.01}}")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "requests"),
    [("fake/e429", 3), ("fake/e429(code=insufficient_quota)", 1), ("fake/e409", 3), ("fake/e500", 3)],
)
@pytest.mark.sampled(4)
async def test_three_tries_of_an_sdk_do_not_become_nine_requests(
    tmp_path: Path, upstream: FakeUpstream, model: str, requests: int, stream: bool
) -> None:
    """Ours are all; an empty account is asked once."""
    async with (
        serving(write_files(tmp_path, upstream.url, RETRYING)) as server,
        AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=2) as client,
    ):
        before = len(upstream.ledger)
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "hi"}], stream=stream
            )
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert len(upstream.ledger) - before == requests
