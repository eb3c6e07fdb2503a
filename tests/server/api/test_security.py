"""What an attacker sends, or an upstream answers, changes neither where requests go nor what anybody learns."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.config import load
from proxy.server.api.openapi import operations
from proxy.server.app import Application, server_auth
from proxy.server.log import build_log
from tests.server.api.raw import HELLO, Answer, answering, chat, get, post, request, send
from tests.server.api.rows import calls, row_of
from tests.serving import ROUTING, Server, serving, spawned, write_files
from tests.upstream import FakeUpstream, key_hash

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROVIDER_KEY = "canary-provider-5f1c9a7e"
PROXY_KEY = "canary-proxy-b81d02c4"
CLIENT_KEY = "canary-client-e7730f6d"
PROMPT = "canary-prompt-4411d8aa"
ADMIN_KEY = "canary-admin-90c3e2b7"

KEYED = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake:
    {{type: openai, base_url: "{upstream}", api_key_env: FAKE_API_KEY, allow_private: true, retries: 0,
     timeout_s: {timeouts}}}
router: {{default_model: fake/ok}}
"""
ENVIRON = {"FAKE_API_KEY": PROVIDER_KEY, "PROXY_API_KEY": PROXY_KEY, "PROXY_ADMIN_KEY": ADMIN_KEY}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server with a key of its own, and one for its provider."""
    folder = tmp_path_factory.mktemp("keyed")
    async with serving(write_files(folder, upstream_of_module.url, KEYED), ENVIRON) as running:
        yield running


# --- where requests go ------------------------------------------------------------------------------------------------

ELSEWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "fields",
    [
        {"api_base": ELSEWHERE},
        {"base_url": ELSEWHERE},
        {"api_key": "stolen"},
        {"user_config": {"api_base": ELSEWHERE}},
        {"extra_headers": {"Authorization": "Bearer stolen", "Host": "evil.example"}},
        {"organization": "org-evil", "project": "proj-evil"},
        {"custom_llm_provider": "openai", "model_list": [{"api_base": ELSEWHERE}]},
        {"provider": {"base_url": ELSEWHERE}, "deployment": ELSEWHERE},
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
async def test_no_body_field_changes_origin_or_credentials(
    keyed: Server, upstream: FakeUpstream, fields: dict[str, Any], stream: bool
) -> None:
    """They are data for the upstream; the request went to the configured one, with its key and our headers (S10)."""
    answer = await post(keyed.port, chat(stream=stream, **fields), x_api_key=PROXY_KEY)
    assert answer.status == 200
    (seen,) = upstream.ledger
    assert (seen.path, seen.authorization) == ("/v1/chat/completions", key_hash(PROVIDER_KEY))
    assert seen.headers["host"] == f"127.0.0.1:{upstream.port}"
    assert {"openai-organization", "openai-project"}.isdisjoint(seen.headers)


async def test_no_client_header_reaches_the_upstream(keyed: Server, upstream: FakeUpstream) -> None:
    """What goes out is ours, whatever came in."""
    await post(
        keyed.port,
        chat(),
        authorization=f"Bearer {PROXY_KEY}",
        x_base_url=ELSEWHERE,
        x_forwarded_host="evil.example",
        x_forwarded_for="1.2.3.4",
        forwarded="host=evil.example",
        openai_organization="org-evil",
        openai_beta="x=1",
        proxy_authorization="Basic eA==",
        cookie="session=1",
        x_client_request_id="chosen-by-the-client",
        user_agent="client/1",
        x_stainless_lang="python",
    )
    (seen,) = upstream.ledger
    assert seen.authorization == key_hash(PROVIDER_KEY)
    assert set(seen.headers) <= {
        "host",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "x-client-request-id",
    }
    assert seen.id != "chosen-by-the-client"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_redirect_is_not_followed(keyed: Server, upstream: FakeUpstream, status: int, stream: bool) -> None:
    """The target, which would get the key, sees nothing; the caller sees a 502 (S10)."""
    answer = await post(keyed.port, chat(f"fake/redirect(status={status})", stream=stream), x_api_key=PROXY_KEY)
    assert (answer.status, answer.error()["code"]) == (502, "upstream_error")
    assert len(upstream.ledger) == 1


async def test_policy_fields_in_the_body_are_not_believed(server: Server, database: Path) -> None:
    """Who asked and what it cost is not the client's to say (S14)."""
    claims = {
        "key_id": "boss",
        "admin": True,
        "cost": 0,
        "outcome": "ok",
        "call_id": "1",
        "usage": {"prompt_tokens": 0},
    }
    answer = await post(server.port, chat("fake/ok(n_tokens=2)", **claims))
    row = await row_of(database, answer)
    assert row["key_id"] is None
    assert row["cost_nano"] == 3 * 2_000 + 2 * 10_000
    assert row["id"] != "1"


