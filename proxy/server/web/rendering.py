"""Orchestrates: a page's name and values -> HTML, by Jinja2 with every value escaped; and the headers of pages."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import MediaType, Request, Response
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.response import Template
from msgspec import Struct

from proxy import __version__
from proxy.schema.daemon_thread import DaemonThread
from proxy.server.web import words

_COMPILE_S = 10.0
FOLDER = Path(__file__).parent
STATIC = {"dashboard.css": "text/css; charset=utf-8", "dashboard.js": "text/javascript; charset=utf-8"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    # Not `no-referrer`: with it browsers send `Origin: null` with forms, which says nothing about who asks.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


class Hooks(Struct, frozen=True):
    """What Litestar runs before the handler of a page, and behind it. Functions, since Litestar copies hooks."""

    before: Callable[[Any], Awaitable[None]]
    after: Callable[[Response[Any]], Awaitable[Response[Any]]]


def page_hooks(engine: JinjaTemplateEngine) -> Hooks:
    """Templates are compiled before the first page is shown, and rendered beside the event loop."""
    return Hooks(_compiled_first(engine), _rendered_beside(engine))


def missing_page(request: Request[Any, Any, Any]) -> Template | None:
    """For a browser at an address below the dashboard's that is no page; None: another request."""
    is_below = request.scope["path"].startswith("/dashboard/") and request.method in ("GET", "HEAD")
    if not is_below or "text/html" not in request.headers.get("accept", ""):
        return None
    context = {"page": "", "token": "", "is_signed_in": False, "message": "There is no such page.", "status": 404}
    return Template("error.html", context=context, status_code=404, headers=PAGE_HEADERS)


def static_files() -> dict[str, tuple[bytes, str]]:
    """The files that pages load, by name, with their media types. Nothing else of the disk is served."""
    return {name: ((FOLDER / "static" / name).read_bytes(), media) for name, media in STATIC.items()}


def template_engine(root: str, files: Mapping[str, tuple[bytes, str]]) -> JinjaTemplateEngine:
    """Litestar's engine. `root`: what stands before every path; `files`: those that `asset` names by their contents."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(_FILTERS)
    stamps = {name: hashlib.sha256(text).hexdigest()[:12] for name, (text, _) in files.items()}
    environment.globals.update(
        root=root,
        version=__version__,
        asset=lambda name: f"{root}/dashboard/static/{name}?v={stamps[name]}",
    )
    return JinjaTemplateEngine.from_environment(environment)


def _compiled_first(engine: JinjaTemplateEngine) -> Callable[[Any], Awaitable[None]]:
    """Compiling takes 0.3 s, so it is not done on the event loop, nor at every start."""
    thread = DaemonThread("page-templates", _COMPILE_S)
    done: list[str] = []

    def compile_all() -> None:
        if not done:
            done.extend(name for name in engine.engine.list_templates() if engine.get_template(name))

    async def before_request(_: Any) -> None:
        if not done:
            with suppress(TimeoutError):  # the page compiles its own
                await thread.run(compile_all)

    return before_request


def _rendered_beside(engine: JinjaTemplateEngine) -> Callable[[Response[Any]], Awaitable[Response[Any]]]:
    """A page with hundreds of providers, or with two large files, takes a tenth of a second, in which nobody else would
    be served.
    """

    async def after_request(answer: Response[Any]) -> Response[Any]:
        if not isinstance(answer, Template):
            return answer
        template = engine.get_template(str(answer.template_name))
        text = await asyncio.to_thread(template.render, **answer.context)
        return Response(
            text.encode(),
            media_type=MediaType.HTML,
            status_code=answer.status_code,
            headers=answer.headers,
            cookies=answer.cookies,
        )

    return after_request


_FILTERS: dict[str, Callable[..., Any]] = {
    "long_text": words.long_text,
    "usd": words.usd,
    "count": words.count,
    "short": words.short,
    "ms": words.milliseconds,
    "percent": words.percent,
    "size": words.size,
    "plain": words.plain,
    "line": words.line,
    "ago": words.ago,
}
