"""Performs I/O: a change of the files on its way to the disk: checked, compared, tried on calls, saved."""

from __future__ import annotations

from functools import partial
from typing import Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Template
from msgspec import structs

from proxy.config import ConfigError
from proxy.config.problems import Problem
from proxy.config.tree import MAX_BYTES
from proxy.schema.daemon_thread import DaemonThread
from proxy.schema.errors import Conflict, ProxyError
from proxy.schema.json import encode
from proxy.server.web.diff import Line, diff
from proxy.server.web.doors import Doors, PageRequest
from proxy.server.web.rendering import PAGE_HEADERS
from proxy.server.web.reports import Page
from proxy.server.web.settings_files import FilesChanged, NotWritten, SettingsFiles, Texts
from proxy.server.web.shown import Shown

MAX_TEXTS = 8 * 1024 * 1024  # bytes of a form with both files, each character in up to three of them
LAST_CALLS = 1_000
_DIFF_S = 10.0
_MAX_PROMPT = 20_000
_ASKED = {"model": "auto", "prompt": ""}  # of the box that explains


class SettingsChanges:
    """The routes. `page` renders."""

    def __init__(self, seen: Shown, page: Page, doors: Doors) -> None:
        self._operations = seen.operations
        self._live = seen.live
        self._page = page
        self._doors = doors
        self._thread = DaemonThread("settings-diff", _DIFF_S)

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @get("/settings/text", role="page")
        async def edit(request: PageRequest) -> Template:
            return self._text_page(request, await self.read())

        @post("/settings/text", role="page", status_code=200)
        async def check(request: PageRequest) -> Template:
            return await self.checked(request, _texts(await self._form(request), await self.read()))

        @get("/settings/defaults", role="page")
        async def defaults(request: PageRequest) -> Template:
            return await self.checked(request, await self._off_loop(self.files.defaults, await self.read()))

        @get("/settings/versions/{version:str}", role="page")
        async def earlier(request: PageRequest, version: FromPath[str]) -> Template:
            return await self.checked(request, await self._off_loop(self.files.of_version, version, await self.read()))

        @post("/settings/change", role="page", status_code=200)
        async def change(request: PageRequest) -> Response[Any]:
            given = await self._form(request)
            texts = _texts(given, await self.read())
            model, prompt = given.get("model", "").strip(), given.get("prompt", "")[:_MAX_PROMPT]
            asked = {"model": model or _ASKED["model"], "prompt": prompt}
            match given.get("do"):
                case "save":
                    return await self._save(request, texts)
                case "edit":
                    return self._text_page(request, texts)
                case "explain":
                    return await self._explain(request, texts, asked)
                case "effect":
                    return await self._effect(request, texts, asked)
            return await self.checked(request, texts, asked=asked)

        return [edit, check, defaults, earlier, change]

    @property
    def files(self) -> SettingsFiles:
        """Raises ProxyError on a server without files."""
        if self._operations.files is None:
            message = "The configuration of this server does not come from files, so nothing can be set here."
            raise Conflict(message)
        return SettingsFiles(self._operations.files, lambda: self._live().config.storage.url)

    async def read(self) -> Texts:
        """Both files. Raises ProxyError."""
        try:
            texts: Texts = await self._off_loop(self.files.read)
        except ConfigError as error:
            raise Conflict(str(error)) from None
        return texts

    async def checked(self, request: PageRequest, texts: Texts, **more: Any) -> Template:
        """The page that shows a change before it is saved; what is wrong goes back to the editor."""
        base = await self.read()
        if base.version != texts.version:
            return self._text_page(request, texts, refused=FilesChanged())
        errors, warnings = await self.wrong(base, texts)
        if errors:
            return self._text_page(request, texts, errors)
        return self._page(
            "settings_change",
            request,
            texts=texts,
            diffs=await self._diffs(base, texts),
            warnings=warnings,
            read_only=await self._off_loop(self.files.why_read_only),
            **{"told": None, "plan": None, "asked": _ASKED, "refused": "", "last_calls": LAST_CALLS, **more},
        )

    async def wrong(self, base: Texts, texts: Texts) -> tuple[list[Problem], list[Problem]]:
        """What is wrong with these texts as a change of `base` in a page, and what is likely to be."""
        is_edited = base != texts and not await self._off_loop(self.files.has_run, texts)
        on_disk = (base.routing, base.pricing) if is_edited else None
        return await self._operations.trials.check(texts.routing, texts.pricing, on_disk)

    async def _diffs(self, base: Texts, texts: Texts) -> list[tuple[str, list[Line]]]:
        pairs = [(base.routing, texts.routing), (base.pricing or "", texts.pricing or base.pricing or "")]
        try:
            found = [await self._thread.run(diff, *pair) for pair in pairs]
        except TimeoutError:
            raise ProxyError("The files are too different to compare here.", status=503, code="overloaded") from None
        return [(name, lines) for name, lines in zip(self.files.names, found, strict=False) if lines]

    def _text_page(
        self,
        request: PageRequest,
        texts: Texts,
        problems: list[Problem] | None = None,
        refused: ProxyError | None = None,
    ) -> Template:
        """The editor of the texts, with what is wrong in them or why they were not saved."""
        names = self.files.names
        answer = self._page(
            "settings_text",
            request,
            texts=texts,
            names=names,
            problems=problems or [],
            refused=refused.message if refused else "",
        )
        answer.status_code = refused.status if refused else 400 if problems else 200
        return answer

    async def _save(self, request: PageRequest, texts: Texts) -> Response[Any]:
        base = await self.read()
        if base.version != texts.version:
            return self._text_page(request, texts, refused=FilesChanged())
        errors, _ = await self.wrong(base, texts)
        if errors:
            return self._text_page(request, texts, errors)
        caller = await self._doors.caller(request.user)
        try:
            version, written = await self._off_loop(self.files.save, texts)
        except (FilesChanged, NotWritten) as error:
            return self._text_page(request, texts, refused=error)
        except ConfigError as error:
            return self._text_page(request, texts, error.problems)
        self._operations.log.info(
            "settings_saved", key=caller.key_id, before=texts.version, config=version, files=written
        )
        await self._operations.reloads.reload()
        location = f"{self._doors.root}/dashboard/settings?saved={version}"
        return Response(b"", status_code=303, headers={**PAGE_HEADERS, "location": location})

    async def _explain(self, request: PageRequest, texts: Texts, asked: dict[str, str]) -> Template:
        body = encode({"model": asked["model"], "messages": [{"role": "user", "content": asked["prompt"] or "Hello"}]})
        caller = await self._doors.caller(request.user)
        try:
            told = await self._operations.trials.explain(texts.routing, texts.pricing, body, caller)
        except ConfigError as error:
            return self._text_page(request, texts, error.problems)
        except ProxyError as error:  # the answer to the question: a call would be refused
            return await self.checked(request, texts, asked=asked, refused=error.message)
        return await self.checked(request, texts, asked=asked, told=told)

    async def _effect(self, request: PageRequest, texts: Texts, asked: dict[str, str]) -> Template:
        try:
            plan = await self._operations.trials.plan_change(texts.routing, texts.pricing, LAST_CALLS)
        except ConfigError as error:
            return self._text_page(request, texts, error.problems)
        return await self.checked(request, texts, plan=plan, asked=asked)

    async def _form(self, request: PageRequest) -> dict[str, str]:
        return await self._doors.form(request, request.user, MAX_TEXTS)

    @property
    def _off_loop(self) -> Any:
        return partial(self._operations.reloads.off_loop)


def _texts(given: dict[str, str], base: Texts) -> Texts:
    """What a form carries. Browsers send CRLF for every line break; a missing field leaves its file as it is. Raises
    ProxyError 413 for what no file may be: showing it again would hold the event loop.
    """
    for name in ("routing", "pricing"):
        text = given.get(name, "")
        if len(text) - text.count("\r\n") > MAX_BYTES:
            message = f"{name}: a configuration file may have at most 1 MB. Go back, and shorten it."
            raise ProxyError(message, status=413, code="request_too_large", param=name)
    found = Texts(given.get("routing", base.routing), given.get("pricing", base.pricing), given.get("version", ""))
    pricing = None if found.pricing is None or base.pricing is None else _as_written(found.pricing, base.pricing)
    return structs.replace(found, routing=_as_written(found.routing, base.routing), pricing=pricing)


def _as_written(text: str, before: str) -> str:
    text = text.replace("\r\n", "\n")
    return text.replace("\n", "\r\n") if "\r\n" in before else text
