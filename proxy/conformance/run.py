"""Performs I/O: the checks against a server, one request after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

import httpx

from proxy.conformance.base import Check, Failed, Outcome, Probe, Reply, Unsupported, Verdict

MAX_BODY = 16 * 1024 * 1024
_TIMEOUT = httpx.Timeout(120, connect=10)


class Unreachable(Exception):
    """Nobody listens there: no check can say anything."""


async def run(
    checks: Iterable[Check], model: str, base_url: str, key: str | None = None, *, environment: bool = True
) -> AsyncGenerator[Verdict, None]:
    """A verdict for each check, in order. Raises Unreachable.

    `environment`: whether HTTP_PROXY and its kin hold. The same request is sent once: checks of one answer share it.
    """
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT, trust_env=environment) as client:
        server = Server(client, base_url.rstrip("/"))
        for check in checks:
            outcome, seen = await judge(check, model, server.reply)
            yield Verdict(check.name, check.group, outcome, seen)


async def judge(check: Check, model: str, send: Callable[[Probe], Awaitable[Reply]]) -> tuple[Outcome, str]:
    """What becomes of one check, and why. `send` may raise Failed."""
    steps = check.steps(model)
    try:
        probe = next(steps)
        while True:
            probe = steps.send(await send(probe))
    except StopIteration as end:
        return "passed", str(end.value)
    except Unsupported as lacking:
        return "not supported", str(lacking)
    except Failed as failed:
        return "failed", str(failed)
    finally:
        steps.close()


class Server:
    """One server, and what it has answered: the same request is sent once."""

    def __init__(self, client: httpx.AsyncClient, base_url: str) -> None:
        self._client = client
        self._base_url = base_url
        self._known: dict[Probe, Reply | Failed] = {}

    async def reply(self, probe: Probe) -> Reply:
        """Raises Failed where no whole answer came."""
        if probe not in self._known:
            self._known[probe] = await self._tried(probe)
        known = self._known[probe]
        if isinstance(known, Failed):
            raise Failed(str(known))
        return known

    async def _tried(self, probe: Probe) -> Reply | Failed:
        try:
            return await self._sent(probe)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        except httpx.HTTPError as error:
            return Failed(f"no whole answer: {type(error).__name__} {error}".rstrip())

    async def _sent(self, probe: Probe) -> Reply | Failed:
        async with self._client.stream(probe.method, self._base_url + probe.path, content=probe.body) as response:
            pieces, size = [], 0
            async for piece in response.aiter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_BODY:
                    return Failed(f"an answer of more than {MAX_BODY} bytes")
            return Reply(response.status_code, dict(response.headers), b"".join(pieces))
