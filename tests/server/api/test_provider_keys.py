"""Several API keys of one provider, through the product: which key reaches the vendor, and what the caller notices."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.providers.base.contract import ProviderLimits
from tests.server.api.raw import chat, get, post, request
from tests.server.api.rows import calls
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream, key_hash
from tests.waiting import eventually

KEYS = {f"VENDOR_{name}": f"sk-of-{name.lower()}-0123456789" for name in "ABC"}
HASHES = {key_hash(value): name.removeprefix("VENDOR_") for name, value in KEYS.items()}
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  vendor:
    type: TYPE
    base_url: "{upstream}"
    allow_private: true
    price: null
    api_key_env: {{rotate: [ROTATED]}}
    limits: {{LIMITS}}
    timeout_s: {timeouts}
    EXTRA
  spare: {{type: openai, base_url: "{upstream}", allow_private: true, retries: 0}}
models:
  mine: {{use: vendor/ok, fallback: [spare/ok]}}
router: {{default_model: vendor/ok}}
"""
PRICING = "version: 1\nmodels: {vendor/*: {input: 2, output: 10, max_output: 4096}}\n"


def routing(
    rotated: str = "ABC", limits: str = "", extra: str = "retries: 2", kind: str = "openai", root: str = "{upstream}"
) -> str:
    names = ", ".join(f"VENDOR_{name}" for name in rotated)
    text = ROUTING.replace("TYPE", kind).replace("ROTATED", names).replace("LIMITS", limits).replace("EXTRA", extra)
    return text.replace('base_url: "{upstream}"', f'base_url: "{root}"', 1)


@asynccontextmanager
async def world(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Server, FakeUpstream]]:
    async with FakeUpstream() as upstream:
        settings = {"root": upstream.url, **settings}
        if settings["root"] == "origin":
            settings["root"] = upstream.url.removesuffix("/v1")
        path = write_files(tmp_path, upstream.url, routing(**settings), PRICING)
        async with serving(path, KEYS) as server:
            yield server, upstream


def used(upstream: FakeUpstream) -> str:
    """The keys of all attempts, in order; `-` for none."""
    return "".join(HASHES.get(seen.authorization or "", "-") for seen in upstream.ledger)


def mode(upstream: FakeUpstream, name: str, what: str | None) -> None:
    """What the vendor does with requests that have this key; None: what their model says."""
    hashed = key_hash(KEYS[f"VENDOR_{name}"])
    upstream.key_modes = {key: mode for key, mode in upstream.key_modes.items() if key != hashed}
    if what is not None:
        upstream.key_modes[hashed] = what


