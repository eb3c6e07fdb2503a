"""Model lists read from the servers: no request waits for them, and nothing a server says can do harm."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import structlog
from structlog.testing import LogCapture

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse, Provider, ProviderLimits
from proxy.providers.compatible.models import MAX_IDS, parse_models
from proxy.providers.ollama import Ollama
from proxy.providers.openai import OpenAI
from proxy.schema.errors import UpstreamError
from proxy.schema.records import Endpoint, Secret, Timeouts
from proxy.upstream.keys import Key, Keys, KeyState
from proxy.upstream.model_discovery import FRESH_S, MAX_BYTES, RETRY_S, ModelDiscovery, models_path
from proxy.upstream.pools import Pool
from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.upstream import Upstream
from tests.server.api.raw import chat, get, post
from tests.serving import ROUTING, Server, serving, write_files
from tests.slowness import own_time
from tests.upstream import FakeUpstream, refusing
from tests.waiting import eventually


def listing(*ids: object) -> bytes:
    return json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in ids]}).encode()


# --- what a list says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (listing("a", "b/c"), ("a", "b/c")),
        (b'[{"id": "a", "type": "chat", "pricing": {"input": 1}}, {"id": "b"}]', ("a", "b")),
        (b'{"object": "list", "data": null}', ()),
        (listing("a", "b", "a"), ("a", "b")),
        (listing("", " a", "a\n", "\x1b[31m", "x" * 201, "a\u202eb", None, 3, {}, "good"), ("good",)),
        (b'{"data": [{}, {"name": "a"}, {"id": "b"}]}', ("b",)),
    ],
    ids=["openai", "a bare list", "ollama without a model", "twice", "what is no id", "without id"],
)
def test_ids_are_taken_from_every_shape_of_list(body: bytes, ids: tuple[str, ...]) -> None:
    """What cannot be printed on one line, or is no text, is left out; the order is the server's."""
    assert parse_models(HTTPResponse(200, {}, body)) == ids


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"models": []}', b'{"data": 3}', b'["a"]', b"[" * 100_000, b'{"data": [{"id": "\xff"}]}']
)
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    """It must not look like a server without models."""
    with pytest.raises(UpstreamError, match="not a list of models"):
        parse_models(HTTPResponse(200, {}, body))


def test_a_list_has_an_end() -> None:
    """A server that lists everything fills no memory."""
    assert len(parse_models(HTTPResponse(200, {}, listing(*(f"m{n}" for n in range(MAX_IDS + 9)))))) == MAX_IDS


@pytest.mark.parametrize(
    ("kind", "changes", "path"),
    [
        ("openai", {}, None),
        ("openai", {"base_url": "https://models.example/v1"}, "/models"),
        ("groq", {}, None),
        ("mistral", {}, None),
        ("together", {}, "/models"),
        ("ollama", {}, "/v1/models"),
        ("ollama", {"base_url": "http://localhost:11434/v1"}, "/models"),
        ("vllm", {}, "/models"),
        ("lmstudio", {}, "/models"),
        ("localai", {}, "/models"),
        ("embedded", {}, None),
        ("anthropic", {}, None),
        ("anthropic", {"base_url": "http://localhost:4000"}, "/v1/models?limit=1000"),
        ("anthropic", {"base_url": "http://localhost:4000/v1/"}, "/models?limit=1000"),
    ],
)
def test_those_are_asked_whose_models_nobody_else_knows(kind: str, changes: dict[str, Any], path: str | None) -> None:
    """Together, servers of one's own, and any OpenAI-shaped server by its address."""
    provider = PROVIDERS[kind](**changes)
    assert models_path(provider) == path


async def no_origin() -> Endpoint:
    raise AssertionError("nobody asks")


class AiohttpTransportUnused:
    """No connection is made."""

    active = 0

    async def send(self, *_: object) -> Any:
        raise AssertionError("nobody sends")

    async def close(self) -> None:
        raise AssertionError("nobody closes")


# --- when it is read --------------------------------------------------------------------------------------------------


class ListServer:
    """Answers every request with `body` (None: hangs up), once `gate` is open; counts them."""

    def __init__(self) -> None:
        self.body: bytes | None = listing("one", "two")
        self.status = 200
        self.status_of = lambda: self.status
        self.heads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            self.asked.set()
            await self.gate.wait()
            if self.body is not None:
                fields = ["content-type: application/json", f"content-length: {len(self.body)}", "connection: close"]
                head = "\r\n".join([f"HTTP/1.1 {self.status_of()} X", *fields, "", ""])
                writer.write(head.encode() + self.body)
                await writer.drain()
        except ConnectionError:
            return  # who asked has had enough
        finally:
            writer.close()


