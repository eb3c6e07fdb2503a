"""Performs I/O: signing in to the pages and out of them: the routes, and the guard of every page.

One signs in with an admin key, or once with the link that a server on loopback without an admin key prints at its
start. Every form carries a token that only this session's pages have.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote

from litestar import Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.response import Template

from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.records import Caller
from proxy.server.api.guard import Access
from proxy.server.api.request import BodyTooLarge, ClientGone, read_body
from proxy.server.auth import digest_of
from proxy.server.web.rendering import PAGE_HEADERS
from proxy.server.web.sessions import COOKIE, SESSION_S, Session, Sessions, new_session
from proxy.server.web.signed_out import SignedOut

MAX_FORM = 256 * 1024
_FORM_TYPE = "application/x-www-form-urlencoded"
_MAX_FIELDS = 50
_FORM_COOKIE = "mmproxy_form"  # of a browser that has not signed in; apart, so that nothing signs anybody out
PageRequest = Request[Session, Any, Any]
Connection = ASGIConnection[Any, Any, Any, Any]


class SignInNeeded(ProxyError):
    """Nobody has signed in here, or the session is over."""

    def __init__(self) -> None:
        super().__init__("Sign in first.", status=401, code="sign_in_needed")


class Doors:
    """`root`: what stands before every path. `take_link`: True once, for the first who comes by the link; None: there
    is no link.
    """

    def __init__(
        self, sessions: Sessions, signed_out: SignedOut, access: Access, root: str, take_link: Callable[[], bool] | None
    ) -> None:
        self._sessions = sessions
        self._signed_out = signed_out
        self._access = access
        self.root = root
        self._take_link = take_link

    def guard(self) -> Callable[[Connection, BaseRouteHandler], Awaitable[None]]:
        """Litestar's guard of every page: its role is `none` or `page`. A function, since Litestar copies guards."""

        async def page_guard(connection: Connection, handler: BaseRouteHandler) -> None:
            if handler.opt.get("role") == "none" or connection.scope.get("method") == "OPTIONS":
                return
            session = self._session(connection)
            if session is None or not await self._opens(session):
                raise SignInNeeded
            connection.scope["user"] = session

        return page_guard

    async def form(
        self, request: PageRequest, session: Session, most_bytes: int = MAX_FORM, most_fields: int = _MAX_FIELDS
    ) -> dict[str, str]:
        """The fields of a form of this session. Raises ProxyError, also for a form that none of our pages sent."""
        headers = dict(request.headers)
        if headers.pop("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
            raise ProxyError("Send the form as a browser does.", status=415, code="unsupported_media_type")
        try:
            body = await read_body(request.receive, headers, most_bytes)
            read = partial(parse_qsl, body.decode(), keep_blank_values=True, max_num_fields=most_fields)
            fields = dict(await asyncio.to_thread(read) if len(body) > MAX_FORM // 4 else read())
        except BodyTooLarge as error:  # its own message names a setting that has no say here
            message = f"The form is larger than {most_bytes / (1024 * 1024):g} MB. Go back, and shorten it."
            raise ProxyError(message, status=413, code="request_too_large", headers=error.headers) from None
        except (ValueError, ClientGone) as error:
            message = "The form cannot be read."
            if isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError):
                message = f"The form has more than {most_fields:,} fields."
            raise BadRequest(message, param="form") from None
        if not self._sessions.is_form_token(session, fields.pop("token", "")):
            message = "This form is from an earlier session. Go back, load the page again, and repeat it."
            raise ProxyError(message, status=403, code="form_expired")
        return fields

    async def caller(self, session: Session) -> Caller:
        """Who calls models from the pages of this session: the admin key that signed in."""
        if session.digest is not None and (caller := await self._access.admin(bytes.fromhex(session.digest))):
            return caller
        if not session.by_link:
            raise SignInNeeded
        return Caller(admin=True)

    def context(self, session: Session) -> dict[str, Any]:
        """What every page needs of its session."""
        return {"token": self._sessions.form_token(session), "is_signed_in": session.is_signed_in}

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers."""

        @get("/sign-in", role="none")
        async def show_sign_in(request: PageRequest) -> Response[Any]:
            if (link := request.query_params.get("link")) is not None:
                return self._by_link(request, link)
            return self._sign_in_page(request, _next_of(self.root, request.query_params.get("next", "")))

        @post("/sign-in", role="none", status_code=200)
        async def sign_in(request: PageRequest) -> Response[Any]:
            before = self._form_session(request)
            fields = await self.form(request, before or new_session())
            to = _next_of(self.root, fields.get("next", ""))
            digest = digest_of(fields.get("key", "").strip())
            try:
                if await self._access.admin(digest) is None:
                    self._access.refusal(request.scope)
                    message = "This is not an admin key. Check it, and that it has not expired or been revoked."
                    return self._sign_in_page(request, to, message, 401)
            except ProxyError as error:
                return self._sign_in_page(request, to, error.message, error.status, error.headers)
            return self._entered(request, new_session(digest), to)

        @post("/sign-out", role="page", status_code=303)
        async def sign_out(request: PageRequest) -> Response[Any]:
            await self.form(request, request.user)
            await asyncio.to_thread(self._signed_out.add, request.user)
            answer: Response[Any] = Response(b"", status_code=303, headers=self._to(f"{self.root}/dashboard/sign-in"))
            answer.set_cookie(self._cookie(request, COOKIE, "", 0))
            return answer

        return [show_sign_in, sign_in, sign_out]

    def to_sign_in(self, request: Request[Any, Any, Any]) -> Response[Any]:
        """The answer to a request for a page without a session."""
        asked = self.root + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            # A link of another site brings no cookie of ours (SameSite=Strict): load the page again, from here.
            return Template("again.html", context={"to": asked}, headers=PAGE_HEADERS)
        target = f"{self.root}/dashboard/sign-in" + (f"?next={quote(asked)}" if request.method == "GET" else "")
        return Response(b"", status_code=303, headers=self._to(target))

    def _by_link(self, request: PageRequest, token: str) -> Response[Any]:
        if self._take_link is not None and self._sessions.is_link_token(token) and self._take_link():
            return self._entered(request, new_session(by_link=True), f"{self.root}/dashboard")
        message = "This link has been used, or the server has been started again since. Each start prints a new one."
        return self._sign_in_page(request, "", message, 401)

    def _entered(self, request: PageRequest, session: Session, to: str) -> Response[Any]:
        answer: Response[Any] = Response(b"", status_code=303, headers=self._to(to or f"{self.root}/dashboard"))
        value = self._sessions.cookie(session, int(time.time()))
        answer.set_cookie(self._cookie(request, COOKIE, value, SESSION_S))
        answer.set_cookie(self._cookie(request, _FORM_COOKIE, "", 0))
        return answer

    def _sign_in_page(
        self,
        request: PageRequest,
        to: str,
        message: str = "",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response[Any]:
        session = self._form_session(request) or new_session()
        context = {**self.context(session), "next": to, "message": message, "page": ""}
        context["has_link"] = self._take_link is not None
        value = self._sessions.cookie(session, int(time.time()))
        cookies = [self._cookie(request, _FORM_COOKIE, value, SESSION_S)]
        shown = {**PAGE_HEADERS, **(headers or {})}
        return Template("sign_in.html", context=context, headers=shown, status_code=status, cookies=cookies)

    def _session(self, connection: Connection) -> Session | None:
        session = self._sessions.session(connection.headers.get("cookie", ""), int(time.time()))
        return session if session is not None and session.is_signed_in else None

    def _form_session(self, request: PageRequest) -> Session | None:
        return self._sessions.session(request.headers.get("cookie", ""), int(time.time()), _FORM_COOKIE)

    async def is_open(self, session: Session) -> bool:
        """False once it was signed out, or its key is no admin's any more. A database that cannot tell ends nothing."""
        try:
            return await self._opens(session)
        except ProxyError:
            return True

    async def _opens(self, session: Session) -> bool:
        """Raises ProxyError 503 while the database cannot tell."""
        if session in self._signed_out:
            return False
        if session.by_link or session.digest is None:
            return session.by_link
        return await self._access.admin(bytes.fromhex(session.digest)) is not None

    def _cookie(self, request: PageRequest, name: str, value: str, age_s: int) -> Cookie:
        """Behind TLS it never leaves it. What a client says about that concerns its own cookie only."""
        is_tls = "https" in (request.headers.get("origin", "").partition(":")[0], request.url.scheme)
        is_tls = is_tls or request.headers.get("x-forwarded-proto", "").lower() == "https"
        path = f"{self.root}/dashboard"
        return Cookie(name, path=path, value=value, max_age=age_s, httponly=True, samesite="strict", secure=is_tls)

    def _to(self, target: str) -> dict[str, str]:
        return {**PAGE_HEADERS, "location": target}


def new_secret() -> bytes:
    """The secret of one server: its cookies end with it."""
    return secrets.token_bytes(32)


def _next_of(root: str, text: str) -> str:
    """Where to go after signing in: a page of ours or nowhere, whatever a link says."""
    is_ours = text == f"{root}/dashboard" or text.startswith((f"{root}/dashboard/", f"{root}/dashboard?"))
    return text if is_ours and "\\" not in text and ".." not in text and text.isprintable() else ""
