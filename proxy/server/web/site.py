"""Orchestrates: the pages of one application, from what it lends them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from litestar import Router
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig
from msgspec import Struct

from proxy.config.server import ServerConfig, is_loopback
from proxy.server.api.guard import Access
from proxy.server.web.doors import Doors, new_secret
from proxy.server.web.pages import Pages
from proxy.server.web.rendering import page_hooks, static_files, template_engine
from proxy.server.web.sessions import Sessions
from proxy.server.web.shown import Shown
from proxy.server.web.signed_out import SignedOut

SECRET_VARIABLE = "PROXY_PAGES_SECRET"  # of the workers of one server, made by their supervisor


class Site(Struct, frozen=True):
    """The routes, and the engine of their templates."""

    router: Router
    templates: TemplateConfig[JinjaTemplateEngine]


def build_site(server: ServerConfig, access: Access, seen: Shown, secret: bytes | None, folder: Path | None) -> Site:
    """`secret`: that of all workers; None: one of its own, so that nobody has the link. `folder`: the one that the
    workers share; None: there is one process only.
    """
    sessions, files = Sessions(secret or new_secret()), static_files()
    has_link = secret is not None and is_loopback(server.host)
    doors = Doors(sessions, SignedOut(folder), access, server.prefix, once(folder) if has_link else None)
    engine = template_engine(server.prefix, files)
    return Site(Pages(doors, seen, files, page_hooks(engine)).router(), TemplateConfig(instance=engine))


def sign_in_link(secret: bytes, base_url: str) -> str:
    """The link that signs in the first who opens it. `base_url`: of the server, with its root path."""
    return f"{base_url}/dashboard/sign-in?link={Sessions(secret).link_token}"


def once(folder: Path | None) -> Callable[[], bool]:
    """True for the first call of all, over all workers if they share a folder."""
    taken: list[bool] = []

    def take() -> bool:
        if folder is not None:
            try:
                (folder / "link-taken").touch(exist_ok=False)
            except FileExistsError:
                return False
            return True
        is_first = not taken
        taken.append(True)
        return is_first

    return take