@pytest.mark.slow
async def test_proxies_of_the_environment_are_not_used(upstream: FakeUpstream, tmp_path: Path) -> None:
    """HTTP_PROXY and its like would see every prompt and key (S13)."""
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        url = f"http://127.0.0.1:{canary.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        environ = dict.fromkeys((*names, *map(str.lower, names)), url) | {"NO_PROXY": "", "no_proxy": ""}
        for transport in ("aiohttp", "httpx"):
            folder = tmp_path / transport
            folder.mkdir()
            routing = ROUTING.replace("retries: 0", f"retries: 0, transport: {transport}")
            with spawned(write_files(folder, upstream.url, routing), environ=environ) as server:
                assert (await post(server.port, chat())).status == 200
        with pytest.raises(BlockingIOError):
            canary.accept()


# --- headers ----------------------------------------------------------------------------------------------------------

CRLF_NAMES = [
    "fake/ok\r\nset-cookie: a=1",
    "fake/ok\nset-cookie: a=1",
    "fake/ok\0",
    "fake/ok\x1b[31m",
    "fake/ok\u2028x",
]


@pytest.mark.parametrize("model", CRLF_NAMES, ids=ascii)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_name_makes_no_header(server: Server, upstream: FakeUpstream, model: str, stream: bool) -> None:
    """Names come back in headers; one that could end its line is refused, also where the upstream knew it (S20)."""
    upstream.modes[model.removeprefix("fake/")] = "ok"
    answer = await post(server.port, chat(model, stream=stream))
    assert (answer.status, answer.error()["param"]) == (400, "model")
    assert answer.headers("set-cookie") == []


@pytest.mark.parametrize("value", ["a\tb", "\xff\xfe", "x" * 10_000, "%0d%0aset-cookie:a=1", "chatcmpl-1"])
async def test_a_clients_request_id_is_not_ours(server: Server, value: str) -> None:
    """The id names rows and log lines, so it is made here."""
    answer = await post(server.port, chat(), x_request_id=value)
    (request_id,) = answer.headers("x-request-id")
    assert re.fullmatch("[0-9a-f]{24,32}", request_id)


EVIL_HEADERS = (
    b"set-cookie: a=1\r\nx-ratelimit-one: b\x0bset-cookie: c=1\r\nx-ratelimit-two: fine\r\n"
    b"x-ratelimit-three: \xff\r\nretry-after: 3\r\naccess-control-allow-origin: *\r\nserver: evil\r\n"
    b"x-should-retry: true\r\nlocation: http://evil.example\r\n"
)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [b"200 OK", b"429 Too Many Requests", b"500 Internal Server Error"])
@pytest.mark.sampled(3)
async def test_only_listed_and_clean_headers_of_an_upstream_are_passed_on(
    tmp_path: Path, status: bytes, stream: bool
) -> None:
    """No cookie, no line ends, no policy of somebody else's (S20)."""
    body = b'{"error": {"message": "slow down"}}'
    evil = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b"
    async with (
        answering(lambda _: evil % (status, EVIL_HEADERS, len(body), body)) as (url, _),
        serving(write_files(tmp_path, url)) as server,
    ):
        answer = await post(server.port, chat(stream=stream))
    assert answer.status in (429, 502)
    for name in (
        "set-cookie",
        "server",
        "location",
        "access-control-allow-origin",
        "x-ratelimit-one",
        "x-ratelimit-three",
    ):
        assert answer.headers(name) == []
    assert b"set-cookie" not in answer.bytes
    assert answer.headers("x-should-retry") in ([], ["false"])


