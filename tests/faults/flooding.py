"""I/O: clients that open a connection for each request, so many a second that asyncio could not keep up with them."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable

from msgspec import Struct, field

LIVE = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
_LIVE_EVERY_S = 0.05
_PATIENCE_S = 10.0  # after the last request was sent


class Flood(Struct):
    """What came of it. Times in seconds, from opening the connection to the answer's first byte."""

    seconds: float
    sent: int = 0
    served: list[float] = field(default_factory=list)
    in_time: int = 0  # served before the flood ended
    refused: list[float] = field(default_factory=list)
    live: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.in_time / self.seconds

    def note(self, is_live: bool, answer: bytes, took_s: float, in_time: bool) -> None:
        status = answer[9:12]
        if is_live and status == b"200":
            self.live.append(took_s)
        elif status == b"200":
            self.served.append(took_s)
            self.in_time += in_time
        elif status == b"503" and not is_live:
            self.refused.append(took_s)
        else:
            self.failed.append(repr(answer[:40]))


class _Client(Struct):
    sock: socket.socket
    at: float
    data: bytes
    is_sent: bool = False


def paced(per_second: float) -> Callable[[float, int, int], bool]:
    """Open loop: on schedule, whatever happens to earlier ones."""
    return lambda elapsed_s, sent, _waiting: sent < elapsed_s * per_second


def at_most(clients: int) -> Callable[[float, int, int], bool]:
    """Closed loop: so many at a time."""
    return lambda _elapsed_s, _sent, waiting: waiting < clients


def flood(port: int, request: bytes, seconds: float, is_due: Callable[[float, int, int], bool]) -> Flood:
    """Sends requests while `is_due(elapsed_s, sent, waiting)` says so, and asks `/livez` meanwhile."""
    found = Flood(seconds)
    waiting: dict[int, _Client] = {}
    begun = time.monotonic()
    live_at = begun
    with select.epoll() as poll:
        while True:
            now = time.monotonic()
            elapsed_s = now - begun
            if elapsed_s >= seconds and (not waiting or elapsed_s > seconds + _PATIENCE_S):
                break
            if elapsed_s < seconds:
                if now >= live_at:
                    live_at += _LIVE_EVERY_S
                    _open(port, LIVE, waiting, poll)
                for _ in range(64):  # then it looks for answers, even if it is late
                    if not is_due(elapsed_s, found.sent, len(waiting)):
                        break
                    found.sent += 1
                    _open(port, request, waiting, poll)
            for descriptor, _event in poll.poll(0.001):
                _go_on(descriptor, waiting, poll, found, begun + seconds)
    for client in waiting.values():
        found.failed.append("no answer")
        client.sock.close()
    return found


def _open(port: int, data: bytes, waiting: dict[int, _Client], poll: select.epoll) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    client = waiting[sock.fileno()] = _Client(sock, time.monotonic(), data)
    if sock.connect_ex(("127.0.0.1", port)) not in (0, errno.EINPROGRESS):
        raise ConnectionError("cannot connect")
    poll.register(client.sock.fileno(), select.EPOLLOUT)


def _go_on(descriptor: int, waiting: dict[int, _Client], poll: select.epoll, found: Flood, end: float) -> None:
    client = waiting[descriptor]
    try:
        if not client.is_sent:
            client.sock.send(client.data)
            client.is_sent = True
            poll.modify(descriptor, select.EPOLLIN)
            return
        answer = client.sock.recv(65536)
    except OSError as error:
        answer = repr(error).encode()
    del waiting[descriptor]
    client.sock.close()
    now = time.monotonic()
    found.note(client.data is LIVE, answer, now - client.at, now < end)
