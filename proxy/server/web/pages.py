"""Performs I/O: the pages of the dashboard: what each reads, and the values that its template shows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from litestar import Request, Response, Router, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Template

from proxy.config.namespace import baseline_of
from proxy.metering.standing import standing
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.queries import TokenRates, UsageQuery
from proxy.schema.records import Caller
from proxy.server.api.csv_table import csv_table
from proxy.server.api.queries import REQUESTS, log_answer, log_query, parameters_of, usage_columns, usage_query
from proxy.server.api.shapes import LoggedRequest
from proxy.server.framework import Routes
from proxy.server.stored_routes import prompt_steps
from proxy.server.web import request_detail, request_view, usage_view
from proxy.server.web.budget_view import BudgetBar, budget_bar
from proxy.server.web.doors import Doors, PageRequest, SignInNeeded
from proxy.server.web.experiment_forms import experiment_form_routes
from proxy.server.web.experiment_pages import ExperimentPages
from proxy.server.web.playground import Playground
from proxy.server.web.prompt_import import import_routes
from proxy.server.web.prompt_pages import PromptPages
from proxy.server.web.rendering import PAGE_HEADERS, Hooks
from proxy.server.web.reports import Reports
from proxy.server.web.sessions import NOBODY
from proxy.server.web.settings_pages import SettingsPages
from proxy.server.web.shown import Shown, suggestions
from proxy.server.web.site_pages import SitePages
from proxy.server.web.usage_view import GROUPS, Asked
from proxy.server.web.words import query

ADMIN = Caller(admin=True)  # pages show every key's calls
_PAGE_ROWS = 50
_STATIC_HEADERS = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}


class Pages:
    """The routes under `/dashboard`."""

    def __init__(self, doors: Doors, seen: Shown, files: Mapping[str, tuple[bytes, str]], hooks: Hooks) -> None:
        self._doors = doors
        self._seen = seen
        self._files = files
        self._hooks = hooks
        self._reports = Reports(seen, self.page, self.budgets)
        self._settings = SettingsPages(seen, self.page, doors, self.budgets)
        self._playground = Playground(seen, self.page, doors)

    def _stored_routes(self) -> list[HTTPRouteHandler]:
        """Prompts, experiments and sites."""
        steps = prompt_steps(self._seen.live)
        prompts = PromptPages(self._seen, steps, self.page, self._doors)
        made = import_routes(steps, self.page, self._doors)
        made += experiment_form_routes(self._seen, self.page, self._doors)
        experiments = ExperimentPages(self._seen, self.page, self._doors)
        return [*prompts.routes(), *made, *experiments.routes(), *SitePages(self._seen, self.page).routes()]

    def router(self) -> Router:
        """All of them, behind the guard of pages, with errors as pages."""
        handlers = [*self._doors.routes(), *self._usage_routes(), *self._request_routes(), *self._reports.routes()]
        changing = [*self._settings.routes(), *self._playground.routes()]
        handlers += self._stored_routes()

        def to_sign_in(request: Request[Any, Any, Any], _: SignInNeeded) -> Response[Any]:
            return self._doors.to_sign_in(request)

        def refused(request: Request[Any, Any, Any], error: ProxyError) -> Response[Any]:
            return self._error_page(request, error.message, error.status, error.headers)

        def framework(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
            if error.status_code >= 500:
                raise error
            return self._error_page(request, str(error.detail)[:300], error.status_code, {})

        return Routes(
            "/dashboard",
            guards=[self._doors.guard()],
            before_request=self._hooks.before,
            after_request=self._hooks.after,
            route_handlers=[*handlers, *changing, self._static_route()],
            exception_handlers={SignInNeeded: to_sign_in, ProxyError: refused, HTTPException: framework},
        )

    def page(self, name: str, request: PageRequest, /, **context: Any) -> Template:
        """A page of somebody who has signed in."""
        base_url = f"{_scheme(request)}://{request.headers.get('host', 'localhost')}"
        common = {"page": name, "base_url": base_url, **self._doors.context(request.user)}
        return Template(f"{name}.html", context={**common, **context}, headers=PAGE_HEADERS)

    def _error_page(
        self, request: Request[Any, Any, Any], message: str, status: int, headers: Mapping[str, str]
    ) -> Template:
        """With the way to the other pages, if somebody has signed in."""
        common = self._doors.context(request.scope.get("user") or NOBODY)
        context = {"page": "", "message": message, "status": status, **common}
        return Template("error.html", context=context, status_code=status, headers={**PAGE_HEADERS, **headers})

    async def budgets(self) -> list[BudgetBar]:
        """The bars of all windows."""
        live, now_ns = self._seen.live(), time.time_ns()
        charges = live.budgets.of_caller(None, every=True, now_ns=now_ns)
        if not charges:
            return []
        config = live.budgets.config
        found = standing(charges, await live.ledger.read_spending())
        return [budget_bar(each, config.alert_at, now_ns, config.timezone) for each in found]

    def _static_route(self) -> HTTPRouteHandler:
        @get("/static/{name:str}", sync_to_thread=False, role="none")
        def static(name: FromPath[str]) -> Response[bytes]:
            found = self._files.get(name)
            if found is None:
                raise ProxyError("There is no such file.", status=404, code="not_found")
            return Response(found[0], headers={**_STATIC_HEADERS, "content-type": found[1]})

        return static

    # --- usage --------------------------------------------------------------------------------------------------------

    def _usage_routes(self) -> list[HTTPRouteHandler]:
        @get("/", role="page")
        async def usage(request: PageRequest) -> Template:
            asked = self._asked(request)
            baseline, rates = self._baseline(asked)
            chart, problem, groups = None, "", []
            try:
                found = await self._found(asked, asked.keys, rates)
                groups = found["groups"]
                points = await self._found(asked, (asked.unit, *asked.keys))
                chart = usage_view.chart_of(asked, points["groups"], groups)
            except BadRequest as error:  # too many groups: the rest of the page is as useful
                problem = error.message
                found = await self._found(asked, (), rates)
            total = found["total"]
            live, storage = self._seen.live(), self._seen.standing().storage
            return self.page(
                "usage",
                request,
                asked=asked,
                query=query,
                ranges=usage_view.RANGES,
                metrics=usage_view.METRICS,
                groups=GROUPS,
                total=total,
                rows=usage_view.rows_of(asked, total, groups),
                parts=usage_view.token_parts(total),
                hit_rate=usage_view.cache_hit_rate(total),
                fresh=usage_view.fresh(total),
                chart=chart,
                problem=problem,
                budgets=await self.budgets(),
                baseline=baseline,
                has_rates=rates is not None,
                names=await suggestions(live),
                storage=None if storage is None else request_view.storage_shown(storage, time.time_ns(), asked.tz),
                database=request_view.database_state(self._seen.standing().ledger),
                is_new=not total["calls"] and (storage is None or not storage.calls),
            )

        @get("/usage.csv", role="page")
        async def usage_csv(request: PageRequest) -> Response[bytes]:
            return await self._usage_file(self._asked(request))

        return [usage, usage_csv]

    async def _usage_file(self, asked: Asked) -> Response[bytes]:
        """A table of the page as CSV: `table` in the address names it."""
        if asked.given.get("table") == "tokens":
            parts = usage_view.token_parts((await self._found(asked, ()))["total"])
            rows = [{"part": name, "tokens": tokens, "share": share} for _, name, tokens, share in parts]
            return _csv(csv_table(("part", "tokens", "share"), rows), "tokens.csv")
        keys = (asked.unit, *asked.keys) if asked.given.get("table") == "chart" else asked.keys
        groups = (await self._found(asked, keys, self._baseline(asked)[1]))["groups"]
        return _csv(csv_table(usage_columns(UsageQuery(group_by=keys)), groups), "usage.csv")

    def _asked(self, request: PageRequest) -> Asked:
        zone = self._seen.live().budgets.config.timezone
        return usage_view.asked_of(request.query_params.multi_items(), zone, time.time_ns())

    def _baseline(self, asked: Asked) -> tuple[str, TokenRates | None]:
        """The model that savings are measured against, and its prices: None: they are not known."""
        live = self._seen.live()
        name = asked.given.get("baseline") or live.config.usage.baseline or ""
        return name, baseline_of(live.config, live.names, name) if name else None

    async def _found(self, asked: Asked, keys: tuple[str, ...], rates: TokenRates | None = None) -> dict[str, Any]:
        """The usage of the period by these dimensions."""
        found = usage_query(asked.parameters(*keys), ADMIN, time.time_ns(), rates)
        return await self._seen.live().ledger.usage(found)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _request_routes(self) -> list[HTTPRouteHandler]:
        @get("/requests", role="page")
        async def requests(request: PageRequest) -> Template:
            given = self._filters(request)
            found = log_query({"limit": str(_PAGE_ROWS), **given}, ADMIN)
            answer = log_answer(found, await self._seen.live().ledger.log(found))
            return self.page(
                "requests",
                request,
                given=given,
                filters=[name for name in given if name not in ("tz", "cursor", "limit")],
                rows=[request_view.row_shown(row, given["tz"]) for row in answer["data"]],
                outcomes=request_view.OUTCOMES,
                older=query(given, cursor=answer["next_cursor"]) if answer["has_more"] else None,
                newest=query(given, cursor=None) if "cursor" in given else None,
                query=query,
            )

        @get("/requests.csv", role="page")
        async def requests_csv(request: PageRequest) -> Response[bytes]:
            given = self._filters(request)
            found = log_query({"limit": "1000", **given}, ADMIN)
            answer = log_answer(found, await self._seen.live().ledger.log(found))
            return _csv(csv_table(tuple(LoggedRequest.__annotations__), answer["data"]), "requests.csv")

        @get("/requests/{request_id:str}", role="page")
        async def one_request(request: PageRequest, request_id: FromPath[str]) -> Template:
            found = await self._seen.live().ledger.past_call(request_id, None)
            if found is None:
                message = "There is no request with this id. It may be older than the rows that are kept."
                raise ProxyError(message, status=404, code="not_found", param="id")
            live = self._seen.live()
            details = await live.ledger.details(request_id)
            text = await live.texts.find(found["key_id"], request_id) if found["key_id"] else None
            rules, no_rules = request_detail.rules_of(found, live.names, self._seen.standing().config_version)
            return self.page(
                "request",
                request,
                **request_view.detail(found, details.started_ms, live.budgets.config.timezone),
                errors=(text or {}).get("errors", {}),
                money=request_detail.money_of(details.priced, live.names.price_of),
                decided=details.decided,
                seats=[] if details.decided is None else request_detail.seats_of(details.decided),
                letter_of=request_detail.letter_of,
                rules=rules,
                no_rules=no_rules,
            )

        return [requests, requests_csv, one_request]

    def _filters(self, request: PageRequest) -> dict[str, str]:
        """The filters of the list, the empty fields of its form left out."""
        given = {name: value for name, value in request.query_params.multi_items() if value}
        known = {name: about for name, about in REQUESTS.items() if name != "format"}
        zone = self._seen.live().budgets.config.timezone
        return {"tz": zone, **parameters_of(given.items(), known)}


def _csv(body: bytes, name: str) -> Response[bytes]:
    said = {"content-type": "text/csv; charset=utf-8", "content-disposition": f'attachment; filename="{name}"'}
    return Response(body, headers={**PAGE_HEADERS, **said})


def _scheme(request: PageRequest) -> str:
    """What the browser used: only an example on the page depends on it."""
    return "https" if request.headers.get("x-forwarded-proto", "").lower() == "https" else request.url.scheme