@pytest.mark.parametrize("mode", ["dup_headers", "e429-dup_headers", "e500-dup_headers"])
@pytest.mark.parametrize("stream", [False, True])
async def test_cookies_of_an_upstream_are_never_forwarded(server: Server, mode: str, stream: bool) -> None:
    """Nor sent back to it with the next request (S20)."""
    for _ in range(2):
        answer = await post(server.port, chat(f"fake/{mode}", stream=stream))
        assert b"set-cookie" not in answer.bytes.lower()
        assert b"x-dup" not in answer.bytes.lower()


async def test_an_upstreams_cookie_is_not_kept(server: Server, upstream: FakeUpstream) -> None:
    """Two callers share one connection pool, not one session."""
    await post(server.port, chat("fake/dup_headers"))
    await post(server.port, chat())
    assert all("cookie" not in seen.headers for seen in upstream.ledger)


# --- who may ask ------------------------------------------------------------------------------------------------------

HOSTS = {
    "localhost": 200,
    "localhost:8000": 200,
    "LOCALHOST": 200,
    "127.0.0.1": 200,
    "127.0.0.1:65535": 200,
    "[::1]": 200,
    "[::1]:8000": 200,
    "evil.example": 403,
    "evil.example:8000": 403,
    "127.0.0.1.evil.example": 403,
    "localhost.evil.example": 403,
    "127a0a0a1": 403,
    "localhost.": 403,
    "localhost:": 403,
    "localhost:80:80": 403,
    "localhost:80x": 403,
    "localhost:٣": 403,
    "user@localhost": 403,
    "localhost, evil.example": 403,
    "0.0.0.0": 403,
    "[::]": 403,
    "::1": 403,
    "[::1": 403,
    "[::1]evil.example": 403,
    "2130706433": 403,
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", ["/v1/models", "/livez"])
async def test_a_keyless_server_answers_to_its_own_names_only(server: Server, host: str, path: str) -> None:
    """A page whose name resolves to 127.0.0.1 sends its own name as Host (S24)."""
    data = request(method="GET", path=path, headers={"host": "HOST"}).replace(b"HOST", host.encode())
    answer = await send(server.port, data)
    assert answer.status == HOSTS[host]
    if answer.status == 403:
        assert answer.error()["code"] == "origin_not_allowed"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/models HTTP/1.0\r\n\r\n",
        b"GET /v1/models HTTP/1.0\r\nx-forwarded-host: localhost\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ],
)
async def test_exactly_one_host_is_demanded(server: Server, head: bytes) -> None:
    """None, an empty one or two are a 400, whatever X-Forwarded-Host says (S24)."""
    answer = await send(server.port, head)
    assert (answer.status, answer.error()["param"]) == (400, "host")


async def test_http_1_0_with_a_host_is_served(server: Server) -> None:
    """Old load balancers check health that way, and without a Host, which no other request may lack."""
    assert (await send(server.port, b"GET /livez HTTP/1.0\r\nhost: localhost\r\n\r\n")).status == 200
    for path, version, status in (
        *((b"/livez", b"1.0", 200), (b"/readyz", b"1.0", 200)),
        *((b"/health", b"1.0", 400), (b"/v1/models", b"1.0", 400), (b"/livez", b"1.1", 400)),
    ):
        head = b"GET %s HTTP/%s\r\nconnection: close\r\n\r\n" % (path, version)
        assert (await send(server.port, head)).status == status, head


BROWSERS: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost.evil.example"},
    {"origin": "http://localhost:3000"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
]


@pytest.mark.parametrize("headers", BROWSERS, ids=str)
async def test_a_browsers_page_of_elsewhere_spends_nothing(
    server: Server, upstream: FakeUpstream, headers: dict[str, str]
) -> None:
    """A keyless server on this machine must not be reachable from web pages (S26)."""
    for answer in (await post(server.port, chat(), **headers), await get(server.port, "/v1/models", **headers)):
        assert (answer.status, answer.error()["code"]) == (403, "origin_not_allowed")
        assert answer.headers("access-control-allow-origin") == []
    preflight = {**headers, "access_control_request_method": "POST", "access_control_request_headers": "content-type"}
    named = {name.replace("_", "-"): value for name, value in preflight.items()}
    answer = await send(server.port, request(method="OPTIONS", path="/v1/chat/completions", headers=named))
    assert answer.status == 403
    assert upstream.ledger == []