class Setting:
    """The lists of one provider `own` at a ListServer, with a clock that stands still."""

    def __init__(self, url: str, transport: AiohttpTransport, provider: Provider) -> None:
        async def origin() -> Endpoint:
            return Endpoint(url, Secret("sk-secret-of-the-server"), {"x-own": "1"})

        self.now = 1000.0
        self.upstream = Upstream("own", provider, origin, Pool(transport, provider.max_concurrent))
        self.captured = LogCapture()
        self.lists = self.new()

    def known(self) -> list[str]:
        """What is known now."""
        return list(self.lists["own"])

    def new(self, before: ModelDiscovery | None = None, upstream: Upstream | None = None) -> ModelDiscovery:
        log = structlog.wrap_logger(None, processors=[self.captured], wrapper_class=structlog.stdlib.BoundLogger)
        return ModelDiscovery({"own": upstream or self.upstream}, log.warning, before, lambda: self.now)

    async def read(self) -> tuple[str, ...]:
        """What is known once nothing is being read."""
        self.lists.refresh()
        await self.lists.settled()
        return self.lists["own"]


@asynccontextmanager
async def settings(**changes: Any) -> AsyncIterator[tuple[Setting, ListServer]]:
    server = ListServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    transport = AiohttpTransport()
    try:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        setting = Setting(url, transport, OpenAI(base_url=url, timeout_s=Timeouts(connect=1, total=2), **changes))
        yield setting, server
        server.gate.set()
        await setting.lists.close()
    finally:
        await transport.close()
        listening.close()


async def test_nobody_waits_for_a_list() -> None:
    """A look-up answers what is known; refreshing while a list is being read starts no second reading."""
    async with settings() as (setting, server):
        server.gate.clear()
        for _ in range(3):
            setting.lists.refresh()
            assert setting.known() == []
        await server.asked.wait()
        server.gate.set()
        await setting.lists.settled()
        assert setting.known() == ["one", "two"]
        assert len(server.heads) == 1


async def test_a_look_up_reads_nothing() -> None:
    """However old the list is: only the server's own call reads."""
    async with settings() as (setting, server):
        await setting.read()
        setting.now += 10 * FRESH_S
        before = asyncio.all_tasks()
        assert (setting.known(), len(setting.lists), "own" in setting.lists) == (["one", "two"], 1, True)
        assert dict(setting.lists.found) == {"own": ("one", "two")}
        assert asyncio.all_tasks() == before
        assert len(server.heads) == 1


async def test_what_was_found_never_changes() -> None:
    """Whoever routes by a snapshot keeps it; a list that changed is a new one, a list that did not is the same."""
    async with settings() as (setting, server):
        await setting.read()
        found = setting.lists.found
        with pytest.raises(TypeError):
            cast(dict[str, Any], found)["own"] = ()
        setting.now += FRESH_S
        await setting.read()
        assert setting.lists.found is found
        server.body = listing("three")
        setting.now += FRESH_S
        await setting.read()
        assert (found["own"], setting.lists.found["own"]) == (("one", "two"), ("three",))


async def test_a_list_is_asked_for_with_the_providers_key() -> None:
    """As a call is, but it is no attempt: it has no id that a row could have."""
    async with settings() as (setting, server):
        await setting.read()
        head = server.heads[0].lower()
        assert "content-length" not in head
        assert head.startswith("get /v1/models http/1.1")
        assert "authorization: bearer sk-secret-of-the-server" in head
        assert "x-own: 1" in head
        assert "x-client-request-id" not in head


async def test_a_list_is_read_again_when_it_is_old() -> None:
    """Not before."""
    async with settings() as (setting, server):
        await setting.read()
        server.body = listing("three")
        setting.now += FRESH_S - 1
        assert await setting.read() == ("one", "two")
        setting.now += 1
        assert await setting.read() == ("three",)
        assert len(server.heads) == 2


async def test_following_reads_each_list_whenever_it_is_due() -> None:
    """Without anybody's asking, until it is closed."""
    async with settings() as (setting, server):
        fast = ModelDiscovery({"own": setting.upstream}, lambda *_, **__: None, fresh_s=0.01)
        fast.follow()
        await eventually(lambda: len(server.heads) >= 3)
        await fast.close()
        asked = len(server.heads)
        await asyncio.sleep(0.1)
        assert len(server.heads) == asked


