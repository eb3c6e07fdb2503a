"""What watches the server: `/livez`, `/readyz`, `/health`. Open to all, so they tell no secret."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from msgspec import structs

from proxy import __version__
from proxy.config import load
from proxy.metering.ledger import LedgerState
from proxy.server.api.health import Health, ProviderState, Standing, Watched, report, without_folders
from proxy.server.app import Application, server_auth
from proxy.server.log import build_log
from proxy.server.wiring import local_models
from tests.server.api.raw import chat, get, post, request, send
from tests.serving import ROUTING, Server, serving, spawned, write_files
from tests.upstream import FakeUpstream
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
LEDGER = LedgerState(degraded=False, pending=0, open_calls=0, reserved_nano=0, commits=1, lost=0, swept=0)
FAILING = LedgerState(degraded=True, pending=3, open_calls=1, reserved_nano=0, commits=1, lost=2, swept=0)


def standing(**changes: Any) -> Standing:
    usual: dict[str, Any] = {
        "uptime_s": 12.34,
        "draining": False,
        "ledger": LEDGER,
        "refuses": True,
        "in_flight": 0,
        "max_in_flight": 10,
        "config_version": "abc",
        "config_loaded_at": 1.0,
        "config_error": None,
    }
    return Standing(**{**usual, **changes})


async def test_health_tells_the_parts(server: Server) -> None:
    """Version, uptime, providers, database, configuration, calls in flight."""
    answer = await get(server.port, "/health")
    assert answer.status == 200
    health = answer.json
    assert (health["status"], health["problems"], health["version"]) == ("ok", [], __version__)
    assert health["uptime_s"] >= 0
    assert (health["draining"], health["in_flight"], health["max_in_flight"]) == (False, 0, 1000)
    assert health["providers"] == {"fake": {"state": "on"}}
    assert health["database"]["state"] == "ok"
    assert (len(health["config"]["version"]), health["config"]["error"]) == (12, None)


async def test_health_tells_no_secret(upstream: FakeUpstream, tmp_path: Path) -> None:
    """No address of a provider, no key, no place of a file; needs no key and calls no model."""
    routing = write_files(
        tmp_path,
        upstream.url,
        ROUTING.replace(
            "router:", "  keyed: {{type: openai, base_url: https://inner.example, api_key_env: K}}\nrouter:"
        ),
    )
    async with serving(routing, {"PROXY_API_KEY": "the-key", "K": "sk-secret-of-a-provider"}) as running:
        text = (await get(running.port, "/health")).body.decode()
    assert json.loads(text)["providers"]["keyed"] == {"state": "on"}
    for secret in ("the-key", "sk-secret", "inner.example", upstream.url, str(tmp_path), "usage.db", "127.0.0.1"):
        assert secret not in text
    assert len(upstream.ledger) == 0


async def test_a_provider_that_is_off_says_why(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The reason is the one that `proxy check` and the banner give."""
    routing = write_files(tmp_path, upstream.url, ROUTING.replace("router:", "  openai: {{}}\nrouter:"))
    async with serving(routing) as running:
        providers = (await get(running.port, "/health")).json["providers"]
    assert providers["openai"] == {"state": "off", "why": "set OPENAI_API_KEY to enable it"}


@pytest.mark.parametrize(
    ("changes", "status", "problems"),
    [
        ({}, "ok", 0),
        ({"ledger": FAILING}, "degraded", 1),
        ({"ledger": FAILING, "refuses": False}, "degraded", 0),
        ({"draining": True}, "draining", 1),
        ({"draining": True, "ledger": FAILING}, "draining", 2),
        ({"ledger": None}, "degraded", 1),
        ({"config_error": "x"}, "degraded", 0),
    ],
)
async def test_it_is_ready_while_it_can_serve(changes: dict[str, Any], status: str, problems: int) -> None:
    """An error in a file, or a database that may be missed, is told but turns nobody away."""
    found = standing(**changes)
    body = report("1", found, {"fake": ProviderState("on")})
    assert (body["status"], len(body["problems"])) == (status, problems)
    assert body["problems"] == found.problems()