async def test_tools_and_pages_of_no_origin_are_served(server: Server) -> None:
    """curl sends none; a user who opens the URL sends `none`."""
    assert (await get(server.port, "/v1/models", sec_fetch_site="none")).status == 200


ORIGIN = "https://app.example"
OPENED = ROUTING + 'server: {{cors_origins: ["https://app.example"], allowed_hosts: ["proxy.lan"]}}\n'


async def test_listed_origins_and_hosts_are_served(upstream: FakeUpstream, tmp_path: Path) -> None:
    """With the preflight that browsers send first; others stay out."""
    async with serving(write_files(tmp_path, upstream.url, OPENED)) as server:
        preflight = {
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        }
        asked = await send(server.port, request(method="OPTIONS", path="/v1/chat/completions", headers=preflight))
        assert asked.status in (200, 204)
        assert asked.headers("access-control-allow-origin") == [ORIGIN]
        allowed = {name.strip().lower() for name in ",".join(asked.headers("access-control-allow-headers")).split(",")}
        assert "*" in allowed or {"authorization", "content-type"} <= allowed
        for stream in (False, True):
            answer = await post(server.port, chat(stream=stream), origin=ORIGIN, host="proxy.lan:8000")
            assert answer.status == 200
            assert answer.headers("access-control-allow-origin") == [ORIGIN]
        refused = await post(server.port, chat("nobody"), origin=ORIGIN)
        assert refused.status == 404
        assert refused.headers("access-control-allow-origin") == [ORIGIN]  # or the page cannot read the error
        assert (await post(server.port, chat(), origin="https://evil.example")).status == 403


