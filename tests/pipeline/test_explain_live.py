"""A call takes the model that an explanation just before it named, although other calls change the state meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.pipeline.asks import PRICING, ROUTING, body
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.slow
REQUESTS = int(os.environ.get("REQUESTS", "600"))
AT_ONCE = 8
MODELS = ("a", "b", "c", "d", "v", "z")
# Without chance: shares and exploration are drawn anew for each call.
CERTAIN = ROUTING.replace("exploration: 0.2", "exploration: 0").replace("{{fake/a: 50, fake/b: 50}}", "{{fake/a: 1}}")


async def compared(url: str, requests: list[bytes]) -> Counter[str]:
    """Each of the requests explained and then sent, some at a time."""
    found: Counter[str] = Counter()
    left = iter(requests)

    async def one_by_one(client: httpx.AsyncClient) -> None:
        for sent in left:
            told, answer = [await client.post(path, content=sent) for path in ("/route/explain", "/chat/completions")]
            if told.is_error or answer.is_error:
                alike = told.status_code == answer.status_code or told.json().get("chosen") is None
                failed = answer.status_code >= 500
                found["refused alike" if alike else "the model failed" if failed else "refused by one"] += 1
            elif answer.headers["x-proxy-model"] == told.json()["chosen"]:
                found["the same model"] += 1
            else:
                found["a fallback" if answer.headers["x-proxy-attempts"] != "1" else "another model"] += 1

    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        await asyncio.gather(*(one_by_one(client) for _ in range(AT_ONCE)))
    return found


@pytest.mark.parametrize(("failing", "least"), [(None, 0.99), ("e503", 0.9)])
async def test_most_calls_take_the_model_that_was_explained(tmp_path: Path, failing: str | None, least: float) -> None:
    draw = random.Random(3)
    async with FakeUpstream() as upstream:
        upstream.modes.update(dict.fromkeys(MODELS, "ok") | ({"b": failing} if failing else {}))
        files = write_files(tmp_path, upstream.url, CERTAIN, PRICING)
        async with serving(files) as server:
            found = await compared(server.base_url, [body(draw) for _ in range(REQUESTS)])
    print(f"\n  {'one model fails' if failing else 'all are well'}: {dict(found.most_common())} of {REQUESTS}")
    assert found.total() == REQUESTS
    assert found["the same model"] > REQUESTS / 3
    assert found["the same model"] + found["refused alike"] >= least * REQUESTS
    assert found["refused by one"] <= 0.01 * REQUESTS
