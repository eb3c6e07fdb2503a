"""Orchestrates: the routes of stored prompts and of experiments, which lend each other what they know."""

from __future__ import annotations

from collections.abc import Callable

from litestar.handlers import HTTPRouteHandler

from proxy.server.api.experiments import Experiments
from proxy.server.api.prompts import Prompts
from proxy.server.runtime import Runtime


def stored_routes(live: Callable[[], Runtime]) -> list[HTTPRouteHandler]:
    """The Litestar handlers. `live`: the runtime of the current configuration."""

    def check_model(model: str) -> None:
        live().names.resolve(model)

    experiments = Experiments(lambda: live().experiments, check_model)
    prompts = Prompts(lambda: live().prompts, check_model, lambda prompt: live().experiments.scores(prompt))
    return [*prompts.routes(), *experiments.routes()]
