"""Signing in: who gets in, for how long, and what another page or site can do: nothing."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.pipeline.limits import FAILURES_PER_MINUTE
from proxy.server.web.sessions import COOKIE, SESSION_S, Sessions, new_session
from proxy.server.web.site import once, sign_in_link
from proxy.storage.keys import KeyStore, StoredKey
from tests.server.web.browser import ADMIN, SIGN_IN, Browser, browsing
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = b"the-secret-of-the-cookies-in-test"
KEYS = {"PROXY_ADMIN_KEY": ADMIN, "PROXY_API_KEY": "a-key-that-is-no-admins"}
PAGES = {
    *("/dashboard", "/dashboard/usage.csv", "/dashboard/requests", "/dashboard/requests.csv", "/dashboard/requests/x"),
    *("/dashboard/providers", "/dashboard/keys", "/dashboard/ensembles"),
    *("/dashboard/playground", "/dashboard/settings", "/dashboard/settings/text", "/dashboard/settings/defaults"),
    *("/dashboard/prompts", "/dashboard/prompts/x", "/dashboard/prompts/x/new", "/dashboard/new-prompt"),
    *("/dashboard/experiments", "/dashboard/experiments/x", "/dashboard/sites", "/dashboard/sites/x"),
    *("/dashboard/settings/versions/x", "/dashboard/new-experiment", "/dashboard/import-prompts"),
}
POSTED = {
    *("/dashboard/settings/change", "/dashboard/settings/keys", "/dashboard/playground/stream"),
    *("/dashboard/prompts/x/archive", "/dashboard/prompts/x/restore"),
    *("/dashboard/prompts/x/labels", "/dashboard/prompts/x/try", "/dashboard/experiments/x/x"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server with keys."""
    routing = write_files(tmp_path_factory.mktemp("keyed"), upstream_of_module.url)
    async with serving(routing, KEYS, pages_secret=SECRET) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def browser(server: Server) -> AsyncIterator[Browser]:
    async with browsing(server.port) as opened:
        yield opened


async def test_every_page_asks_for_a_session(server: Server, browser: Browser) -> None:
    """A new page shows here; without a session each leads to the sign-in page, and back afterwards."""
    routes = {route.path: route for route in server._application.litestar.routes if "/dashboard" in route.path}
    open_paths = {SIGN_IN, "/dashboard/sign-out", "/dashboard/static/x"}
    assert {re.sub(r"\{\w+:str\}", "x", path) for path in routes} == PAGES | POSTED | open_paths
    for path in PAGES:
        answer = await browser.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{SIGN_IN}?next={path}"), path
        assert (await browser.get(path, authorization=f"Bearer {ADMIN}")).status_code == 303
    for path in ("/dashboard/sign-out", "/dashboard/settings", "/dashboard/playground", *POSTED):
        refused = await browser.send(path, {})
        assert (refused.status_code, refused.headers["location"]) == (303, SIGN_IN), path


async def test_an_admin_key_signs_in(browser: Browser) -> None:
    """The cookie is for this site's requests alone, no script reads it, and the key is not in it."""
    answer = await browser.sign_in(next="/dashboard/requests?model=a")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/requests?model=a")
    (cookie,) = [line for line in answer.headers.get_list("set-cookie") if line.startswith(f"{COOKIE}=")]
    assert {"HttpOnly", "Path=/dashboard", "SameSite=strict", f"Max-Age={SESSION_S}"} <= set(cookie.split("; "))
    assert ADMIN not in cookie and hashlib.sha256(ADMIN.encode()).hexdigest() not in cookie
    assert (await browser.get()).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"x_forwarded_proto": "https"}, {"origin": "https://127.0.0.1:PORT", "sec_fetch_site": "same-origin"}]
)
async def test_behind_tls_the_cookie_stays_behind_tls(
    server: Server, browser: Browser, headers: dict[str, str]
) -> None:
    """The browser says where it is, or the reverse proxy does."""
    sent = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
    token = await browser.token()
    cookies = (await browser.send(SIGN_IN, {"token": token, "key": ADMIN}, **sent)).headers.get_list("set-cookie")
    assert all("Secure" in cookie for cookie in cookies)
    plain = (await browser.sign_in()).headers.get_list("set-cookie")
    assert not any("Secure" in cookie for cookie in plain)


@pytest.mark.parametrize("key", ["wrong", "", "a-key-that-is-no-admins", f"{ADMIN}x", "\u043a\u043b"])
async def test_no_other_key_signs_in(browser: Browser, key: str) -> None:
    """The same page for each, and nothing of the key on it."""
    answer = await browser.sign_in(key)
    assert answer.status_code == 401
    assert "This is not an admin key." in answer.text
    assert not key or key not in answer.text.replace('name="key"', "")
    assert COOKIE not in browser.client.cookies
    assert (await browser.get()).status_code == 303


