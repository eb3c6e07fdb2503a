"""Performs I/O: the page of settings: what is configured, the form of common values, and the test of a provider."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response import Template
from msgspec import structs

from proxy.config import Config, ConfigError
from proxy.config.patch import patched
from proxy.config.problems import Problem
from proxy.config.source import ConfigFiles
from proxy.schema.records import Secret
from proxy.server.api.health import ProviderState
from proxy.server.api.periods import iso
from proxy.server.ping import Ping, ping
from proxy.server.web.budget_view import BudgetBar
from proxy.server.web.doors import Doors, PageRequest
from proxy.server.web.rendering import PAGE_HEADERS
from proxy.server.web.reports import Page
from proxy.server.web.settings_changes import SettingsChanges
from proxy.server.web.settings_files import FilesChanged, NotWritten, Texts
from proxy.server.web.settings_form import Field, ensembles_shown, fields_of, marked, rules_shown, typed
from proxy.server.web.shown import Shown, suggestions
from proxy.server.web.words import plain

_MAX_FIELDS = 20_000  # as many as 9,000 providers have
_MAX_FORM = 4 * 1024 * 1024
_TEST_MS = 60_000  # nobody waits longer for a test
_PREFIX = re.compile(r"[a-z]{2,5}[-_]")
_NOTHING_DONE: Mapping[str, Any] = {"tests": {}, "saved": "", "refused": "", "key_error": ""}
_SHORT_KEY = 16  # of a shorter one four characters tell too much


class SettingsPages:
    """The routes. `page` renders, `budgets` gives the bars of budgets."""

    def __init__(
        self, seen: Shown, page: Page, doors: Doors, budgets: Callable[[], Awaitable[list[BudgetBar]]]
    ) -> None:
        self._seen = seen
        self._page = page
        self._doors = doors
        self._budgets = budgets
        self._changes = SettingsChanges(seen, page, doors)
        self._tested: set[str] = set()  # providers whose test is running

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @get("/settings", role="page")
        async def settings(request: PageRequest) -> Template:
            texts = await self._changes.read()
            saved = "".join(filter(str.isalnum, request.query_params.get("saved", "")[:12]))
            try:
                config = await self._config(texts)
            except ConfigError as error:
                return await self._shown(request, texts, None, {}, problems=error.problems)
            return await self._shown(request, texts, config, fields_of(config), saved=saved)

        @post("/settings", role="page", status_code=200)
        async def change(request: PageRequest) -> Response[Any]:
            given = await self._doors.form(request, request.user, _MAX_FORM, _MAX_FIELDS)
            texts = await self._changes.read()
            try:
                config = await self._config(texts)
            except ConfigError as error:
                return await self._shown(request, texts, None, {}, status=409, problems=error.problems)
            filled = typed(fields_of(config), given)
            base = structs.replace(texts, version=given.get("version", ""))
            if (name := given.get("test")) is not None:
                tests = {name: await self._test(request, name)}
                return await self._shown(request, base, config, filled.fields, tests=tests)
            if base.version != texts.version:
                return await self._shown(
                    request, base, config, filled.fields, status=409, refused=FilesChanged().message
                )
            if not filled.is_right:
                return await self._shown(request, texts, config, filled.fields, status=400)
            return await self._checked(request, texts, config, filled.fields, filled.changes)

        @post("/settings/keys", role="page", status_code=200)
        async def set_key(request: PageRequest) -> Response[Any]:
            given = await self._doors.form(request, request.user)
            return await self._set_key(request, given.get("variable", ""), given.get("key", ""), given.get("do"))

        return [settings, change, set_key, *self._changes.routes()]

    async def _set_key(self, request: PageRequest, variable: str, key: str, do: str | None) -> Response[Any]:
        """Writes a provider's key, or takes it away. No page ever shows it again."""
        operations, live = self._seen.operations, self._seen.live().config
        caller = await self._doors.caller(request.user)
        try:
            if variable not in _settable(live, operations.files):
                raise ValueError("Choose a variable of a provider that the environment does not set.")
            await operations.reloads.off_loop(self._changes.files.set_key, variable, None if do == "remove" else key)
        except (ValueError, NotWritten) as error:
            fields = fields_of(live)
            return await self._shown(
                request, await self._changes.read(), live, fields, status=400, key_error=str(error)
            )
        operations.log.info("provider_key_set", key=caller.key_id, variable=variable, removed=do == "remove")
        await operations.reloads.reload()
        location = f"{self._doors.root}/dashboard/settings"
        return Response(b"", status_code=303, headers={**PAGE_HEADERS, "location": location})

    async def _checked(
        self,
        request: PageRequest,
        texts: Texts,
        config: Config,
        fields: Mapping[str, Field],
        changes: Mapping[Any, Any],
    ) -> Response[Any]:
        """The change as text, checked as the server reads it; what is wrong is marked at its field."""
        operations = self._seen.operations
        try:
            text = await operations.reloads.off_loop(patched, texts.routing, changes)
            errors, _ = await self._changes.wrong(texts, structs.replace(texts, routing=text))
        except ConfigError as error:
            errors = error.problems
        if errors:
            found, others = marked(fields, errors)
            return await self._shown(request, texts, config, found, status=400, problems=others)
        return await self._changes.checked(request, structs.replace(texts, routing=text))

    async def _config(self, texts: Texts) -> Config:
        """The configuration of the files; the running one if it is theirs. Raises ConfigError."""
        live = self._seen.live().config
        if live.version == texts.version:
            return live
        return await self._seen.operations.trials.load(texts.routing, texts.pricing)

    async def _test(self, request: PageRequest, name: str) -> Ping:
        """One real call to a provider; a second click waits for nothing and pays nothing."""
        caller, operations = await self._doors.caller(request.user), self._seen.operations
        if name in self._tested:
            return Ping(False, None, error="a test of it is running; look again when it has ended")
        with operations.using() as runtime:
            if name in runtime.config.disabled:
                return Ping(False, None, error=f"off: {runtime.config.disabled[name]}")
            if name not in runtime.upstreams:
                return Ping(False, None, error="not running; save the files first")
            self._tested.add(name)
            try:
                return await ping(runtime, name, caller, _TEST_MS, operations.places)
            finally:
                self._tested.discard(name)

    async def _shown(
        self,
        request: PageRequest,
        texts: Texts,
        config: Config | None,
        fields: Mapping[str, Field],
        status: int = 200,
        **more: Any,
    ) -> Template:
        """The page. `config` None: the files have mistakes, `problems`, so there is no form."""
        changes, operations, live = self._changes, self._seen.operations, self._seen.live()
        problems: list[Problem] = more.pop("problems", [])
        zone = live.budgets.config.timezone
        versions = await operations.reloads.off_loop(changes.files.versions)
        context = {
            "texts": texts,
            "names": changes.files.names,
            "models": await suggestions(live),
            "read_only": await operations.reloads.off_loop(changes.files.why_read_only),
            "fields": fields,
            "providers": [] if config is None else _providers(config, await self._seen.providers()),
            "rules": [] if config is None else await asyncio.to_thread(rules_shown, config),
            "ensembles": [] if config is None else ensembles_shown(config),
            "budgets": await self._budgets(),
            "problems": [plain(problem, 500) for problem in problems],
            "wrong": sum(bool(field.error) for field in fields.values()) + len(problems),
            "running": live.config.version,
            "config_error": operations.reloads.state.config_error,
            "at_restart": operations.reloads.at_restart,
            "versions": [(version, _moment(at_ns, zone)) for version, at_ns in versions],
            "keys_file": None if operations.files is None else operations.files.keys_file,
            "variables": _settable(live.config, operations.files),
            **_NOTHING_DONE,
            **more,
        }
        answer = self._page("settings", request, **context)
        answer.status_code = status
        return answer


