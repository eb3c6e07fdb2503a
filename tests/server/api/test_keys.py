"""Keys of the database over HTTP: who they let in, which models they may use, how much of them, and when they end."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from litestar import Litestar, get

from proxy.config import load
from proxy.pipeline.admission import KeyPolicies
from proxy.pipeline.limits import Limits
from proxy.server.api.errors import exception_handlers
from proxy.server.api.guard import Access
from proxy.server.app import server_auth
from proxy.server.log import build_log
from proxy.storage.keys import KeyStore, StoredKey
from tests.server.api.raw import Answer, chat, post, request, send
from tests.server.api.raw import get as get_
from tests.server.api.rows import row_of
from tests.serving import ROUTING, Server, serving, spawned, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYED = (
    ROUTING
    + """
models:
  gpt-mini: {{use: "fake/e500(tag=mini)", fallback: [gpt-big]}}
  gpt-big: "fake/ok(tag=big)"
  split: {{weighted: {{"fake/ok(tag=a)": 50, "fake/ok(tag=b)": 50}}}}
aliases: {{gpt-4: gpt-mini, big: gpt-big}}
keys:
  mini: {{models: [gpt-mini]}}
  both: {{models: [gpt-mini, gpt-big]}}
  half: {{models: ["fake/ok(tag=b)"]}}
  short: {{max_output_tokens: 3}}
  ended: {{expires: "2026-01-01"}}
  later: {{expires: "2999-01-01"}}
rate_limits:
  per_key:
    slow: {{requests_per_minute: 2}}
    few: {{tokens_per_minute: 100}}
    one: {{concurrent: 1}}
    four: {{concurrent: 4}}
"""
)
NAMES = ("mini", "both", "half", "short", "ended", "later", "slow", "slow2", "few", "one", "four", "mobile", "other")
ENVIRON = {"PROXY_API_KEY": "canary-of-the-environment", "PROXY_ADMIN_KEY": "canary-of-its-admin"}
WITHIN_S = 2.0


def secret(name: str) -> str:
    """The text of a key of these tests."""
    return f"mmp-canary-{name}-5f1c9a7e0b"


def add(database: Path, name: str, **changes: Any) -> str:
    """Makes a key as `proxy keys create` does; returns it."""
    text = secret(changes.pop("text", name))
    fields = {"role": "key", "last4": text[-4:], "models": None, "created_ns": time.time_ns(), **changes}
    key_id = f"key_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    KeyStore(database).add(StoredKey(id=key_id, name=name, **fields), hashlib.sha256(text.encode()).digest())
    return text


def revoke(database: Path, name: str) -> None:
    assert KeyStore(database).revoke(name, time.time_ns())


async def until(port: int, text: str, status: int) -> None:
    """Waits until a key gets this status, for two seconds at most."""
    started = time.monotonic()
    while (await get_(port, "/v1/usage", x_api_key=text)).status != status:
        assert time.monotonic() - started < WITHIN_S
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of `server`, with its keys."""
    path = tmp_path_factory.mktemp("keys") / "usage.db"
    for name in NAMES:
        add(path, name)
    add(path, "boss", role="admin")
    add(path, "mobile", text="narrow", models=("gpt-big",))
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    """A server whose only keys are in the database."""
    async with serving(write_files(database.parent, upstream_of_module.url, KEYED)) as running:
        yield running


async def ask(server: Server, name: str, model: str = "gpt-big", **fields: Any) -> Answer:
    return await post(server.port, chat(model, **fields), authorization=f"Bearer {secret(name)}")


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_new_key_opens_and_a_revoked_one_closes_within_two_seconds(server: Server, database: Path) -> None:
    """While the server runs, and also where the key was just refused or just used."""
    text = secret("visitor")
    await until(server.port, text, 401)
    add(database, "visitor")
    await until(server.port, text, 200)
    assert (await ask(server, "visitor")).status == 200
    revoke(database, "visitor")
    await until(server.port, text, 401)
    assert (await ask(server, "visitor")).error()["code"] == "invalid_api_key"