PATHS = [
    "//v1/models",
    "///models",
    "/v1//models",
    "/v1/./models",
    "/v1/../v1/models",
    "/v1/../admin",
    "/v1/%2e%2e/admin",
    "/%2e%2e/v1/models",
    "/livez/../v1/models",
    "/livez/%2e%2e/v1/models",
    "/livez;/v1/models",
    "/v1/models;x=/livez",
    "/V1/MODELS",
    "/v1/models/",
    "/v1/models%00",
    "/v1/models%20",
    "/%76%31/%6d%6f%64%65%6c%73",
    "/v1%2fmodels",
    "/v1/models?/livez",
    "/v1/models#/livez",
    "http://localhost/v1/models",
    "http://localhost/livez/../v1/models",
    "/v1/usage",
    "//usage",
    "/usage/",
    "*",
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
async def test_no_spelling_of_a_path_gets_past_the_key(keyed: Server, method: str, path: str) -> None:
    """The key is asked by the matched route, not by the path's text (S06)."""
    answer = await send(
        keyed.port,
        request(
            method=method,
            path=path,
            headers={"x-original-url": "/livez", "x-rewrite-url": "/livez", "x-forwarded-prefix": "/livez"},
        ),
    )
    assert answer.status in (204, 400, 401, 403, 404, 405)
    assert b'"data"' not in answer.bytes
    assert b'"total"' not in answer.bytes
    if answer.status == 204:
        assert method == "OPTIONS"


ROLES = {
    "/v1/chat/completions": "key",
    "/chat/completions": "key",
    "/v1/responses": "key",
    "/responses": "key",
    "/openai/deployments/{model}/responses": "key",
    "/v1/responses/{response_id}": "key",
    "/responses/{response_id}": "key",
    "/v1/responses/{response_id}/input_items": "key",
    "/responses/{response_id}/input_items": "key",
    "/v1/completions": "key",
    "/completions": "key",
    "/v1/messages": "key",
    "/messages": "key",
    "/v1/messages/count_tokens": "key",
    "/messages/count_tokens": "key",
    "/v1/embeddings": "key",
    "/embeddings": "key",
    "/v1/rerank": "key",
    "/rerank": "key",
    "/v2/rerank": "key",
    "/openai/deployments/{model}/chat/completions": "key",
    "/openai/deployments/{model}/completions": "key",
    "/openai/deployments/{model}/embeddings": "key",
    "/openai/deployments/{model}/rerank": "key",
    "/v1/models": "key",
    "/models": "key",
    "/v1/models/{model_id:path}": "key",
    "/models/{model_id:path}": "key",
    "/v1/usage": "key",
    "/usage": "key",
    "/v1/requests": "key",
    "/requests": "key",
    "/v1/requests/{request_id}": "key",
    "/requests/{request_id}": "key",
    "/v1/feedback": "key",
    "/feedback": "key",
    "/v1/ensembles/{name}/report": "key",
    "/ensembles/{name}/report": "key",
    "/v1/route/explain": "key",
    "/route/explain": "key",
    "/livez": "none",
    "/readyz": "none",
    "/health": "none",
    "/metrics": "none",
    "/schema/openapi.json": "none",
    "/admin/reload": "admin",
    "/admin/config/plan": "admin",
    **dict.fromkeys(("/v1/api/sites", "/v1/api/sites/match", "/v1/api/sites/{site_id}"), "key"),
    **dict.fromkeys(("/api/sites", "/api/sites/match", "/api/sites/{site_id}"), "key"),
}
OTHER_FIELDS: dict[str, dict[str, Any]] = {
    "/completions": {"prompt": "a", "messages": None},
    "/embeddings": {"input": "a"},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/messages": {"max_tokens": 9},
    "/responses": {"input": "a", "messages": None},
    "/admin/config/plan": {"routing_rules": "version: 1\nproviders: {openai: {}}\n"},
}
CREDENTIALS = {None: "nobody", "wrong": "nobody", PROXY_KEY: "key", ADMIN_KEY: "admin"}


STORED = re.compile(r"/(prompts|experiments)")


async def test_every_route_has_its_role_and_keeps_to_it(keyed: Server, tmp_path: Path) -> None:
    """A new route shows here until its role is decided (S02, S05, S06, S07)."""
    config = load(write_files(tmp_path, "http://127.0.0.1:9", KEYED), tmp_path / "pricing.yaml", ENVIRON)
    application = Application(config, {}, server_auth(ENVIRON, config), build_log("json"))
    found = {(path, method): handler for path, method, handler in operations(application.litestar.routes)}
    roles = {
        path.replace("{model_id}", "{model_id:path}"): handler.opt.get("role")
        for (path, _), handler in found.items()
        if not STORED.search(path)
    }
    assert roles == ROLES
    for (path, method), handler in found.items():  # reading is for keys, every change for admins
        if STORED.search(path):
            reads = method == "GET" or path.endswith(("/render", "/outcomes"))
            assert handler.opt.get("role") == ("key" if reads else "admin"), (method, path)
    for (path, method), handler in found.items():
        role = handler.opt["role"]
        for key, who in CREDENTIALS.items():
            if STORED.search(path):
                continue  # see their own tests: too many strangers from one address are turned away
            endpoint = re.sub(r"^/(v1|v2|openai/deployments/\{model\})", "", path)
            body = chat(**OTHER_FIELDS.get(endpoint, {})) if method == "POST" else b""
            if endpoint == "/feedback":
                body = b'{"id": "chatcmpl-none", "success": true}'
            if endpoint == "/api/sites/match":
                body = b'{"instructions": "get trending communities", "assets": ["https://reddit.com"]}'
            headers = {"x-api-key": key} if key else {}
            asked = path.replace("{model_id}", "fake/ok").replace("{model}", "fake/ok").replace("{site_id}", "reddit")
            answer = await send(keyed.port, request(body, method=method, path=asked, headers=headers))
            if role != "none" and who == "nobody" and endpoint.startswith("/messages"):
                assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error"), path
            elif role != "none" and who == "nobody":
                assert (answer.status, answer.error()["code"]) == (401, "invalid_api_key"), path
            elif role == "admin" and who == "key":
                assert (answer.status, answer.error()["code"]) == (403, "admin_required"), path
            elif "{request_id}" in path or endpoint == "/feedback":  # nobody made a request of that name
                assert (answer.status, answer.error()["code"]) == (404, "not_found"), (path, who)
            elif "{name}" in path or "{response_id}" in path:
                assert answer.status == 404, (path, who)
            else:
                assert 200 <= answer.status < 300, (path, who, answer.bytes[:300])


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_open_routes_tell_nothing_but_how_the_server_is(keyed: Server, path: str) -> None:
    """No version, no names of providers or models."""
    answer = await get(keyed.port, path)
    assert answer.json.keys() <= {"status", "problems"}
    assert answer.headers("server") == []


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("localhost", True),
        ("192.168.0.7:8000", True),
        ("[fd00::1]:8000", True),
        ("proxy:8000", True),
        ("proxy.monitoring.svc.cluster.local", True),
        ("evil.example", False),
        ("EVIL.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("proxy.local.evil.example", False),
        ("127.0.0.1.", False),
    ],
)
async def test_a_rebound_name_reads_nothing_of_a_server_with_keys(keyed: Server, host: str, is_served: bool) -> None:
    """What needs no key and tells of spending answers to addresses and private names; a key is asked for elsewhere."""
    for path in ("/health", "/metrics"):
        answer = await send(keyed.port, request(method="GET", path=path, host=host))
        assert answer.status == (200 if is_served else 403)
    assert (await send(keyed.port, request(method="GET", path="/livez", host=host))).status == 200
    allowed = await send(
        keyed.port, request(method="GET", path="/v1/models", host=host, headers={"x-api-key": PROXY_KEY})
    )
    assert allowed.status == 200


