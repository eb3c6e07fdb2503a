"""Repeats of a request: whoever asks again joins the call in flight or gets its answer, and nothing is paid twice."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.server.api.end_to_end import HELLO, TEN, streamed
from tests.server.api.raw import Answer, chat, get, post, request, send
from tests.server.api.rows import calls, row_of, row_with_id
from tests.serving import ROUTING, Server, serving, spawned, write_files
from tests.upstream import FakeUpstream
from tests.waiting import eventually, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTED = """
models:
  kept: {{use: fake/ok, cache_s: 3600}}
  plain: {{use: fake/ok}}
aliases: {{also: kept}}
rules: [{{name: by header, when: {{header: {{x-tier: gold}}}}, use: "fake/ok(tag=gold)"}}]
"""
JOINING = ROUTING.replace("router: {{", "router: {{join_retries: true, ") + OPTED
ENVIRON = {"PROXY_API_KEY": "canary-of-the-environment", "PROXY_ADMIN_KEY": "canary-of-its-admin"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    """Joins retries, and caches what asks for it."""
    async with serving(write_files(database.parent, upstream_of_module.url, JOINING)) as running:
        yield running


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """An Idempotency-Key of this test's own."""
    return f"key-of-{request.node.name}"


def replayed(answer: Answer) -> tuple[list[str], list[str]]:
    return answer.headers("idempotent-replayed"), answer.headers("x-proxy-replay-of")


