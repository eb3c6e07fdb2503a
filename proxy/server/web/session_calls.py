"""Performs I/O: a call of a page that ends with its session, as it would if the browser had gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from litestar.types import Message, Receive, Scope, Send

from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.server.api.request import LeaveWatch
from proxy.server.http1.peer import EXTENSION, Peer
from proxy.server.web.doors import Doors, SignInNeeded
from proxy.server.web.sessions import Session

LOOK_S = 1.0  # how often a call looks whether its session is still open
_OVER = ProxyError("The session has ended, so this answer was stopped. Sign in again.", status=401, code="session_over")
_LAST = b"data: " + encode(_OVER.body()) + b"\n\n"


class SessionCall:
    """`scope` is the one to call with: its client leaves once the session is over."""

    def __init__(self, scope: Scope, peer: Peer) -> None:
        extensions = {**(cast("dict[str, Any]", scope).get("extensions") or {}), EXTENSION: peer}
        self.scope = cast(Scope, {**scope, "extensions": extensions})
        self.is_over = False
        self._has_begun = False

    def telling(self, send: Send) -> Send:
        """`send` for an event stream, whose last frame says why it was cut short."""

        async def send_and_tell(message: Message) -> None:
            self._has_begun = True
            told: Any = message
            if self.is_over and message["type"] == "http.response.body" and not message.get("more_body", False):
                told = {**message, "body": message.get("body", b"") + _LAST}
            await send(told)

        return send_and_tell

    def check(self) -> None:
        """Raises SignInNeeded if the session ended before there was an answer."""
        if self.is_over and not self._has_begun:
            raise SignInNeeded


@asynccontextmanager
async def session_call(doors: Doors, session: Session, scope: Scope, receive: Receive) -> AsyncIterator[SessionCall]:
    """A call of this session. It ends within LOOK_S of signing out, and of the end of its key."""
    peer = Peer()
    call = SessionCall(scope, peer)

    async def watch() -> None:
        while await doors.is_open(session):  # noqa: ASYNC110 - another worker may have signed it out
            await asyncio.sleep(LOOK_S)
        call.is_over = True
        peer.leave()

    watching = asyncio.create_task(watch())
    try:
        with LeaveWatch(scope, receive, peer.leave):
            yield call
    finally:
        watching.cancel()