# --- secrets and texts ------------------------------------------------------------------------------------------------

FAILURES = [
    *("ok", "echo", "no_usage", "usage_null", "cached", "reasoning", "refusal", "tools", "e400", "e401", "e402"),
    *("e403", "e404", "e408", "e409", "e413", "e422", "e429", "e500", "e502", "e503", "e504", "e529"),
    *("context_length", "bad_json_error", "html_502", "empty_200", "json_in_200_error", "redirect", "wrong_ctype"),
    *("cut_clean", "cut_fin", "cut_rst", "stall_after", "sse_error", "truncated_json", "no_finish", "no_done"),
    *("blackhole", "close_before_request", "half_headers", "slow_headers", "slow_body", "huge_headers"),
    *("dup_headers", "gzip_bomb(mb=1)", "giant_line", "no_such_mode"),
]
FAST_TIMEOUTS = "{connect: 1, first_token: 0.4, idle: 0.4, total: 0.8}"
TWO_PROVIDERS = KEYED.replace(
    "router:",
    '  quoting: {{type: openai, base_url: "QUOTING", api_key_env: FAKE_API_KEY, allow_private: true, retries: 0, '
    "timeout_s: {timeouts}}}\nrouter:",
)
QUOTES = {
    "json": (
        b"401 Unauthorized",
        b"application/json",
        b'{"error": {"message": "bad key KEY", "code": "KEY", "type": "KEY"}}',
    ),
    "text": (b"400 Bad Request", b"text/plain", b"no such key: KEY"),
    "detail": (b"422 Unprocessable Entity", b"application/json", b'{"detail": [{"msg": "KEY"}]}'),
    "header": (b"429 Too Many Requests", b"application/json\r\nx-ratelimit-key: KEY", b'{"error": "KEY is too fast"}'),
    "whole": (b"200 OK", b"application/json", b'{"error": {"message": "bad key KEY"}}'),
    "stream": (b"200 OK", b"text/event-stream", b'data: {"error": {"message": "bad key KEY"}}\n\n'),
    "html": (b"502 Bad Gateway", b"text/html", b"<h1>KEY</h1>"),
    "redirect": (b"302 Found", b"text/html\r\nlocation: http://evil.example/?key=KEY", b""),
    "finish": (
        b"200 OK",
        b"application/json",
        b'{"choices": [{"message": {"content": "x"}, "finish_reason": "error"}], "error": {"message": "KEY"}}',
    ),
}