async def test_a_keyless_server_closes_with_the_first_key(upstream: FakeUpstream, tmp_path: Path) -> None:
    """It answers to other host names while it has keys, and opens again once the last one is revoked."""
    async with serving(write_files(tmp_path, upstream.url)) as server:
        assert (await post(server.port, chat())).status == 200
        assert (await get_(server.port, "/v1/models", host="proxy.example")).status == 403
        text = add(tmp_path / "usage.db", "mobile")
        await until(server.port, "", 401)
        assert (await post(server.port, chat(), api_key=text)).status == 200
        assert (await get_(server.port, "/v1/models", host="proxy.example", api_key=text)).status == 200
        revoke(tmp_path / "usage.db", "mobile")
        await until(server.port, "", 200)
        assert (await get_(server.port, "/v1/models", host="proxy.example")).status == 403


async def test_keys_are_optional_where_the_operator_says_so(upstream: FakeUpstream, tmp_path: Path) -> None:
    """`require_key: false`: callers without one are served although keys exist, and a known key names its caller."""
    files = write_files(tmp_path, upstream.url)
    text = add(tmp_path / "usage.db", "mobile")
    async with serving(files, {"PROXY_REQUIRE_KEY": "false"}) as server:
        for key in ("", "any", text):
            assert (await post(server.port, chat(), api_key=key)).status == 200
        assert (await get_(server.port, "/v1/models", host="proxy.example")).status == 403
        rows = (await get_(server.port, "/v1/usage?group_by=key")).json["groups"]
        assert sorted((row["key"] or "", row["calls"]) for row in rows) == [("", 2), ("mobile", 1)]


async def test_unknown_revoked_malformed_and_expired_keys_get_one_answer(server: Server, database: Path) -> None:
    """The same status, headers and body, on every route (S04)."""
    expired = add(database, "was", expires_ns=time.time_ns() + 1)
    revoked = add(database, "former")
    revoke(database, "former")
    sent = ["", "x", secret("nobody"), "mmp-", f"{secret('mobile')}x", expired, revoked, secret("ended"), "\xff" * 50]
    answers = []
    for text in sent:
        answers.append(await post(server.port, chat(), authorization=f"Bearer {text}"))
        answers.append(await get_(server.port, "/v1/models", x_api_key=text))
    heads = [{line for line in answer.head.split(b"\r\n") if not _varies(line)} for answer in answers]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert [head ^ heads[n % 2] for n, head in enumerate(heads)] == [set()] * len(answers)
    assert (await ask(server, "later")).status == 200


def _varies(line: bytes) -> bool:
    return line.split(b":")[0].lower() in (b"date", b"x-request-id")


async def test_roles_of_stored_keys_hold(server: Server) -> None:
    """A data key changes nothing, an admin key of the database may do what the environment's may (S05)."""
    for name, status in (("mobile", 403), ("boss", 200)):
        data = request(method="POST", path="/admin/reload", headers={"x-api-key": secret(name)})
        answer = await send(server.port, data)
        assert answer.status == status
        assert status == 200 or answer.error()["code"] == "admin_required"


async def test_a_route_without_a_role_is_for_nobody(tmp_path: Path) -> None:
    """Whoever forgets to say whom a new route is for has closed it (S07)."""

    @get("/admin/new", sync_to_thread=False, role="admin")
    def new() -> str:
        return "done"

    @get("/forgotten", sync_to_thread=False)
    def forgotten() -> str:
        return "done"

    config = load(write_files(tmp_path, "http://127.0.0.1:9"), None, {})
    access = Access(server_auth(ENVIRON, config), lambda: KeyPolicies({}, None, Limits()), time.time_ns)
    handlers = exception_handlers(build_log("json"), lambda _: None)
    app = Litestar([new, forgotten], guards=[access.guard()], exception_handlers=handlers, openapi_config=None)
    for path, key, status in (
        ("/admin/new", "PROXY_ADMIN_KEY", 200),
        ("/admin/new", "PROXY_API_KEY", 403),
        ("/admin/new", None, 401),
        ("/forgotten", "PROXY_ADMIN_KEY", 403),
        ("/forgotten", "PROXY_API_KEY", 403),
        ("/forgotten", None, 401),
    ):
        assert await status_of(app, path, ENVIRON[key] if key else "") == status, (path, key)