async def begin(server: Server, body: bytes, **headers: str) -> asyncio.StreamWriter:
    """A request whose client can leave."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    writer.write(request(body, headers=named))
    await writer.drain()
    return writer


async def in_flight(server: Server, count: int) -> None:
    """Waits until so many requests have a place."""

    async def as_many() -> bool:
        return bool((await get(server.port, "/health")).json["in_flight"] == count)

    await until(as_many)


def contents(folder: Path) -> bytes:
    """All that a database and its log hold."""
    return b"".join(path.read_bytes() for path in folder.glob("usage.db*") if path.is_file())


async def is_kept(database: Path, count: int = 1) -> None:
    """Waits until so many answers are in the store, which is shortly after they have left."""

    def kept() -> bool:
        with closing(sqlite3.connect(database)) as db:
            return bool(db.execute("SELECT COUNT(*) FROM kept_answers WHERE state = 'kept'").fetchone() == (count,))

    await eventually(kept)


# --- Idempotency-Key --------------------------------------------------------------------------------------------------


async def test_a_repeat_gets_the_answer_again_and_costs_nothing(
    server: Server, upstream: FakeUpstream, database: Path, key: str
) -> None:
    """The same bytes but for the cost; said in headers, in the row, and in the usage."""
    before = (await get(server.port, "/v1/usage")).json["total"]
    first = await post(server.port, chat(), idempotency_key=key)
    again = await post(server.port, chat(), idempotency_key=key)
    assert len(upstream.ledger) == 1
    (first_id,) = first.headers("x-request-id")
    assert replayed(first) == ([], [])
    assert replayed(again) == (["true"], [first_id])
    assert again.headers("x-request-id") != [first_id]
    assert again.headers("x-proxy-model") == ["fake/ok"]
    assert (first.headers("x-proxy-cost-usd"), again.headers("x-proxy-cost-usd")) == (["0.000106000"], ["0.000000000"])
    bought, given = first.json, again.json
    assert bought["usage"].pop("cost") > 0
    assert sum(bought["usage"].pop("cost_details").values()) > 0
    assert given["usage"].pop("cost") == sum(given["usage"].pop("cost_details").values()) == 0
    assert given == bought
    row = await row_of(database, again)
    assert (row["replay_of"], row["outcome"], row["status"], row["success"]) == (first_id, "ok", 200, 1)
    assert (row["cost_nano"], row["attempts"], row["total_tokens"], row["model"]) == (0, 0, 0, "ok")
    shown = (await get(server.port, f"/v1/requests/{row['id']}")).json
    assert (shown["replay_of"], shown["attempts"], shown["cost_usd"]) == (first_id, [], 0)
    after = (await get(server.port, "/v1/usage")).json["total"]
    assert (after["calls"] - before["calls"], after["replays"] - before["replays"]) == (2, 1)
    assert after["cost_usd"] - before["cost_usd"] == pytest.approx(0.000106)


async def test_the_sdk_gets_a_stream_again(server: Server, upstream: FakeUpstream, key: str) -> None:
    """Unmodified: the same text, finish and usage, streamed as it was first."""
    extra: Any = {"extra_headers": {"Idempotency-Key": key}}
    first, chunks = await streamed(server.client, "fake/ok", **extra)
    again, repeated = await streamed(server.client, "fake/ok", **extra)
    assert len(upstream.ledger) == 1
    assert first.choices[0].message.content == again.choices[0].message.content == TEN
    assert (first.id, len(chunks)) == (again.id, len(repeated))
    assert (first.usage.total_tokens, first.usage.cost) == (13, pytest.approx(0.000106))
    assert (again.usage.total_tokens, again.usage.cost) == (13, 0)


@pytest.mark.parametrize("differs", ["body", "path"])
async def test_another_request_with_the_same_key_is_refused(
    server: Server, upstream: FakeUpstream, key: str, differs: str
) -> None:
    """422 `idempotency_mismatch`, in flight and afterwards; nothing is bought."""
    body = chat("fake/delay_whole(s=0.3)")
    path = "/v1/embeddings" if differs == "path" else "/v1/chat/completions"
    other = body if differs == "path" else chat("fake/delay_whole(s=0.3)", temperature=1)
    first = asyncio.create_task(post(server.port, body, idempotency_key=key))
    await upstream.until(lambda: bool(upstream.ledger))
    for _ in range(2):
        error = (await post(server.port, other, path, idempotency_key=key)).error()
        assert (error["code"], error["param"]) == ("idempotency_mismatch", "idempotency-key")
        assert (await first).status == 200
    assert len(upstream.ledger) == 1


async def test_a_repeat_joins_a_stream_from_its_beginning(
    server: Server, upstream: FakeUpstream, database: Path, key: str
) -> None:
    """Live: it has read something while the answer still comes; both have all of it."""
    body = chat("fake/ok(n_tokens=20,pace=0.05)", stream=True, stream_options={"include_usage": True})
    first = asyncio.create_task(post(server.port, body, idempotency_key=key))
    await upstream.until(lambda: bool(upstream.ledger) and upstream.ledger[0].tokens_sent > 5)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request(body, headers={"idempotency-key": key}))
    await reader.readuntil(b'"content":"tok0')
    assert not first.done()
    rest = await reader.read()
    writer.close()
    bought, joined = await first, rest.decode()
    assert "tok19" in joined
    assert joined.endswith("data: [DONE]\n\n\r\n0\r\n\r\n")
    assert (bought.events[-2]["usage"]["cost"] > 0, '"cost":0.0,' in joined) == (True, True)
    assert len(upstream.ledger) == 1
    (first_id,) = bought.headers("x-request-id")
    await eventually(lambda: any(row["replay_of"] == first_id and row["closed_ns"] for row in calls(database)))
    rows = [row for row in calls(database) if row["replay_of"] == first_id]
    assert [(row["outcome"], row["cost_nano"], row["stream"]) for row in rows] == [("ok", 0, 1)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_with_a_key_outlives_its_client(
    server: Server, upstream: FakeUpstream, key: str, stream: bool
) -> None:
    """It keeps its place, ends and is kept; the repeat gets the answer."""
    body = chat("fake/ok(n_tokens=10,pace=0.05)" if stream else "fake/delay_whole(s=0.5)", stream=stream)
    writer = await begin(server, body, idempotency_key=key)
    await upstream.until(lambda: bool(upstream.ledger))
    writer.transport.abort()
    await in_flight(server, 1)
    await in_flight(server, 0)
    assert not upstream.ledger[0].peer_closed_early
    again = await post(server.port, body, idempotency_key=key)
    assert (again.status, replayed(again)[0], len(upstream.ledger)) == (200, ["true"], 1)
    assert ("tok9" in again.body.decode()) is True


async def test_a_joiner_that_leaves_cancels_nothing(
    server: Server, upstream: FakeUpstream, database: Path, key: str
) -> None:
    """Its own row says so; the first client gets its answer."""
    body = chat("fake/delay_whole(s=0.6)")
    first = asyncio.create_task(post(server.port, body, idempotency_key=key))
    await upstream.until(lambda: bool(upstream.ledger))
    writer = await begin(server, body, idempotency_key=key)
    await in_flight(server, 2)
    writer.transport.abort()
    answer = await first
    (first_id,) = answer.headers("x-request-id")
    await eventually(lambda: any(row["replay_of"] == first_id and row["closed_ns"] for row in calls(database)))
    (row,) = [row for row in calls(database) if row["replay_of"] == first_id]
    assert (answer.status, row["outcome"], row["status"], len(upstream.ledger)) == (200, "client_closed", 499, 1)


async def test_a_client_that_gives_up_gets_the_answer_when_it_asks_again(
    server: Server, upstream: FakeUpstream, key: str
) -> None:
    """The SDK's time-out is shorter than the answer takes: without a key each retry would be paid for."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=5, timeout=0.7) as client:
        answer = await client.chat.completions.create(
            model="fake/delay_whole(s=1.5)", messages=HELLO, extra_headers={"Idempotency-Key": key}
        )
    assert (answer.choices[0].message.content, len(upstream.ledger)) == (TEN, 1)


