"""Performs I/O: runs the checks against a server, one request at a time."""

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
    shorten,
)

MAX_BODY = 16 * 1024 * 1024
TIMEOUT_S = 60.0  # per answer, which has a few hundred tokens at most
_SHUT = (401, 402, 403, 429)
_CONNECT_TIMEOUT_S = 10.0


class Unusable(Exception):
    """No check is possible: nothing listens, or access is denied. The text is a sentence without its subject."""


async def run(
    checks: Iterable[Check],
    model: str,
    base_url: str,
    key: str | None = None,
    *,
    environment: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> AsyncGenerator[Verdict, None]:
    """Yields a verdict for each check, in order, as soon as it is known. Raises Unusable, possibly midway.

    `environment` says whether HTTP_PROXY and similar variables apply. Checks that send the same request share one
    answer. `timeout_s` applies to each request.
    """
    chosen = list(checks)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    timeout = httpx.Timeout(None, connect=_CONNECT_TIMEOUT_S)
    once = httpx.Limits(max_keepalive_connections=0)  # a server may close a connection just as it is used again
    async with httpx.AsyncClient(headers=headers, timeout=timeout, limits=once, trust_env=environment) as client:
        server = Server(client, base_url.rstrip("/"), timeout_s)
        await _check_access(server, _first(chosen, model))
        for check in chosen:
            outcome, seen = await judge(check, model, server.reply)
            yield Verdict(check.name, check.group, outcome, seen)


def _first(chosen: list[Check], model: str) -> Probe:
    """A request that every good server answers: the first one of the checks, apart from those of errors."""
    return next((next(check.steps(model)) for check in chosen if check.group != "errors"), chat(model))


async def _check_access(server: Server, probe: Probe) -> None:
    """Sends one request to see whether the server can be checked at all. Raises Unusable."""
    try:
        reply = await server.reply(probe)
    except (Failed, NotShown) as missing:
        raise Unusable(f"gives {missing}.") from None
    message = error_of(reply).get("message")
    answer = f"{reply.status}: {shorten(str(message), 200)}" if message else f"{reply.status}."
    if 300 <= reply.status < 400:
        raise Unusable(f"redirects ({reply.status}) to {reply.headers.get('location')}. Use that address.")
    if reply.status in _SHUT:
        raise Unusable(f"rejects the API key: {answer}" if reply.status == 401 else f"answers {answer}")
    if reply.body.lstrip().startswith(b"<"):
        kind = reply.headers.get("content-type", "a page")
        raise Unusable(f"answers {reply.status} with {kind}, not with JSON. Is the address complete, up to /v1?")
    if reply.status >= 500 or (reply.status == 404 and (probe.path == CHAT or _is_model(reply))):
        raise Unusable(f"answers {answer}")


def _is_model(reply: Reply) -> bool:
    return error_of(reply).get("code") == "model_not_found"


async def judge(check: Check, model: str, send: Callable[[Probe], Awaitable[Reply]]) -> tuple[Outcome, str]:
    """The outcome of one check, and the reason. `send` may raise the errors of `Server.reply`."""
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
    """One server and its answers so far. A repeated request gets the first answer again."""

    def __init__(self, client: httpx.AsyncClient, base_url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self.base_url = base_url
        self._timeout_s = timeout_s
        self._known: dict[Probe, Reply | Failed | NotShown] = {}

    async def reply(self, probe: Probe) -> Reply:
        """The answer. Raises Failed if it was incomplete, NotShown if it took too long, Unusable if nothing listens."""
        if probe not in self._known:
            self._known[probe] = await self._try(probe)
        known = self._known[probe]
        if not isinstance(known, Reply):
            raise type(known)(str(known))
        return known

    async def _try(self, probe: Probe) -> Reply | Failed | NotShown:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(probe)
        except TimeoutError:
            return NotShown(f"no complete answer within {self._timeout_s:g} s")
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
            raise Unusable(f"cannot be reached: {error or type(error).__name__}.") from error
        except httpx.HTTPError as error:
            return Failed(f"no complete answer: {type(error).__name__} {error}".rstrip())

    async def _send(self, probe: Probe) -> Reply | Failed:
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