async def status_of(app: Litestar, path: str, key: str) -> int:
    """The status of one GET, without a socket."""
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope: Any = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "state": {},
        "headers": [(b"x-api-key", key.encode())],
        "client": ("192.0.2.1", 1),
        "root_path": "",
        "app": app,
    }
    call: Any = app
    await call(scope, receive, sent)
    return statuses[0]


async def test_a_thousand_wrong_keys_are_slowed_down_and_the_right_one_is_not(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """Whatever X-Forwarded-For and its like say (S08)."""
    async with serving(write_files(tmp_path, upstream.url), ENVIRON) as server:
        text = add(tmp_path / "usage.db", "mobile")
        statuses: list[int] = []
        asking = asyncio.Semaphore(16)

        async def guess(n: int) -> None:
            address = f"10.0.{n // 256}.{n % 256}"
            elsewhere = {"x_forwarded_for": address, "forwarded": f"for={address}", "x_real_ip": address}
            async with asking:
                answer = await get_(server.port, "/v1/models", x_api_key=f"guess {n}", **elsewhere)
            assert answer.error()["code"] in ("invalid_api_key", "rate_limit_exceeded")
            assert answer.status == 401 or int(answer.headers("retry-after")[0]) >= 1
            statuses.append(answer.status)

        await asyncio.gather(*map(guess, range(1000)))
        assert set(statuses) == {401, 429}
        assert statuses.count(429) > 800
        for right in (ENVIRON["PROXY_API_KEY"], text):
            assert (await post(server.port, chat(), x_api_key=right)).status == 200


@pytest.mark.slow
async def test_a_lost_database_locks_out_nobody_who_was_there(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Others get a 503, never a 401, and need no restart (R16)."""
    database = tmp_path / "usage.db"
    async with serving(write_files(tmp_path, upstream.url), ENVIRON) as server:
        known, late = add(database, "known"), add(database, "late")
        await until(server.port, known, 200)
        database.rename(tmp_path / "away.db")
        await asyncio.sleep(2)
        for right in (known, ENVIRON["PROXY_API_KEY"]):
            assert (await get_(server.port, "/v1/models", x_api_key=right)).status == 200
        for unsure in (late, secret("nobody")):
            answer = await get_(server.port, "/v1/models", x_api_key=unsure)
            assert (answer.status, answer.error()["code"]) == (503, "storage_unavailable")
            assert answer.headers("retry-after") == ["5"]
            assert str(tmp_path) not in answer.bytes.decode()
        assert (await get_(server.port, "/v1/models")).status == 401
        (tmp_path / "away.db").rename(database)
        await until(server.port, late, 200)
        assert (await get_(server.port, "/v1/models", x_api_key=secret("nobody"))).status == 401


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
async def test_keys_are_nowhere_in_clear(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Not in the database, its journal, a copy of it, or the log (S03)."""
    database = tmp_path / "usage.db"
    texts = [add(database, name) for name in ("mobile", "former")]
    with spawned(write_files(tmp_path, upstream.url, KEYED)) as server:
        for text in (*texts, secret("nobody")):
            await post(server.port, chat(), authorization=f"Bearer {text}")
            await post(server.port, chat("nobody"), x_api_key=text)
        revoke(database, "former")
        with closing(sqlite3.connect(database)) as db:
            db.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
        files = files_of(tmp_path)
        assert {"usage.db", "usage.db-wal", "backup.db", "server.log"} <= files.keys()
        server.stop()
        files |= {f"{name} at the end": data for name, data in files_of(tmp_path).items()}
    for name, data in files.items():
        assert [text for text in texts if text.encode() in data] == [], name
        assert secret("nobody").encode() not in data, name
    assert hashlib.sha256(texts[0].encode()).digest() in files["backup.db"]


# --- which models -----------------------------------------------------------------------------------------------------


async def test_a_fallback_that_is_not_allowed_does_not_answer(server: Server, upstream: FakeUpstream) -> None:
    """A key for gpt-mini is not served by gpt-big, whatever gpt-mini falls back to (S42)."""
    for stream in (False, True):
        for model in ("gpt-mini", "gpt-4"):
            upstream.reset()
            refused = await ask(server, "mini", model, stream=stream)
            assert (refused.status, len(upstream.ledger)) == (502, 1)
            upstream.reset()
            served = await ask(server, "both", model, stream=stream)
            assert (served.status, served.headers("x-proxy-model")) == (200, ["fake/ok(tag=big)"])
            assert [seen.model for seen in upstream.ledger][-1] == "ok(tag=big)"


async def test_what_is_not_allowed_is_a_403_and_costs_nothing(
    server: Server, upstream: FakeUpstream, database: Path
) -> None:
    """By every name it has; the row says who was refused what."""
    for model in ("gpt-big", "big", "fake/ok(tag=big)", "auto", "fake/ok"):
        answer = await ask(server, "mini", model)
        error = answer.error()
        assert (answer.status, error["code"], error["param"]) == (403, "model_not_allowed", "model")
        assert "'mini'" in error["message"]
        assert model in error["message"]
        assert "Allowed: gpt-mini." in error["message"]
        row = await row_of(database, answer)
        assert (row["key_id"], row["outcome"], row["status"], row["attempts"]) == ("mini", "rejected", 403, 0)
    assert upstream.ledger == []
    for model in ("gpt-big", "big", "fake/ok(tag=big)"):
        assert (await ask(server, "both", model)).status == 200


async def test_the_list_of_the_key_itself_holds_too(server: Server) -> None:
    """Made with `--models`; another key of the same name has none."""
    assert (await ask(server, "narrow", "gpt-big")).status == 200
    assert (await ask(server, "narrow", "fake/ok")).error()["code"] == "model_not_allowed"
    assert (await ask(server, "mobile", "fake/ok")).status == 200


async def test_weighted_names_are_drawn_among_what_is_allowed(server: Server) -> None:
    """No call fails by chance."""
    answers = [await ask(server, "half", "split") for _ in range(12)]
    assert {answer.headers("x-proxy-model")[0] for answer in answers} == {"fake/ok(tag=b)"}


async def test_the_list_of_models_is_what_the_key_may_call(server: Server) -> None:
    """And a model that is not on it cannot be looked at either."""
    for name in ("mini", "both", "half", "mobile"):
        listed = (await get_(server.port, "/v1/models", x_api_key=secret(name))).json["data"]
        ids = {card["id"] for card in listed}
        assert ("gpt-mini" in ids) == (name != "half")
        assert ("gpt-big" in ids) == (("auto" in ids and name == "mobile") or name == "both")
        for model in ("gpt-mini", "gpt-big", "big", "split", "auto"):
            answer = await get_(server.port, f"/v1/models/{model}", x_api_key=secret(name))
            assert (answer.status == 200) is (model in ids), (name, model)
            assert answer.status == 200 or answer.error()["code"] == "model_not_allowed"


async def test_a_key_sees_its_own_usage_and_an_admin_everybodys(server: Server) -> None:
    """Rows go by the key's name (S30)."""
    await ask(server, "other", "fake/ok")
    totals = {}
    for name in ("other", "later", "boss"):
        answer = await get_(server.port, "/v1/usage", x_api_key=secret(name))
        totals[name] = answer.json["total"]["calls"]
    assert totals["other"] == 1
    assert totals["boss"] > totals["other"] + totals["later"]


# --- how much ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "tokens", "adapted"),
    [
        ({}, 3, ["max_completion_tokens"]),
        ({"max_tokens": 8}, 3, ["max_tokens"]),
        ({"max_completion_tokens": 2}, 2, []),
    ],
)
async def test_answers_are_capped_and_say_so(
    server: Server, stream: bool, fields: dict[str, int], tokens: int, adapted: list[str]
) -> None:
    """The upstream is told the smaller limit; nobody else's requests change."""
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    capped = await ask(server, "short", "fake/ok(n_tokens=10)", **fields, **options)
    assert (_output_tokens(capped), capped.headers("x-proxy-adapted-params")) == (tokens, adapted)
    free = await ask(server, "mobile", "fake/ok(n_tokens=10)", **fields, **options)
    assert _output_tokens(free) == min([10, *fields.values()])
    assert free.headers("x-proxy-adapted-params") == []


def _output_tokens(answer: Answer) -> int:
    body = answer.events[-2] if "text/event-stream" in answer.headers("content-type")[0] else answer.json
    return int(body["usage"]["completion_tokens"])


async def test_requests_beyond_the_limit_are_a_429(server: Server, upstream: FakeUpstream, database: Path) -> None:
    """It says which limit, how much of it is used, and when there is room; other keys have their own."""
    answers = [await ask(server, "slow", "fake/ok", stream=stream) for stream in (False, True)]
    assert [answer.headers("x-ratelimit-remaining-requests") for answer in answers] == [["1"], ["0"]]
    assert [answer.headers("x-ratelimit-limit-requests") for answer in answers] == [["2"], ["2"]]
    assert re.fullmatch(r"[\d.]+s|1m\d+s", answers[1].headers("x-ratelimit-reset-requests")[0])
    upstream.reset()
    refused = await ask(server, "slow", "fake/ok")
    error = refused.error()
    assert (refused.status, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert error["metadata"] | {"reset_s": 0} == {
        "limiter": "requests_per_minute",
        "current": 2,
        "limit": 2,
        "reset_s": 0,
    }
    assert 1 <= int(refused.headers("retry-after")[0]) <= 30
    assert refused.headers("x-ratelimit-remaining-requests") == ["0"]
    assert upstream.ledger == []
    assert (await row_of(database, refused))["outcome"] == "rejected"
    assert (await ask(server, "slow2", "fake/ok")).headers("x-ratelimit-limit-requests") == []


async def test_tokens_beyond_the_limit_are_a_429(server: Server) -> None:
    """Reserved by what a request asks for, counted by what it used."""
    for _ in range(3):
        answer = await ask(server, "few", "fake/ok(n_tokens=2)", max_tokens=60)
        assert answer.status == 200
    # Three calls used 5 each; a reservation of 67 for each of them would not have fitted.
    assert (await ask(server, "few", "fake/ok(n_tokens=80)", max_tokens=70)).status == 200
    refused = await ask(server, "few", "fake/ok", max_tokens=60)
    assert refused.error()["metadata"]["limiter"] == "tokens_per_minute"


@pytest.mark.slow
async def test_a_place_is_free_again_however_its_call_ended(server: Server, upstream: FakeUpstream) -> None:
    """Answered, refused, failed, streamed, broken off, or left by its client in any phase."""
    ends = ["fake/ok", "nobody/x", "fake/e500", "fake/e400", "fake/cut_rst(k=2)", "fake/stall_after(k=1)"]
    for model in ends:
        for stream in (False, True):
            answer = await ask(server, "one", model, stream=stream)
            assert answer.bytes == b"" or answer.status != 429, model
    for model in ("fake/blackhole", "fake/ok(n_tokens=50,pace=0.05)", "fake/slow_usage(s=5)"):
        for stream in (False, True):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            body = chat(model, stream=stream)
            writer.write(request(body, headers={"x-api-key": secret("one")}))
            await busy(server)
            writer.transport.abort()
            await free(server)


async def busy(server: Server) -> None:
    """Waits until the one place of `one` is taken."""
    async with asyncio.timeout(20):
        while (await ask(server, "one", "nobody/x")).status != 429:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.01)


async def free(server: Server) -> None:
    """Waits until it is free; a client that left is noticed at once, its usage is read for a second at most."""
    async with asyncio.timeout(2.5):
        while (await ask(server, "one", "nobody/x")).status == 429:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.02)