@pytest.mark.slow
async def test_guesses_are_limited_and_the_right_key_is_not(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """By address; who has a key is never locked out by who has none."""
    async with serving(write_files(tmp_path, upstream_of_module.url), KEYS) as server, browsing(server.port) as browser:
        token, answers = await browser.token(), []
        for number in range(2 * FAILURES_PER_MINUTE):  # time gives some of them back
            answers.append(await browser.send(SIGN_IN, {"token": token, "key": f"guess {number}"}))
            if answers[-1].status_code == 429:
                break
        assert {answer.status_code for answer in answers[:FAILURES_PER_MINUTE]} == {401}
        assert "wrong API keys" in answers[-1].text and answers[-1].headers["retry-after"]
        assert (await browser.sign_in()).status_code == 303


async def test_a_form_needs_the_token_of_its_session(server: Server, browser: Browser) -> None:
    """None, a wrong one, and that of somebody else."""
    async with browsing(server.port) as other:
        foreign = await other.token()
    await browser.token()
    for token in ("", "0" * 64, foreign, "é"):
        refused = await browser.send(SIGN_IN, {"token": token, "key": ADMIN})
        assert refused.status_code == 403
        assert "earlier session" in refused.text
    await browser.sign_in()
    out = await browser.send("/dashboard/sign-out", {"token": foreign})
    assert out.status_code == 403
    assert (await browser.get()).status_code == 200


async def test_signing_out_ends_the_session(browser: Browser) -> None:
    """The cookie is gone, a copy of it opens nothing any more, and another session of the same key goes on."""
    await browser.sign_in()
    other = browser.client.cookies[COOKIE]
    await browser.sign_in()
    copy, token = browser.client.cookies[COOKIE], await browser.token("/dashboard/keys")
    assert (await browser.send("/dashboard/sign-out", {"token": token})).headers["location"] == SIGN_IN
    assert (await browser.get()).status_code == 303
    assert (await browser.client.get("/dashboard", headers={"cookie": f"{COOKIE}={copy}"})).status_code == 303
    assert (await browser.client.get("/dashboard", headers={"cookie": f"{COOKIE}={other}"})).status_code == 200


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}, 403),
        ("POST", {"origin": "null", "sec_fetch_site": "cross-site"}, 403),
        ("POST", {"origin": "http://127.0.0.1:1", "sec_fetch_site": "same-site"}, 403),
        ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"}, 403),
        ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ("GET", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 200),
        ("GET", {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"}, 200),
    ],
)
async def test_other_sites_may_link_here_and_nothing_else(
    browser: Browser, method: str, headers: dict[str, str], status: int
) -> None:
    """Not read, not send, whatever cookies the browser would add."""
    await browser.sign_in()
    if method == "GET":
        answer = await browser.get("/dashboard", **headers)
    else:
        answer = await browser.send("/dashboard/sign-out", {"token": await browser.token("/dashboard")}, **headers)
    assert answer.status_code == status


async def test_a_link_of_another_site_is_opened_again_from_here(browser: Browser) -> None:
    """The browser sends no strict cookie with it; the second request comes from our own page, and has it."""
    shown = await browser.get("/dashboard/keys?a=%22b", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert shown.status_code == 200
    assert 'http-equiv="refresh" content="0; url=/dashboard/keys?a=%22b"' in shown.text


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example",
        "//evil.example",
        "/dashboardx",
        "/dashboard/../v1",
        "/dashboard/\\evil",
        "/dashboard/\n",
        "x",
    ],
)
async def test_signing_in_leads_to_our_own_pages(browser: Browser, to: str) -> None:
    """Whatever the link said."""
    assert (await browser.sign_in(next=to)).headers["location"] == "/dashboard"


@pytest.mark.parametrize(
    "cookie",
    ["", "x", "%00", "gAAAAA", "é", "x" * 5_000, new_session(by_link=True).id],
    ids=["empty", "short", "nul", "start", "accent", "long", "id"],
)
async def test_a_cookie_that_is_not_ours_is_no_session(browser: Browser, cookie: str) -> None:
    """Also one made with another secret."""
    forged = Sessions(b"another").cookie(new_session(by_link=True), int(time.time()))
    for value in (cookie, forged):
        answer = await browser.client.get("/dashboard", headers=[(b"cookie", f"{COOKIE}={value}".encode())])
        assert answer.status_code == 303


async def test_a_session_ends_after_its_time() -> None:
    """By the time in the cookie, which nobody can change."""
    sessions, session = Sessions(SECRET), new_session(b"digest")
    cookie = f"{COOKIE}={sessions.cookie(session, 1_000)}"
    assert sessions.session(cookie, 1_000 + SESSION_S) == session
    assert sessions.session(cookie, 1_001 + SESSION_S) is None
    assert sessions.session(f"a=b; {cookie}; c=d", 1_000) == session


