"""Translates: a browser's visit to `/` or `/v1` -> a small page that describes this server. Programs get the 404.

HEAD is answered with 200: Claude Code sends it to check whether the server is up.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, Response

from proxy import __version__
from proxy.server.api.answers import NO_STORE

IS_HEAD = "proxy.is_head"  # in a request's scope: its HEAD is served as GET
_PATHS = ("", "/v1")
_HEADERS = {
    **NO_STORE,
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "vary": "accept",
}
_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>multi-model-proxy</title>
<h1>multi-model-proxy {__version__}</h1>
<p>This address is an OpenAI-compatible API for programs, not a web site. Give it to your client as its
<code>base_url</code>, with <code>/v1</code> at the end. Chats go to <code>POST /v1/chat/completions</code>.</p>
<ul>
<li><a href="/v1/models">/v1/models</a>: the models you can call</li>
<li><a href="/v1/usage">/v1/usage</a>: what calls used and cost</li>
<li><a href="/health">/health</a>: the state of the server</li>
<li><a href="/schema/openapi.json">/schema/openapi.json</a>: the API in full</li>
</ul>
</html>
"""


def front_page(request: Request[Any, Any, Any]) -> Response[str] | None:
    """The page, for a browser that looks at the root, and its headers for a client that checks whether the server is
    up; None for every other request.
    """
    is_root = request.scope["path"].rstrip("/") in _PATHS and request.method in ("GET", "HEAD")
    is_asked = request.scope.get(IS_HEAD) or "text/html" in request.headers.get("accept", "")
    if not is_root or not is_asked:
        return None
    return Response(_PAGE, media_type="text/html", headers=_HEADERS)
