"""Performs I/O: the checks in front of every route: Host and Origin, limits of the request line, CORS as configured,
and the role that the matched route demands.

A web page must not reach a keyless server on this machine, neither by a cross-origin call nor by a name that resolves
to it (DNS rebinding). So on a keyless server the Host must be exactly one of ours, and any Origin must be listed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from itertools import chain
from operator import itemgetter
from typing import Any, cast

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

from proxy.pipeline.admission import KeyPolicies
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.schema.records import Caller
from proxy.server.api.aliases import DEPLOYMENT, own_path
from proxy.server.api.answers import new_id, send_error
from proxy.server.api.dialects import in_dialect
from proxy.server.api.front import IS_HEAD
from proxy.server.auth import Auth
from proxy.server.http1.connections import STATE, Connections

Connection = ASGIConnection[Any, Any, Any, Any]
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
CALLER = "mmproxy.caller"  # in the scope of a page's call: the signed-in caller
_OPEN_PATHS = ("/health", "/metrics")  # open without a key, although they reveal more than that the server runs
_PROBES = ("/livez", "/readyz")  # they reveal only that the server runs
_PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test")
_MAX_URL_BYTES = 8 * 1024
_MAX_HEADER_BYTES = 32 * 1024
_MAX_HEADERS = 100
_MAX_SEEN = 64
_OTHER_PAGE = "Only the pages of this server may do this. Open its address in the browser."
_OF_PAGES = frozenset((b"origin", b"sec-fetch-site"))  # headers that browsers add to requests of pages


_NO_ROUTES: Mapping[str, ASGIApp] = {}


class Guard:
    """Wraps the application. While it is `keyless`, Host must be one of `hosts`; a server with keys accepts any
    name. `connections` are lent to the protocol through the lifespan's state.

    `direct`: the paths of endpoints that need nothing of the framework. Requests to them skip its layers, unless its
    CORS layer has something to add.
    """

    def __init__(
        self,
        app: ASGIApp,
        keyless: Callable[[], bool],
        hosts: frozenset[str],
        origins: frozenset[str],
        connections: Connections | None = None,
        direct: Mapping[str, ASGIApp] = _NO_ROUTES,
    ) -> None:
        self.app = app
        self.root = ""  # a prefix that a reverse proxy may leave on every path
        self._direct = {} if origins else direct
        self._connections = connections
        self._keyless = keyless
        self._hosts = hosts
        self._seen: set[bytes] = set()  # Host headers that name one of them
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asgi = cast("dict[str, Any]", scope)  # Litestar's type omits the lifespan
        kind = asgi["type"]
        if kind == "http" and self.root and asgi["path"].startswith(f"{self.root}/"):
            path = asgi["path"].removeprefix(self.root)
            scope = cast(Scope, {**asgi, "path": path, "raw_path": path.encode()})
            asgi = cast("dict[str, Any]", scope)
        if kind == "lifespan" and self._connections is not None:
            asgi.setdefault("state", {})[STATE] = self._connections
        error = self._refusal(scope) if kind in ("http", "websocket") else None
        if error is not None:
            request_id = new_id()
            shown = in_dialect(asgi["path"], error, request_id)
            await send_error(send, shown, encode(shown.body()), {"x-request-id": request_id})
            return
        if kind == "http" and (endpoint := self._direct.get(asgi["path"])) is not None:
            await endpoint(scope, receive, send)
            return
        if kind == "http" and (own := own_path(asgi["path"]))[0] != asgi["path"]:
            path, model = own
            named = {} if model is None else {DEPLOYMENT: model}
            await self(cast(Scope, {**asgi, "path": path, "raw_path": path.encode(), **named}), receive, send)
            return
        if kind == "http" and asgi["method"] == "HEAD":
            # The server leaves out the body (RFC 9110, 9.3.2).
            scope = cast(Scope, {**asgi, "method": "GET", IS_HEAD: True})
        await self.app(scope, receive, send)

    def _serves(self, host: bytes, path: str) -> bool:
        if host in self._seen:
            return True
        name = _without_port(host.decode("latin-1"))
        if name in self._hosts:
            if len(self._seen) < _MAX_SEEN:
                self._seen.add(host)
            return True
        return not self._keyless() and (path not in _OPEN_PATHS or _is_private_name(name))

    def _refusal(self, scope: Scope) -> ProxyError | None:
        headers = scope["headers"]
        if not isinstance(headers, list):
            headers = list(headers)
        path_bytes = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if path_bytes > _MAX_URL_BYTES:
            return ProxyError("The URL is longer than 8 KB.", status=414, code="invalid_value")
        if len(headers) > _MAX_HEADERS or sum(map(len, chain.from_iterable(headers))) > _MAX_HEADER_BYTES:
            return ProxyError("The headers are larger than 32 KB or more than 100.", status=431, code="invalid_value")
        hosts = [value for name, value in headers if name == b"host"]
        if not hosts and scope["http_version"] == "1.0" and scope["path"] in _PROBES:
            return None  # load balancers check health so; browsers do not speak HTTP/1.0
        if len(hosts) != 1 or not hosts[0]:
            return ProxyError("Send exactly one Host header.", status=400, code="invalid_value", param="host")
        if not self._serves(hosts[0], scope["path"]):
            return _forbidden("This Host is not allowed. Add it to server.allowed_hosts.")
        is_of_one = not _OF_PAGES.isdisjoint(map(itemgetter(0), headers))
        pages = [header for header in headers if header[0] in _OF_PAGES] if is_of_one else []
        if is_page(scope["path"]):
            return None if all(_is_of_page(scope, hosts[0], *each) for each in pages) else _forbidden(_OTHER_PAGE)
        for name, value in pages:
            if name == b"origin" and value.decode("latin-1") not in self._origins:
                return _forbidden("Browser pages of this origin may not call the proxy. Add it to server.cors_origins.")
            if name == b"sec-fetch-site" and value in (b"cross-site", b"same-site") and not self._origins:
                return _forbidden("Browser pages of other sites may not call the proxy.")
        return None


class Access:
    """Identifies the caller, and checks the role that the matched route demands: `none`, `key` or `admin`.

    Handlers find the caller in `request.user`; the plain ASGI route of chat calls `caller` itself.
    """

    def __init__(self, auth: Auth, policies: Callable[[], KeyPolicies], now_ns: Callable[[], int]) -> None:
        self._auth = auth
        self._policies = policies
        self._now_ns = now_ns

    async def caller(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """Raises ProxyError 401, 429 or 503. The address is the connection's own: X-Forwarded-For can be forged."""
        if (known := cast("dict[str, Any]", scope).get(CALLER)) is not None:
            return cast(Caller, known)
        client = scope.get("client")
        address = client[0] if client else ""
        caller = await self._auth.identify(headers, address)
        expires_ns = self._policies().of(caller).expires_ns
        if expires_ns is not None and expires_ns <= self._now_ns():
            raise self._auth.refusal(address)
        return caller

    async def admin(self, digest: bytes) -> Caller | None:
        """The caller whose admin key has this SHA-256; None: no valid one. Raises ProxyError 503."""
        caller = await self._auth.holder(digest)
        if caller is None or not caller.admin:
            return None
        expires_ns = self._policies().of(caller).expires_ns
        return None if expires_ns is not None and expires_ns <= self._now_ns() else caller

    def refusal(self, scope: Scope) -> ProxyError:
        """The 401 of a wrong key; it counts. Raises ProxyError 429."""
        client = scope.get("client")
        return self._auth.refusal(client[0] if client else "")

    def guard(self) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
        """Litestar's guard of every handler. A handler without a role is closed to everyone.

        A function, not a method: Litestar copies guards deeply, and a method's object with it.
        """

        async def role_guard(connection: Connection, handler: BaseRouteHandler) -> None:
            role = handler.opt.get("role")
            # OPTIONS is Litestar's own handler: it has no role and only returns the methods.
            if role == "none" or (role is None and connection.scope.get("method") == "OPTIONS"):
                return
            caller = await self.caller(connection.scope, connection.headers)
            if role not in ("key", "admin") or (role == "admin" and not caller.admin):
                raise ProxyError(
                    "Only an admin key may do this: the one in PROXY_ADMIN_KEY, or one created with `--role admin`.",
                    status=403,
                    code="admin_required",
                )
            connection.scope["user"] = caller

        return role_guard


