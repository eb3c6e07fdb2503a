"""Orchestrates: the routes of stored prompts and of experiments, which use each other's data."""

from __future__ import annotations

from collections.abc import Callable

from litestar.handlers import HTTPRouteHandler

from proxy.server.api.experiments import Experiments
from proxy.server.api.prompt_steps import PromptSteps
from proxy.server.api.prompts import Prompts
from proxy.server.runtime import Runtime


def stored_routes(live: Callable[[], Runtime]) -> list[HTTPRouteHandler]:
    """The Litestar handlers. `live`: the runtime of the current configuration."""
    experiments = Experiments(lambda: live().experiments, lambda model: live().names.resolve(model))
    return [*Prompts(prompt_steps(live)).routes(), *experiments.routes()]


def prompt_steps(live: Callable[[], Runtime]) -> PromptSteps:
    """The steps shared by the routes and the pages of prompts."""
    return PromptSteps(
        lambda: live().prompts,
        lambda model: live().names.resolve(model),
        lambda prompt: live().experiments.scores(prompt),
    )
