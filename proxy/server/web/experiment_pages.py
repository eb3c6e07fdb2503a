"""Performs I/O: the pages of experiments: the list, and one with its figures, its verdict and the forms of its life."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Template

from proxy.pipeline.experiments import LiveExperiments
from proxy.prompts.results import courses_of, shown_experiment
from proxy.schema.errors import ProxyError
from proxy.schema.experiments import StoredExperiment
from proxy.server.api.periods import iso
from proxy.server.api.queries import parameters_of
from proxy.server.web import experiment_view as view
from proxy.server.web.doors import Doors, PageRequest
from proxy.server.web.forms import fields_of, revision_in, to_page
from proxy.server.web.prompt_view import Wrong, wrong_of
from proxy.server.web.reports import Page
from proxy.server.web.shown import Shown
from proxy.server.web.words import query

_PAGE = 50  # rows
_LIST = {"after": "The page after the one that ended with this id."}
_LIFE = ("start", "stop", "promote", "revert")


class ExperimentPages:
    """The routes. `page` renders."""

    def __init__(self, seen: Shown, page: Page, doors: Doors) -> None:
        self._seen = seen
        self._page = page
        self._doors = doors

    @property
    def _live(self) -> LiveExperiments:
        return self._seen.live().experiments

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @get("/experiments", role="page")
        async def experiments(request: PageRequest) -> Template:
            given = parameters_of([each for each in request.query_params.multi_items() if each[1]], _LIST)
            after = given.get("after", "")
            found = [stored for stored in await self._live.all() if stored.id > after]
            return self._page(
                "experiments",
                request,
                experiments=[(stored, view.state_of(stored), _shown(stored)) for stored in found[:_PAGE]],
                next=query({}, after=found[_PAGE - 1].id) if len(found) > _PAGE else None,
                first=bool(after),
            )

        @get("/experiments/{experiment_id:str}", role="page")
        async def experiment(request: PageRequest, experiment_id: FromPath[str]) -> Template:
            return await self._one(request, experiment_id)

        @post("/experiments/{experiment_id:str}/{step:str}", role="page", status_code=303)
        async def change(request: PageRequest, experiment_id: FromPath[str], step: FromPath[str]) -> Response[Any]:
            if step not in _LIFE:
                raise ProxyError("There is no such page.", status=404, code="not_found")
            form = await fields_of(self._doors, request)
            try:
                await self._changed(experiment_id, step, form)
            except ProxyError as error:
                if error.status not in (400, 409, 412):
                    raise
                return await self._one(request, experiment_id, wrong_of(error, ()))
            return to_page(self._doors, f"/experiments/{experiment_id}")

        return [experiments, experiment, change]

    async def _one(self, request: PageRequest, experiment: str, wrong: Wrong | None = None) -> Template:
        results = await self._live.results(experiment)  # records a verdict that is out
        stored, now_ns = await self._live.get(experiment), time.time_ns()
        steps = await self._live.steps(stored, now_ns, view.STEPS)
        courses = [] if steps is None else courses_of(stored.experiment, steps, results["leader"])
        tz = self._seen.live().budgets.config.timezone
        answer = self._page(
            "experiments_one",
            request,
            stored=stored,
            badge_of=view.state_of(stored),
            results=results,
            lead=view.lead_of(results),
            needed_for=view.needed_for(stored, results),
            variants=view.variants_of(stored, results),
            drawings=view.drawings_of(courses),
            is_too_much=steps is None,
            times=view.times_of(steps, tz),
            tz=tz,
            lowest=view.wins_low(results["metric"]),
            facts=view.facts_of(_shown(stored)),
            can_promote=_can_promote(stored),
            wrong=wrong,
            query=query,
        )
        answer.status_code = 200 if wrong is None else wrong.status
        return answer

    async def _changed(self, experiment: str, step: str, form: dict[str, str]) -> None:
        """Raises ProxyError, 412 if the experiment has changed since the page was loaded."""
        revision, live = revision_in(form), self._live
        if step in ("start", "stop"):
            work = live.store.start if step == "start" else live.store.stop
            await live.change(partial(work, experiment, revision, time.time_ns()))
            return
        stored = await live.get(experiment, revision)
        await (live.promote(stored) if step == "promote" else live.revert(stored))


def _shown(stored: StoredExperiment) -> dict[str, Any]:
    return shown_experiment(stored, partial(iso, tz="UTC"))


def _can_promote(stored: StoredExperiment) -> bool:
    """True while a winner has a version, and the label is not there by this experiment."""
    state, experiment = stored.state, stored.experiment
    spec = None if state.winner is None else experiment.variant(state.winner)
    is_promoted = state.promoted_ns is not None and state.reverted_ns is None
    return spec is not None and spec.prompt_version is not None and experiment.prompt is not None and not is_promoted
