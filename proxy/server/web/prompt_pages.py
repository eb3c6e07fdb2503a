"""Performs I/O: the pages of stored prompts: the list, one prompt with its versions and labels, and their forms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Template
from msgspec import Struct

from proxy.prompts.compare import Difference
from proxy.prompts.uses import label_of, version_of
from proxy.schema.errors import ProxyError
from proxy.schema.prompts import LabelMove, PromptHead, PromptVersion
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.schema.records import Caller
from proxy.server.api.periods import iso
from proxy.server.api.prompt_bodies import (
    MAX_BODY,
    added,
    created,
    moved,
    shown_head,
    shown_move,
    shown_version,
    use_of_version,
)
from proxy.server.api.prompt_steps import SLOW, PromptSteps
from proxy.server.api.queries import parameters_of, usage_query
from proxy.server.web import prompt_view as view
from proxy.server.web.doors import Doors, PageRequest
from proxy.server.web.forms import fields_of, revision_in, sender_of, to_page
from proxy.server.web.reports import Page
from proxy.server.web.shown import Shown
from proxy.server.web.words import query

_ADMIN = Caller(admin=True)
_PAGE, _VERSIONS, _MOVES = 50, 20, 20  # rows
_DAY_NS = 86_400 * NANO
_UNUSED = {"calls": 0, "errors": 0, "cost_usd": 0.0, "p50_latency_ms": None}
_LIST = {"after": "The page after the one that ended with this id.", "archived": "true: archived prompts too."}
_ONE = {
    "version": "The version that is shown.",
    "from": "The older one of two versions.",
    "to": "The newer one.",
    "before": "The page after the one that ended with this version.",
}
_NEW = {"from": "The version that the form begins with."}


class Opened(Struct, frozen=True):
    """One prompt as its page shows it: one version in full, and others beside it. `rest`: there are older versions."""

    head: PromptHead
    version: PromptVersion
    versions: list[dict[str, Any]]
    rest: bool
    moves: list[dict[str, Any]]
    compared: tuple[int, int] | None = None
    difference: Difference | None = None


class PromptPages:
    """The routes. `page` renders."""

    def __init__(self, seen: Shown, steps: PromptSteps, page: Page, doors: Doors) -> None:
        self._seen = seen
        self._steps = steps
        self._page = page
        self._doors = doors

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""
        return [*self._reading(), *self._labels(), *self._life(), *self._adding()]

    def _reading(self) -> list[HTTPRouteHandler]:
        @get("/prompts", role="page")
        async def prompts(request: PageRequest) -> Template:
            given = parameters_of([each for each in request.query_params.multi_items() if each[1]], _LIST)
            stored, archived = self._steps.stored, given.get("archived") == "true"
            read = partial(stored.store.page, archived=archived, after=given.get("after", ""), limit=_PAGE + 1)
            heads = await stored.read(read)
            return self._page(
                "prompts",
                request,
                prompts=[shown_head(head) for head in heads[:_PAGE]],
                next=query(given, after=heads[_PAGE - 1].id) if len(heads) > _PAGE else None,
                first=query(given, after=None) if given.get("after") else None,
                archived=archived,
                unused=_UNUSED,
                used=await self._used(),
                query=query,
            )

        @get("/prompts/{prompt_id:str}", role="page")
        async def prompt(request: PageRequest, prompt_id: FromPath[str]) -> Template:
            given = parameters_of([each for each in request.query_params.multi_items() if each[1]], _ONE)
            return await self._shown(request, await self._opened(prompt_id, given))

        @post("/prompts/{prompt_id:str}/try", role="page", status_code=200)
        async def try_prompt(request: PageRequest, prompt_id: FromPath[str]) -> Template:
            form = await fields_of(self._doors, request, MAX_BODY)
            opened = await self._opened(prompt_id, {"version": form.get("version", "")})
            values: dict[str, Any] = dict(view.values_of(form))
            use = use_of_version(prompt_id, opened.version.version, None, values)
            try:
                found = await self._steps.render(use, sum(map(len, values.values())))
            except ProxyError as error:
                return await self._shown(request, opened, tried=values, try_wrong=view.wrong_of(error, ()))
            messages = view.messages_of(found.messages)
            return await self._shown(request, opened, tried=values, rendered=messages)

        return [prompts, prompt, try_prompt]

    def _labels(self) -> list[HTTPRouteHandler]:
        @post("/prompts/{prompt_id:str}/labels", role="page", status_code=303)
        async def move_label(request: PageRequest, prompt_id: FromPath[str]) -> Response[Any]:
            form = await fields_of(self._doors, request)
            by, now_ns = await sender_of(self._doors, request), time.time_ns()
            store = self._steps.stored.store
            try:
                label = label_of(form.get("label", "").strip())
                if form.get("version", "") == "none":
                    move = LabelMove(label, None, now_ns, by)
                else:
                    fields = {"version": form.get("version", "").strip(), "note": form.get("note", "").strip() or None}
                    move = moved(fields, label, by, now_ns)
                work = partial(store.move_label, prompt_id, move, revision_in(form))
                await self._steps.change(work, prompt_id)
            except ProxyError as error:
                opened = await self._opened(prompt_id, {})
                wrong = view.wrong_of(error, view.MOVE)
                return await self._shown(request, opened, wrong.status, move=form, move_wrong=wrong)
            return to_page(self._doors, f"/prompts/{prompt_id}#labels")

        return [move_label]

    def _life(self) -> list[HTTPRouteHandler]:
        async def changed(request: PageRequest, prompt_id: str, is_end: bool) -> Response[Any]:
            form, store, now_ns = await fields_of(self._doors, request), self._steps.stored.store, time.time_ns()
            try:
                revision, number = revision_in(form), form.get("version", "")
                if not is_end:
                    work: Any = partial(store.restore, prompt_id, revision)
                elif number:
                    work = partial(store.archive_version, prompt_id, version_of(number), revision, now_ns)
                else:
                    work = partial(store.archive, prompt_id, revision, now_ns)
                await self._steps.change(work, prompt_id)
            except ProxyError as error:
                wrong = view.wrong_of(error, ())
                return await self._shown(request, await self._opened(prompt_id, {}), wrong.status, life_wrong=wrong)
            return to_page(self._doors, f"/prompts/{prompt_id}")

        @post("/prompts/{prompt_id:str}/archive", role="page", status_code=303)
        async def archive(request: PageRequest, prompt_id: FromPath[str]) -> Response[Any]:
            return await changed(request, prompt_id, True)

        @post("/prompts/{prompt_id:str}/restore", role="page", status_code=303)
        async def restore(request: PageRequest, prompt_id: FromPath[str]) -> Response[Any]:
            return await changed(request, prompt_id, False)

        return [archive, restore]

    def _adding(self) -> list[HTTPRouteHandler]:
        @get("/new-prompt", role="page", sync_to_thread=False)
        def new_prompt(request: PageRequest) -> Template:
            return self._form(request, None, {"labels": "production"})

        @post("/new-prompt", role="page", status_code=303)
        async def create(request: PageRequest) -> Response[Any]:
            form = await fields_of(self._doors, request, MAX_BODY)
            by, steps = await sender_of(self._doors, request), self._steps
            try:
                made = await self._checked(form, view.FIELDS, created)
                steps.check(made.version)
                store = partial(steps.stored.store.create, made.head, made.version, by)
                head = await steps.change(store, made.head.id)
            except ProxyError as error:
                return self._form(request, None, form, view.wrong_of(error, view.FIELDS))
            return to_page(self._doors, f"/prompts/{head.id}")

        @get("/prompts/{prompt_id:str}/new", role="page")
        async def new_version(request: PageRequest, prompt_id: FromPath[str]) -> Template:
            given = parameters_of(request.query_params.multi_items(), _NEW)
            use = use_of_version(prompt_id, given.get("from", "latest"), None)
            head, version = await self._steps.version_of(use)
            return self._form(request, head, {**view.form_of(version), "revision": str(head.revision)})

        @post("/prompts/{prompt_id:str}/new", role="page", status_code=303)
        async def add_version(request: PageRequest, prompt_id: FromPath[str]) -> Response[Any]:
            form = await fields_of(self._doors, request, MAX_BODY)
            by, steps = await sender_of(self._doors, request), self._steps
            head = await steps.head(prompt_id)
            known = [name for name in view.FIELDS if name not in ("id", "name")]
            try:
                version, labels = await self._checked(form, known, added)
                steps.check(version)
                add = partial(steps.stored.store.add_version, prompt_id, version, revision_in(form), labels)
                await steps.change(partial(add, by), prompt_id)
            except ProxyError as error:
                fresh = {**form, "revision": str(head.revision)}
                return self._form(request, head, fresh, view.wrong_of(error, view.FIELDS))
            return to_page(self._doors, f"/prompts/{prompt_id}")

        return [new_prompt, create, new_version, add_version]

    # --- steps --------------------------------------------------------------------------------------------------------

    async def _used(self) -> dict[str, dict[str, Any]] | None:
        """The figures of each prompt in the last 24 hours, read from single calls; None where that takes too long."""
        now_ns = time.time_ns()
        asked = usage_query({"since": iso(now_ns - _DAY_NS, "UTC") or "", "group_by": "prompt"}, _ADMIN, now_ns)
        try:
            return {group["prompt"]: group for group in (await self._seen.live().ledger.usage(asked))["groups"]}
        except ProxyError:
            return None

    async def _checked(self, form: Mapping[str, str], known: Any, read: Any) -> Any:
        """What the API's own checks make of a form, off the event loop where that may take long."""
        size, now_ns = SLOW * sum(map(len, form.values())), time.time_ns()
        return await self._steps.stored.off_loop.run(size, lambda: read(view.version_fields(form, known), now_ns))

    async def _opened(self, prompt: str, given: Mapping[str, str]) -> Opened:
        """Raises ProxyError 404, and BadRequest for a parameter that is none."""
        head, version = await self._steps.version_of(use_of_version(prompt, given.get("version") or None, None))
        stored, before = self._steps.stored, version_of(given["before"], "before") if given.get("before") else 2**31
        found = await stored.read(partial(stored.store.versions, prompt, before, _VERSIONS + 1))
        moves = await stored.read(partial(stored.store.moves, prompt, _MOVES))
        scores = await self._steps.scores(prompt)
        rows = [shown_version(head, each, scores) for each in found[:_VERSIONS]]
        opened = Opened(
            head, version, rows, bool(rows) and rows[-1]["version"] > 1, [shown_move(move) for move in moves]
        )
        if not given.get("from") and not given.get("to"):
            return opened
        pair = [given.get(name) or "latest" for name in ("from", "to")]
        (_, old), (_, new) = [await self._steps.version_of(use_of_version(prompt, each, None)) for each in pair]
        difference = await self._steps.compare(old, new)
        return Opened(head, version, rows, opened.rest, opened.moves, (old.version, new.version), difference)

    async def _shown(self, request: PageRequest, opened: Opened, status: int = 200, **forms: Any) -> Template:
        """`forms`: what was sent with a form of the page, and what became of it."""
        head, version, used = opened.head, opened.version, await self._used()
        context = {
            "head": head,
            "shown": version,
            "opened": opened,
            "pieces": view.pieces_of(version),
            "lines": [] if opened.difference is None else view.diff_lines(opened.difference.text),
            "figures": None if used is None else used.get(head.id, _UNUSED),
            **dict.fromkeys(("rendered", "move_wrong", "try_wrong", "life_wrong")),
            "move": {},
            "tried": {},
            "value": view.VALUE,
        }
        answer = self._page("prompts_one", request, **{**context, **forms})
        answer.status_code = status
        return answer

    def _form(
        self, request: PageRequest, head: PromptHead | None, form: Mapping[str, str], wrong: view.Wrong | None = None
    ) -> Template:
        given = {name: form.get(name, "") for name in (*view.FIELDS, "revision")}
        answer = self._page("prompts_new", request, head=head, given=given, wrong=wrong)
        answer.status_code = 200 if wrong is None else wrong.status
        return answer