def hang_up(server: ListServer) -> None:
    server.body = None


def refuse(server: ListServer) -> None:
    server.status, server.body = 401, b'{"error": {"message": "bad key sk-secret-of-the-server"}}'


def talk_nonsense(server: ListServer) -> None:
    server.body = b"<html>"


def flood(server: ListServer) -> None:
    server.body = b" " * (MAX_BYTES + 1) + listing("x")


@pytest.mark.parametrize("fail", [hang_up, refuse, talk_nonsense, flood])
async def test_a_server_that_fails_keeps_the_list_it_had(fail: Callable[[ListServer], None]) -> None:
    """It is told once, without the key, and asked again after a while; then it is well again."""
    async with settings() as (setting, server):
        await setting.read()
        fail(server)
        setting.now += FRESH_S
        assert await setting.read() == ("one", "two")
        asked = len(server.heads)
        assert await setting.read() == ("one", "two")
        assert len(server.heads) == asked
        setting.now += RETRY_S
        await setting.read()
        assert len(server.heads) > asked
        assert [entry["event"] for entry in setting.captured.entries] == ["model_list_unread"]
        assert "sk-secret" not in str(setting.captured.entries)
        server.status, server.body = 200, listing("well")
        setting.now += 2 * RETRY_S - 1
        assert await setting.read() == ("one", "two")
        setting.now += 1
        assert await setting.read() == ("well",)


async def test_reading_takes_no_place_of_a_call() -> None:
    """A server that serves one request at a time is not kept from it."""
    async with settings(max_concurrent=1) as (setting, server):
        places = setting.upstream.pool.places
        assert places is not None
        async with places:
            assert await setting.read() == ("one", "two")
        server.gate.clear()
        setting.now += FRESH_S
        setting.lists.refresh()
        await server.asked.wait()
        assert not places.locked()


async def test_a_reload_keeps_the_lists_of_servers_that_are_the_same() -> None:
    """Those of another address, or of another pool, are unknown again."""
    async with settings() as (setting, server):
        await setting.read()
        same = setting.new(before=setting.lists)
        assert same["own"] == ("one", "two")
        other = Upstream("own", setting.upstream.provider, no_origin, Pool(setting.upstream.pool.transport))
        changed = setting.new(before=setting.lists, upstream=other)
        await changed.close()
        assert changed["own"] == ()
        assert len(server.heads) == 1


async def test_closing_ends_what_is_being_read() -> None:
    """At once, and nothing is read afterwards."""
    async with settings() as (setting, server):
        server.gate.clear()
        setting.lists.refresh()
        await server.asked.wait()
        async with asyncio.timeout(1):
            await setting.lists.close()
        setting.lists.refresh()
        await setting.lists.settled()
        assert len(server.heads) == 1


# --- what callers see of it -------------------------------------------------------------------------------------------

OWN = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, retries: 0, timeout_s: {timeouts}}}
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """The fake upstream lists its modes; no file names one of them."""
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url, OWN)) as running:
        await running.runtime.lists.settled()
        yield running


async def listed(server: Server) -> list[str]:
    return [model["id"] for model in (await get(server.port, "/v1/models")).json["data"]]


async def test_listed_models_are_shown_and_found_by_their_bare_id(server: Server) -> None:
    """And `auto` has somebody to ask, where no file says whom."""
    names = await listed(server)
    assert "fake/ok" in names
    assert names.count("fake/ok") == 1
    answer = await post(server.port, chat("ok"))
    assert (answer.status, answer.headers("x-proxy-model")) == (200, ["fake/ok"])
    assert (await post(server.port, chat("auto"))).status == 200
    assert (await get(server.port, "/v1/models/ok")).json["resolves_to"] == "fake/ok"


async def test_any_other_id_of_the_provider_can_be_called_all_the_same(server: Server) -> None:
    """A list is never a limit."""
    assert "fake/ok(n_tokens=2)" not in await listed(server)
    assert (await post(server.port, chat("fake/ok(n_tokens=2)"))).status == 200


async def test_what_the_files_say_of_a_bare_id_goes_first(tmp_path: Path) -> None:
    """A server that lists the id of another provider takes nothing away from it, nor makes it ambiguous."""
    two = ROUTING.replace(
        "router:",
        "  second: {{type: openai, base_url: '{upstream}', allow_private: true, models: {{default: ok}}}}\nrouter:",
    )
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url, two)) as server:
        await server.runtime.lists.settled()
        assert (await post(server.port, chat("ok"))).headers("x-proxy-model") == ["second/ok"]
        several = await post(server.port, chat("echo"))
        assert several.status == 404
        assert "fake/echo or second/echo" in several.error()["message"]


