"""Performs I/O: the form that makes an experiment: a row for each variant."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, get_args

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response import Template

from proxy.prompts.definition import MAX_VARIANTS, experiment_of
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.experiments import METRICS, Assignment
from proxy.server.api.experiment_bodies import MAX_BODY, check_models
from proxy.server.web.doors import Doors, PageRequest
from proxy.server.web.forms import fields_of, to_page
from proxy.server.web.prompt_view import Wrong, decoded, wrong_of
from proxy.server.web.reports import Page
from proxy.server.web.settings_form import read_number
from proxy.server.web.shown import Shown, suggestions

ROWS = 3  # variants that the form has room for at first; a button adds one
_TEXTS = ("id", "name", "prompt", "label", "assignment", "metric")
_NUMBERS = ("minimum_samples", "minimum_effect")
_JSON = ("parameters", "ensemble")
_ROW = ("name", "weight", "prompt_version", "model", *_JSON)
_FIELDS = (*_TEXTS, *_NUMBERS, "promote", *(f"variants.{row}.{name}" for row in range(MAX_VARIANTS) for name in _ROW))
_BEGIN = {
    "label": "production",
    "assignment": "sticky",
    "metric": "success",
    "minimum_samples": "30",
    "minimum_effect": "0.1",
    "variants.0.name": "old",
    "variants.1.name": "new",
}


def experiment_form_routes(seen: Shown, page: Page, doors: Doors) -> list[HTTPRouteHandler]:
    """The Litestar handlers. `page` renders."""

    async def filled(request: PageRequest, form: Mapping[str, str], wrong: Wrong | None = None) -> Template:
        answer = page(
            "experiments_new",
            request,
            given={name: form.get(name, "") for name in _FIELDS},
            rows=range(_rows_of(form)),
            most=MAX_VARIANTS,
            metrics=METRICS,
            assignments=get_args(Assignment),
            models=await suggestions(seen.live()),
            wrong=wrong,
        )
        answer.status_code = 200 if wrong is None else wrong.status
        return answer

    @get("/new-experiment", role="page")
    async def new_experiment(request: PageRequest) -> Template:
        return await filled(request, {**_BEGIN, "prompt": request.query_params.get("prompt", "")[:64]})

    @post("/new-experiment", role="page", status_code=303)
    async def create(request: PageRequest) -> Response[Any]:
        form = await fields_of(doors, request, MAX_BODY)
        if "add" in form:  # a variant: the same form with one more row, and nothing is read yet
            return await filled(request, {**form, "rows": str(_rows_of(form) + 1)})
        live = seen.live()
        try:
            body, rows = body_of(form)
            try:
                experiment = check_models(experiment_of(body), live.names.resolve)
            except BadRequest as error:
                raise _in_row(error, rows) from None
            store = live.experiments.store
            stored = await live.experiments.change(partial(store.create, experiment, time.time_ns()))
        except ProxyError as error:
            return await filled(request, form, wrong_of(error, _FIELDS))
        return to_page(doors, f"/experiments/{stored.id}")

    return [new_experiment, create]


def _rows_of(form: Mapping[str, str]) -> int:
    """How many rows the form has: as many as it had, and all that are filled in."""
    text = form.get("rows", "")
    asked = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else ROWS
    return max(2, min(asked, MAX_VARIANTS), *(row + 1 for row in _filled(form)))


def _filled(form: Mapping[str, str]) -> list[int]:
    rows = range(MAX_VARIANTS)
    return [row for row in rows if any(form.get(f"variants.{row}.{name}", "").strip() for name in _ROW)]


def body_of(form: Mapping[str, str]) -> tuple[dict[str, Any], list[int]]:
    """The body of the API, and the row of each of its variants: empty rows are left out. Raises BadRequest."""
    body: dict[str, Any] = {name: text for name in _TEXTS if (text := form.get(name, "").strip())}
    for name in _NUMBERS:
        if text := form.get(name, "").strip():
            body[name] = _number(name, text)
    if form.get("promote"):
        body["promote"] = True
    rows = _filled(form)
    body["variants"] = [_variant(form, f"variants.{row}") for row in rows]
    return body, rows


def _variant(form: Mapping[str, str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": form.get(f"{where}.name", "").strip()}
    for name in ("weight", "prompt_version"):
        if text := form.get(f"{where}.{name}", "").strip():
            found[name] = _number(f"{where}.{name}", text)
    if text := form.get(f"{where}.model", "").strip():
        found["model"] = text
    for name in _JSON:
        if text := form.get(f"{where}.{name}", "").strip():
            found[name] = decoded(f"{where}.{name}", text)
    return found


def _number(name: str, text: str) -> int | float:
    try:
        return read_number(text)
    except ValueError as error:
        raise BadRequest(f"{name}: {error}", param=name) from None


def _in_row(error: BadRequest, rows: list[int]) -> BadRequest:
    """The error with the number of the row in place of that of the variant; inner parts are those of their field."""
    parts = (error.param or "").split(".")
    if parts[0] != "variants" or len(parts) < 2 or not parts[1].isdecimal():
        return error
    row = str(rows[int(parts[1])])
    field = ".".join(("variants", row, *(parts[2:3] or ["name"])))
    told = error.message.replace(f"variants.{parts[1]}", f"variants.{row}", 1)
    return BadRequest(told, param=field)