def written_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@asynccontextmanager
async def asking(port: int, body: bytes) -> AsyncIterator[None]:
    """A client that sends a request, and leaves at the end of the block."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(body))
        await writer.drain()
        yield
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_keys_take_turns_and_are_one_deployment(tmp_path: Path, transport: str) -> None:
    """In the usage, the models and the metrics nothing tells them apart, and no key or name of one is there."""
    async with world(tmp_path, extra=f"transport: {transport}") as (server, upstream):
        for stream in (False, True, False, True, False, True):
            assert (await post(server.port, chat("vendor/ok", stream=stream))).status == 200
        assert Counter(used(upstream)) == {"A": 2, "B": 2, "C": 2}
        usage = (await get(server.port, "/v1/usage?group_by=model")).json
        assert [(group["model"], group["calls"]) for group in usage["groups"]] == [("ok", 6)]
        texts = [(await get(server.port, path)).bytes for path in ("/v1/models", "/metrics", "/health", "/v1/usage")]
        for text in texts:
            assert b"VENDOR_" not in text
            assert b"sk-of-" not in text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("refusal", ["e401", "e402", "e403", "e429(retry_after=60)", "e429(code=insufficient_quota)"])
@pytest.mark.sampled(4)
async def test_a_refused_key_costs_one_attempt_and_rests(tmp_path: Path, stream: bool, refusal: str) -> None:
    """The call is answered by another key without a wait, and later calls do not ask with the refused one."""
    async with world(tmp_path, rotated="AB") as (server, upstream):
        mode(upstream, "A", refusal)
        loop = asyncio.get_running_loop()
        started = loop.time()
        answers = [await post(server.port, chat("vendor/ok", stream=stream)) for _ in range(6)]
        assert [answer.status for answer in answers] == [200] * 6
        assert loop.time() - started < 20  # a rest or a back-off after each refusal would take longer
        assert Counter(used(upstream)) == {"A": 1, "B": 6}
        rows = calls(tmp_path / "usage.db")
        assert {row["outcome"] for row in rows} == {"ok"}


async def test_without_retries_the_call_moves_on_and_the_next_one_is_answered(tmp_path: Path) -> None:
    """`retries: 0` means no second request at the same deployment."""
    async with world(tmp_path, rotated="AB", extra="retries: 0") as (server, upstream):
        mode(upstream, "A", "e401")
        mode(upstream, "B", "e429(retry_after=60)")
        first, second = [(await post(server.port, chat("vendor/ok"))).error() for _ in range(2)]
        assert {first["code"], second["code"]} == {"invalid_api_key", "rate_limit_exceeded"}
        by_code = {error["code"]: error["message"] for error in (first, second)}
        assert by_code["invalid_api_key"].startswith("vendor (VENDOR_A): ")
        assert by_code["rate_limit_exceeded"].startswith("vendor (VENDOR_B): ")
        answer = await post(server.port, chat("mine"))
        assert (answer.status, answer.json["model"]) == (200, "spare/ok")
        refused = await post(server.port, chat("vendor/ok"))
        assert refused.status == 429
        assert 1 <= int(refused.headers("retry-after")[0]) <= 60
        message = refused.error()["message"]
        assert "VENDOR_A rests after invalid_api_key" in message
        assert "VENDOR_B rests after rate_limit_exceeded" in message
        assert used(upstream) in ("AB-", "BA-")


@pytest.mark.parametrize("stream", [False, True])
async def test_keys_that_are_all_refused_end_with_a_status(tmp_path: Path, stream: bool) -> None:
    """First the vendor's own, then 503 without asking the vendor again."""
    async with world(tmp_path, rotated="AB") as (server, upstream):
        mode(upstream, "A", "e401")
        mode(upstream, "B", "e403")
        first = await post(server.port, chat("vendor/ok", stream=stream))
        assert first.status in (401, 403)
        again = await post(server.port, chat("vendor/ok", stream=stream))
        assert (again.status, again.error()["code"]) == (503, "no_usable_key")
        assert sorted(used(upstream)) == ["A", "B"]