@pytest.mark.parametrize("mode", ["fail_first(n=1)", "fail_first(n=1,status=429)", "cut_fin(k=3)"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_not_kept(server: Server, upstream: FakeUpstream, key: str, mode: str, stream: bool) -> None:
    """A repeat tries again; also after a stream that broke off behind its headers."""
    body = chat(f"fake/{mode}", stream=stream)
    first = await post(server.port, body, idempotency_key=key)
    again = await post(server.port, body, idempotency_key=key)
    assert first.status != 200 or b'"error"' in first.body
    assert (len(upstream.ledger), replayed(again)[0]) == (2, [])
    assert (again.status == 200) is (mode.startswith("fail_first") or stream)


async def test_a_refused_request_leaves_its_key_free(server: Server, upstream: FakeUpstream, key: str) -> None:
    """Validation and unknown models: the key serves the corrected request."""
    for body in (chat("fake/ok", temperature="hot"), chat("nobody/knows"), b"{"):
        assert (await post(server.port, body, idempotency_key=key)).status in (400, 404)
    assert (await post(server.port, chat(), idempotency_key=key)).status == 200
    assert len(upstream.ledger) == 1


@pytest.mark.parametrize("bad", ["", "x" * 256, "a\tb"])
async def test_a_key_that_is_none_is_refused(server: Server, bad: str) -> None:
    """400 names the header."""
    head = request(chat()).replace(b"host:", b"idempotency-key: " + bad.encode() + b"\r\nhost:", 1)
    error = (await send(server.port, head)).error()
    assert (error["code"], error["param"]) == ("invalid_value", "idempotency-key")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "fake/ok", "input": ["one two"]}),
        ("/v1/embeddings", {"model": "fake/ok", "input": ["one two"], "encoding_format": "base64"}),
        ("/v1/rerank", {"model": "reranker/ok", "query": "one", "documents": ["one", "two"]}),
    ],
)
@pytest.mark.slow
async def test_the_other_endpoints_have_it_too(
    upstream: FakeUpstream, tmp_path: Path, key: str, path: str, body: dict[str, Any]
) -> None:
    """Vectors and rankings again, at no cost."""
    reranker = "reranker: {{type: cohere, base_url: '{upstream}', api_key_env: null, allow_private: true, price: null}}"
    files = write_files(tmp_path, upstream.url, ROUTING.replace("router:", f"  {reranker}\nrouter:"))
    (tmp_path / "pricing.yaml").write_text(
        "version: 1\nmodels: {fake/*: {input: 2}, reranker/*: {input: 1, per_search: 0.002}}\n"
    )
    async with serving(files) as own:
        answers = [await post(own.port, json.dumps(body).encode(), path, idempotency_key=key) for _ in range(2)]
    first, again = (answer.json for answer in answers)
    assert [answer.status for answer in answers] == [200, 200], answers[0].bytes
    assert (len(upstream.ledger), replayed(answers[1])[0]) == (1, ["true"])
    assert (first["usage"].pop("cost") > 0, again["usage"].pop("cost")) == (True, 0)
    for answer in (first, again):
        del answer["usage"]["cost_details"]
    assert first == again


