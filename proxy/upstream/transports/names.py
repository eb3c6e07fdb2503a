"""Performs I/O: the system's name look-up, in threads of its own and with a limit on each wait.

A hanging resolver blocks its thread. The event loop's own executor has few threads, and other code needs them.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

LIMIT_S = 30.0  # for one look-up; the time to connect is usually shorter
MOST = 64  # look-ups at the same time, each of another name

Look = Callable[[str, int], list[str]]


def system_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host as text, the best first. Blocks. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(_text(address) for *_, address in found))


def _text(address: tuple[object, ...]) -> str:
    text, scope = str(address[0]), address[3] if len(address) > 3 else 0
    return f"{text}%{scope}" if scope and "%" not in text else text


class NameLookups:
    """Implements `Resolve`. Concurrent look-ups of one name share one answer, so that a name whose servers do not
    answer occupies only one thread.
    """

    def __init__(self, look: Look = system_addresses, limit_s: float = LIMIT_S) -> None:
        self._look = look
        self._limit_s = limit_s
        self._waiting: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> list[str]:
        """Raises OSError, or TimeoutError after the limit: a look-up that has begun continues unattended."""
        answer = self._waiting.get((host, port))
        if answer is None:
            if len(self._waiting) >= MOST:
                raise socket.gaierror(socket.EAI_AGAIN, "too many look-ups of names wait for an answer")
            answer = self._begin(host, port)
        async with asyncio.timeout(self._limit_s):
            return await asyncio.shield(answer)

    def _begin(self, host: str, port: int) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def end(addresses: list[str], failure: OSError | None) -> None:
            del self._waiting[host, port]
            if failure is None:
                answer.set_result(addresses)
            else:
                answer.set_exception(failure)
                answer.exception()  # there may be no waiter left

        def work() -> None:
            addresses: list[str] = []
            failure: OSError | None = None
            try:
                addresses = self._look(host, port)
            except OSError as error:
                failure = error
            except Exception as error:  # such as a name that no look-up can encode
                failure = socket.gaierror(socket.EAI_FAIL, f"{type(error).__name__} in the look-up of a name")
            if not addresses and failure is None:
                failure = socket.gaierror(socket.EAI_NONAME, "the name has no address")
            with suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(end, addresses, failure)

        try:
            threading.Thread(target=work, name="name-lookup", daemon=True).start()
        except RuntimeError as error:  # the system has no thread to give
            raise OSError(str(error)) from error
        self._waiting[host, port] = answer
        return answer