async def test_a_minute_that_is_used_up_earns_no_429(tmp_path: Path) -> None:
    """The other key serves, then the fallback; without one, 429 says when to come back."""
    async with world(tmp_path, rotated="AB", limits="requests_per_minute: 2") as (server, upstream):
        answers = await asyncio.gather(*(post(server.port, chat("vendor/ok")) for _ in range(4)))
        assert [answer.status for answer in answers] == [200] * 4
        refused = await post(server.port, chat("vendor/ok"))
        assert (refused.status, refused.error()["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers("retry-after")[0]) <= 61
        streamed = await post(server.port, chat("vendor/ok", stream=True))
        assert streamed.status == 429
        fallback = await post(server.port, chat("mine"))
        assert fallback.json["model"] == "spare/ok"
        assert Counter(used(upstream)) == {"A": 2, "B": 2, "-": 1}
        ended = [row for row in calls(tmp_path / "usage.db") if row["status"] == 429]
        assert {row["cost_nano"] for row in ended} == {0}


async def test_a_single_key_has_its_limit_too(tmp_path: Path) -> None:
    """Known in advance, it is not exceeded."""
    async with world(tmp_path, rotated="A", limits="requests_per_minute: 1") as (server, upstream):
        assert (await post(server.port, chat("vendor/ok"))).status == 200
        assert (await post(server.port, chat("vendor/ok"))).status == 429
        assert used(upstream) == "A"


async def test_an_only_key_keeps_asking(tmp_path: Path) -> None:
    """Of two, one is not set: the other one's refusals are the vendor's own, each time."""
    async with world(tmp_path, rotated="AZ") as (server, upstream):
        assert server.runtime.config.notices == ["providers.vendor: VENDOR_Z is not set"]
        mode(upstream, "A", "e401")
        assert [(await post(server.port, chat("vendor/ok"))).status for _ in range(2)] == [401, 401]
        assert used(upstream) == "AA"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_call_gives_back_what_it_reserved(tmp_path: Path, stream: bool) -> None:
    """Its answer will not be written: the next call has the tokens."""
    async with world(tmp_path, rotated="A", limits="tokens_per_minute: 1000") as (server, upstream):
        body = chat("vendor/blackhole", stream=stream, max_completion_tokens=900)
        async with asking(server.port, body):
            await upstream.until(lambda: upstream.open == 1)
            busy = await post(server.port, chat("vendor/ok", max_completion_tokens=500))
            assert (busy.status, busy.error()["code"]) == (429, "rate_limit_exceeded")
        await upstream.until(lambda: upstream.open == 0)
        keys = server.runtime.upstreams["vendor"].keys
        assert keys is not None
        await eventually(lambda: keys.keys[0].state.tokens < 100)
        assert (await post(server.port, chat("vendor/ok", max_completion_tokens=500))).status == 200


async def test_an_answer_counts_by_its_usage(tmp_path: Path) -> None:
    """Not by what was reserved for it."""
    async with world(tmp_path, rotated="A", limits="tokens_per_minute: 1000") as (server, _):
        for stream in (False, True, False):
            answer = await post(server.port, chat("vendor/ok", stream=stream, max_completion_tokens=900))
            assert answer.status == 200
        keys = server.runtime.upstreams["vendor"].keys
        assert keys is not None
        assert (keys.keys[0].state.requests, keys.keys[0].state.tokens) == (3, 39)


async def test_a_call_that_waits_for_a_place_uses_no_key(tmp_path: Path) -> None:
    """It takes one when its request can leave."""
    extra = "max_concurrent: 1"
    async with world(tmp_path, rotated="A", limits="requests_per_minute: 2", extra=extra) as (server, upstream):
        async with asking(server.port, chat("vendor/blackhole", stream=True)):
            await upstream.until(lambda: upstream.open == 1)
            waiting = asyncio.create_task(post(server.port, chat("vendor/ok")))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.wait({waiting})
        await upstream.until(lambda: upstream.open == 0)
        assert (await post(server.port, chat("vendor/ok"))).status == 200
        assert (await post(server.port, chat("vendor/ok"))).status == 429


async def test_a_server_that_cannot_be_reached_uses_nothing(tmp_path: Path) -> None:
    """Nothing was sent, so nothing of the minute is gone."""
    text = routing(rotated="AB", limits="requests_per_minute: 1", extra="retries: 0", root="http://127.0.0.1:9/v1")
    path = write_files(tmp_path, "http://127.0.0.1:9/v1", text, PRICING)
    async with serving(path, KEYS) as server:
        codes = {(await post(server.port, chat("vendor/ok"))).error()["code"] for _ in range(4)}
        assert codes == {"upstream_unavailable"}


@pytest.mark.parametrize(("kind", "root", "header"), [
    ("openai", "{upstream}", "authorization"),
    ("anthropic", "origin", "x-api-key"),
    ("google", "origin", "x-goog-api-key"),
    ("cohere", "origin", "authorization"),
])  # fmt: skip
@pytest.mark.sampled(3)
async def test_every_vendors_header_changes_with_the_key(tmp_path: Path, kind: str, root: str, header: str) -> None:
    """Each request carries exactly one key, in the vendor's own header, also after a refusal."""
    settings = {"kind": kind} if root == "{upstream}" else {"kind": kind, "root": root}
    async with world(tmp_path, rotated="AB", **settings) as (server, upstream):
        for _ in range(4):
            answer = await post(server.port, chat("vendor/ok"))
            assert answer.status == 200, answer.body
        assert Counter(used(upstream)) == {"A": 2, "B": 2}
        mode(upstream, "A", "e429(retry_after=60)")
        for _ in range(3):
            assert (await post(server.port, chat("vendor/ok"))).status == 200
        assert Counter(used(upstream)) == {"A": 3, "B": 5}
        assert {tuple(seen.key_headers) for seen in upstream.ledger} == {(header,)}


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [("google", "e400(code=API_KEY_INVALID)"), ("anthropic", "e400(code=insufficient_quota)"), ("cohere", "e402")],
)
async def test_a_refusal_in_the_vendors_own_words_rests_the_key(tmp_path: Path, kind: str, refusal: str) -> None:
    """It counts by its meaning, not by the vendor's status."""
    async with world(tmp_path, rotated="AB", kind=kind, root="origin") as (server, upstream):
        mode(upstream, "A", refusal)
        for _ in range(4):
            assert (await post(server.port, chat("vendor/ok"))).status == 200
        assert Counter(used(upstream)) == {"A": 1, "B": 4}


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
async def test_other_endpoints_rotate_too(tmp_path: Path, path: str) -> None:
    """They send through the same keys."""
    fields = {"input": "a b"} if path == "/v1/embeddings" else {"query": "a", "documents": ["b", "c"]}
    async with world(tmp_path, rotated="AB", kind="cohere", root="origin") as (server, upstream):
        mode(upstream, "A", "e401")
        for _ in range(3):
            answer = await post(server.port, json.dumps({"model": "vendor/ok", **fields}).encode(), path)
            assert answer.status == 200, answer.body
        assert Counter(used(upstream)) == {"A": 1, "B": 3}


async def test_a_server_without_a_key_has_a_limit_too(tmp_path: Path) -> None:
    """It is known by its origin alone; no key is sent."""
    text = routing().replace("api_key_env: {{rotate: [VENDOR_A, VENDOR_B, VENDOR_C]}}", "max_concurrent: 5")
    text = text.replace("limits: {{}}", "limits: {{requests_per_minute: 1}}").replace("root", "upstream")
    async with FakeUpstream() as upstream:
        path = write_files(tmp_path, upstream.url, text, PRICING)
        async with serving(path) as server:
            assert (await post(server.port, chat("vendor/ok"))).status == 200
            refused = await post(server.port, chat("vendor/ok"))
        assert refused.status == 429
        assert refused.error()["message"].startswith("vendor may not be called now: it has used its 1 requests")
        assert used(upstream) == "-"


async def test_each_worker_enforces_its_share(tmp_path: Path) -> None:
    """Together they keep within the limit."""
    text = routing(limits="requests_per_minute: 9", root="http://127.0.0.1:9/v1") + "server: {{workers: 2}}\n"
    async with serving(write_files(tmp_path, "http://127.0.0.1:9/v1", text, PRICING), KEYS) as server:
        keys = server.runtime.upstreams["vendor"].keys
        assert keys is not None
        assert keys.limits == ProviderLimits(requests_per_minute=4)


async def test_headers_of_the_origin_go_with_every_key(tmp_path: Path) -> None:
    """The organization, and headers from the file."""
    extra = "organization_env: VENDOR_ORG\n    headers: {{x-team: search}}"
    async with FakeUpstream() as upstream:
        path = write_files(tmp_path, upstream.url, routing(rotated="AB", extra=extra, root=upstream.url), PRICING)
        async with serving(path, {**KEYS, "VENDOR_ORG": "org-1"}) as server:
            for _ in range(4):
                assert (await post(server.port, chat("vendor/ok"))).status == 200
        assert Counter(used(upstream)) == {"A": 2, "B": 2}
        assert {seen.headers["openai-organization"] for seen in upstream.ledger} == {"org-1"}
        assert {seen.headers["x-team"] for seen in upstream.ledger} == {"search"}


async def test_a_reload_adds_and_removes_keys_while_calls_run(tmp_path: Path) -> None:
    """No call fails; new calls use the new keys, running ones keep theirs; what a key has used of its minute stays."""
    async with world(tmp_path, rotated="AB", limits="requests_per_minute: 20") as (server, upstream):
        running = [asyncio.create_task(post(server.port, chat("vendor/ok(pace=0.02)", stream=True))) for _ in range(4)]
        await upstream.until(lambda: len(upstream.ledger) == 4)
        mode(upstream, "B", "e401")
        assert (await post(server.port, chat("vendor/ok"))).status == 200
        before = Counter(used(upstream))
        text = routing(rotated="BC", limits="requests_per_minute: 20", root=upstream.url)
        mode(upstream, "B", None)
        write_files(tmp_path, upstream.url, text, PRICING)
        assert (await post(server.port, b"", "/admin/reload")).status == 200
        after = [await post(server.port, chat("vendor/ok")) for _ in range(6)]
        assert [answer.status for answer in [*after, *await asyncio.gather(*running)]] == [200] * 10
        new = Counter(used(upstream)) - before
        assert set(new) == {"B", "C"}  # B was refused before the reload: it gets another try
        keys = server.runtime.upstreams["vendor"].keys
        assert keys is not None
        assert {key.variable: key.state.requests for key in keys.keys} == {
            "VENDOR_B": before["B"] + new["B"],
            "VENDOR_C": new["C"],
        }


async def test_a_reload_of_unchanged_files_tries_refused_keys_again(tmp_path: Path) -> None:
    """The operator paid the bill. A key that was limited still rests."""
    async with world(tmp_path, rotated="ABC") as (server, upstream):
        mode(upstream, "A", "e402")
        mode(upstream, "B", "e429(retry_after=60)")
        for _ in range(4):
            assert (await post(server.port, chat("vendor/ok"))).status == 200
        upstream.key_modes.clear()
        upstream.reset()
        assert (await post(server.port, b"", "/admin/reload")).json["changed"] is False
        for _ in range(4):
            assert (await post(server.port, chat("vendor/ok"))).status == 200
        assert set(used(upstream)) == {"A", "C"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_inside_an_answer_is_not_sent_again(tmp_path: Path, stream: bool) -> None:
    """It may have been billed. Its key rests all the same."""
    async with world(tmp_path, rotated="AB") as (server, upstream):
        for name in "AB":
            mode(upstream, name, "json_in_200_error(code=insufficient_quota)")
        answer = await post(server.port, chat("vendor/ok", stream=stream))
        assert answer.status >= 400
        assert len(upstream.ledger) == 1
        keys = server.runtime.upstreams["vendor"].keys
        assert keys is not None
        assert [name.removeprefix("VENDOR_") for name in keys.resting()] == [used(upstream)]


async def test_no_key_is_in_a_log_an_answer_or_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The log names the variable of a key that rests, once."""
    async with world(tmp_path, rotated="ABC") as (server, upstream):
        mode(upstream, "A", "e401")
        mode(upstream, "B", "e429(retry_after=60)")
        mode(upstream, "C", "e403")
        answers = [await post(server.port, chat("vendor/ok", stream=stream)) for stream in (False, True, False)]
    logged = capfd.readouterr()
    log = logged.out + logged.err
    assert log.count('"key_rests"') == 3
    for name in KEYS:
        assert f'"{name}"' in log
    written = written_in(tmp_path)
    for key in KEYS.values():
        for secret in (key, hashlib.sha256(key.encode()).hexdigest()):
            assert secret not in log
            assert secret.encode() not in written
            assert all(secret.encode() not in answer.bytes for answer in answers)