async def test_a_configurations_error_names_files_without_their_folders() -> None:
    """Each line keeps file, line, column and message."""
    error = (
        "/data/secret place/routing_rules.yaml:3:1: router/x: no\nenvironment variable PROXY_PORT: a/b\npricing.yaml: c"
    )
    assert without_folders(error) == [
        "routing_rules.yaml:3:1: router/x: no",
        "environment variable PROXY_PORT: a/b",
        "pricing.yaml: c",
    ]


def asking_inside(application: Application) -> httpx.AsyncClient:
    """A client of the application itself, without a socket."""
    asgi: Any = application.asgi
    return httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url="http://localhost")


@pytest.fixture
def survives_sigterm() -> Iterator[None]:
    """uvicorn raises the signal again when it has drained: for the process it runs in, which is ours."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("survives_sigterm")
async def test_it_is_not_ready_from_the_signal_on(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Nobody can connect any more then, so the application itself is asked, while a live stream is drained."""
    async with serving(write_files(tmp_path, upstream.url)) as running:
        application = running._application
        async with asking_inside(application) as inside:
            assert (await inside.get("/readyz")).status_code == 200
            asking = asyncio.create_task(post(running.port, chat("fake/ok(n_tokens=10,pace=0.05)", stream=True)))

            async def is_served() -> bool:
                return bool((await inside.get("/health")).json()["in_flight"] == 1)

            await until(is_served)
            signal.raise_signal(signal.SIGTERM)
            ready, health = await inside.get("/readyz"), await inside.get("/health")
        assert (ready.status_code, ready.json()["problems"]) == (503, ["the server is stopping"])
        assert (health.status_code, health.json()["status"], health.json()["draining"]) == (503, "draining", True)
        assert (await asking).events[-1] == "[DONE]"


async def test_before_its_start_and_after_its_end_it_is_not_ready(upstream: FakeUpstream, tmp_path: Path) -> None:
    """An application nobody started serves nothing, and says so instead of failing."""
    routing = write_files(tmp_path, upstream.url)
    config = load(routing, tmp_path / "pricing.yaml", {})
    application = Application(config, local_models(config), server_auth({}, config), build_log("json"))
    async with asking_inside(application) as inside:
        assert (await inside.get("/livez")).status_code == 200
        assert (await inside.get("/readyz")).json()["problems"] == ["the server is not running"]
        assert (await inside.get("/health")).json()["database"] is None


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
async def test_the_embedded_models_state_is_told(tmp_path: Path, workers: int) -> None:
    """DeploymentAsk starts nothing; a question does. Workers ask the process that owns it."""
    routing = tmp_path / "routing_rules.yaml"
    routing.write_text("version: 1\nproviders:\n  local: {type: embedded}\n")
    (tmp_path / "pricing.yaml").write_text("version: 1\n")
    with spawned(routing, "--workers", str(workers), "--db", str(tmp_path / "usage.db")) as server:

        async def states() -> set[str]:
            found = [(await get(server.port, "/health")).json["providers"] for _ in range(4)]
            return {providers["local"]["state"] for providers in found}

        async def all_run() -> bool:
            return await states() == {"running"}

        assert await states() == {"not started"}
        assert (await send(server.port, request(chat("auto", max_tokens=1)), timeout_s=60)).status == 200
        await until(all_run)


async def test_a_dead_ledger_is_no_full_disk() -> None:
    """`/livez` fails only here, so that whatever watches it starts the process anew; the problem says so."""
    state = standing(ledger=structs.replace(FAILING, is_dead=True), refuses=False)
    assert state.problems() == ["the ledger's writer has ended: the server must be restarted"]
    assert report("1", state, {})["database"]["state"] == "dead"
    for now, status in ((standing(), 200), (standing(ledger=FAILING), 200), (standing(ledger=None), 200), (state, 503)):
        watched = Watched("1", lambda now=now: now, cast(Any, None), cast(Any, None))  # type: ignore[misc]
        livez = Health(watched, "off").routes()[0]
        answer = cast(Any, livez.fn)()
        assert (livez.paths, answer.status_code) == ({"/livez"}, status)
        assert json.loads(answer.content)["status"] == ("ok" if status == 200 else "ledger_dead")