def quote_key(head: bytes) -> bytes:
    """An answer that quotes the key it was sent, in the way that the length of the request's body picks."""
    key = re.search(rb"authorization: Bearer (\S+)", head, re.IGNORECASE)
    length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    assert key is not None
    kind = list(QUOTES)[int(length[1]) % len(QUOTES) if length else 0]
    status, content_type, body = (part.replace(b"KEY", key[1]) for part in QUOTES[kind])
    lines = (b"HTTP/1.1 ", status, b"\r\ncontent-type: ", content_type, b"\r\nconnection: close\r\n\r\n", body)
    return b"".join(lines)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_secrets_and_prompts_are_nowhere(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Through every failure mode: not in the log, the database, its journal or an answer (S31, S33, S09)."""
    async with answering(quote_key) as (quoting, seen):
        routing = TWO_PROVIDERS.replace("QUOTING", quoting)
        path = write_files(tmp_path, upstream.url, routing, timeouts=FAST_TIMEOUTS)
        with spawned(path, environ=ENVIRON) as server:
            answers: list[Answer] = []
            asking = asyncio.Semaphore(8)

            async def ask(body: bytes, **headers: str) -> None:
                async with asking:
                    answers.append(await post(server.port, body, **headers))

            messages = [{"role": "user", "content": PROMPT}]
            bodies = [
                chat(f"fake/{mode}", messages=messages, stream=stream, user=PROMPT)
                for mode in FAILURES
                for stream in (False, True)
            ]
            # Each length asks the quoting upstream for another kind of answer.
            bodies += [
                chat("quoting/m", messages=messages, stream=stream, user="u" * length)
                for length in range(len(QUOTES))
                for stream in (False, True)
            ]
            await asyncio.gather(*(ask(body, authorization=f"Bearer {PROXY_KEY}") for body in bodies))
            bad = [chat(messages=messages)[:-1], chat(messages=[{"role": PROMPT}]), chat("nobody", messages=messages)]
            await asyncio.gather(*(ask(body, x_api_key=PROXY_KEY) for body in bad))
            for headers in (
                {"authorization": f"Bearer {CLIENT_KEY}"},
                {"x_api_key": CLIENT_KEY},
                {"api_key": CLIENT_KEY},
            ):
                await ask(chat(messages=messages), **headers)
            answers.append(await get(server.port, f"/v1/usage?key={CLIENT_KEY}", x_api_key=PROXY_KEY))
            answers.append(await get(server.port, "/livez"))
            open_files = files_of(tmp_path)
            server.stop()
        assert sum(head.startswith(b"POST ") for head in seen) == 2 * len(QUOTES)  # beside them, its models are listed
        assert {answer.status for answer in answers} >= {200, 400, 401, 404, 422, 429, 502, 503, 504}
        secrets = [key.encode() for key in (PROVIDER_KEY, PROXY_KEY, ADMIN_KEY, CLIENT_KEY)]
        secrets += [hashlib.sha256(key).hexdigest().encode() for key in secrets]
        for answer in answers:
            assert [secret for secret in secrets if secret in answer.bytes] == [], answer.bytes[:500]
            if answer.status >= 500:
                assert str(tmp_path).encode() not in answer.bytes
                assert b"Traceback" not in answer.bytes
        assert len(calls(tmp_path / "usage.db")) >= len(bodies)
        for files in (open_files, files_of(tmp_path)):
            assert {"usage.db", "server.log"} <= files.keys()
            for name, data in files.items():
                assert [secret for secret in [*secrets, PROMPT.encode()] if secret in data] == [], name
        assert b"Traceback" not in files["server.log"], files["server.log"]


BREAKS = [
    "a\nb",
    "a\r\nb",
    "a\x1b[31mb",
    "a\u2028b\u2029c",
    "a\x85b\x0bc",
    "a\0b",
    'a"b\\c',
    "{'event': 'call'}",
    "a" * 9_000,
]


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.slow
async def test_each_call_is_one_log_line_whatever_it_is_called(
    upstream: FakeUpstream, tmp_path: Path, log_format: str
) -> None:
    """Line ends and colours in names are data, and long ones are cut (S35)."""
    with spawned(write_files(tmp_path, upstream.url), "--log-format", log_format) as server:
        log = tmp_path / "server.log"
        before = len(log.read_bytes().decode().splitlines())
        for text in BREAKS:
            await post(server.port, chat(f"fake/{text}"))
            await post(server.port, chat("fake/ok", user=text, metadata={"a": text}))
            await post(server.port, chat("fake/e400", messages=[{"role": "user", "name": text, "content": text}]))
        server.stop()
        lines = log.read_bytes().decode().splitlines()[before:]  # splits at U+2028 and its like, too
        of_calls = [line for line in lines if "request_id" in line]
        assert len(of_calls) == 3 * len(BREAKS)
        assert all(line.isprintable() and len(line) < 4_000 for line in of_calls)
        if log_format == "json":
            assert [json.loads(line)["event"] for line in of_calls] == ["call"] * len(of_calls)


async def test_hello_is_the_prompt_of_these_tests() -> None:
    """The fake upstream counts its words; costs above rest on it."""
    assert HELLO[0]["content"].split() == ["one", "two", "three"]
