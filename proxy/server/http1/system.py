"""Performs I/O: what is asked of the operating system: memory, descriptors and sockets."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import resource
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_UNSENT_MAX = 64 * 1024
_WRITE_MAX = 16 * 1024  # bytes that wait for the kernel before the application has to wait


def give_back() -> None:
    """Returns freed memory. glibc keeps pages between others that are in use: 40 bodies of 30 MB left 1.1 GB behind.
    With another C library this does nothing.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    with suppress(OSError, AttributeError):
        trim: Callable[[int], int] = ctypes.CDLL("libc.so.6").malloc_trim
        return trim
    return None


def most_connections(max_in_flight: int) -> int:
    """As many as this process has descriptors for, less one for each call's upstream and some for files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 65_536
    spare = max(soft - 64, 16)
    return spare - min(max_in_flight, spare // 2)


def prepared(transport: asyncio.Transport) -> dict[str, Any]:
    """Bounds what waits to be sent; returns what ASGI's scopes say of the connection.

    Each question to the transport costs a system call, so only a connection that gets further than a refusal asks.
    """
    transport.set_write_buffer_limits(high=_WRITE_MAX)
    if (sock := transport.get_extra_info("socket")) is not None:
        limit_unsent(sock)
    client, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return {
        "client": (client[0], client[1]) if isinstance(client, (tuple, list)) else None,
        "server": (own[0], own[1]) if isinstance(own, (tuple, list)) else None,
        "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
    }


def limit_unsent(sock: socket.socket) -> None:
    """The kernel takes no more than this ahead of what the client has room for, so that back-pressure reaches us."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):  # no TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_MAX)


def has_hung_up(sock: socket.socket) -> bool:
    """True once the other side sends no more, even behind bytes that nobody has read. Linux only."""
    hang_up = getattr(select, "POLLRDHUP", None)
    if hang_up is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), hang_up)
    return bool(poll.poll(0))