async def test_keys_of_callers_stay_apart(upstream: FakeUpstream, tmp_path: Path, key: str) -> None:
    """The same Idempotency-Key of another caller is another call, and no caller sees another's answer."""
    async with serving(write_files(tmp_path, upstream.url), ENVIRON) as own:
        ids = []
        for secret in (*ENVIRON.values(), *ENVIRON.values()):
            answer = await post(own.port, chat(), idempotency_key=key, authorization=f"Bearer {secret}")
            ids.append(answer.json["id"])
    assert (ids[0], ids[1]) == (ids[2], ids[3])
    assert ids[0] != ids[1]
    assert len(upstream.ledger) == 2


async def test_an_answer_too_large_is_not_kept_and_not_bought_again(
    server: Server, upstream: FakeUpstream, key: str
) -> None:
    """The first client has it and is told; a repeat is 409 and says how to buy it again."""
    body = chat("fake/giant_line(mb=9)")
    first = await post(server.port, body, idempotency_key=key)
    again = await post(server.port, body, idempotency_key=key)
    assert (first.status, first.headers("x-proxy-kept"), len(first.body) > 9 * 2**20) == (200, ["false"], True)
    assert (again.error()["code"], again.headers("x-should-retry")) == ("conflict", ["false"])
    assert len(upstream.ledger) == 1


@pytest.mark.slow
async def test_a_stream_too_large_says_so_in_a_comment(server: Server, upstream: FakeUpstream, key: str) -> None:
    """Before its end; clients read over comments."""
    body = chat("fake/fast(n_tokens=60000)", stream=True)
    first = await post(server.port, body, idempotency_key=key)
    assert b"tok59999" in first.body
    assert b"\n\n: this answer is too large to be kept for its Idempotency-Key\n\ndata: " in first.body
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert (await post(server.port, body, idempotency_key=key)).error()["code"] == "conflict"
    assert len(upstream.ledger) == 1


async def test_a_call_without_a_key_ends_with_its_client(upstream: FakeUpstream, tmp_path: Path) -> None:
    """As before: what nobody will ask for again is not bought to its end."""
    async with serving(write_files(tmp_path, upstream.url)) as own:
        writer = await begin(own, chat("fake/delay_whole(s=20)"))
        await upstream.until(lambda: bool(upstream.ledger))
        writer.transport.abort()
        await upstream.until(lambda: upstream.ledger[0].peer_closed_early)
    assert not upstream.ledger[0].complete


# --- restarts, other processes, reloads -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_answers_survive_a_restart_and_are_not_readable_in_the_file(
    upstream: FakeUpstream, tmp_path: Path, key: str
) -> None:
    """The file holds neither the answer nor the key's name."""
    files = write_files(tmp_path, upstream.url)
    for stream in (False, True):
        for expected in ([], ["true"]):
            async with serving(files) as own:
                answer = await post(own.port, chat(stream=stream), idempotency_key=f"{key}-{stream}")
            assert (answer.status, replayed(answer)[0], "tok9" in answer.body.decode()) == (200, expected, True)
    assert len(upstream.ledger) == 2
    stored = contents(tmp_path)
    assert (b"tok9" in stored, key.encode() in stored) == (False, False)


