"""Performs I/O: the checks against a server, one request after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

import httpx

from proxy.client.conformance.base import (
    CHAT,
    Check,
    Failed,
    NotShown,
    Outcome,
    Probe,
    Reply,
    Unsupported,
    Verdict,
    chat,
    error_of,
    shown,
)

MAX_BODY = 16 * 1024 * 1024
TIMEOUT_S = 60.0  # for each answer, of some hundred tokens at most
_SHUT = (401, 402, 403, 429)
_CONNECT_TIMEOUT_S = 10.0


class Unusable(Exception):
    """No check can say anything: nobody listens, or nobody is let in. The text is a sentence without its subject."""


async def run(
    checks: Iterable[Check],
    model: str,
    base_url: str,
    key: str | None = None,
    *,
    environment: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> AsyncGenerator[Verdict, None]:
    """A verdict for each check, in order, as it comes. Raises Unusable, also in the middle.

    `environment`: whether HTTP_PROXY and its kin hold. The same request is sent once: checks of one answer share it.
    `timeout_s` is for each request.
    """
    chosen = list(checks)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S)
    async with httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=environment) as client:
        server = Server(client, base_url.rstrip("/"), timeout_s)
        await _let_in(server, _first(chosen, model))
        for check in chosen:
            outcome, seen = await judge(check, model, server.reply)
            yield Verdict(check.name, check.group, outcome, seen)


def _first(chosen: list[Check], model: str) -> Probe:
    """What a good server answers: the first request of the checks, but for those of errors."""
    return next((next(check.steps(model)) for check in chosen if check.group != "errors"), chat(model))


async def _let_in(server: Server, probe: Probe) -> None:
    """One request that says whether there is anything to check. Raises Unusable."""
    try:
        reply = await server.reply(probe)
    except (Failed, NotShown) as missing:
        raise Unusable(f"gives {missing}.") from None
    said = error_of(reply).get("message")
    told = f"{reply.status}: {shown(str(said), 200)}" if said else f"{reply.status}."
    if 300 <= reply.status < 400:
        raise Unusable(f"redirects ({reply.status}) to {reply.headers.get('location')}. Name that address.")
    if reply.status in _SHUT:
        raise Unusable(f"lets nobody in without a good key: {told}" if reply.status == 401 else f"answers {told}")
    if reply.body.lstrip().startswith(b"<"):
        kind = reply.headers.get("content-type", "a page")
        raise Unusable(f"answers {reply.status} with {kind}, not with JSON. Is it the whole address, up to /v1?")
    if reply.status >= 500 or (reply.status == 404 and (probe.path == CHAT or _is_model(reply))):
        raise Unusable(f"answers {told}")


def _is_model(reply: Reply) -> bool:
    return error_of(reply).get("code") == "model_not_found"


async def judge(check: Check, model: str, send: Callable[[Probe], Awaitable[Reply]]) -> tuple[Outcome, str]:
    """What becomes of one check, and why. `send` may raise as `Server.reply` does."""
    steps = check.steps(model)
    try:
        probe = next(steps)
        while True:
            probe = steps.send(await send(probe))
    except StopIteration as end:
        return "passed", str(end.value)
    except Unsupported as lacking:
        return "not supported", str(lacking)
    except NotShown as not_shown:
        return "not shown", str(not_shown)
    except Failed as failed:
        return "failed", str(failed)
    finally:
        steps.close()


class Server:
    """One server, and what it has answered: the same request is sent once."""

    def __init__(self, client: httpx.AsyncClient, base_url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self.base_url = base_url
        self._timeout_s = timeout_s
        self._known: dict[Probe, Reply | Failed | NotShown] = {}

    async def reply(self, probe: Probe) -> Reply:
        """Raises Failed where no whole answer came, NotShown where none came in time, Unusable where nobody is."""
        if probe not in self._known:
            self._known[probe] = await self._tried(probe)
        known = self._known[probe]
        if not isinstance(known, Reply):
            raise type(known)(str(known))
        return known

    async def _tried(self, probe: Probe) -> Reply | Failed | NotShown:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._sent(probe)
        except TimeoutError:
            return NotShown(f"no whole answer within {self._timeout_s:g} s")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
            raise Unusable(f"cannot be reached: {error or type(error).__name__}.") from error
        except httpx.HTTPError as error:
            return Failed(f"no whole answer: {type(error).__name__} {error}".rstrip())

    async def _sent(self, probe: Probe) -> Reply | Failed:
        async with self._client.stream(probe.method, self.base_url + probe.path, content=probe.body) as response:
            pieces, size = [], 0
            async for piece in response.aiter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_BODY:
                    return Failed(f"an answer of more than {MAX_BODY} bytes")
                if probe.begin_only:
                    break
            return Reply(response.status_code, dict(response.headers), b"".join(pieces))