async def test_never_more_at_once_than_allowed_and_no_place_is_lost(server: Server, upstream: FakeUpstream) -> None:
    """Sixty at a time, a third of which hang up; the others come back until they are served."""
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, upstream.open)
            await asyncio.sleep(0.002)

    async def served(n: int) -> int:
        status = 429
        while status == 429:
            await asyncio.sleep(0.02)
            status = (await ask(server, "four", f"fake/ok(n_tokens=5,pace=0.01,tag={n})", stream=bool(n % 2))).status
        return status

    async def gone(n: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        body = chat(f"fake/ok(n_tokens=50,pace=0.05,tag={n})", stream=bool(n % 2))
        writer.write(request(body, headers={"x-api-key": secret("four")}))
        await asyncio.sleep(0.01 * (n % 7))
        writer.transport.abort()

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(30):
        statuses = await asyncio.gather(*(served(n) if n % 3 else gone(n) for n in range(60)))
    watching.cancel()
    assert statuses == [200 if n % 3 else None for n in range(60)]
    assert most <= 4
    await upstream.until(lambda: upstream.open == 0)
    answers = await asyncio.gather(*(ask(server, "four", "fake/ok(delay=0.2)") for _ in range(4)))
    assert [answer.status for answer in answers] == [200] * 4


# --- a configuration that changes -------------------------------------------------------------------------------------


async def test_a_reload_changes_what_keys_may_do(upstream: FakeUpstream, tmp_path: Path) -> None:
    """From the next request on; what was used under the old limits stays used."""
    text = add(tmp_path / "usage.db", "mobile")
    extra = "\nrate_limits: {{default: {{requests_per_minute: 4}}}}\n"
    path = write_files(tmp_path, upstream.url, ROUTING + extra)
    async with serving(path, ENVIRON) as server:
        for _ in range(2):
            assert (await post(server.port, chat(), x_api_key=text)).status == 200
        path.write_text(path.read_text() + "keys: {mobile: {models: [auto]}}\n")
        headers = {"x-api-key": ENVIRON["PROXY_ADMIN_KEY"]}
        assert (await send(server.port, request(method="POST", path="/admin/reload", headers=headers))).status == 200
        assert (await post(server.port, chat("fake/other"), x_api_key=text)).status == 403
        answer = await post(server.port, chat("auto"), x_api_key=text)
        assert (answer.status, answer.headers("x-ratelimit-remaining-requests")) == (200, ["1"])  # a 403 is none
        path.write_text(path.read_text().replace("models: [auto]", 'expires: "2026-01-01"'))
        await send(server.port, request(method="POST", path="/admin/reload", headers=headers))
        assert (await post(server.port, chat("auto"), x_api_key=text)).status == 401


# --- browsers ---------------------------------------------------------------------------------------------------------

ORIGIN = "https://app.example"


async def test_a_listed_origin_asks_first_without_a_key_and_then_with_it(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """A preflight carries no key; another origin gets nothing, key or not (S25, S26)."""
    routing = write_files(tmp_path, upstream.url, ROUTING + f'server: {{{{cors_origins: ["{ORIGIN}"]}}}}\n')
    async with serving(routing, ENVIRON) as server:
        for path, method in (("/v1/chat/completions", "POST"), ("/v1/models", "GET")):
            wanted = {"access-control-request-method": method, "access-control-request-headers": "authorization"}
            asked = await send(server.port, request(method="OPTIONS", path=path, headers={"origin": ORIGIN, **wanted}))
            assert asked.status == 204
            assert asked.headers("access-control-allow-origin") == [ORIGIN]
            assert "authorization" in asked.headers("access-control-allow-headers")[0].lower()
            assert asked.headers("access-control-allow-credentials") == []
            for other in ("https://evil.example", "null", f"{ORIGIN}.evil.example", "http://app.example"):
                headers = {"origin": other, **wanted}
                refused = await send(server.port, request(method="OPTIONS", path=path, headers=headers))
                assert (refused.status, refused.headers("access-control-allow-origin")) == (403, [])
        right = {"x_api_key": ENVIRON["PROXY_API_KEY"]}
        assert (await post(server.port, chat(), origin=ORIGIN, **right)).headers("access-control-allow-origin") == [
            ORIGIN
        ]
        wrong = await post(server.port, chat(), origin=ORIGIN, x_api_key="wrong")
        assert (wrong.status, wrong.headers("access-control-allow-origin")) == (401, [ORIGIN])
        assert (await post(server.port, chat(), origin="https://evil.example", **right)).status == 403