@pytest.mark.slow
async def test_a_server_that_is_down_delays_neither_start_nor_calls(tmp_path: Path) -> None:
    """It is listed with what the files say, and found a little later when it comes up."""
    with refusing() as url:
        down = OWN + f"  down: {{{{type: ollama, base_url: '{url}', allow_private: true}}}}\n"
        async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url, down)) as server:
            await server.runtime.lists.settled()
            assert not [name for name in await listed(server) if name.startswith("down/")]
            assert (await post(server.port, chat("fake/ok"))).status == 200
            assert (await post(server.port, chat("down/any"))).status == 503


async def test_thousands_of_models_slow_nobody(tmp_path: Path) -> None:
    """A name that does not exist is still refused at once, and the whole list is answered."""
    async with settings() as (setting, lists):
        lists.body = listing(*(f"vendor-{n % 70}/model-number-{n}-instruct" for n in range(MAX_IDS)))
        path = tmp_path / "routing_rules.yaml"
        write_files(tmp_path, "http://127.0.0.1:9/v1", OWN)
        endpoint = await setting.upstream.origin()
        path.write_text(path.read_text().replace("http://127.0.0.1:9/v1", endpoint.base_url))
        async with serving(path) as server:
            await server.runtime.lists.settled()
            begun = own_time()
            missing = await post(server.port, chat("fake-model-numbr-77"))
            refused_s, begun = own_time() - begun, own_time()
            count = len(await listed(server))
            listed_s = own_time() - begun
        print(f"\n  {count} names: one that does not exist is refused after {refused_s * 1000:.0f} ms, all are", end="")
        print(f" listed in {listed_s * 1000:.0f} ms")
        assert (missing.status, count >= MAX_IDS) == (404, True)
        assert refused_s < 0.2
        assert listed_s < 2


def test_ollama_is_asked_where_it_listens() -> None:
    """Its own address has no /v1."""
    assert Ollama(base_url="http://localhost:11434").models_path == "/v1/models"


async def test_a_list_arrives_by_itself_after_the_start(tmp_path: Path) -> None:
    """Nobody has to ask twice."""
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url, OWN)) as server:
        await eventually(lambda: "ok" in server.runtime.names.found["fake"])
        assert "fake/ok" in await listed(server)


async def test_a_list_is_read_with_any_key_that_works() -> None:
    """A refused key rests, and the next one is asked at once; a call does not try it again."""
    async with settings() as (setting, server):
        url, origin = setting.upstream.provider.base_url or "", setting.upstream.origin
        names = [Key(name, Endpoint(url, Secret(f"key-of-{name}")), KeyState()) for name in "ABC"]
        keys = Keys("own", names, ProviderLimits(requests_per_minute=1), lambda *_, **__: None, lambda: setting.now)
        upstream = Upstream("own", setting.upstream.provider, origin, setting.upstream.pool, keys)
        lists = setting.new(upstream=upstream)

        def refuse_first() -> int:
            return 401 if len(server.heads) < 3 else 200

        server.status_of = refuse_first
        lists.refresh()
        await lists.settled()
        assert lists["own"] == ("one", "two")
        sent = [re.search(r"key-of-(.)", head) for head in server.heads]
        assert [found[1] for found in sent if found] == ["A", "B", "C"]
        assert sorted(keys.resting()) == ["A", "B"]
        assert keys.take().key.variable == "C"  # reading the list did not count
        await lists.close()


async def test_a_list_that_no_key_may_read_stays_as_it_was() -> None:
    """Every key was asked once. Then there is a warning, and no key is asked while all of them rest."""
    async with settings() as (setting, server):
        url, origin = setting.upstream.provider.base_url or "", setting.upstream.origin
        names = [Key(name, Endpoint(url, Secret(f"key-of-{name}")), KeyState()) for name in "AB"]
        keys = Keys("own", names, ProviderLimits(), lambda *_, **__: None, lambda: setting.now)
        upstream = Upstream("own", setting.upstream.provider, origin, setting.upstream.pool, keys)
        lists = setting.new(upstream=upstream)
        server.status_of = lambda: 401
        for _ in range(2):
            lists.refresh()
            await lists.settled()
            setting.now += 100
        assert (lists["own"], len(server.heads)) == ((), 2)
        (entry,) = setting.captured.entries
        assert entry["event"] == "model_list_unread"
        assert "key-of" not in str(entry)
        await lists.close()
