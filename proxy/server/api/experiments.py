"""Performs I/O: the routes of experiments: assignment, outcomes and results for keys, changes for admins."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from litestar import Request, Response, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.pipeline.experiments import LiveExperiments
from proxy.prompts.definition import experiment_of
from proxy.prompts.results import shown_experiment
from proxy.schema.errors import ProxyError
from proxy.schema.experiments import StoredExperiment
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.api.experiment_bodies import (
    ASSIGNMENT,
    MAX_BODY,
    CheckModel,
    check_models,
    shown_outcome,
    shown_variant,
    tracked_of,
    unit_of,
)
from proxy.server.api.periods import iso
from proxy.server.api.prompt_bodies import revision_of
from proxy.server.api.queries import parameters_of
from proxy.server.api.request import BodyTooLarge, ClientGone, discard_rest, read_body

Asked = Request[Caller, Any, Any]
Answered = Response[bytes]


class Experiments:
    """The routes. `live` lends the experiments of the running server, `check_model` raises ProxyError for a model that
    cannot be called.
    """

    def __init__(self, live: Callable[[], LiveExperiments], check_model: CheckModel) -> None:
        self._live = live
        self._check_model = check_model

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""
        return [*self._reading(), *self._changing(), *self._life()]

    def _reading(self) -> list[HTTPRouteHandler]:
        @get(_paths(""), role="key")
        async def list_experiments() -> Answered:
            """All experiments, by id."""
            data = [_shown(stored) for stored in await self._live().all()]
            return _json({"object": "list", "data": data})

        @get(_paths("/{experiment_id:str}"), role="key")
        async def get_experiment(experiment_id: FromPath[str]) -> Answered:
            """One experiment. Send its ETag as `If-Match` with a change."""
            return _answer(await self._live().get(experiment_id))

        @get(_paths("/{experiment_id:str}/results"), role="key")
        async def get_results(experiment_id: FromPath[str]) -> Answered:
            """The figures of each variant, and the verdict: `winner`, or `undecided` with the leader named."""
            return _json({"object": "experiment.results", **await self._live().results(experiment_id)})

        @get(_paths("/{experiment_id:str}/variant"), role="key")
        async def assign_variant(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """The variant of a unit, for programs that apply it themselves. Calls name the experiment instead."""
            given = parameters_of(request.query_params.multi_items(), ASSIGNMENT)
            return _json(shown_variant(await self._live().variant(experiment_id, unit_of(given.get("unit")))))

        @post(_paths("/{experiment_id:str}/outcomes"), role="key", status_code=201)
        async def track_outcome(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """Stores an outcome that belongs to no call: `variant`, and `success` or `score`; `unit` says whose."""
            live, fields = self._live(), await _body(request)
            known = (await live.get(experiment_id)).experiment
            tracked = tracked_of(fields, known)
            now_ns = time.time_ns()
            await live.track(tracked, now_ns)
            return _json(shown_outcome(tracked, fields.get("unit"), now_ns), 201)

        return [list_experiments, get_experiment, get_results, assign_variant, track_outcome]

    def _changing(self) -> list[HTTPRouteHandler]:
        @post(_paths(""), role="admin", status_code=201)
        async def create_experiment(request: Asked) -> Answered:
            """Creates an experiment; it takes no calls before it is started."""
            experiment = check_models(experiment_of(await _body(request)), self._check_model)
            live = self._live()
            return _answer(await live.change(partial(live.store.create, experiment, time.time_ns())), 201)

        @put(_paths("/{experiment_id:str}"), role="admin")
        async def replace_experiment(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """Another definition, until the experiment has started."""
            experiment = check_models(experiment_of(await _body(request), experiment_id), self._check_model)
            live = self._live()
            return _answer(await live.change(partial(live.store.replace, experiment, _revision(request))))

        @delete(_paths("/{experiment_id:str}"), role="admin", status_code=200)
        async def delete_experiment(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """Deletes an experiment that is not running. The rows of its calls stay."""
            live = self._live()
            await live.change(partial(live.store.delete, experiment_id, _revision(request)))
            return _json({"id": experiment_id, "deleted": True})

        return [create_experiment, replace_experiment, delete_experiment]

    def _life(self) -> list[HTTPRouteHandler]:
        @post(_paths("/{experiment_id:str}/start"), role="admin", status_code=200)
        async def start_experiment(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """Calls take part from now on."""
            live = self._live()
            start = partial(live.store.start, experiment_id, _revision(request), time.time_ns())
            return _answer(await live.change(start))

        @post(_paths("/{experiment_id:str}/stop"), role="admin", status_code=200)
        async def stop_experiment(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """Calls no longer take part. Ratings of its calls still count."""
            live = self._live()
            stop = partial(live.store.stop, experiment_id, _revision(request), time.time_ns())
            return _answer(await live.change(stop))

        @post(_paths("/{experiment_id:str}/promote"), role="admin", status_code=200)
        async def promote_winner(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """Moves the label to the winner's version of the prompt."""
            live = self._live()
            return _answer(await live.promote(await live.get(experiment_id, _revision(request))))

        @post(_paths("/{experiment_id:str}/revert"), role="admin", status_code=200)
        async def revert_promotion(request: Asked, experiment_id: FromPath[str]) -> Answered:
            """Moves the label back to where it was before."""
            live = self._live()
            return _answer(await live.revert(await live.get(experiment_id, _revision(request))))

        return [start_experiment, stop_experiment, promote_winner, revert_promotion]


async def _body(request: Asked) -> dict[str, Any]:
    try:
        return decode_object(await read_body(request.receive, dict(request.headers), MAX_BODY))
    except BodyTooLarge as error:
        await discard_rest(request.receive, 8 * MAX_BODY)
        message = f"The body is larger than {MAX_BODY // 1024} kB."
        raise ProxyError(message, status=413, code=error.code, headers=error.headers) from None
    except ClientGone:
        raise ProxyError("The client has gone.", status=499, code=None) from None


def _paths(rest: str) -> list[str]:
    return [f"/v1/experiments{rest}", f"/experiments{rest}"]


def _revision(request: Asked) -> int | None:
    return revision_of(request.headers.get("if-match"))


def _shown(stored: StoredExperiment) -> dict[str, Any]:
    return {"object": "experiment", **shown_experiment(stored, partial(iso, tz="UTC"))}


def _answer(stored: StoredExperiment, status: int = 200) -> Answered:
    return _json(_shown(stored), status, f'"{stored.state.revision}"')


def _json(value: object, status: int = 200, etag: str | None = None) -> Answered:
    headers = {**NO_STORE, "x-request-id": new_id(), **({"etag": etag} if etag else {})}
    return Response(encode(value), status_code=status, media_type="application/json", headers=headers)
