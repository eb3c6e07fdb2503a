"""Performs I/O: the pages on providers, keys and ensembles: what each reads, and the values that its template shows."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Template
from msgspec import Struct

from proxy.routing.health import DeploymentHealth
from proxy.schema.daemon_thread import DaemonThread
from proxy.schema.errors import ProxyError
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.schema.records import Caller
from proxy.server.api.health import ProviderState
from proxy.server.api.outcome_queries import report_query, reported
from proxy.server.api.periods import iso
from proxy.server.api.queries import usage_query
from proxy.server.auth import ADMIN_KEY_NAME, KEY_NAME
from proxy.server.web.budget_view import BudgetBar
from proxy.server.web.doors import PageRequest
from proxy.server.web.shown import Shown
from proxy.server.web.words import ago, plain, query
from proxy.storage.base import StoreError
from proxy.storage.keys import StoredKey
from proxy.upstream.headroom import Headroom, headroom_of
from proxy.upstream.upstream import Upstream

_ADMIN = Caller(admin=True)
_HOUR_NS, _DAY_NS = 3_600 * NANO, 86_400 * NANO
_KEYS_S = 10.0  # for reading the list of keys
_SHOWN_DEPLOYMENTS = 100  # of one provider: clients may name any model
_ENVIRONMENT = {KEY_NAME: "PROXY_API_KEY", ADMIN_KEY_NAME: "PROXY_ADMIN_KEY"}


class Page(Protocol):
    def __call__(self, name: str, request: PageRequest, /, **context: Any) -> Template: ...


class Deployment(Struct, frozen=True):
    """One model of a provider: what this process knows of its health, and its last 24 hours."""

    name: str
    health: DeploymentHealth | None
    badge: str
    state: str
    why: str
    figures: Mapping[str, Any] | None


class Provider(Struct, frozen=True):
    """One provider with its models. `keys`: the use of its API keys within the last minute, where that is counted.
    `headroom`: what its last answer, `answered_s` ago, said is left of its limits.
    """

    name: str
    state: str
    is_on: bool
    why: str
    active: int
    keys: list[dict[str, Any]]
    deployments: list[Deployment]
    headroom: list[Headroom]
    answered_s: float


class Reports:
    """The routes. `page` renders, `budgets` gives the bars of budgets."""

    def __init__(self, seen: Shown, page: Page, budgets: Callable[[], Awaitable[list[BudgetBar]]]) -> None:
        self._seen = seen
        self._page = page
        self._budgets = budgets
        self._keys_thread = DaemonThread("page-keys", _KEYS_S)

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @get("/providers", role="page")
        async def providers(request: PageRequest) -> Template:
            live, state = self._seen.live(), self._seen.state()
            figures = await self._last_day("provider", "model")
            used = {f"{group['provider']}/{group['model']}": group for group in figures if group["provider"]}
            states = await self._seen.providers()
            found = [
                provider_shown(name, each, live.upstreams.get(name), state.deployments, used)
                for name, each in states.items()
            ]
            return self._page("providers", request, providers=found)

        @get("/keys", role="page")
        async def keys(request: PageRequest) -> Template:
            used = {figures["key"]: figures for figures in await self._period(30, "key")}
            stored: dict[str, list[StoredKey]] = {}
            for key in await self._stored_keys():
                stored.setdefault(key.name, []).append(key)
            bars: dict[str, list[BudgetBar]] = {}
            for bar in await self._budgets():
                bars.setdefault(bar.scope, []).append(bar)
            names = [name for name in dict.fromkeys([*stored, *used]) if name]
            names.sort(key=lambda name: -((used[name]["charged_usd"] or 0) if name in used else -1))
            shown = [key_shown(name, stored.get(name, []), time.time_ns()) for name in names]
            return self._page("keys", request, keys=shown, used=used, bars=bars, query=query)

        @get("/ensembles", role="page")
        async def ensembles(request: PageRequest) -> Template:
            live, now_ns = self._seen.live(), time.time_ns()
            names, report = list(live.names.ensembles), None
            name = request.query_params.get("name") or (names[0] if names else "")
            if name:
                if name not in names:
                    raise ProxyError("There is no such ensemble.", status=404, code="not_found", param="name")
                since = iso(now_ns - 30 * _DAY_NS, "UTC") or ""
                found = report_query(name, {"since": since}, _ADMIN, now_ns)
                report = await live.ledger.ensemble_calls(found, partial(reported, found, live.budgets.config.timezone))
            return self._page("ensembles", request, names=names, name=name, report=report, query=query)

        return [providers, keys, ensembles]

    async def _last_day(self, *groups: str) -> list[dict[str, Any]]:
        return await self._groups((time.time_ns() // _HOUR_NS - 23) * _HOUR_NS, groups)

    async def _period(self, days: int, *groups: str) -> list[dict[str, Any]]:
        return await self._groups((time.time_ns() // _DAY_NS - days + 1) * _DAY_NS, groups)

    async def _groups(self, since_ns: int, groups: tuple[str, ...]) -> list[dict[str, Any]]:
        asked = {"since": iso(since_ns, "UTC") or "", "group_by": ",".join(groups)}
        answer = await self._seen.live().ledger.usage(usage_query(asked, _ADMIN, time.time_ns()))
        found: list[dict[str, Any]] = answer["groups"]
        return found

    async def _stored_keys(self) -> list[StoredKey]:
        """Raises ProxyError 503."""
        try:
            return await self._keys_thread.run(self._seen.keys)
        except (StoreError, TimeoutError):
            message = "The key database cannot be read."
            raise ProxyError(message, status=503, code="storage_unavailable") from None


def provider_shown(
    name: str,
    state: ProviderState,
    upstream: Upstream | None,
    deployments: Mapping[str, DeploymentHealth],
    used: Mapping[str, Mapping[str, Any]],
) -> Provider:
    """One provider; its models are those that were asked, the busiest first."""
    own = [each for each in dict.fromkeys([*used, *deployments]) if each.startswith(f"{name}/")]
    own.sort(key=lambda each: -(used[each]["calls"] if each in used else 0))
    shown = [_deployment(each, deployments.get(each), used.get(each)) for each in own[:_SHOWN_DEPLOYMENTS]]
    keys = [] if upstream is None or upstream.keys is None else _keys_of(upstream)
    headroom = [] if upstream is None else headroom_of(upstream.provider, upstream.pool.headers)
    return Provider(
        name,
        state.state,
        state.state != "off",
        plain(state.why, 300) if state.why else "",
        _active(upstream),
        keys,
        shown,
        headroom,
        0.0 if upstream is None else time.monotonic() - upstream.pool.answered_s,
    )


def _active(upstream: Upstream | None) -> int:
    return 0 if upstream is None else upstream.active


def _keys_of(upstream: Upstream) -> list[dict[str, Any]]:
    """Each key by the name of its variable, with what is left of its limits per minute in this process."""
    keys = upstream.keys
    if keys is None:
        return []
    limits = keys.limits
    return [
        {
            "variable": plain(used.variable or "its key"),
            "requests": used.requests,
            "most_requests": limits.requests_per_minute,
            "tokens": used.tokens,
            "most_tokens": limits.tokens_per_minute,
            "rests_s": used.rests_s,
            "why": plain(used.why),
        }
        for used in keys.used()
    ]


def _deployment(name: str, health: DeploymentHealth | None, figures: Mapping[str, Any] | None) -> Deployment:
    if health is None:
        return Deployment(plain(name), None, "no data yet", "quiet", "", figures)
    now_s = time.time()
    rests_s = health.rests_until - now_s
    why = f"{plain(health.why)}, {ago(now_s - health.failed_at)}" if health.failed_at and health.why else ""
    if health.breaker != "closed":
        state, badge = "bad", health.breaker.replace("_", " ")
    elif rests_s > 0:
        state, badge = "quiet", f"rests for {rests_s:.0f} s"
    elif health.error_rate >= 0.1:
        state, badge = "quiet", "failing at times"
    else:
        state, badge = "good", "healthy"
    return Deployment(plain(name), health, badge, state, why, figures)


def key_shown(name: str, stored: list[StoredKey], now_ns: int) -> dict[str, Any]:
    """A name, and the keys that have it. Never a key: its last four characters at most."""
    return {
        "name": name,
        "variable": "" if stored else _ENVIRONMENT.get(name, ""),
        "keys": [
            {
                "id": key.id,
                "last4": plain(key.last4),
                "role": key.role,
                "models": "every model" if key.models is None else plain(", ".join(key.models), 200),
                "created": (iso(key.created_ns, "UTC") or "")[:10],
                "expires": (iso(key.expires_ns, "UTC") or "")[:10],
                "state": _key_state(key, now_ns),
            }
            for key in stored
        ],
        "is_open": any(key.opens(now_ns) for key in stored) or not stored,
    }


def _key_state(key: StoredKey, now_ns: int) -> str:
    if key.revoked_ns is not None:
        return "revoked"
    return "active" if key.opens(now_ns) else "expired"