def _forbidden(message: str) -> ProxyError:
    return ProxyError(message, status=403, code="origin_not_allowed")


def is_page(path: str) -> bool:
    """True for the paths of the dashboard."""
    return path == "/dashboard" or path.startswith("/dashboard/")


def _is_of_page(scope: Scope, host: bytes, name: bytes, value: bytes) -> bool:
    """True if this header shows that one of our own pages sent the request, or that a user opened a page by a link."""
    if name == b"origin":  # behind a reverse proxy it may be https
        return value.partition(b"://")[2].lower() == host.lower()
    is_opened = scope.get("method") in ("GET", "HEAD") and (b"sec-fetch-mode", b"navigate") in scope["headers"]
    return value in (b"same-origin", b"none") or is_opened


def _without_port(host: str) -> str:
    """The name in a Host header, lower case, without its port; `""` if the port is not a number."""
    name, colon, port = host.lower().rpartition(":")
    if not colon or host.endswith("]"):
        return host.lower()
    return name if port.isascii() and port.isdecimal() else ""


def _is_private_name(name: str) -> bool:
    """True for an address and for names that cannot be registered on the internet, such as those of containers: a page
    whose own name resolves to this machine (DNS rebinding) has none of them.
    """
    if "." not in name or name.endswith(_PRIVATE_SUFFIXES):
        return bool(name)
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
