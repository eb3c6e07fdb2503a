"""One key keeps querying the usage of a large table: no other caller is affected, and revoking it works in time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.faults.books import files
from tests.serving import spawned
from tests.storage.samples import fill_calls
from tests.upstream import FakeUpstream

ROWS, ASKERS = 200_000, 40
REVOKED_S, SEEN_S, STOP_S = 2.0, 1.0, 5.0
QUERY = "/v1/usage?group_by=model,provider,day,session&since=2023-11-14&until=2023-11-18"


def keys(routing: Path, *command: str) -> str:
    arguments = ["--config", str(routing), "--pricing", str(routing.parent / "pricing.yaml")]
    done = subprocess.run([sys.executable, "-m", "proxy", "keys", *command, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.slow
async def test_heavy_usage_queries_delay_no_key(tmp_path: Path) -> None:
    """Keys that were seen and keys that were not, wrong keys, revoked keys, and the end of the process."""
    async with FakeUpstream() as upstream:
        routing = files(tmp_path, upstream.url, grace_s=1)
        fill_calls(tmp_path / "usage.db", ROWS)
        made = [await asyncio.to_thread(keys, routing, "create", name) for name in ("ann", "bob", "eve")]
        heavy, seen, unseen = (bearer(key) for key in made)
        with spawned(routing) as server:
            limits = httpx.Limits(max_connections=2 * ASKERS)
            origin = f"http://127.0.0.1:{server.port}"
            async with httpx.AsyncClient(base_url=origin, limits=limits, timeout=60, trust_env=False) as client:
                answers: Counter[int] = Counter()

                async def status(headers: dict[str, str], path: str = "/v1/models") -> int:
                    return (await client.get(path, headers=headers)).status_code

                async def ask_on() -> None:
                    while True:
                        code = await status(heavy, QUERY)
                        answers[code] += 1
                        await asyncio.sleep(0.2 if code == 429 else 0)

                assert await status(seen) == 200
                askers = [asyncio.create_task(ask_on()) for _ in range(ASKERS)]
                await asyncio.sleep(1)
                waited = []
                for _ in range(10):
                    begun = time.monotonic()
                    assert await status(seen) == 200
                    waited.append(time.monotonic() - begun)
                    await asyncio.sleep(0.1)
                assert await status(unseen) == 200
                assert await status(bearer("wrong")) == 401
                await asyncio.to_thread(keys, routing, "revoke", "ann")
                revoked = time.monotonic()
                while await status(heavy) == 200:  # noqa: ASYNC110 - it is the server that is waited for
                    await asyncio.sleep(0.05)
                took = time.monotonic() - revoked
                facts = (dict(answers), f"{max(waited) * 1000:.0f} ms", f"{took:.2f} s")
                print("\n  usage: {}; a key seen before: {} at most; revoked after {}".format(*facts))
                assert took < REVOKED_S
                assert max(waited) < SEEN_S
                assert answers[429] > 0
                begun = time.monotonic()
                stopping = asyncio.create_task(asyncio.to_thread(server.stop))
                assert await stopping == 0
                print(f"  stopped after {time.monotonic() - begun:.1f} s")
                assert time.monotonic() - begun < STOP_S
                for each in askers:
                    each.cancel()
                await asyncio.wait(askers)