def _settable(config: Config, files: ConfigFiles | None) -> list[str]:
    """The variables of keys that the page may write: those of providers, unless the environment sets them."""
    if files is None or files.keys_file is None:
        return []
    named = dict.fromkeys(name for provider in config.providers.values() for name in provider.key_variables)
    return [name for name in named if not files.environ.get(name) and not name.startswith("PROXY_")]


def masked(secret: Secret) -> str:
    """`sk-...` and the last four characters."""
    value = secret.reveal()
    if len(value) < _SHORT_KEY:
        return "..."
    prefix = _PREFIX.match(value)
    return f"{prefix[0] if prefix else ''}...{value[-4:]}"


def _providers(config: Config, states: Mapping[str, ProviderState]) -> list[dict[str, Any]]:
    """Each with its state, and the variables of its keys. Never a key."""
    shown = []
    for name, provider in config.providers.items():
        keys = config.provider_keys.get(name, {})
        state = states.get(name) or ProviderState("off", config.disabled.get(name, "not running yet"))
        shown.append(
            {
                "name": name,
                "type": provider.type,
                "state": state.state,
                "why": plain(state.why, 300) if state.why else "",
                "keys": [(variable, masked(secret)) for variable, secret in keys.items()],
                "variables": [] if keys else list(provider.key_variables),
                "needs_none": provider.keyless,
            }
        )
    return shown


def _moment(at_ns: int | None, zone: str) -> str:
    return "never ran" if at_ns is None else (iso(at_ns, zone) or "")[:19].replace("T", " ")