@pytest.mark.parametrize("other", ['a={"x":1}', "no pair", "a=\u00e9", 'b="', "=", ";", f"x{COOKIE}=1", "$Version=1"])
async def test_odd_cookies_of_other_programs_hide_no_session(other: str) -> None:
    """Cookies know no ports: every program on this host adds its own."""
    sessions, session = Sessions(SECRET), new_session(by_link=True)
    cookie = f"{COOKIE}={sessions.cookie(session, 1_000)}"
    assert sessions.session(f"{other}; {cookie}", 1_000) == session
    assert sessions.session(f"{cookie}; {other}", 1_000) == session


async def test_a_cookie_full_of_backslashes_costs_nothing() -> None:
    """Nobody has to sign in to send one. `http.cookies` needs twelve seconds for it (CVE-2024-7592)."""
    sessions = Sessions(SECRET)
    started = time.process_time()
    for value in ("\\" * 31_000, '\\"' * 15_500):
        assert sessions.session(f'{COOKIE}="{value}"', 1_000) is None
        assert sessions.session(f'a="{value}"', 1_000) is None
    assert time.process_time() - started < 0.5


async def test_a_form_that_is_too_large_says_so(browser: Browser) -> None:
    """And names no setting, since none changes it."""
    page = await browser.sign_in("k" * 300_000)
    assert page.status_code == 413 and "larger than 0.25 MB" in page.text and "max_body_mb" not in page.text


async def test_a_form_cookie_is_no_session(browser: Browser) -> None:
    """The sign-in page gives everybody one."""
    await browser.token()
    value = browser.client.cookies["mmproxy_form"]
    assert (await browser.client.get("/dashboard", headers={"cookie": f"{COOKIE}={value}"})).status_code == 303


async def test_a_revoked_key_ends_its_sessions(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Within the time in which it ends its calls."""
    key, now_ns = "mmp-of-the-boss", time.time_ns()
    store = KeyStore(tmp_path / "usage.db")
    store.add(StoredKey("k1", "boss", "admin", "boss", None, now_ns), hashlib.sha256(key.encode()).digest())
    async with serving(write_files(tmp_path, upstream_of_module.url)) as server, browsing(server.port) as browser:
        assert (await browser.sign_in(key)).status_code == 303
        assert (await browser.get("/dashboard/keys")).status_code == 200
        store.revoke("boss", now_ns)
        server._application._auth._stored._known.clear()  # type: ignore[union-attr]  # as time would
        assert (await browser.get("/dashboard/keys")).status_code == 303


async def test_the_link_of_the_start_signs_in_once(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """On a server that needs no key. Whoever comes second, or guesses, has to sign in."""
    routing = write_files(tmp_path, upstream_of_module.url)
    async with serving(routing, pages_secret=SECRET) as server, browsing(server.port) as browser:
        link = sign_in_link(SECRET, f"http://127.0.0.1:{server.port}")
        assert (await browser.get()).status_code == 303
        assert (await browser.client.get(f"{link}x")).status_code == 401
        answer = await browser.client.get(link)
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")
        assert (await browser.get()).status_code == 200
        again = await browser.client.get(link)
        assert again.status_code == 401 and "has been used" in again.text
        assert (await browser.get("/dashboard", host="evil.example")).status_code == 403


async def test_of_several_workers_one_takes_the_link(tmp_path: Path) -> None:
    """They share a folder; alone, a process remembers."""
    first, second, alone = once(tmp_path), once(tmp_path), once(None)
    assert [first(), second(), first()] == [True, False, False]
    assert [alone(), alone()] == [True, False]


@pytest.mark.parametrize("is_removed", [True, False])
@pytest.mark.slow
async def test_pages_are_served_under_a_path(
    upstream_of_module: FakeUpstream, tmp_path: Path, is_removed: bool
) -> None:
    """Whether the reverse proxy removes it or leaves it: links, cookies and redirects have it."""
    routing = write_files(tmp_path, upstream_of_module.url, ROUTING + "server: {{root_path: /ai/proxy}}\n")
    at = "" if is_removed else "/ai/proxy"
    async with serving(routing, KEYS) as server, browsing(server.port) as browser:
        assert (await browser.get(f"{at}/dashboard")).headers[
            "location"
        ] == f"/ai/proxy{SIGN_IN}?next=/ai/proxy/dashboard"
        page = await browser.get(f"{at}{SIGN_IN}")
        assert 'action="/ai/proxy/dashboard/sign-in"' in page.text
        assert 'href="/ai/proxy/dashboard/static/dashboard.css?v=' in page.text
        assert all("Path=/ai/proxy/dashboard" in line for line in page.headers.get_list("set-cookie"))
        assert (await browser.get(f"{at}/livez")).status_code == 200
        assert (await browser.get("/ai/proxyx/livez")).status_code == 404
