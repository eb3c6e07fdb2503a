"""Performs I/O: the page that takes a file of prompts."""

from __future__ import annotations

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.response import Template

from proxy.schema.errors import ProxyError
from proxy.server.api.prompt_steps import MAX_FILE, PromptSteps
from proxy.server.web.doors import Doors, PageRequest
from proxy.server.web.forms import fields_of, sender_of
from proxy.server.web.reports import Page

_MOST_SHOWN = 60_000  # characters of a refused file that the page has again: who has more, has it in a file
_MAX_FORM = 3 * MAX_FILE + 64 * 1024  # bytes, where every character is escaped


def import_routes(steps: PromptSteps, page: Page, doors: Doors) -> list[HTTPRouteHandler]:
    """The Litestar handlers. `page` renders."""

    @get("/import-prompts", role="page", sync_to_thread=False)
    def show(request: PageRequest) -> Template:
        return page("prompts_import", request, text="", wrong="", imported=None)

    @post("/import-prompts", role="page", status_code=200)
    async def bring(request: PageRequest) -> Template:
        text = (await fields_of(doors, request, _MAX_FORM)).get("file", "")
        by = await sender_of(doors, request)
        try:
            if not text.strip():
                raise ProxyError("Choose a file, or paste its text.", status=400, code="invalid_value")
            imported = await steps.bring(text.encode("utf-8", "replace"), by)
        except ProxyError as error:
            shown = text if len(text) <= _MOST_SHOWN else ""
            answer = page("prompts_import", request, text=shown, wrong=error.message, imported=None)
            answer.status_code = error.status
            return answer
        return page("prompts_import", request, text="", wrong="", imported=imported)

    return [show, bring]