@asynccontextmanager
async def two_servers(files: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Two workers, as far as the database can tell."""
    async with serving(files) as one, serving(files) as other:
        yield one, other


@pytest.mark.parametrize("mode", ["delay_whole(s=1)", "delay_whole(s=1)-fail_first(n=1)"])
@pytest.mark.slow
async def test_a_repeat_at_another_worker_waits_for_the_answer(
    upstream: FakeUpstream, tmp_path: Path, key: str, mode: str
) -> None:
    """It cannot join there, so it gets the answer once it is kept; after a failure it buys its own."""
    body = chat(f"fake/{mode}")
    async with two_servers(write_files(tmp_path, upstream.url)) as (one, other):
        first = asyncio.create_task(post(one.port, body, idempotency_key=key))
        await upstream.until(lambda: bool(upstream.ledger))
        again = await post(other.port, body, idempotency_key=key)
    failed = "fail_first" in mode
    assert ((await first).status, again.status) == (502 if failed else 200, 200)
    assert (len(upstream.ledger), replayed(again)[0]) == (2 if failed else 1, [] if failed else ["true"])


async def test_the_wait_for_another_worker_ends_with_the_deadline(
    upstream: FakeUpstream, tmp_path: Path, key: str
) -> None:
    """409 `conflict` with Retry-After, which SDKs obey."""
    files = write_files(tmp_path, upstream.url, ROUTING.replace("router: {{", "router: {{deadline_s: 1.5, "))
    async with serving(files) as own:
        await post(own.port, chat(), idempotency_key=key)
        await is_kept(tmp_path / "usage.db")
        with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
            db.execute("UPDATE kept_answers SET state = 'open', owner = 'another', sealed = NULL, size = 0")
            db.commit()
        again = await post(own.port, chat(), idempotency_key=key)
    assert (again.error()["code"], again.status, again.headers("retry-after")) == ("conflict", 409, ["1"])
    assert len(upstream.ledger) == 1


@pytest.mark.slow
async def test_the_key_of_a_killed_process_is_free_and_the_repeat_says_so(
    upstream: FakeUpstream, tmp_path: Path, key: str
) -> None:
    """The lost call is `unknown` at the cost of its hold; the repeat is a call of its own and names it."""
    files = write_files(tmp_path, upstream.url)
    body = chat("fake/ok(tag=killed,delay=20)")
    with spawned(files) as first:
        _, writer = await asyncio.open_connection("127.0.0.1", first.port)
        writer.write(request(body, headers={"idempotency-key": key}))
        await upstream.until(lambda: bool(upstream.ledger))
        first.kill()
        writer.close()
    upstream.modes["ok(tag=killed,delay=20)"] = "ok"
    async with serving(files) as own:
        answer = await post(own.port, body, idempotency_key=key)
        again = await post(own.port, body, idempotency_key=key)
    (lost,) = [row for row in calls(tmp_path / "usage.db") if row["outcome"] == "unknown"]
    assert (answer.status, answer.headers("x-proxy-lost-call"), replayed(answer)[0]) == (200, [lost["id"]], [])
    assert (replayed(again)[0], len(upstream.ledger)) == (["true"], 2)
    assert lost["cost_nano"] > 0


@pytest.mark.slow
async def test_sigterm_waits_for_a_call_without_a_client(upstream: FakeUpstream, tmp_path: Path, key: str) -> None:
    """Within `grace_s`: the answer is kept, and a new process gives it."""
    files = write_files(tmp_path, upstream.url)
    body = chat("fake/delay_whole(s=2)")
    with spawned(files) as first:
        _, writer = await asyncio.open_connection("127.0.0.1", first.port)
        writer.write(request(body, headers={"idempotency-key": key}))
        await upstream.until(lambda: bool(upstream.ledger))
        writer.transport.abort()
        first.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.process.wait, 60) == 0
    async with serving(files) as own:
        again = await post(own.port, body, idempotency_key=key)
    assert (again.status, replayed(again)[0], len(upstream.ledger)) == (200, ["true"], 1)


@pytest.mark.slow
async def test_a_call_without_a_client_survives_a_reload(upstream: FakeUpstream, tmp_path: Path, key: str) -> None:
    """It ends on the configuration that it began with."""
    files = write_files(tmp_path, upstream.url)
    body = chat("fake/delay_whole(s=1)")
    async with serving(files) as own:
        before = own.runtime.config.version
        writer = await begin(own, body, idempotency_key=key)
        await upstream.until(lambda: bool(upstream.ledger))
        writer.transport.abort()
        files.write_text(files.read_text() + "\naliases: {new: fake/ok}\n")
        await eventually(lambda: own.runtime.config.version != before, 30)
        again = await post(own.port, body, idempotency_key=key)
    assert (again.status, replayed(again)[0], len(upstream.ledger)) == (200, ["true"], 1)
    assert again.headers("x-proxy-config") == [before]


async def test_a_key_is_refused_while_answers_cannot_be_kept(upstream: FakeUpstream, tmp_path: Path, key: str) -> None:
    """503: the client relies on it. A cached call is served all the same, and with `unmetered` both are."""
    (tmp_path / "usage.db-vault-key").mkdir()
    files = write_files(tmp_path, upstream.url)
    async with serving(files) as own:
        assert (await post(own.port, chat(), idempotency_key=key)).error()["code"] == "storage_unavailable"
        assert (await post(own.port, chat(), x_proxy_cache="60")).headers("x-proxy-cache") == ["miss"]
        metrics = (await get(own.port, "/metrics")).body.decode()
        assert "\nmmproxy_kept_answers_failures_total 0.0\n" not in metrics
    files.write_text(files.read_text().replace("storage: {", "storage: {when_down: unmetered, "))
    async with serving(files) as own:
        assert (await post(own.port, chat(), idempotency_key=key)).status == 200


# --- retries without a key --------------------------------------------------------------------------------------------


async def test_a_retry_of_the_sdk_joins_its_first_call(server: Server, upstream: FakeUpstream) -> None:
    """`router.join_retries`: no key is needed, since the SDK counts its retries."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=5, timeout=0.7) as client:
        answer = await client.chat.completions.create(model="fake/delay_whole(s=1.5,tag=sdk)", messages=HELLO)
    assert (answer.choices[0].message.content, len(upstream.ledger)) == (TEN, 1)


async def test_a_retry_gets_the_fresh_answer_and_a_first_request_a_new_one(
    server: Server, upstream: FakeUpstream
) -> None:
    """Only the count tells them apart. A retry that repeats nothing known is a call like any other."""
    counts = ("1", "0", "1", "2", "0", "1")
    answers = [await post(server.port, chat("fake/ok(tag=count)"), x_stainless_retry_count=each) for each in counts]
    assert [replayed(answer)[0] for answer in answers] == [[], [], ["true"], ["true"], [], ["true"]]
    assert len(upstream.ledger) == 3
    ids = [answer.json["id"] for answer in answers]
    assert (ids[1], ids[4]) == (ids[2], ids[5])
    assert ids[2] == ids[3] != ids[0]


async def test_streams_other_bodies_and_other_clients_are_not_joined(server: Server, upstream: FakeUpstream) -> None:
    """A retry is a whole call with the same body, of a client that counts."""
    await post(server.port, chat("fake/ok(tag=base)"), x_stainless_retry_count="0")
    for body in (chat("fake/ok(tag=base)", stream=True), chat("fake/ok(tag=base)", seed=1)):
        assert replayed(await post(server.port, body, x_stainless_retry_count="1"))[0] == []
    assert replayed(await post(server.port, chat("fake/ok(tag=base)")))[0] == []
    assert len(upstream.ledger) == 4


async def test_retries_are_not_joined_unless_configured(upstream: FakeUpstream, tmp_path: Path) -> None:
    """It lets calls go on without their clients, so it is opt-in."""
    async with serving(write_files(tmp_path, upstream.url)) as own:
        answers = [await post(own.port, chat(), x_stainless_retry_count=each) for each in ("0", "1")]
    assert [replayed(answer)[0] for answer in answers] == [[], []]
    assert len(upstream.ledger) == 2


# --- the exact cache --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_equal_request_is_a_hit(server: Server, upstream: FakeUpstream, stream: bool) -> None:
    """As whole or streamed as it was asked; the cost is zero."""
    body = chat("fake/ok(tag=cache)", stream=stream)
    first, again = [await post(server.port, body, x_proxy_cache="3600") for _ in range(2)]
    assert (first.headers("x-proxy-cache"), again.headers("x-proxy-cache")) == (["miss"], ["hit"])
    assert (again.headers("x-proxy-cost-usd"), again.headers("idempotent-replayed")) == (["0.000000000"], [])
    assert len(upstream.ledger) == 1
    if stream:
        assert first.body == again.body
    metrics = (await get(server.port, "/metrics")).body.decode()
    assert 'mmproxy_replays_total{kind="cache"}' in metrics


async def test_a_name_can_be_cached_by_configuration(server: Server, upstream: FakeUpstream) -> None:
    """`cache_s` of the name or of what its alias leads to; the header can say no."""
    asked = [("kept", ""), ("kept", ""), ("also", ""), ("also", ""), ("kept", "off"), ("plain", ""), ("plain", "")]
    found = [
        (await post(server.port, chat(name, seed=7), **({"x_proxy_cache": header} if header else {}))).headers(
            "x-proxy-cache"
        )
        for name, header in asked
    ]
    assert found == [["miss"], ["hit"], ["miss"], ["hit"], [], [], []]
    assert len(upstream.ledger) == 5


async def test_what_may_change_the_answer_is_another_request(server: Server, upstream: FakeUpstream) -> None:
    """Hints in headers, and headers that rules read; other headers do not count."""
    body = chat("auto", seed=3)
    variants: list[dict[str, str]] = [{}, {"x_proxy_task": "code"}, {"x_tier": "gold"}, {"user_agent": "other"}]
    found = [
        (await post(server.port, body, x_proxy_cache="60", **headers)).headers("x-proxy-cache") for headers in variants
    ]
    assert found == [["miss"], ["miss"], ["miss"], ["hit"]]
    assert len(upstream.ledger) == 3


@pytest.mark.slow
async def test_another_configuration_begins_anew(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The version is part of what is equal; answers for it survive a restart."""
    files = write_files(tmp_path, upstream.url)
    found = []
    for change in ("", "", "\naliases: {new: fake/ok}\n"):
        files.write_text(files.read_text() + change)
        async with serving(files) as own:
            found += (await post(own.port, chat(), x_proxy_cache="3600")).headers("x-proxy-cache")
    assert (found, len(upstream.ledger)) == (["miss", "hit", "miss"], 2)


async def test_an_answer_older_than_asked_for_is_no_hit(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The request's own seconds count too, not only those it was kept for."""
    async with serving(write_files(tmp_path, upstream.url)) as own:
        await post(own.port, chat(), x_proxy_cache="3600")
        await is_kept(tmp_path / "usage.db")
        with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
            db.execute("UPDATE kept_answers SET kept_ns = kept_ns - 100000000000")
            db.commit()
        found = [(await post(own.port, chat(), x_proxy_cache=each)).headers("x-proxy-cache") for each in ("300", "60")]
    assert (found, len(upstream.ledger)) == ([["hit"], ["miss"]], 2)


@pytest.mark.parametrize("bad", ["soon", "-1", "nan", "1e99", "2592001"])
async def test_a_cache_header_that_says_nothing_is_refused(server: Server, bad: str) -> None:
    """400 names the header."""
    error = (await post(server.port, chat(), x_proxy_cache=bad)).error()
    assert (error["code"], error["param"]) == ("invalid_value", "x-proxy-cache")


async def test_equal_requests_at_once_are_bought_once(server: Server, upstream: FakeUpstream) -> None:
    """One call within a worker; whoever joins is a hit."""
    body = chat("fake/delay_whole(s=0.3,tag=flight)")
    answers = await asyncio.gather(*(post(server.port, body, x_proxy_cache="60") for _ in range(20)))
    assert [answer.status for answer in answers] == [200] * 20
    assert sorted(answer.headers("x-proxy-cache")[0] for answer in answers) == ["hit"] * 19 + ["miss"]
    assert len(upstream.ledger) == 1


async def test_the_last_client_of_a_cached_call_ends_it(server: Server, upstream: FakeUpstream) -> None:
    """Not the first one, as long as another waits; and who comes after the end begins anew."""
    body = chat("fake/delay_whole(s=20,tag=last)")
    writers = [await begin(server, body, x_proxy_cache="60") for _ in range(3)]
    await in_flight(server, 3)
    await upstream.until(lambda: bool(upstream.ledger))
    first, second, third = writers
    second.transport.abort()
    await in_flight(server, 2)
    first.transport.abort()  # its place is the call's for as long as that runs
    for _ in range(5):
        await in_flight(server, 2)
    assert not upstream.ledger[0].peer_closed_early
    third.transport.abort()
    await in_flight(server, 0)
    await upstream.until(lambda: upstream.ledger[0].peer_closed_early)
    upstream.modes["delay_whole(s=20,tag=last)"] = "ok"
    assert (await post(server.port, body, x_proxy_cache="60")).headers("x-proxy-cache") == ["miss"]


async def test_joined_clients_of_a_failed_call_get_its_error(server: Server, upstream: FakeUpstream) -> None:
    """Its status, and rows that say so; the next request tries again."""
    body = chat("fake/fail_first(n=1,delay=0.3)")
    answers = await asyncio.gather(*(post(server.port, body, x_proxy_cache="60") for _ in range(3)))
    assert [answer.status for answer in answers] == [502, 502, 502]
    assert (await post(server.port, body, x_proxy_cache="60")).headers("x-proxy-cache") == ["miss"]
    assert len(upstream.ledger) == 2


async def test_a_key_goes_before_the_cache(server: Server, upstream: FakeUpstream, key: str) -> None:
    """And the answer says that the cache was not looked at."""
    answers = [await post(server.port, chat(), idempotency_key=key, x_proxy_cache="60") for _ in range(2)]
    assert [answer.headers("x-proxy-cache") for answer in answers] == [["bypass"], ["bypass"]]
    assert len(upstream.ledger) == 1


async def test_a_replay_carries_the_labels_of_its_request(server: Server, database: Path, key: str) -> None:
    """The session in its headers, else that of the first call, whose body is the same."""
    metadata = {"session_id": "in the body"}
    body = chat(metadata=metadata)
    await post(server.port, body, idempotency_key=key)
    plain = await post(server.port, body, idempotency_key=key)
    named = await post(server.port, body, idempotency_key=key, x_session_id="in a header")
    sessions = [(await row_with_id(database, each.headers("x-request-id")[0]))["session"] for each in (plain, named)]
    assert sessions == ["in the body", "in a header"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
async def test_however_clients_come_and_go_each_key_is_bought_once(
    upstream: FakeUpstream, tmp_path: Path, workers: int
) -> None:
    """200 clients on 12 keys, a third of which leave at any moment, at one worker or at two; nothing stays behind."""
    dice = random.Random(workers)
    modes = ("delay_whole(s=0.2,tag={})", "ok(n_tokens=20,pace=0.01,tag={})")
    bodies = [chat("fake/" + modes[number % 2].format(number), stream=bool(number % 2)) for number in range(12)]

    async def client(server: Server, number: int, patience_s: float | None) -> None:
        if patience_s is not None:
            writer = await begin(server, bodies[number], idempotency_key=f"k{number}")
            await asyncio.sleep(patience_s)
            writer.transport.abort()
            return
        answer = await post(server.port, bodies[number], idempotency_key=f"k{number}")
        assert answer.status == 200
        assert b"tok9" in answer.body

    async with AsyncExitStack() as stack:
        files = write_files(tmp_path, upstream.url)
        servers = [await stack.enter_async_context(serving(files)) for _ in range(workers)]
        clients = []
        for _ in range(200):
            patience_s = dice.uniform(0, 0.3) if dice.random() < 0.33 else None
            clients.append(asyncio.create_task(client(dice.choice(servers), dice.randrange(12), patience_s)))
            await asyncio.sleep(dice.uniform(0, 0.01))
        await asyncio.gather(*clients)
        for number in range(12):
            await client(servers[0], number, None)
        for server in servers:
            await in_flight(server, 0)
            replays = server._application._replays()
            assert (replays.memory.used, replays._live, replays._tasks) == (0, {}, set())
    assert sorted(seen.model for seen in upstream.ledger) == sorted({seen.model for seen in upstream.ledger})
    rows = [row for row in calls(tmp_path / "usage.db") if row["replay_of"] is None]
    assert [(row["outcome"], row["attempts"]) for row in rows] == [("ok", 1)] * 12
