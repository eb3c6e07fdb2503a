"""Performs I/O: the playground: a message to one model or two, its plan beforehand, and the answers.

Its calls take the way of every other call, by the admin key that signed in: they are metered, limited and listed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, cast

from litestar import Request, asgi, get, post
from litestar.handlers import ASGIRouteHandler, HTTPRouteHandler
from litestar.response import Template
from litestar.types import Message, Receive, Scope, Send
from msgspec import Struct

from proxy.routing.explain import explained
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.server.api.guard import CALLER
from proxy.server.formats.chat import CHAT
from proxy.server.web.doors import Doors, PageRequest
from proxy.server.web.reports import Page
from proxy.server.web.session_calls import session_call
from proxy.server.web.settings_form import read_number
from proxy.server.web.shown import Shown, suggestions
from proxy.server.web.words import plain

_FIELDS = ("model", "other", "system", "message", "temperature", "max_tokens", "more")
_PATH = "/v1/chat/completions"
_MAX_SHOWN = 100_000  # characters of an answer
_RESERVED = ("model", "messages", "stream", "stream_options")


class Answer(Struct, frozen=True):
    """What a page shows of one answer. `error`: why there is none."""

    model: str
    text: str = ""
    facts: str = ""
    id: str = ""
    error: str = ""


class Playground:
    """The routes. `page` renders."""

    def __init__(self, seen: Shown, page: Page, doors: Doors) -> None:
        self._operations = seen.operations
        self._live = seen.live
        self._page = page
        self._doors = doors

    def routes(self) -> list[HTTPRouteHandler | ASGIRouteHandler]:
        """The Litestar handlers."""

        @get("/playground", role="page")
        async def playground(request: PageRequest) -> Template:
            return await self._shown(request, {"model": request.query_params.get("model", "auto")})

        @post("/playground", role="page", status_code=200)
        async def send(request: PageRequest) -> Template:
            given = await self._doors.form(request, request.user)
            try:
                bodies = [body_of(given, model) for model in _models(given)]
            except BadRequest as error:
                answer = await self._shown(request, given, wrong=error)
                answer.status_code = 400
                return answer
            caller = await self._doors.caller(request.user)
            if given.get("do") == "plan":
                return await self._shown(request, given, plans=[await self._plan(caller, body) for body in bodies])
            async with session_call(self._doors, request.user, request.scope, request.receive) as call:
                answers = await asyncio.gather(*(self._whole(call.scope, caller, body) for body in bodies))
            call.check()
            return await self._shown(request, given, answers=answers)

        @asgi("/playground/stream", copy_scope=False, role="page")
        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            """One answer as the API streams it; `side` 1: that of the other model."""
            request: PageRequest = Request(scope, receive, send)
            if request.method != "POST":
                raise ProxyError("Send the form.", status=405, code="method_not_allowed", headers={"allow": "POST"})
            given = await self._doors.form(request, request.user)
            models = _models(given)
            body = {**body_of(given, models[given.get("side") == "1" and len(models) > 1]), "stream": True}
            body["stream_options"] = {"include_usage": True}
            caller = await self._doors.caller(request.user)
            async with session_call(self._doors, request.user, scope, receive) as call:
                await self._call(call.scope, _receiving(encode(body)), call.telling(send), caller)
            call.check()

        return [playground, send, stream]

    async def _plan(self, caller: Caller, body: Mapping[str, Any]) -> dict[str, Any]:
        """How this body would be routed now; nothing is called."""
        with self._operations.using() as live:
            try:
                return explained(*await live.pipeline.decide(caller, encode(body), CHAT))
            except ProxyError as error:
                return {"requested": body["model"], "error": error.message}

    async def _whole(self, scope: Scope, caller: Caller, body: Mapping[str, Any]) -> Answer:
        """One answer, whole, for a browser without a script."""
        taken, started = _Taken(), time.perf_counter()
        await self._call(scope, _receiving(encode(body)), taken.take, caller)
        model, took_ms = plain(body["model"]), (time.perf_counter() - started) * 1000
        call_id = taken.headers.get("x-request-id", "")
        try:
            answer = decode_object(bytes(taken.body))
        except BadRequest:
            return Answer(model, error="The answer cannot be read.", id=call_id)
        if taken.status != 200:
            return Answer(model, error=str(answer.get("error", {}).get("message", taken.status)), id=call_id)
        choices, usage = answer.get("choices") or [{}], answer.get("usage") or {}
        message = choices[0].get("message") or {}
        text = message.get("content") or json.dumps(message.get("tool_calls") or "", indent=1)
        cost = usage.get("cost")
        facts = [
            str(answer.get("model")),
            f"{usage.get('prompt_tokens', 0)} tokens in, {usage.get('completion_tokens', 0)} out",
            "cost not known" if cost is None else f"${cost:.6f}",
            f"{took_ms:.0f} ms",
        ]
        return Answer(model, str(text)[:_MAX_SHOWN], " · ".join(facts), call_id)

    async def _call(self, scope: Scope, receive: Receive, send: Send, caller: Caller) -> None:
        """The call, without the cookies and headers of the page."""
        headers = [(b"content-type", b"application/json")]
        asked = cast(Scope, {**scope, "path": _PATH, "headers": headers, CALLER: caller})
        await self._operations.calls(asked, receive, send, CHAT)

    async def _shown(self, request: PageRequest, given: Mapping[str, str], **more: Any) -> Template:
        names = await suggestions(self._live())
        fields = {name: given.get(name, "") for name in _FIELDS}
        context = {"given": fields, "models": names, "plans": [], "answers": [], "wrong": None, **more}
        return self._page("playground", request, **context)


def body_of(given: Mapping[str, str], model: str) -> dict[str, Any]:
    """The chat body that the form describes. Raises BadRequest that names the field."""
    if not given.get("message", "").strip():
        raise BadRequest("Type a message.", param="message")
    messages = [{"role": "user", "content": given["message"].replace("\r\n", "\n")}]
    if system := given.get("system", "").strip():
        messages.insert(0, {"role": "system", "content": system})
    body: dict[str, Any] = {"model": model, "messages": messages}
    for name, key in (("temperature", "temperature"), ("max_tokens", "max_completion_tokens")):
        if text := given.get(name, "").strip():
            try:
                body[key] = read_number(text)
            except ValueError as error:
                raise BadRequest(str(error), param=name) from None
    if more := given.get("more", "").strip():
        try:
            added = decode_object(more.encode())
        except BadRequest:
            raise BadRequest('Expected a JSON object, such as {"top_p": 0.9}.', param="more") from None
        if taken := [key for key in _RESERVED if key in added]:
            raise BadRequest(f"{taken[0]} has a field of its own here, or is set by this page.", param="more")
        body |= added
    return body


def _models(given: Mapping[str, str]) -> list[str]:
    """One model, or two to compare."""
    return [given.get("model", "").strip() or "auto", *([other] if (other := given.get("other", "").strip()) else [])]


class _Taken:
    """An answer taken as ASGI sends it."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]
            }
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


def _receiving(body: bytes) -> Receive:
    """Gives this body, and nothing more: who leaves is seen by the call's peer."""
    given = False

    async def receive() -> Any:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.Event().wait()

    return receive
